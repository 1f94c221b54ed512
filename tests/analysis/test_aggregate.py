"""Loading sweeps and summarising configurations, on small sweeps worked out by hand and on made-up large ones."""

import importlib
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import polars as pl
import polars.selectors as cs
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal
from synthetic import (
    Synthetic,
    handmade_sweep,
    synthetic_of_size,
    synthetic_plateau,
    synthetic_records,
    synthetic_sweep,
)

from analysis.aggregate import compare, outcomes, summarise
from analysis.loading import combine, load, open_store
from analysis.schema import METRICS, SCHEMA_VERSION, STATISTICS, SUMMARY_COLUMNS
from analysis.tables import publish
from workloads.errors import InputError
from workloads.trial import TrialConfig

ROOT = Path(__file__).parents[2]


def adam(**changes: object) -> TrialConfig:
    return TrialConfig(epochs=2).replace(**changes)


def row(summary: pl.DataFrame, label: str) -> dict[str, object]:
    return summary.row(by_predicate=pl.col("label") == label, named=True)


def test_outcomes_by_hand() -> None:
    trial = adam(epochs=4)
    data = handmade_sweep({trial: ("completed", (0.5, 0.8, 0.8, 0.7))}).data
    assert outcomes(data).row(0, named=True) == {"configuration": 0, "seed": 21, "trial_id": trial.trial_id} | {
        "final_val_accuracy": 0.7,
        "final_val_loss": pytest.approx(0.3),
        "final_balanced_accuracy": None,
        "final_test_accuracy": pytest.approx(0.6),
        "final_test_loss": pytest.approx(0.4),
        "selected_val_accuracy": 0.8,  # of epoch 2, the first of the highest
        "selected_val_loss": pytest.approx(0.2),
        "selected_test_accuracy": pytest.approx(0.7),
        "selected_test_loss": pytest.approx(0.3),
        "val_accuracy_area": pytest.approx(0.7),
        "accuracy_gap": pytest.approx(0.02),
        "loss_gap": pytest.approx(0.3 - 0.15),
    }


def test_a_configuration_over_its_seeds_by_hand() -> None:
    accuracies = {1: 0.90, 2: 0.91, 3: 0.92, 4: 0.99, 5: 0.88}
    summary = summarise(
        handmade_sweep({adam(seed=seed): ("completed", (0.5, a)) for seed, a in accuracies.items()}).data
    )
    found = summary.row(0, named=True)
    assert (found["planned"], found["n"], found["diverged"], found["unfinished"]) == (5, 5, 0, 0)
    # squared deviations from 0.92: 4, 1, 0, 49 and 16 ten-thousandths
    expected = {"mean": 0.92, "median": 0.91, "iqm": 0.91, "sd": math.sqrt(0.0070 / 4)}
    assert {name: found[f"final_val_accuracy_{name}"] for name in expected} == pytest.approx(expected)
    # half the width: 2.776445 (the 97.5% point of Student's t with 4 degrees of freedom) times 0.041833 / sqrt(5)
    ends = (found["final_val_accuracy_low"], found["final_val_accuracy_high"])
    assert ends == pytest.approx((0.92 - 0.051943, 0.92 + 0.051943), abs=1e-6)
    assert found["final_test_accuracy_mean"] == pytest.approx(0.82)
    assert found["accuracy_gap_mean"] == pytest.approx(0.02)


def test_one_seed_has_no_interval_and_no_rank() -> None:
    summary = summarise(handmade_sweep({adam(lr=lr): ("completed", (0.5, 0.9 - lr)) for lr in (0.1, 0.01)}).data)
    assert summary["label"].to_list() == ["lr 0.01", "lr 0.1"]
    assert summary["position"].to_list() == [1, 2]
    for name in ("rank", "final_val_accuracy_sd", "final_val_accuracy_low", "final_val_accuracy_high"):
        assert summary[name].to_list() == [None, None], name


def test_test_metrics_stay_null_where_not_measured() -> None:
    summary = summarise(handmade_sweep({adam(): ("completed", (0.5, 0.9))}, tests=False).data)
    assert summary.select(cs.contains("_test_").is_null().all()).row(0) == (True,) * 4 * len(STATISTICS)


