"""The benchmark of whole sweeps in short: the usual sides train what ours does, and figures are scaled as they say."""

import csv
import importlib
from pathlib import Path
from typing import Any

import pytest

from sweeps.question.sweep import plan
from tests.benchmarks import usual, whole_sweep
from tests.benchmarks.watched import Usage
from workloads.registry import resolve
from workloads.schedulers import SCHEDULERS
from workloads.trial import TrialConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    usual.unpack_as_torchvision_does(folder)
    return str(folder)


def specification(trials: list[TrialConfig], data: str, results: Path) -> usual.Spec:
    return usual.Spec(
        trials=[trial.to_json() for trial in trials], images=64, workers=0, data=data, results=str(results)
    )


def test_default_sweeps_are_planned() -> None:
    counts = {name: len(whole_sweep.planned(setup)) for name, setup in whole_sweep.SETUPS.items()}
    usual = {"optimizers": 16, "plateau": 48, "schedulers": 7}
    assert counts == usual | {f"{name}_full": count for name, count in usual.items()}


@pytest.mark.parametrize("sweep", ["optimizers", "plateau", "schedulers"])
def test_full_size_is_what_the_script_does_by_default(sweep: str) -> None:
    script = importlib.import_module(f"sweeps.{sweep}").SWEEP
    default = plan(script, script.default_options()).trials
    assert whole_sweep.planned(whole_sweep.SETUPS[f"{sweep}_full"]) == list(default)


def test_the_loop_trains_every_schedule(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual, "evaluate", lambda model, loader: (0.5, 0.5))
    trials = [
        resolve(TrialConfig(optimizer="sgd_momentum", scheduler=name, lr=0.01, epochs=3, train_limit=64))
        for name in {trial.scheduler for trial in whole_sweep.planned(whole_sweep.SETUPS["schedulers"])}
    ]
    assert {SCHEDULERS[trial.scheduler].steps_on for trial in trials} == {"batch", "epoch", "metric"}
    usual.with_a_loop(specification(trials, data, tmp_path / "results"))
    rows = list(csv.reader((tmp_path / "results" / "results.csv").open()))
    assert [(row[2], row[3]) for row in rows] == [(t.scheduler, str(n)) for t in trials for n in (1, 2, 3)]
    assert usual.began(specification([], data, tmp_path)).exists()


def test_the_usual_training_learns(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = resolve(TrialConfig(optimizer="adam", lr=0.003, epochs=8, train_limit=64))
    spec = specification([trial], data, tmp_path)
    evaluate, loaded = usual.evaluate, usual.load(data, images=64, workers=0).train
    monkeypatch.setattr(usual, "evaluate", lambda model, loader: evaluate(model, loaded))
    found = [epoch.metrics for epoch in usual.train(trial, spec)]
    assert [metrics["test_loss"] is None for metrics in found] == [True] * 7 + [False]
    last = found[-1]
    assert last["train_loss"] is not None
    assert last["train_loss"] < 2.0
    assert last["val_loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert last["val_accuracy"] == last["test_accuracy"]


def usage(**values: Any) -> Usage:
    nothing: dict[str, Any] = {"results": 10, "session": 7}
    return Usage(
        **{
            "seconds": 30.0,
            "cpu_seconds": 50.0,
            "peak_megabytes": 900.0,
            "written_megabytes": 4.0,
            "files": nothing,
            "left_megabytes": nothing,
            "lines": (),
            **values,
        }
    )


def test_figures_are_scaled_from_the_first_trial_on() -> None:
    trials = [resolve(TrialConfig(optimizer="adam", seed=seed, epochs=3)) for seed in range(8)]
    side = whole_sweep._side("x", trials, trials[:2], usage(), before=10.0)
    assert side.wall_seconds == 10 + 4 * 20
    assert side.cpu_seconds == 4 * 50
    assert side.peak_megabytes == 900
    assert (side.files, side.session_files) == (40, 7)
    assert (side.trials, side.trained_trials, side.trial_epochs, side.trained_epochs) == (8, 2, 24, 6)


def test_the_table() -> None:
    trials = [resolve(TrialConfig(optimizer="adam", seed=seed, epochs=3)) for seed in range(8)]
    ours = vars(whole_sweep._side("ours", trials, trials, usage())) | {"after_training_seconds": 6.0}
    tune = vars(whole_sweep._side("plain Ray Tune", trials, trials[:2], usage(), before=10.0))
    bare = {"side": whole_sweep.BARE, "at_once": 2, "epoch_seconds": 2.0}
    table = whole_sweep.table([ours, tune, bare])
    rows = table.rows
    assert rows[0][:4] == ("ours", "0.800", "30 s", "50 s")
    assert rows[1][:3] == ("plain Ray Tune (2 of 8 trials)", "~0.267", "~90 s")
    assert rows[1][-1] == "3.0 x"
    # 24 epochs of 2 s on 2 cores are 24 s of the 30, or of the 24 without the report.
    assert "efficiency 0.80, or 1.00 without tables and report (6.0 s)" in table.notes[0]
