"""Random draws as functions of a key, e.g. (seed, epoch): from a new generator or from the global ones."""

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
    """Makes draws from the global generators a function of the key, and restores the generators afterwards.

    For networks, whose layers draw from the global generators: initial weights, dropout. It seeds torch's generators
    (the CPU's and, if the device is a GPU, the current GPU's), NumPy's and Python's. They are shared by the whole
    process: do not yield to a caller inside, or draw from another thread. It cannot reach layers with their own
    generator, such as cuDNN's dropout between recurrent layers, which torch seeds once per process.

    Args:
        key: Determines the draws, e.g. (seed, epoch).
        device: The device to draw tensors on.
    """
    seed = _seed(key)
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - a network may use it
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else ()):
        try:
            # Not torch.manual_seed, which seeds every GPU.
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
    # SeedSequence ignores trailing zeros, so no key may equal another one followed by zeros.
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32).tolist()
    seed: int = (high << 32) | low
    return seed
