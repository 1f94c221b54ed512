import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from synthetic import synthetic_sweep

from analysis import export
from analysis.aggregate import summarise, write_summary
from analysis.loading import SweepData, load
from analysis.schema import SCALARS, SCHEMA_VERSION
from analysis.store import SweepStore
from analysis.tables import publish

SWEEP = synthetic_sweep(
    "exported", optimizers=("adam", "sgd"), lrs=(0.001, 1.0), seeds=(1, 2, 3), epochs=3, finished=0.7
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    store = SWEEP.write(str(tmp_path_factory.mktemp("results")))
    publish(store, SWEEP.spec)
    write_summary(store, SWEEP.data, summarise(SWEEP.data))
    return store


@pytest.fixture(scope="module")
def data(store: SweepStore) -> SweepData:
    return load([store.location])


# -- Parquet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["epochs", "trials", "summary"])
def test_parquet_files_open_alike_in_polars_pandas_and_duckdb(store: SweepStore, table: str):
    path = f"{store.location}/{table}.parquet"
    ours = pl.read_parquet(path)
    assert ours.height > 0
    in_pandas = pd.read_parquet(path)
    in_duckdb = duckdb.sql(f"SELECT * FROM '{path}'")
    assert list(in_pandas.columns) == in_duckdb.columns == ours.columns
    numeric = [name for name, type_ in ours.schema.items() if type_.is_numeric()]
    assert pl.from_pandas(in_pandas).select(numeric).cast(pl.Float64).equals(ours.select(numeric).cast(pl.Float64))
    assert pl.DataFrame(in_duckdb.fetchall(), schema=ours.schema, orient="row").equals(ours)


@pytest.mark.parametrize("table", ["epochs", "trials", "summary"])
def test_the_footer_says_where_the_numbers_come_from(store: SweepStore, table: str):
    footer = pq.read_schema(f"{store.location}/{table}.parquet").metadata
    assert json.loads(footer[b"forksweep.schema_version"]) == SCHEMA_VERSION
    assert "0" * 40 in b"".join(footer.values()).decode()


# -- CSV ---------------------------------------------------------------------------------------------------------------


def test_csv_holds_the_tables_with_missing_values_empty(store: SweepStore, data: SweepData):
    folder = Path(export.export([store.location], "csv"))
    assert {file.name for file in folder.iterdir()} == {"trials.csv", "epochs.csv", "summary.csv"}
    epochs = pl.read_csv(folder / "epochs.csv", schema=data.epochs.schema)
    assert epochs.equals(data.epochs)
    trials = pl.read_csv(folder / "trials.csv", infer_schema_length=None)
    assert trials["final_val_accuracy"].null_count() == data.trials["final_val_accuracy"].null_count() > 0
    summary = pl.read_csv(folder / "summary.csv", infer_schema_length=None)
    assert summary["label"].to_list() == summarise(data)["label"].to_list()


# -- TensorBoard -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs(store: SweepStore) -> Path:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'forksweep[tensorboard]'")
    return Path(export.export([store.location], "tensorboard"))


def test_tensorboard_reads_back_every_scalar_of_every_trial(logs: Path, data: SweepData):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ran = data.trials.filter(pl.col("epochs_run") > 0)
    folders = {folder.name.rpartition("-")[2]: folder for folder in logs.iterdir() if folder.is_dir()}
    assert set(folders) == set(ran["trial_id"])
    for trial_id, folder in folders.items():
        events = EventAccumulator(str(folder)).Reload()
        epochs = data.epochs.filter(pl.col("trial_id") == trial_id)
        for column, tag in SCALARS.items():
            measured = epochs.select("epoch", column).drop_nulls()
            if measured.is_empty():
                assert tag not in events.Tags()["scalars"]
                continue
            scalars = events.Scalars(tag)
            assert [event.step for event in scalars] == measured["epoch"].to_list()
            assert [event.value for event in scalars] == pytest.approx(measured[column].to_list(), rel=1e-6)
        seconds = epochs["train_seconds"].cum_sum().to_list()
        assert [event.wall_time for event in events.Scalars("loss/train")] == pytest.approx(seconds)


def test_the_hparams_tab_shows_settings_and_final_metrics(logs: Path, data: SweepData):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

    from analysis.event_files import FINAL

    runs = EventMultiplexer().AddRunsFromDirectory(str(logs)).Reload()
    context, backend = RequestContext(), Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(logs))))
    experiment = get_experiment.Handler(context, backend, "", api_pb2.GetExperimentRequest()).run()
    assert {info.name for info in experiment.hparam_infos} == {"optimizer", "lr", "seed"}
    assert [info.name.tag for info in experiment.metric_infos] == list(FINAL.values())
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    groups = list_session_groups.Handler(context, backend, "", request).run().session_groups
    sessions = {session.name.rpartition("-")[2]: (session, group) for group in groups for session in group.sessions}
    ran = data.trials.filter(pl.col("epochs_run") > 0)
    assert set(sessions) == set(ran["trial_id"])
    for trial in ran.iter_rows(named=True):
        session, group = sessions[trial["trial_id"]]
        assert group.hparams["optimizer"].string_value == trial["optimizer"]
        assert group.hparams["lr"].number_value == trial["lr"]
        finished = trial["status"] == "completed"
        assert (session.status == api_pb2.STATUS_SUCCESS) is finished
        metrics = {value.name.tag: value.value for value in session.metric_values}
        expected = {tag: trial[column] for column, tag in FINAL.items() if finished and trial[column] is not None}
        assert metrics == pytest.approx(expected, rel=1e-6)


def test_without_tensorboard_the_error_says_what_to_install(store: SweepStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "analysis.event_files", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"] or ["tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"need the package tensorboard: pip install 'forksweep\[tensorboard\]'"):
        export.export([store.location], "tensorboard")


# -- the script --------------------------------------------------------------------------------------------------------


def test_the_script_exports_and_says_where(store: SweepStore):
    command = [sys.executable, "analysis/export.py", store.location, "--to", "csv"]
    root = Path(export.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{store.location}/csv\n", "")


@pytest.mark.parametrize("arguments", [["nowhere/sweep", "--to", "csv"], ["SWEEP", "--to", "excel"], ["SWEEP"]])
def test_bad_input_ends_with_status_2(
    arguments: list[str], store: SweepStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["export.py", *(store.location if a == "SWEEP" else a for a in arguments)])
    with pytest.raises(SystemExit) as exit_:
        export.main()
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.err + captured.out
