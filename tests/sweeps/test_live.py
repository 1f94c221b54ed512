"""Live logs: read back with the libraries they are written for; a log that fails, and packages that are not there."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.store import SweepStore, TrialStatus
from sweeps.question.grid import axis, product
from sweeps.question.sweep import Sweep
from sweeps.tuning.errors import PlacementError
from sweeps.tuning.placement import Placement
from sweeps.watching import live
from sweeps.watching.live import FINAL, SCALARS, Live, MlflowLog, TensorBoardLog, hyperparameters, open_logs
from tests.sweeps.runs import epochs_of, free_port, made_up_record, run_here, table_of
from workloads.errors import InputError
from workloads.measure import Measure
from workloads.registry import resolve
from workloads.trial import TrialConfig

ONE = resolve(TrialConfig(workload="lenet_synthetic", epochs=3, workload_settings={"clip_norm": 1.0}))
OTHER = ONE.replace(seed=2)
THIRD = ONE.replace(seed=3)


def completed(trial: TrialConfig) -> TrialStatus:
    return TrialStatus(trial_id=trial.trial_id, status="completed", epochs_run=trial.epochs)


ERROR = Measure(name="mean absolute error", higher_is_better=False, least=0.0)
FELL_OVER = TrialStatus(trial_id=OTHER.trial_id, status="failed", epochs_run=1, error="fell over")
DIVERGED = TrialStatus(trial_id=THIRD.trial_id, status="diverged", epochs_run=0, error="loss is inf in epoch 1")


def run_live(open_log: Callable[[], live.Log]) -> None:
    """Plays a sweep: a trial with a known epoch runs to its end, one begins and fails, one diverges at once.

    It is killed before the newest record is on the disk, started again to its end, and twice more with nothing to do.
    """

    def start(known: int) -> Live:
        found = Live({"log": open_log()}, complain=lambda text: pytest.fail(text))
        found.begin([ONE, OTHER, THIRD], {ONE.trial_id: tuple(made_up_record(ONE, e + 1) for e in range(known))}, {})
        found.start()
        return found

    killed = start(1)
    killed.record(made_up_record(ONE, 2))
    killed.record(made_up_record(ONE, 3))
    found = start(2)
    found.record(made_up_record(OTHER, 1))
    found.record(made_up_record(ONE, 3))
    ends = {status.trial_id: status for status in (completed(ONE), FELL_OVER, DIVERGED)}
    for status in ends.values():
        found.ended(status)
    for _ in range(2):
        done = Live({"log": open_log()}, complain=lambda text: pytest.fail(text))
        known = {
            ONE.trial_id: [made_up_record(ONE, epoch) for epoch in (1, 2, 3)],
            OTHER.trial_id: [made_up_record(OTHER, 1)],
        }
        done.begin([ONE, OTHER, THIRD], known, ends)
        done.start()


# -- TensorBoard ----------------------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns what TensorBoard reads from a run: tag -> steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected_scalars(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found = {tag: [(row["epoch"], row[name]) for row in rows if row[name] is not None] for name, tag in SCALARS.items()}
    return {tag: values for tag, values in found.items() if values}


def same(found: Mapping[str, Sequence[tuple[int, float]]], expected: Mapping[str, Sequence[tuple[int, float]]]) -> bool:
    return found.keys() == expected.keys() and all(
        [step for step, _ in found[tag]] == [step for step, _ in expected[tag]]
        and [value for _, value in found[tag]] == pytest.approx([value for _, value in expected[tag]], rel=1e-6)
        for tag in expected
    )


def test_tensorboard_reads_every_trial(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    run_live(lambda: TensorBoardLog(tmp_path))
    found = scalars(tmp_path / ONE.trial_id)
    final = {tag: found.pop(tag) for tag in list(found) if tag.startswith("final/")}
    assert same(found, expected_scalars([made_up_record(ONE, epoch) for epoch in (1, 2, 3)]))
    assert {tag: value[0] for tag, value in final.items()} == {
        "final/validation_accuracy": (3, pytest.approx(0.6)),
        "final/validation_loss": (3, pytest.approx(2.5 / 3)),
        "final/test_accuracy": (3, pytest.approx(0.45)),
        "final/test_loss": (3, pytest.approx(1.0)),
    }
    assert same(scalars(tmp_path / OTHER.trial_id), expected_scalars([made_up_record(OTHER, 1)]))
    assert scalars(tmp_path / THIRD.trial_id) == {}
    statuses = {ONE: api_pb2.STATUS_SUCCESS, OTHER: api_pb2.STATUS_FAILURE, THIRD: api_pb2.STATUS_FAILURE}
    for trial, status in statuses.items():
        events = EventAccumulator(str(tmp_path / trial.trial_id)).Reload()
        content = events.summary_metadata
        start = metadata.parse_session_start_info_plugin_data(
            content[metadata.SESSION_START_INFO_TAG].plugin_data.content
        )
        assert start.hparams["seed"].number_value == trial.seed
        assert start.hparams["optimizer"].string_value == "adam"
        assert start.hparams["workload.clip_norm"].number_value == 1.0
        end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG].plugin_data.content)
        assert end.status == status


def test_trials_that_ended_before_the_log_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    found = Live({"tensorboard": TensorBoardLog(tmp_path)}, complain=lambda text: pytest.fail(text))
    statuses = {status.trial_id: status for status in (completed(ONE), DIVERGED)}
    found.begin([ONE, OTHER, THIRD], {ONE.trial_id: [made_up_record(ONE, epoch) for epoch in (1, 2, 3)]}, statuses)
    found.start()
    assert {path.name for path in tmp_path.iterdir()} == {ONE.trial_id, THIRD.trial_id}, "the other has not begun"


def test_tensorboard_names_are_those_of_the_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    monkeypatch.setattr(live, "measure_of", lambda trial: ERROR)
    run_live(lambda: TensorBoardLog(tmp_path))
    found = scalars(tmp_path / ONE.trial_id)
    assert found["mean_absolute_error/validation"] == [(e, pytest.approx(0.2 * e)) for e in (1, 2, 3)]
    assert found["final/validation_mean_absolute_error"] == [(3, pytest.approx(0.6))]
    assert not [tag for tag in found if "accuracy" in tag]


# -- MLflow ---------------------------------------------------------------------------------------------------------


def test_mlflow_names_are_those_of_the_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install -e '.[mlflow]'")
    monkeypatch.setattr(live, "measure_of", lambda trial: ERROR)
    log = MlflowLog(f"sqlite:///{tmp_path}/mlflow.db", "sweep", "results/sweep")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.begin(ONE, [made_up_record(ONE, epoch) for epoch in (1, 2, 3)])
        log.ended(ONE.trial_id, completed(ONE), made_up_record(ONE, 3))
        found = log._client.get_run(log._runs[ONE.trial_id]).data.metrics
    assert found["mean_absolute_error/validation"] == found["final_val_mean_absolute_error"] == pytest.approx(0.6)
    assert not [name for name in found if "accuracy" in name]


def test_mlflow_reads_every_trial(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install -e '.[mlflow]'")
    uri = f"sqlite:///{tmp_path}/live/mlflow.db"
    run_live(lambda: MlflowLog(uri, "sweep", "results/sweep"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("sweep")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        assert len(found) == 3, "a run each"
        runs = {run.data.tags[MlflowLog.TRIAL_TAG]: run for run in found}
        assert set(runs) == {ONE.trial_id, OTHER.trial_id, THIRD.trial_id}
        one, other, third = (runs[trial.trial_id] for trial in (ONE, OTHER, THIRD))
        assert [run.info.status for run in (one, other, third)] == ["FINISHED", "FAILED", "FINISHED"]
        assert third.data.tags[MlflowLog.STATUS_TAG] == "diverged"
        assert one.data.tags[MlflowLog.STATUS_TAG] == "completed"
        assert one.data.params == {name: str(value) for name, value in hyperparameters(ONE).items()}
        for tag, expected in expected_scalars([made_up_record(ONE, epoch) for epoch in (1, 2, 3)]).items():
            history = client.get_metric_history(one.info.run_id, tag)
            assert sorted((metric.step, metric.value) for metric in history) == expected, "once each"
        last = made_up_record(ONE, 3)
        for name, column in FINAL.items():
            history = client.get_metric_history(one.info.run_id, column)
            assert [(metric.step, metric.value) for metric in history] == [(3, last[name])], "once"
        assert not set(FINAL.values()) & set(other.data.metrics)
        # A sweep of the same name somewhere else has runs of its own.
        MlflowLog(uri, "sweep", "elsewhere/sweep").begin(ONE, ())
        assert len(client.search_runs([experiment.experiment_id])) == 4


def test_a_server_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install -e '.[mlflow]'")
    for name, value in live.MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    found = Live({"mlflow": MlflowLog(f"http://127.0.0.1:{free_port()}", "sweep", "here")}, complain=said.append)
    started = time.monotonic()
    found.begin([ONE], {}, {})
    found.start()
    found.record(made_up_record(ONE, 1))
    found.record(made_up_record(ONE, 2))
    assert len(said) == 1
    assert said[0].startswith("--log mlflow failed and was disabled: MlflowException: API request to http://127.0.0.1")
    assert time.monotonic() - started < 30


# -- in a sweep -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_cluster")
def test_every_logical_trial_of_a_sweep_is_logged(storage: str) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    sweep = Sweep(
        name="logged",
        question="Is it all there?",
        grid=product(axis("workload", "lenet_synthetic"), axis("scheduler", "none", "exponential")),
        lrs=(0.02,),
        epochs=2,
    )
    assert run_here(sweep, storage, preflight=False)[0] == 0
    # What was trained before the log was asked for is in it too.
    status, text = run_here(sweep, storage, preflight=False, log=("tensorboard",), grid=("epochs=2,3",))
    assert status == 0, text
    epochs, trials = epochs_of(storage, "logged"), table_of(storage, "logged")
    assert trials["shared_epochs"].sum() > 0
    logs = Path(storage) / "logged" / "live" / "tensorboard"
    assert {path.name for path in logs.iterdir()} == set(trials["trial_id"])
    for trial_id in trials["trial_id"]:
        found = {tag: values for tag, values in scalars(logs / trial_id).items() if not tag.startswith("final/")}
        rows = epochs.filter(pl.col("trial_id") == trial_id).to_dicts()
        assert same(found, expected_scalars(rows))


# -- what goes wrong ------------------------------------------------------------------------------------------------


class _Broken:
    """A log that fails at the second record."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, trial: TrialConfig, records: Sequence[Mapping[str, Any]]) -> None:
        self.calls.append("begin")

    def record(self, trial_id: str, record: Mapping[str, Any]) -> None:
        self.calls.append("record")
        if self.calls.count("record") == 2:
            raise RuntimeError("disk\nfull")

    def ended(self, trial_id: str, status: TrialStatus, last: Mapping[str, Any] | None) -> None:
        self.calls.append("ended")


