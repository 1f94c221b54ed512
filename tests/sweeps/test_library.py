"""What is stored meets what is asked for: taken up, widened, narrowed, taken over, or refused. Nothing is trained."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.loading import load
from analysis.store import DamagedFileError, SweepSpec, SweepStore, TrialStatus
from sweeps import cli
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.library import ConflictError, changed, merged, refuse_changed
from sweeps.question.sweep import Sweep, plan
from sweeps.runner import StoppedError
from sweeps.tuning.placement import Placement
from tests.sweeps.runs import ROOT, without_ray
from workloads import fingerprint
from workloads.errors import InputError
from workloads.registry import dataset_of
from workloads.trial import RECORD_FIELDS, TrialConfig, canonical_json, digest

SWEEP = Sweep(name="s", question="What is there?", schedulers=("none", "step"), lrs=(0.01, 0.1), epochs=3)


def records_of(trial: TrialConfig) -> list[dict[str, Any]]:
    """Returns made-up records of a whole trial."""
    rows = []
    for epoch in range(1, trial.epochs + 1):
        row: dict[str, Any] = dict.fromkeys(RECORD_FIELDS, 0.5)
        row |= {"trial_id": trial.trial_id, "epoch": epoch, "computed_by": trial.trial_id, "function_evaluations": 1}
        rows.append(row if epoch == trial.epochs else row | {"test_loss": None, "test_accuracy": None})
    return rows


def fill(storage: str, sweep: Sweep) -> SweepStore:
    """Stores a sweep as if it had been trained to its end."""
    store = SweepStore(storage, sweep.name)
    trials = plan(sweep, sweep.default_options()).trials
    spec = SweepSpec(
        name=sweep.name,
        question=sweep.question,
        command="",
        trials=trials,
        datasets={trial.workload: dataset_of(trial).name for trial in trials},
        fingerprint={},
        fingerprints={i: f.to_json() for i, f in fingerprint.fingerprints(trials, Placement().hardware()).items()},
    )
    store.write_spec(spec)
    store.append_epochs([row for trial in trials for row in records_of(trial)])
    store.append_statuses([TrialStatus(trial_id=t.trial_id, status="completed", epochs_run=t.epochs) for t in trials])
    return store


def ask(storage: str, sweep: Sweep = SWEEP, **options: Any) -> str:
    """Runs a sweep that has nothing to train, or only its plan, and returns what it printed."""
    text = io.StringIO()
    chosen = replace(sweep.default_options(), storage_path=storage, **options)
    assert cli.carry_out(sweep, chosen, Console(file=text, width=500)) == 0
    return text.getvalue()


def test_a_whole_sweep_is_taken_up_as_it_is_but_for_what_a_killed_writer_left(storage: str) -> None:
    store = fill(storage, SWEEP)
    half = Path(store.root, "parts", ".writing-epochs")
    half.write_bytes(b"half")
    assert "everything is done: nothing to train" in ask(storage)
    assert Path(store.root, "report.html").exists()
    assert not half.exists()


def test_a_report_that_cannot_be_written_is_no_fault_of_the_command(storage: str) -> None:
    store = fill(storage, SWEEP)
    in_the_way = Path(store.root, "plots")
    in_the_way.write_text("")
    with pytest.raises(StoppedError, match=r"^cannot write to .*; everything stored is still valid; fix that"):
        ask(storage)
    in_the_way.unlink()
    assert "everything is done: nothing to train" in ask(storage)


QUESTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "more seeds": ({"seeds": (21, 22)}, 4),
    "other seeds": ({"seeds": (1, 2)}, 0),
    "a rate more": ({"more_lrs": ("0.5",)}, 4),
    "another rate": ({"lrs": (0.01, 0.5)}, 2),
    "a schedule more": ({"schedulers": ("none", "step", "cosine")}, 4),
    "a narrower look": ({"schedulers": ("step",), "lrs": (0.1,)}, 1),
    "longer": ({"epochs": 4}, 0),
    "shorter": ({"epochs": 2}, 0),
    "several lengths": ({"grid": ("epochs=3,5",)}, 4),
    "fewer images": ({"train_limit": 640}, 0),
    "another optimizer": ({"optimizers": ("adam",)}, 0),
    "a setting": ({"grid": ("optimizer.weight_decay=0.1",)}, 0),
}
"""Question -> what asks it, and how many of the stored trials answer it."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_is_refused_and_what_is_stored_is_used(question: str, storage: str) -> None:
    fill(storage, SWEEP)
    options, used = QUESTIONS[question]
    text = ask(storage, plan=True, **options)
    assert ("done before" in text) == (used > 0)
    assert f"done before: {used} trial" in text or not used
    assert ("also stored here, and kept:" in text) == (used < 4)