STATUSES = {
    "one completed": {1: ("completed", 0.90), 2: ("pending", 0.99)},
    "best": {1: ("completed", 0.92), 2: ("completed", 0.93), 3: ("completed", 0.97)},
    "diverged once": {1: ("completed", 0.99), 2: ("completed", 0.98), 3: ("diverged", 0.99)},
    "diverged": {1: ("diverged", 0.99), 2: ("diverged", 0.99)},
    "stopped early": {1: ("early_stopped", 0.5), 2: ("completed", 0.6)},
    "failed": {1: ("failed", 0.99), 2: ("out_of_memory", 0.99)},
    # the same sum in another order, which floating point gives another last bit
    "equal": {1: ("completed", 0.93), 2: ("completed", 0.97), 3: ("completed", 0.92)},
}


def test_only_finished_trials_count_and_divergence_ranks_last() -> None:
    results = {
        adam(seed=seed, scheduler=name): (status, (0.5, accuracy))
        for name, seeds in STATUSES.items()
        for seed, (status, accuracy) in seeds.items()
    }
    summary = summarise(handmade_sweep(results).data)
    found = summary.select("scheduler", "position", "n", "diverged", "unfinished").rows()
    assert found == [
        ("best", 1, 3, 0, 0),
        ("equal", 1, 3, 0, 0),
        ("one completed", 3, 1, 0, 1),
        ("stopped early", 4, 1, 0, 1),
        ("diverged once", 5, 2, 1, 0),
        ("diverged", 6, 0, 2, 0),
        ("failed", None, 0, 0, 2),
    ]
    assert row(summary, "one completed")["final_val_accuracy_mean"] == 0.9
    assert row(summary, "diverged")["final_val_accuracy_mean"] is None
    ranks = dict(summary.select("scheduler", "rank").iter_rows())
    assert [name for name, rank in ranks.items() if rank is not None] == ["best", "equal"]


def test_intervals_of_accuracies_end_at_1() -> None:
    accuracies = {1: 0.97, 2: 0.99}
    found = summarise(handmade_sweep({adam(seed=s): ("completed", (0.5, a)) for s, a in accuracies.items()}).data)
    assert found["final_val_accuracy_high"].to_list() == [1]
    assert found["final_val_loss_low"].to_list() == [0]
    assert found["final_val_accuracy_low"][0] < 0.97


def test_places_go_by_means_over_the_same_seeds() -> None:
    # seed 3 is an easy one: b, which has no other, is worse than a on it
    accuracies = {("a", 1): 0.80, ("a", 2): 0.80, ("a", 3): 0.86, ("b", 3): 0.85}
    results = {adam(scheduler=name, seed=seed): ("completed", (0.5, a)) for (name, seed), a in accuracies.items()}
    found = summarise(handmade_sweep(results).data).select("scheduler", "position", "adjusted_mean").rows()
    assert found == [("a", 1, pytest.approx(0.82)), ("b", 2, pytest.approx(0.81))]


def test_equal_trainings_are_recognised_by_all_their_records() -> None:
    results = {
        adam(lr=0.1): ("completed", (0.5, 0.9)),
        adam(lr=0.2): ("completed", (0.5, 0.9)),
        adam(lr=0.3): ("completed", (0.6, 0.9)),  # another way to the same end
        adam(lr=0.4): ("pending", ()),
        adam(lr=0.5): ("pending", ()),
    }
    found = summarise(handmade_sweep(results).data).sort("configuration")
    assert found.select("same_as", "alike").rows() == [(0, 2), (0, 2), (2, 1), (3, 1), (4, 1)]


def test_epochs_to_targets_by_hand() -> None:
    results = {
        adam(seed=1): ("completed", (0.7, 0.9)),
        adam(seed=2): ("completed", (0.8, 0.8)),
        adam(seed=3): ("diverged", (0.2,)),
    }
    found = summarise(handmade_sweep(results).data, targets=(0.65, 0.85)).row(0, named=True)
    assert (found["epochs_to_0.65"], found["reached_0.65"]) == (1, 2)
    assert (found["epochs_to_0.85"], found["reached_0.85"]) == (None, 1)


