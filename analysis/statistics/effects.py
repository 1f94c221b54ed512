"""Sources of variance: the shares explained by axes, pairs of axes and the seed.

A sequential (type I) analysis of variance with every axis as a factor: first the axes in order, then the seed, then
pairs. In a full grid the order does not matter; if trials are missing (they diverged, or optimizers have their own
learning rates), variance that two axes explain jointly is attributed to the earlier one.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array, hstack

from analysis.aggregate import CHOICE
from analysis.loading import FINISHED, SweepData

Array = npt.NDArray[np.float64]

MOST_LEVELS = 20
"""A numerical axis with more values than this is split into `BINS` bins with equally many trials."""
BINS = 10
MOST_CELLS = 2_000
"""With more cells than this in all pairs together, pairs are not modelled and count as unexplained."""

REST = "unexplained"
"""The remaining share: interactions of three or more axes, and noise."""


def variance_shares(data: SweepData) -> pl.DataFrame | None:
    """Returns the share of the final validation accuracy's variance explained by each axis, the seed and each pair.

    Args:
        data: The sweeps; trials that did not finish are ignored.

    Returns:
        `term` (an axis, `seed`, two joined by ` x `, or `REST`), `degrees` of freedom and `share` of the variance; the
        shares sum to 1. Terms without degrees of freedom are dropped. None if there is no variance.
    """
    finished = data.trials.filter(pl.col("status").is_in(FINISHED))
    y = finished[CHOICE].to_numpy()
    if len(y) < 2 or np.ptp(y) < _ROUNDING:
        return None
    levels = {name: _levels(finished[name]) for name in (*data.axes, "seed")}
    terms = {name: codes for name, codes in levels.items() if codes.max() > 0}
    crossed = {f"{a} x {b}": _crossed(terms[a], terms[b]) for a, b in itertools.combinations(terms, 2)}
    if sum(int(codes.max()) + 1 for codes in crossed.values()) <= MOST_CELLS:
        terms |= crossed
    y = y - y.mean()
    rows = [(term, degrees, squares / (y @ y)) for term, degrees, squares in _sequential(y, terms) if degrees]
    rest = len(y) - 1 - sum(degrees for _, degrees, _ in rows)
    rows.append((REST, rest, max(0.0, 1 - sum(share for _, _, share in rows))))
    return pl.DataFrame(rows, schema={"term": pl.String, "degrees": pl.Int32, "share": pl.Float64}, orient="row")


_ROUNDING = 1e-12


def _levels(column: pl.Series) -> npt.NDArray[np.int64]:
    """Returns the level of each trial, counted from 0; missing values form their own level."""
    if column.dtype.is_numeric() and column.n_unique() > MOST_LEVELS:
        column = column.rank("average").fill_null(0) * BINS // (column.len() + 1)
    ranked = column.rank("dense").fill_null(0).to_numpy()
    codes: npt.NDArray[np.int64] = np.unique(ranked, return_inverse=True)[1]
    return codes


def _crossed(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = np.unique(first * (second.max() + 1) + second, return_inverse=True)[1]
    return codes


def _sequential(y: Array, terms: dict[str, npt.NDArray[np.int64]]) -> list[tuple[str, int, float]]:
    """Returns name, degrees of freedom and sum of squares of each term, given all terms before it.

    Works on the cross products of the indicator columns, whose size is independent of the number of trials: each term's
    block is swept out of the following ones.
    """
    constant = {"": np.zeros(len(y), dtype=np.int64)}
    blocks, products = {}, []
    start = 0
    for name, codes in (constant | terms).items():
        width = int(codes.max()) + 1
        products.append(csr_array((np.ones(len(y)), (np.arange(len(y)), codes)), shape=(len(y), width)))
        blocks[name] = slice(start, start + width)
        start += width
    design = hstack(products, format="csr")
    gram, right = (design.T @ design).toarray(), design.T @ y
    found = []
    for name, block in blocks.items():
        values, vectors = np.linalg.eigh(gram[block, block])
        kept = values > 1e-9 * len(y)
        basis = vectors[:, kept] / np.sqrt(values[kept])
        projected = basis.T @ gram[block, block.stop :]
        explained = basis.T @ right[block]
        gram[block.stop :, block.stop :] -= projected.T @ projected
        right[block.stop :] -= projected.T @ explained
        found.append((name, int(kept.sum()), float(explained @ explained)))
    return found[1:]