def test_nothing_stored_is_lost_by_another_question(storage: str) -> None:
    store = fill(storage, SWEEP)
    assert "also stored here, and kept: 3 other trials" in ask(storage, lrs=(0.1,), schedulers=("none",))
    assert load([store.uri]).specs[0].trials[0].lr == 0.1
    assert load([store.uri]).trials.height == 1, "the answer is about the question"
    assert load([store.uri], everything=True).trials.height == 4
    text = ask(storage)
    assert "done before: 4 trials" in text
    assert "also stored" not in text


def test_a_report_that_is_up_to_date_is_not_made_anew(storage: str) -> None:
    store = fill(storage, SWEEP)
    first = ask(storage)
    page = Path(store.root, "report.html")
    written = page.stat().st_mtime_ns
    assert ask(storage) == first
    assert page.stat().st_mtime_ns == written
    pictures = {path.name for path in page.parent.glob("plots/*.png")}
    ask(storage, lrs=(0.1,), schedulers=("none",))
    assert page.stat().st_mtime_ns > written, "another question"
    assert {path.name for path in page.parent.glob("plots/*.png")} < pictures, "no picture of the question before"
    page.unlink()
    ask(storage, lrs=(0.1,), schedulers=("none",))
    assert page.exists(), "deleted by hand"


def test_a_trial_never_begun_is_forgotten_and_one_with_numbers_is_not(storage: str) -> None:
    store = fill(storage, SWEEP)
    spec = store.read_spec()
    assert spec is not None
    pending = spec.trials[0].replace(seed=99)
    store.write_spec(replace(spec, library=(pending,)))
    assert "also stored here, and kept: 3 other" in ask(storage, lrs=(0.1,), schedulers=("none",), plan=True)