EDGES = {
    "in the middle": ({0.1: 0.8, 0.2: 0.9, 0.3: 0.7}, (0.2, None)),
    "highest": ({0.1: 0.8, 0.2: 0.85, 0.3: 0.9}, (0.3, "highest")),
    "lowest": ({0.1: 0.8, 0.2: 0.75, 0.3: None}, (0.1, "lowest")),
    "below one that diverged": ({0.1: 0.8, 0.2: 0.85, 0.3: None}, (0.2, None)),
    "one rate is no grid": ({0.1: 0.8}, (0.1, None)),
}


@pytest.mark.parametrize(("accuracies", "expected"), EDGES.values(), ids=EDGES)
def test_edge_of_the_learning_rates(
    accuracies: Mapping[float, float | None], expected: tuple[float, str | None]
) -> None:
    results = {
        adam(lr=lr): ("diverged", ()) if accuracy is None else ("completed", (0.1, accuracy))
        for lr, accuracy in accuracies.items()
    }
    results |= {adam(lr=lr, scheduler="cosine"): ("completed", (0.1, 0.95 - lr)) for lr in (0.01, 0.02)}
    summary = summarise(handmade_sweep(results).data)
    best = summary.filter("best_of_group")
    assert best.group_by("scheduler").len()["len"].to_list() == [1, 1]
    assert summary.filter(~pl.col("best_of_group"))["lr_edge"].is_null().all()
    assert best.filter(pl.col("scheduler") == "none").select("lr", "lr_edge").row(0) == expected
    assert best.filter(pl.col("scheduler") == "cosine").select("lr", "lr_edge").row(0) == (0.01, "lowest")


LABELS: dict[str, tuple[list[TrialConfig], list[str], tuple[str, ...]]] = {
    "optimizers": (
        [adam(), adam(optimizer="sgd", lr=0.1)],
        ["adam, lr 0.001", "sgd, lr 0.1"],
        ("optimizer", "lr"),
    ),
    "nothing varies": ([adam(seed=1), adam(seed=2)], ["adam", "adam"], ()),
    "a setting of one schedule": (
        [
            adam(scheduler="plateau", scheduler_settings={"factor": 0.3, "patience": 2}),
            adam(scheduler="plateau", scheduler_settings={"factor": 0.3, "patience": 5}),
            adam(scheduler="step", scheduler_settings={"step_size": 3}),
        ],
        ["plateau, patience 2", "plateau, patience 5", "step"],
        ("scheduler", "scheduler_patience"),
    ),
    "a setting given or not": (
        [adam(), adam(optimizer_settings={"weight_decay": 0.0001})],
        ["default settings", "weight decay 0.0001"],
        ("optimizer_weight_decay",),
    ),
    "the same name twice": (
        [
            adam(optimizer_settings={"eps": 1e-8}, scheduler_settings={"eps": 1e-8}),
            adam(optimizer_settings={"eps": 1e-7}, scheduler_settings={"eps": 1e-8}),
            adam(optimizer_settings={"eps": 1e-7}, scheduler_settings={"eps": 1e-7}),
        ],
        [
            "optimizer eps 1e-08, scheduler eps 1e-08",
            "optimizer eps 1e-07, scheduler eps 1e-08",
            "optimizer eps 1e-07, scheduler eps 1e-07",
        ],
        ("optimizer_eps", "scheduler_eps"),
    ),
    "numbers and switches": (
        [adam(optimizer_settings={"nesterov": True}), adam(optimizer_settings={"nesterov": False}, epochs=5)],
        ["nesterov true, 2 epochs", "nesterov false, 5 epochs"],
        ("optimizer_nesterov", "epochs"),
    ),
    "size": (
        [adam(batch_size=32), adam(train_limit=1000)],
        ["batch size 32", "batch size 64, 1000 images"],
        ("batch_size", "train_limit"),
    ),
}


@pytest.mark.parametrize(("trials", "labels", "axes"), LABELS.values(), ids=LABELS)
def test_labels_name_what_varies(trials: list[TrialConfig], labels: list[str], axes: tuple[str, ...]) -> None:
    data = handmade_sweep(dict.fromkeys(trials, ("completed", (0.5, 0.9)))).data
    assert data.trials["label"].to_list() == labels
    assert data.axes == axes
    assert summarise(data).select(axes).columns == list(axes)


