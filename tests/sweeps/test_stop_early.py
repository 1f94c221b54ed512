"""Trials stopped early in whole sweeps: real Ray, real training of made-up images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from analysis.store import SweepStore
from sweeps.policies.rungs import RULES
from sweeps.question.grid import axis
from sweeps.question.sweep import Sweep
from tests.sweeps.faults import kill_driver, wait_for_records
from tests.sweeps.runs import finish, measured, run_here, run_script, start, statuses, table_of, write_script

SWEEP = Sweep(
    name="s",
    question="?",
    optimizers=("adam",),
    schedulers=("none", "step"),
    grid=axis("workload", "lenet_synthetic"),
    epochs=9,
    train_limit=128,
    trials=9,
)
SHORT = replace(SWEEP, epochs=3, trials=3)
TEXT = (
    "name='s', question='?', optimizers=('adam',), schedulers=('none', 'step'), "
    "grid=axis('workload', 'lenet_synthetic'), epochs=9, train_limit=128, trials=9"
)
IMPORTS = "from sweeps.question.grid import axis"
TOLD = ["trial_id", "status", "epochs_run", "error", "final_val_accuracy", "test_accuracy"]


def told(storage: str, name: str = "s") -> pl.DataFrame:
    """Returns what must be the same however a sweep went."""
    return table_of(storage, name).select(TOLD)


def test_stopped_asked_again_and_revived(ray_cluster: None, storage: str) -> None:
    status, text = run_here(SWEEP, storage, stop_early="halving", max_concurrent=None)
    assert status == 0, text
    assert "until it is decided which go on: 9" in text, "both schedules share the first epoch of a rate"
    assert re.search("going on: about . configurations after epoch 1, about . after epoch 3; about", text)
    trials = table_of(storage, "s")
    ran = Counter(trials["epochs_run"])
    assert f"Went on, of 18 configurations: {ran[3] + ran[9]} after epoch 1, {ran[9]} after epoch 3." in text
    assert Counter(trials["status"]) == {"early_stopped": ran[1] + ran[3], "completed": ran[9]}
    assert {1, 9} <= ran.keys() <= {1, 3, 9}
    stopped = trials.filter(pl.col("status") == "early_stopped")
    assert set(stopped.filter(epochs_run=1)["error"]) == {"not among the best 3 of 9 at epoch 1"}
    rungs = f"{ran[1]} after epoch 1" + (f", {ran[3]} after epoch 3" if ran[3] else "")
    assert f"Of 18 trials, these have no result: {len(stopped)} stopped early ({rungs})." in text
    summary = table_of(storage, "s", "summary")
    assert summary.filter(pl.col("n") == 0)["position"].null_count() == len(stopped), "what was stopped has no rank"
    values = dict(measured(storage, "s").filter(epoch=1).select("trial_id", "val_accuracy").iter_rows())
    for _, group in trials.group_by("scheduler"):  # by the plain rule, in the order of the draws
        drawn = group["trial_id"].to_list()
        best = [sorted(drawn[:many], key=values.__getitem__, reverse=True)[: many // 3] for many in range(1, 10)]
        assert set(group.filter(pl.col("epochs_run") > 1)["trial_id"]) == {one for some in best for one in some}

    before, parts = told(storage), SweepStore(storage, "s").files("parts")
    _, text = run_here(SWEEP, storage, stop_early="halving", max_concurrent=None)
    assert "everything is done: nothing to train" in text
    assert told(storage).equals(before)
    assert SweepStore(storage, "s").files("parts") == parts, "nothing is written anew"

    status, text = run_here(SWEEP, storage)
    assert status == 0, text
    assert set(statuses(storage, "s")) == {"completed"}
    apart, _ = run_here(SWEEP, storage, name="apart", share=False)
    assert apart == 0
    assert measured(storage, "s").equals(measured(storage, "apart")), "revived, it is the same training"
    trained = re.search(r"([0-9]+) epochs? trained", text)
    planned = re.search(r"epochs to train: ([0-9]+)", text)
    assert trained
    assert planned
    assert trained[1] == planned[1], "what had been trained was not trained again"
    assert int(planned[1]) <= 18 * 9 - before["epochs_run"].sum()


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_same_alone_and_without_sharing(rule: str, ray_cluster: None, storage: str) -> None:
    run_here(SHORT, storage, stop_early=rule, max_concurrent=None)
    run_here(SHORT, storage, stop_early=rule, name="alone", max_concurrent=1, share=False, fresh=True)
    assert "early_stopped" in statuses(storage, "s")
    assert told(storage).equals(told(storage, "alone"))
    assert measured(storage, "s").equals(measured(storage, "alone"))


def test_a_wider_search_revives_what_is_among_the_best_now(ray_cluster: None, storage: str) -> None:
    run_here(SHORT, storage, stop_early="halving")
    status, text = run_here(SHORT, storage, stop_early="halving", trials=6)
    assert status == 0, text
    run_here(SHORT, storage, stop_early="halving", trials=6, name="at-once", share=False, fresh=True)
    wider, at_once = told(storage), told(storage, "at-once")
    # One that had been trained to its end before stays so; all others are as if asked for at once.
    same = wider.join(at_once, on="trial_id", suffix="_at_once")
    differ = same.filter(pl.col("status") != pl.col("status_at_once"))
    assert set(differ["status"]) <= {"completed"}
    assert differ.height <= 2


SEARCHES = {
    "sobol, halving": ("--stop-early", "halving"),
    "sobol, median": ("--stop-early", "median"),
    "random": ("--sampler", "random"),
    "tpe": ("--sampler", "tpe"),
    "tpe, halving": ("--sampler", "tpe", "--stop-early", "halving"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "records"),
    [
        pytest.param("tpe, halving", (14,), id="once"),
        *(pytest.param(search, (4, 11, 18), id=f"{search}, thrice") for search in SEARCHES),
    ],
)
def test_killed_and_resumed(
    search: str, records: Sequence[int], ray_cluster: None, storage: str, tmp_path: Path
) -> None:
    """Killed with everything it started as soon as it has so many records: as undisturbed with a single worker."""
    script = write_script(tmp_path / "script", TEXT, IMPORTS)
    flags = (*SEARCHES[search], "--no-preflight", "--schedulers", "none", "--epochs", "4", "--trials", "14")
    for count in records:
        process = start(script, storage, *flags)
        wait_for_records(storage, count, process)
        kill_driver(process)
        finish(process)
    status, text, complaints = run_script(script, storage, *flags)
    assert status == 0, text + complaints
    whole = run_script(script, storage, *flags, "--name", "whole", "--no-share", "--fresh", "--max-concurrent", "1")
    assert whole[0] == 0, whole
    assert told(storage).equals(told(storage, "whole"))
    assert measured(storage, "s").equals(measured(storage, "whole"))


def test_a_smoke_test_stops_some(ray_cluster: None, storage: str) -> None:
    status, text = run_here(SWEEP, storage, stop_early="halving", smoke_test=True, trials=3)
    assert status == 0, text
    assert "smoke test: 3 epochs on the first 1,920 " in text
    assert set(statuses(storage, "s-smoke-test")) == {"early_stopped", "completed"}