def test_a_log_that_fails_warns_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    broken, whole = _Broken(), TensorBoardLog(tmp_path)
    found = Live({"broken": broken, "tensorboard": whole}, complain=said.append)
    found.begin([ONE], {}, {})
    found.start()
    for epoch in (1, 2, 3):
        found.record(made_up_record(ONE, epoch))
    found.ended(completed(ONE))
    assert said == ["--log broken failed and was disabled: RuntimeError: disk full"]
    assert broken.calls == ["begin", "record", "record"]
    assert len(scalars(tmp_path / ONE.trial_id)["loss/train"]) == 3


def test_nothing_is_written_before_the_sweep_is_stored(tmp_path: Path) -> None:
    log = _Broken()
    held_back = Live({"log": log}, complain=lambda text: pytest.fail(text))
    held_back.begin([ONE, OTHER], {OTHER.trial_id: [made_up_record(OTHER, 1)]}, {OTHER.trial_id: completed(OTHER)})
    held_back.record(made_up_record(ONE, 1))
    held_back.ended(completed(ONE))
    assert log.calls == []
    held_back.start()
    assert log.calls == ["begin", "ended", "begin", "record", "ended"]


def test_a_start_that_fails_leaves_no_folder(ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    sweep = Sweep(name="logged", question="Does it start?", lrs=(0.02, 0.03), epochs=1)
    assert run_here(sweep, storage, preflight=False, train_limit=320, lrs=(0.02,))[0] == 0

    def no_room(placement: Placement) -> None:
        raise PlacementError("no room")

    monkeypatch.setattr("sweeps.tuning.session.check_placement", no_room)
    with pytest.raises(InputError, match="no room"):
        # One trial is taken over from the sibling, and would be logged at once.
        run_here(sweep, storage, preflight=False, train_limit=320, name="other", log=("tensorboard",))
    assert [path.name for path in Path(storage).iterdir()] == ["logged"]


@pytest.mark.parametrize("name", live.LOGS)
def test_a_package_that_is_not_there_is_refused_before_the_start(
    name: str, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"^--log {name} needs the package {name}: pip install -e '\.\[{name}\]'$"):
        run_here(Sweep(name="one", question="?", lrs=(0.1,)), storage, log=(name,))
    assert not Path(storage).exists()


@pytest.mark.parametrize("name", live.LOGS)
def test_a_place_that_is_no_local_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = SweepStore("s3://bucket/results?region=eu-west-1", "one")
    with pytest.raises(ValueError, match=rf"^--log {name} needs a local folder, not s3://bucket"):
        open_logs([name], store)
