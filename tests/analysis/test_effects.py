"""Shares of the variance, against sums of squares by hand and by numpy's least squares."""

import itertools

import numpy as np
import polars as pl
import pytest
from synthetic import synthetic_sweep

from analysis.loading import SweepData
from analysis.statistics.effects import MOST_LEVELS, REST, variance_shares


def sweep(rows: list[tuple[str, float, int, float]], statuses: list[str] | None = None) -> SweepData:
    trials = pl.DataFrame(rows, schema=["optimizer", "lr", "seed", "final_val_accuracy"], orient="row")
    trials = trials.with_columns(status=pl.Series(statuses or ["completed"] * len(rows), dtype=pl.String))
    return SweepData((), trials, pl.DataFrame(), ("optimizer", "lr"))


def shares(data: SweepData) -> dict[str, float]:
    found = variance_shares(data)
    assert found is not None
    return {row["term"]: row["share"] for row in found.rows(named=True)}


def test_two_by_two_by_hand() -> None:
    # accuracy = 0.8 +- 0.1 (optimizer) +- 0.05 (learning rate) +- 0.02 (together): squares 0.0100, 0.0025, 0.0004
    rows = [
        (optimizer, lr, seed, 0.8 + 0.1 * a + 0.05 * b + 0.02 * a * b)
        for (optimizer, a), (lr, b), seed in itertools.product(
            (("adam", 1), ("sgd", -1)), ((0.1, 1), (0.2, -1)), (1, 2)
        )
    ]
    expected = {"optimizer": 0.0100, "lr": 0.0025, "optimizer x lr": 0.0004}
    found = shares(sweep(rows))
    assert {term: found[term] for term in expected} == pytest.approx({t: s / 0.0129 for t, s in expected.items()})
    assert found["seed"] == pytest.approx(0)
    assert sum(found.values()) == pytest.approx(1)


def test_seeds_and_noise_by_hand() -> None:
    # one optimizer, two seeds that differ by 0.02 at either rate, two rates that differ by 0.04, nothing else
    rows = [
        ("adam", lr, seed, 0.8 + 0.02 * b + 0.01 * s)
        for lr, b in ((0.1, 1), (0.2, -1))
        for seed, s in ((1, 1), (2, -1))
    ]
    found = shares(sweep(rows))
    assert found == pytest.approx({"lr": 0.8, "seed": 0.2, "lr x seed": 0, REST: 0})


def test_an_incomplete_grid_is_a_sequential_analysis() -> None:
    rng = np.random.default_rng(4)
    cells = [cell for cell in itertools.product("abc", (0.1, 0.2, 0.3, 0.4), (1, 2, 3)) if cell[:2] != ("b", 0.4)]
    rows = [(*cell, float(rng.normal(0.9, 0.01) + 0.02 * (cell[0] == "a") * cell[1])) for cell in cells[:-4]]
    found = variance_shares(sweep(rows))
    assert found is not None
    expected = _by_least_squares(rows)
    assert dict(found.select("term", "degrees").iter_rows()) == {
        term: degrees for term, (degrees, _) in expected.items()
    }
    assert dict(found.select("term", "share").iter_rows()) == pytest.approx({t: s for t, (_, s) in expected.items()})


def _by_least_squares(rows: list[tuple[str, float, int, float]]) -> dict[str, tuple[int, float]]:
    """Adds one term at a time to a linear model and notes by how much its residual falls."""
    y = np.array([row[3] for row in rows])
    names = ("optimizer", "lr", "seed")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    keys = {name: columns[name] for name in names}
    keys |= {f"{a} x {b}": list(zip(columns[a], columns[b], strict=True)) for a, b in itertools.combinations(names, 2)}
    design = np.ones((len(y), 1))
    left, rank = float(((y - y.mean()) ** 2).sum()), 1
    total, found = left, {}
    for term, values in keys.items():
        indicators = np.array([[value == level for level in sorted(set(values))] for value in values], dtype=float)
        design = np.hstack([design, indicators])
        solution = np.linalg.lstsq(design, y, rcond=None)
        residual, new_rank = float(((y - design @ solution[0]) ** 2).sum()), int(solution[2])
        found[term] = (new_rank - rank, (left - residual) / total)
        left, rank = residual, new_rank
    found[REST] = (len(y) - rank, left / total)
    return found


def test_only_finished_trials_count() -> None:
    rows = [("adam", 0.1, 1, 0.9), ("sgd", 0.1, 1, 0.8), ("sgd", 0.1, 2, 0.1)]
    rows.append(("sgd", 0.1, 3, 0.2))
    statuses = ["completed", "completed", "diverged", "early_stopped"]
    assert shares(sweep(rows, statuses))["optimizer"] == pytest.approx(1)


NOTHING = {
    "no trials": [],
    "one trial": [("adam", 0.1, 1, 0.9)],
    "all equal": [("adam", 0.1, 1, 0.9), ("sgd", 0.1, 1, 0.9)],
}


@pytest.mark.parametrize("rows", NOTHING.values(), ids=NOTHING)
def test_no_variance(rows: list[tuple[str, float, int, float]]) -> None:
    assert variance_shares(sweep(rows)) is None


def test_many_learning_rates_are_binned() -> None:
    lrs = np.geomspace(0.001, 1, 10 * MOST_LEVELS)
    data = sweep([("adam", float(lr), 1, 0.9 - 0.01 * (np.log10(lr) + 2) ** 2) for lr in lrs])
    found = variance_shares(data)
    assert found is not None
    assert found.row(0)[:2] == ("lr", 9)
    assert 0.9 < found["share"][0] < 1


def test_an_axis_of_one_level_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # all trials with the optimizer sgd failed: what is left varies by rate and seed only, four cells together
    rows = [("adam", lr, seed, 0.9 + lr * seed) for lr in (0.1, 0.2) for seed in (1, 2)] + [("sgd", 0.1, 1, 0.5)]
    monkeypatch.setattr("analysis.statistics.effects.MOST_CELLS", 4)
    found = variance_shares(sweep(rows, ["completed"] * 4 + ["failed"]))
    assert found is not None
    assert found["term"].to_list() == ["lr", "seed", "lr x seed", REST]


def test_shares_of_a_whole_sweep_sum_to_one() -> None:
    data = synthetic_sweep(schedulers=("none", "cosine", "step"), seeds=(1, 2)).data
    found = variance_shares(data)
    assert found is not None
    assert found["share"].sum() == pytest.approx(1)
    assert (found["share"] >= 0).all()
    assert found["term"].to_list()[:4] == ["optimizer", "scheduler", "lr", "seed"]
    finished = data.trials.filter(pl.col("status") == "completed").height
    assert found["degrees"].sum() == finished - 1
