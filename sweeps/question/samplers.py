"""SAMPLERS: where in a space its draws lie, one row each.

A draw is a place in the unit cube, a function of the sampler, the seed, the names of the settings and its number, and
of nothing else: more draws keep those there are, and a wider range keeps their places in it. A sampler that learns
begins so, and then goes by results too.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from workloads.errors import InputError, did_you_mean
from workloads.trial import canonical_json, digest

Places = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A way to spread draws over a space."""

    name: str
    doc: str
    places: Callable[[int, int, np.random.Generator], Places]
    """Dimensions, number of draws and a source of randomness -> places in [0, 1), shape (draws, dimensions)."""
    learns: bool = False
    """Whether these are only the first draws, and results say where the others lie (`sweeps.policies.tpe`)."""
    package: str | None = None
    """The optional package it needs."""


def _sobol(dimensions: int, count: int, source: np.random.Generator) -> Places:
    with warnings.catch_warnings():  # it is balanced at powers of two, and no worse than random elsewhere
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(qmc.Sobol(dimensions, scramble=True, rng=source).random(count), dtype=np.float64)


def _random(dimensions: int, count: int, source: np.random.Generator) -> Places:
    return source.random((count, dimensions))


SAMPLERS: Mapping[str, Sampler] = {
    row.name: row
    for row in (
        Sampler(
            name="sobol",
            doc="Scrambled Sobol points: spread more evenly than random ones (Owen 1998; scipy.stats.qmc.Sobol).",
            places=_sobol,
        ),
        Sampler(name="random", doc="Independent and uniform (Bergstra & Bengio 2012).", places=_random),
        Sampler(
            name="tpe",
            doc="Where results are best so far: tree-structured Parzen estimator (Bergstra et al. 2011; Optuna).",
            places=_sobol,
            learns=True,
            package="optuna",
        ),
    )
}
"""Name -> row; the first is the default."""

DEFAULT = next(iter(SAMPLERS))


def find_sampler(name: str) -> Sampler:
    """Returns the sampler of that name.

    Raises:
        InputError: There is none, or the package it needs is missing.
    """
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler {name!r}{did_you_mean(name, SAMPLERS)}; known: {', '.join(SAMPLERS)}")
    package = SAMPLERS[name].package
    if package is not None and importlib.util.find_spec(package) is None:
        raise InputError(f"--sampler {name} needs the package {package}: pip install -e '.[search]'")
    return SAMPLERS[name]


def draw(sampler: str, seed: int, settings: Sequence[str], count: int) -> Places:
    """Returns the first draws over some settings.

    Args:
        sampler: A name of `SAMPLERS`.
        seed: What tells one series of draws from another.
        settings: Names of the settings: those of an optimizer and of its schedule are drawn independently.
        count: How many draws.

    Returns:
        Places in [0, 1), shape (count, len(settings)).

    Raises:
        InputError: There is no such sampler.
    """
    source = np.random.default_rng(int(digest(canonical_json([sampler, seed, list(settings)])), 16))
    return find_sampler(sampler).places(len(settings), count, source)