def test_labels_are_unique() -> None:
    for data in (synthetic_of_size(1000).data, synthetic_plateau(seeds=(1, 2)).data):
        assert data.trials["label"].n_unique() == data.trials["configuration"].n_unique()


def test_sweeps_together() -> None:
    shared = {adam(seed=1): ("completed", (0.5, 0.9)), adam(seed=2): ("pending", (0.4,))}
    first = handmade_sweep(shared | {adam(seed=3): ("failed", ())}, "first")
    again = {adam(seed=1): ("completed", (0.5, 0.9)), adam(seed=2): ("completed", (0.4, 0.8))}
    settings = {"betas": (0.8, 0.99)}
    second = handmade_sweep(
        again | {adam(seed=1, optimizer_settings=settings): ("completed", (0.5, 0.7))}, "second", "b"
    )
    data = combine([first.parts, second.parts])
    assert [spec.name for spec in data.specs] == ["first", "second"]
    kept = data.trials.select("sweep", "seed", "status", "configuration").rows()
    assert kept == [
        ("first", 1, "completed", 0),  # in both: counted once
        ("first", 3, "failed", 0),
        ("second", 2, "completed", 0),  # further than in the first
        ("second", 1, "completed", 1),
    ]
    assert data.epochs.group_by("sweep", "trial_id").len().height == 3
    assert data.epochs.height == 6
    assert data.trials["label"].to_list()[3] == "betas [0.8, 0.99]"
    assert data.notes == (
        "Duplicate trials, counted only once: 2.",
        "first and second ran with different code: compare them with care.",
    )
    assert summarise(data)["n"].to_list() == [2, 1]


def test_a_setting_may_change_its_type_between_sweeps() -> None:
    number = handmade_sweep({adam(optimizer_settings={"clip": 0.5}): ("completed", (0.5, 0.9))}, "number")
    text = handmade_sweep({adam(optimizer_settings={"clip": "norm"}): ("completed", (0.5, 0.8))}, "text")
    assert combine([number.parts, text.parts]).trials["label"].to_list() == ["clip 0.5", "clip norm"]


def test_data_sets_are_ranked_apart() -> None:
    accuracies = {("one", "adam"): 0.9, ("one", "sgd"): 0.8, ("two", "adam"): 0.5, ("two", "sgd"): 0.6}
    results = {
        adam(workload=workload, optimizer=optimizer, seed=seed): (
            "completed",
            (0.1, accuracy + 0.001 * seed * (seed - 1)),
        )
        for (workload, optimizer), accuracy in accuracies.items()
        for seed in (1, 2, 3)
    }
    summary = summarise(handmade_sweep(results).data)
    assert summary.select("dataset", "label", "position").rows() == [
        ("one images", "one, adam", 1),
        ("one images", "one, sgd", 2),
        ("two images", "two, sgd", 1),
        ("two images", "two, adam", 2),
    ]
    assert compare(handmade_sweep(results).data, summary).height == 2


