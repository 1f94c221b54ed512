"""Random draws as functions of a key, e.g. (seed, epoch): from generators of one's own, or from the global ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator

_CPU = torch.device("cpu")


def generator(*key: int) -> Generator:
    """Returns a random generator that is a function of the key, e.g. (seed, epoch)."""
    return Generator().manual_seed(_seed(key))


@contextlib.contextmanager
def global_draws(*key: int, device: torch.device = _CPU) -> Iterator[None]:
    """Makes what is drawn from the global generators a function of the key, and leaves the generators as they were.

    For networks, whose layers draw from nothing else: initial weights, dropout. Seeded are torch's generators (of the
    CPU and, if the device is a GPU, of the current one), NumPy's and Python's. They belong to the process: do not
    yield to a caller inside, nor draw from another thread. Out of reach is what has a generator of its own, such
    as cuDNN's dropout between recurrent layers, which torch seeds once for each process.

    Args:
        key: What decides the draws, e.g. (seed, epoch).
        device: Where tensors are drawn.
    """
    seed = _seed(key)
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - a network may use it
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else ()):
        try:
            # Not torch.manual_seed, which seeds every GPU there is.
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(pythons)
            np.random.set_state(numpys)  # noqa: NPY002


def _seed(key: tuple[int, ...]) -> int:
    # A sequence with zeros at its end is the same as without them: no key may be another one and zeros.
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32).tolist()
    seed: int = (high << 32) | low
    return seed