@pytest.mark.parametrize("error", [ValueError("a fault of ours"), InputError("bad input, hours later")])
def test_an_error_after_training_is_a_fault_and_no_bad_input(
    error: Exception, storage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(storage, SWEEP)

    def fails(store: SweepStore) -> None:
        raise error

    monkeypatch.setattr("analysis.report.report_of", fails)
    with pytest.raises(SystemExit) as end:
        cli.main(SWEEP, ["--storage-path", storage])
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "Traceback" in said
    assert str(error) in said
    assert "This is a bug in forksweep. Everything stored is still valid" in said


def test_trials_of_different_trainings_are_never_averaged(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed of before a change and two of after it, both stored: seen together, they are two configurations."""
    store = fill(storage, replace(SWEEP, schedulers=("none",), lrs=(0.1,)))
    spec = store.read_spec()
    assert spec is not None
    (before,) = spec.trials
    later = tuple(before.replace(seed=seed) for seed in (1, 2))
    since = {**spec.fingerprints[before.trial_id], "training": "another"}
    store.append_epochs([row for trial in later for row in records_of(trial)])
    store.append_statuses([TrialStatus(trial_id=t.trial_id, status="completed", epochs_run=3) for t in later])
    prints = {**spec.fingerprints, **{trial.trial_id: since for trial in later}}
    store.write_spec(replace(spec, trials=later, library=(before,), fingerprints=prints))
    found = load([store.uri], everything=True)
    rows = found.trials.select("seed", "variant", "configuration").sort("seed").rows()
    assert rows == [(1, 1, 0), (2, 1, 0), (21, 2, 1)]
    assert found.trials["label"].unique().sort().to_list() == ["variant 1", "variant 2"]
    assert "listed as variants, and not averaged" in found.notes[0]
    assert load([store.uri]).trials["variant"].null_count() == 2, "the question itself is about one training"


# -- what cannot be compared ----------------------------------------------------------------------------------------


def test_a_changed_training_is_refused_and_not_taken_over(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(storage, SWEEP)
    monkeypatch.setattr(fingerprint, "_trace", lambda schedule, row: "other values")
    with pytest.raises(
        ConflictError, match=r"holds 4 of these 4 trials, trained with different code: that of the network"
    ):
        ask(storage)
    with pytest.raises(ConflictError, match=r"Use another --name, or --fresh to delete what is stored there"):
        ask(storage, lrs=(0.1, 0.5))
    assert "taken over" not in ask(storage, name="sibling", plan=True)
    assert "epochs to train" in ask(storage, lrs=(0.5,), plan=True), "a question that needs none of them"


def test_a_trial_that_failed_without_numbers_is_made_anew_once_its_code_has_changed(storage: str) -> None:
    sweep = replace(SWEEP, schedulers=("none",), lrs=(0.1,))
    (trial,) = plan(sweep, sweep.default_options()).trials
    now = fingerprint.fingerprints([trial], Placement().hardware())
    then = {**now[trial.trial_id].to_json(), "training": "with a bug"}
    store = SweepStore(storage, "s")
    spec = SweepSpec(
        name="s",
        question="?",
        command="",
        trials=(trial,),
        datasets={},
        fingerprint={},
        fingerprints={trial.trial_id: then},
    )
    store.write_spec(spec)
    store.append_statuses([TrialStatus(trial_id=trial.trial_id, status="failed", epochs_run=0)])
    differences = changed(spec, now)
    ledger = Ledger(store, [trial], changed=differences)
    refuse_changed(ledger, differences, ledger.trials.keys())
    assert ledger.open == [trial]
    assert merged(spec, spec, ledger, now).fingerprints == {trial.trial_id: now[trial.trial_id].to_json()}


def test_another_question_never_renews_the_fingerprint_of_numbers_it_does_not_ask_for(storage: str) -> None:
    """A longer trial is asked for, whose shorter one was trained by code that has changed since."""
    sweep = replace(SWEEP, schedulers=("none",), lrs=(0.1,))
    store = fill(storage, sweep)
    spec = store.read_spec()
    assert spec is not None
    (short,) = spec.trials
    then = {**spec.fingerprints[short.trial_id], "training": "before the change"}
    stored = replace(spec, fingerprints={short.trial_id: then})
    longer = short.replace(epochs=4)
    now = fingerprint.fingerprints([longer, short], Placement().hardware())
    ledger = Ledger(store, [longer], changed=changed(stored, now))
    found = merged(replace(spec, trials=(longer,)), stored, ledger, now)
    assert found.library == (short,)
    assert found.fingerprints[short.trial_id] == then
    assert changed(found, now) == {short.trial_id: now[short.trial_id].difference(then)}


def test_other_threads_are_refused(storage: str) -> None:
    fill(storage, SWEEP)
    with pytest.raises(ConflictError, match="trained on cpu, 1 thread, now cpu, 2 threads"):
        ask(storage, cpus_per_trial=2)


def test_a_sweep_stored_without_fingerprints_is_refused(storage: str) -> None:
    store = fill(storage, SWEEP)
    spec = store.read_spec()
    assert spec is not None
    store.write_spec(replace(spec, fingerprints={}))
    with pytest.raises(ConflictError, match="trained by a version of forksweep that did not record how"):
        ask(storage)


@pytest.mark.parametrize(
    ("change", "environment", "expected"),
    [
        (("lenet.py", "nn.Flatten(),", "nn.Flatten(),  # a comment"), {}, None),
        (
            ("lenet.py", "nn.Linear(84, classes),", "nn.Linear(84, classes), nn.Tanh(),"),
            {},
            "with different code: that of the",
        ),
        (("training.py", "step.optimizer.param_groups[0]", "step.optimizer.param_groups[-1]"), {}, None),
        (None, {"ATEN_CPU_CAPABILITY": "default"}, "on another type of machine"),
    ],
    ids=["a comment", "another network", "other code, same numbers", "another processor"],
)
def test_what_training_does_decides_and_not_how_it_is_written(
    change: tuple[str, str, str] | None, environment: dict[str, str], expected: str | None, storage: str, tmp_path: Path
) -> None:
    fill(storage, SWEEP)
    for package in ("sweeps", "workloads", "analysis"):
        ignore = shutil.ignore_patterns("data", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "project" / package, ignore=ignore)
    if change is not None:
        path = tmp_path / "project" / "workloads" / change[0]
        before = path.read_text()
        assert change[1] in before
        path.write_text(before.replace(change[1], change[2], 1))
    script = tmp_path / "project" / "s.py"
    script.write_text(
        "from sweeps.cli import main\nfrom sweeps.question.sweep import Sweep\n"
        f"main(Sweep(name='s', question='?', schedulers={SWEEP.schedulers}, lrs={SWEEP.lrs}, epochs=3))\n"
    )
    found = subprocess.run(
        [sys.executable, str(script), "--storage-path", storage, "--plan"],
        env=without_ray() | {"PYTHONPATH": str(script.parent)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if expected is None:
        assert (found.returncode, found.stderr) == (0, "")
        assert "done before: 4 trials" in found.stdout
    else:
        assert found.returncode == 2
        assert f"trained {expected}" in found.stderr
        assert found.stderr.count("\n") == 1
        assert len(found.stderr) < 400 + len(storage)


def test_completed_trials_are_taken_over_unless_fresh_or_alone(storage: str) -> None:
    fill(storage, SWEEP)
    assert "taken over from s: 4 trials" in ask(storage, name="sibling", plan=True)
    assert "taken over" not in ask(storage, name="sibling", plan=True, fresh=True)
    assert "taken over" not in ask(storage, name="sibling", plan=True, share=False)


def test_a_sibling_that_cannot_be_read_is_named_and_stops_nobody(storage: str) -> None:
    rewrite_spec(fill(storage, SWEEP), lambda values: values["trials"][0].update(mixup=0.1), checksum=True)
    text = ask(storage, name="sibling", plan=True)
    assert "warning: s was left out:" in text
    assert "written by a newer version of forksweep: unknown trial fields ['mixup']" in text


def test_fresh_counts_nothing_as_done_and_names_what_it_deletes(storage: str) -> None:
    fill(storage, SWEEP)
    text = ask(storage, plan=True, fresh=True)
    assert "done before" not in text
    assert "--fresh would delete everything stored here: 4 trials" in text
    assert SweepStore(storage, "s").read_epochs().height == 12, "a plan deletes nothing"


def rewrite_spec(store: SweepStore, change: Callable[[dict[str, Any]], Any], *, checksum: bool = False) -> None:
    values = json.loads(store.read("sweep.json"))
    change(values)
    if checksum:
        del values["sha256"]
        values["sha256"] = digest(canonical_json(values), 64)
    store.write("sweep.json", json.dumps(values).encode())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda values: values.update(question="Why?"), "does not match its checksum"),
        (lambda values: values.update(schema_version=0), "has schema version 0, this program needs 1"),
        (lambda values: values.pop("sha256"), "damaged or not written by forksweep"),
    ],
)
def test_a_damaged_spec_is_named(change: Callable[[dict[str, Any]], Any], expected: str, storage: str) -> None:
    rewrite_spec(fill(storage, SWEEP), change)
    with pytest.raises(DamagedFileError) as refused:
        ask(storage)
    assert expected in str(refused.value)
    assert "start over with --fresh" in str(refused.value)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_left_alone(fresh: bool, storage: str) -> None:
    folder = Path(storage, "s")
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ConflictError, match=r"holds files but no sweep\.json, so it is not a sweep's folder"):
        ask(storage, fresh=fresh)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_killed_while_starting_over_the_folder_is_still_a_sweeps(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(storage, SWEEP)
    store.write("trials.parquet", b"")
    deleted: list[str] = []
    monkeypatch.setattr(store, "delete", lambda *paths: deleted.extend(paths))
    store.clear()
    assert deleted[-1] == "sweep.json"
    assert sorted(deleted) == store.files()