def test_only_the_best_of_many_are_compared_as_sure_as_if_all_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.aggregate.MOST_COMPARED", 4)
    data = synthetic_sweep(optimizers=("adam",), lrs=(0.001, 0.002, 0.003, 0.004, 0.005, 0.006), seeds=(1, 2, 3)).data
    summary = summarise(data)
    assert summary["rank"].is_null().to_list() == [False] * 4 + [True] * 2
    assert summary["verdict"].is_null().to_list() == [True] + [False] * 3 + [True] * 2
    pairs = compare(data, summary)
    assert pairs["level"].to_list() == pytest.approx([2 * 0.05 / (6 * 5)] * (4 * 3 // 2))
    assert {*pairs["first"], *pairs["second"]} == {*summary["configuration"][:4]}


MADE_UP: dict[str, Callable[[], Synthetic]] = {
    "one seed": synthetic_sweep,
    "seeds": partial(synthetic_sweep, schedulers=("none", "cosine"), seeds=(1, 2, 3), test_every_epoch=True),
    "running": partial(synthetic_sweep, seeds=(1, 2, 3), finished=0.4, failed=(0, 5)),
    "not begun": partial(synthetic_sweep, finished=0),
    "plateau": partial(synthetic_plateau, seeds=(1, 2)),
}


@pytest.mark.parametrize("sweep", MADE_UP.values(), ids=MADE_UP)
def test_summary_holds_the_columns_promised(sweep: Callable[[], Synthetic]) -> None:
    data = sweep().data
    summary = summarise(data, targets=(0.8,))
    first = {column.name: column.type for column in SUMMARY_COLUMNS}
    axes = [name for name in data.axes if name not in first]
    statistics = [f"{metric.name}_{statistic}" for metric in METRICS for statistic in STATISTICS]
    assert summary.columns == [*first, *axes, *statistics, "epochs_to_0.8", "reached_0.8"]
    assert {name: summary.schema[name] for name in first} == first
    assert summary.height == data.trials["configuration"].n_unique()
    assert summary["planned"].sum() == data.trials.height
    assert summary.select((pl.col("n") + pl.col("diverged") + pl.col("unfinished")).eq(pl.col("planned")).all()).item()


@pytest.mark.parametrize("sweep", MADE_UP.values(), ids=MADE_UP)
def test_missing_is_null_never_nan(sweep: Callable[[], Synthetic]) -> None:
    data = sweep().data
    for frame in (summarise(data), outcomes(data), compare(data, summarise(data))):
        assert not any(column.is_nan().any() for column in frame.select(cs.float()))


def test_a_sweep_not_begun_has_rows_without_numbers() -> None:
    data = MADE_UP["not begun"]().data
    summary = summarise(data)
    assert summary["n"].sum() == 0
    assert summary["position"].null_count() == summary.height
    assert not summary["best_of_group"].any()
    assert compare(data, summary).is_empty()


def test_trials_and_summary_join_on_their_configurations(tmp_path: Path) -> None:
    sweep = synthetic_sweep("one", seeds=(1, 2))
    store = sweep.write(str(tmp_path))
    publish(store, sweep.spec)
    trials, summary = pl.read_parquet(tmp_path / "one" / "trials.parquet"), summarise(load([store.location]))
    joined = trials.join(summary, on="configuration", how="left", suffix="_of_summary")
    assert joined.height == len(sweep.spec.trials)
    for name in ("label", "optimizer", "lr"):
        assert (joined[name] == joined[f"{name}_of_summary"]).all(), name


def test_a_sweep_of_which_only_the_tables_are_left_is_the_same(tmp_path: Path) -> None:
    sweep = synthetic_sweep("one", seeds=(1, 2, 3), finished=0.6, failed=(0, 5))
    store = sweep.write(str(tmp_path))
    publish(store, sweep.spec)
    before = load([store.location])
    shutil.rmtree(tmp_path / "one" / "parts")
    after = load([store.location])
    assert_frame_equal(after.trials, before.trials)
    assert_frame_equal(after.epochs, before.epochs)


def test_loaded_sweeps_are_those_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = synthetic_sweep("one", seeds=(1, 2))
    one.write(str(tmp_path / "results"))
    other = synthetic_plateau("other")
    other.write(f"file://{tmp_path}/elsewhere")
    monkeypatch.chdir(tmp_path)
    expected = combine([one.parts, other.parts])
    for places in (
        ["results/one", "elsewhere/other/"],
        [f"{tmp_path}/results/one", f"file://{tmp_path}/elsewhere/other"],
    ):
        data = load(places)
        assert [spec.name for spec in data.specs] == ["one", "other"]
        assert data.trials.equals(expected.trials)
        assert data.epochs.equals(expected.epochs)
        assert (data.axes, data.notes) == (expected.axes, expected.notes)


def test_a_sweep_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic_sweep("here").write(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load(["here"]).specs[0].name == "here"


def test_options_of_a_uri_stay_with_the_storage_path() -> None:
    assert open_store("s3://bucket/results/one?region=eu-west-1").storage_path == "s3://bucket/results?region=eu-west-1"


def test_damaged_records_are_named_and_left_out(tmp_path: Path) -> None:
    synthetic_sweep("one").write(str(tmp_path))
    (part,) = (tmp_path / "one" / "parts").glob("epochs-*")
    part.write_bytes(part.read_bytes()[:-9])
    data = load([str(tmp_path / "one")])
    assert data.notes == (f"{part} is damaged and was skipped.",)
    assert data.epochs.is_empty()
    assert data.trials["status"].unique().to_list() == ["pending"]
    assert summarise(data)["n"].sum() == 0


WRONG = {
    "nothing": ([], "pass at least one folder"),
    "no such place": (["nowhere/one"], "it has no sweep.json; pass the results folder of a sweep"),
    "a bad name": (["results/*"], "a sweep's name must consist of letters"),
    "an unknown scheme": (["ftp://host/one"], "storage path 'ftp://host' is not usable"),
}


@pytest.mark.parametrize(("sweeps", "message"), WRONG.values(), ids=WRONG)
def test_wrong_places_are_refused(sweeps: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        load(sweeps)


def test_errors_keep_the_keys_of_a_uri_to_themselves(tmp_path: Path) -> None:
    for where in (f"file://{tmp_path}/none?secret_key=abc", "ftp://user:abc@host/one?token=abc", "s3://?api_key=abc"):
        with pytest.raises(InputError) as told:
            load([where])
        assert "abc" not in str(told.value)


@pytest.mark.parametrize("program", ["aggregate", "plot", "report", "export --to csv"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "no sweep found at 'nowhere': it has no sweep.json; pass the results folder of a sweep"),
        (("torn",), "sweep.json is damaged or not written by forksweep: "),
        (("a", "--colour"), "--colour"),
        ((), "no sweep given; pass at least one folder such as results/optimizers"),
    ],
)
def test_programs_say_what_is_wrong_in_one_line(
    program: str,
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "sweep.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    name, *flags = program.split()
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words, *flags])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"analysis.{name}").main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_script_writes_the_summary(tmp_path: Path) -> None:
    synthetic_sweep("one", seeds=(1, 2)).write(str(tmp_path))
    ended = _script(str(tmp_path / "one"))
    assert (ended.returncode, ended.stderr) == (0, "")
    path = Path(ended.stdout.strip())
    assert path == tmp_path / "one" / "summary.parquet"
    assert sorted(file.name for file in path.parent.iterdir()) == ["parts", "summary.parquet", "sweep.json"]
    assert pl.read_parquet(path).equals(summarise(load([str(path.parent)])))
    assert pd.read_parquet(path)["label"].iloc[0] == pl.read_parquet(path)["label"][0]
    footer = pq.read_schema(path).metadata
    assert footer[b"forksweep.schema_version"] == str(SCHEMA_VERSION).encode()
    assert b'"torch": "none"' in footer[b"forksweep.sweeps"]


def test_script_says_when_nothing_has_finished(tmp_path: Path) -> None:
    location = synthetic_sweep("one", finished=0).write(str(tmp_path)).location
    ended = _script(location)
    assert (ended.returncode, ended.stderr) == (0, "no trial has finished yet: 0 of 20\n")


def test_script_ends_with_status_2(tmp_path: Path) -> None:
    ended = _script(str(tmp_path / "one"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: no sweep found at ")
    assert ended.stderr.count("\n") == 1


def _script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "analysis" / "aggregate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_made_up_sweeps_share_what_equal_rates_share() -> None:
    sweep = synthetic_plateau()
    joined = sweep.epochs.join(sweep.epochs, left_on=["computed_by", "epoch"], right_on=["trial_id", "epoch"])
    for name in ("lr", "train_loss", "val_accuracy"):
        assert (joined[name] == joined[f"{name}_right"]).all(), name
    assert 1 < sweep.epochs["computed_by"].n_unique() < 48


@pytest.mark.parametrize("size", [1, 100, 1234])
def test_made_up_sweeps_have_the_size_asked_for(size: int) -> None:
    sweep = synthetic_of_size(size, epochs=3)
    assert len(sweep.spec.trials) == len({trial.trial_id for trial in sweep.spec.trials}) == size
    assert synthetic_records("again", sweep.spec.trials).epochs.drop("sweep").equals(sweep.epochs.drop("sweep"))
