"""Sources of variance of a search: a response surface in place of levels.

What is drawn has hardly a value twice, so it gets a linear and a quadratic term on the scale that it was drawn on, for
each optimizer (settings of a schedule: for each schedule) its own. What is listed, and the seed, are factors. A share
is given without what terms that explain nothing would explain by chance (epsilon squared, Kelley 1935): it is 0 for
them, on average and where it would be below.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.aggregate import CHOICE
from analysis.loading import FINISHED, SweepData
from analysis.search import Search
from analysis.statistics.effects import REST

Array = npt.NDArray[np.float64]

FEWEST_LEFT = 1.0
"""Degrees of freedom left for chance, at least so many times those of all terms: with fewer, shares say nothing."""
_ROUNDING = 1e-12
_RANK = 1e-9


def surface_shares(data: SweepData, search: Search) -> pl.DataFrame | None:
    """Returns the share of the final validation accuracy's variance that each axis and the seed explain.

    Args:
        data: The sweeps; trials that did not finish are ignored.
        search: How their trials were drawn.

    Returns:
        `term` (an axis, `seed` or `REST`), `degrees` of freedom and `share`, as of `variance_shares`, without pairs.
        None if there is no variance, or too few trials to tell.
    """
    trials = data.trials.filter(pl.col("status").is_in(FINISHED) & pl.col(CHOICE).is_not_null())
    y = trials[CHOICE].to_numpy()
    if len(y) < 3 or np.ptp(y) < _ROUNDING:
        return None
    names = sorted((*data.axes, "seed"), key=lambda name: name in search.drawn)
    blocks = {name: _surface(trials, search, name) if name in search.drawn else _factor(trials[name]) for name in names}
    y = y - y.mean()
    total = float(y @ y)
    terms = {name: found for name, found in _sequential(y, blocks).items() if found[0]}
    left = len(y) - 1 - sum(degrees for degrees, _ in terms.values())
    if not terms or left < FEWEST_LEFT * (len(y) - 1 - left):
        return None
    chance = (total - sum(squares for _, squares in terms.values())) / left
    rows = [
        (name, degrees, max(0.0, (squares - degrees * chance) / total)) for name, (degrees, squares) in terms.items()
    ]
    rows.append((REST, left, max(0.0, 1 - sum(share for *_, share in rows))))
    return pl.DataFrame(rows, schema={"term": pl.String, "degrees": pl.Int32, "share": pl.Float64}, orient="row")


def _factor(column: pl.Series) -> Array:
    """Returns an indicator for each value, null included: shape (trials, values)."""
    codes = np.unique(column.rank("dense").fill_null(0).to_numpy(), return_inverse=True)[1]
    return np.eye(int(codes.max()) + 1)[codes]


def _surface(trials: pl.DataFrame, search: Search, name: str) -> Array:
    """Returns a linear and a quadratic term of each group of trials that draw a setting: shape (trials, 2 * groups).

    Values that are listed, in another group, have none.
    """
    group = "scheduler" if name.startswith("scheduler_") else "optimizer"
    rows = trials.select(pl.col(group).alias("group"), "optimizer", "scheduler", "epochs", name).rows()
    names = {value: place for place, value in enumerate(dict.fromkeys(row[0] for row in rows))}
    found = np.zeros((len(rows), 2 * len(names)))
    for row, (value, optimizer, scheduler, epochs, setting) in enumerate(rows):
        span = search.span(name, optimizer, scheduler, epochs)
        if span is not None and setting is not None:
            place = 2 * span.place(setting) - 1
            found[row, 2 * names[value] : 2 * names[value] + 2] = place, place**2
    return found


def _sequential(y: Array, blocks: dict[str, Array]) -> dict[str, tuple[int, float]]:
    """Returns degrees of freedom and sum of squares of each block, given all blocks before it and the mean."""
    basis = np.ones((len(y), 1)) / np.sqrt(len(y))
    found = {}
    for name, block in blocks.items():
        left = block - basis @ (basis.T @ block)
        left -= basis @ (basis.T @ left)  # again: what rounding has left of it
        vectors, values, _ = np.linalg.svd(left, full_matrices=False)
        new = vectors[:, values > _RANK * max(1.0, float(np.abs(block).max())) * len(y)]
        found[name] = (new.shape[1], float(((new.T @ y) ** 2).sum()))
        basis = np.hstack([basis, new])
    return found
