"""The optimizer sweep as a user runs it: a real script, a real Ray, real data, in small."""

import os
import re
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from analysis.store import SweepStore
from sweeps import cli
from sweeps.optimizers import SWEEP
from workloads.training import Images, train

ROOT = Path(cli.__file__).parents[1]
NAME = "optimizers-smoke-test"
TABLES = ("epochs", "trials", "summary")
SETTINGS = {"PYTHONWARNINGS": "error", "MPLBACKEND": "module://not_installed", "PYTHONIOENCODING": "latin-1"}
"""What a user's environment may hold, which is no concern of a sweep."""


@dataclass(frozen=True)
class Finished:
    """A run of the script."""

    folder: Path
    status: int
    out: str
    err: str
    left_running: list[str]

    @property
    def store(self) -> SweepStore:
        """What it wrote."""
        return SweepStore(str(self.folder / "results"), NAME)


def _run(folder: Path) -> Finished:
    mark = f"FORKSWEEP_TEST_RUN={uuid.uuid4()}"
    done = subprocess.run(
        [sys.executable, ROOT / "sweeps" / "optimizers.py", "--smoke-test"],
        cwd=folder,
        env=os.environ | SETTINGS | dict([mark.split("=")]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Finished(folder, done.returncode, done.stdout, done.stderr, _running_with(mark))


def _running_with(mark: str, patience_seconds: float = 10) -> list[str]:
    """Returns the processes that still run with a variable in their environment, after giving them time to end."""
    deadline = time.monotonic() + patience_seconds
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:  # ended meanwhile, or not ours to read
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The smoke test."""
    return _run(tmp_path_factory.mktemp("end_to_end"))


@pytest.fixture(scope="module")
def second(first: Finished) -> Finished:
    """The same command again."""
    assert first.status == 0, first.err
    return _run(first.folder)


def test_it_succeeds_quietly(first: Finished) -> None:
    assert (first.status, first.err) == (0, "")
    assert SWEEP.question in first.out
    for noise in ("Traceback", "INFO", "WARNING", "Warning", "Trial name", "raylet", "tune", "Tune"):
        assert noise not in first.out


def test_it_leaves_nothing_running(first: Finished) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs Linux's /proc")
    assert first.left_running == []


def test_it_writes_what_it_should(first: Finished) -> None:
    assert [path.name for path in first.folder.iterdir()] == ["results"]
    assert [path.name for path in (first.folder / "results").iterdir()] == [NAME]
    sweep = first.folder / "results" / NAME
    top = {path.name for path in sweep.iterdir()} - {"checkpoints"}
    tables = {f"{table}.parquet" for table in TABLES}
    assert top == {"sweep.json", *tables, "report.html", "answer.json", "plots", "parts"}
    assert len(list((sweep / "plots").glob("*.png"))) >= 3
    assert len(list((sweep / "parts").iterdir())) == 2, "parts are put together at the end"


def test_it_names_what_it_wrote(first: Finished) -> None:
    named = re.findall(rf"\S*{NAME}/\S+", first.out)
    expected = {
        f"results/{NAME}/{file}" for file in ("report.html", "plots/", *(f"{table}.parquet" for table in TABLES))
    }
    assert expected <= set(named)
    assert [path for path in named if not (first.folder / path).exists()] == []


def test_every_trial_has_its_answer(first: Finished) -> None:
    spec = first.store.read_spec()
    trials, epochs = first.store.read_table("trials"), first.store.read_table("epochs")
    assert spec is not None
    assert trials is not None
    assert epochs is not None
    assert trials["trial_id"].to_list() == [trial.trial_id for trial in spec.trials]
    assert set(trials["optimizer"]) == set(SWEEP.optimizers)
    assert set(trials["status"]) <= {"completed", "diverged"}
    completed = trials.filter(pl.col("status") == "completed")
    assert completed.height > trials.height / 2
    assert completed["epochs_run"].to_list() == [2] * completed.height
    assert completed["test_accuracy"].is_between(0.05, 0.95).all()
    assert epochs.height == trials["epochs_run"].sum()


def test_its_numbers_are_those_of_the_training_function(first: Finished, images: Images) -> None:
    spec, epochs = first.store.read_spec(), first.store.read_epochs()
    assert spec is not None
    trial = next(trial for trial in spec.trials if trial.optimizer == "adam" and trial.lr == 0.001)
    rows = epochs.filter(pl.col("trial_id") == trial.trial_id).sort("epoch")
    measured = [name for name in rows.columns if name not in ("sweep", "train_seconds", "eval_seconds")]
    here = [record.to_json() for record in train(trial, images=images)]
    assert rows.select(measured).to_dicts() == [{name: record[name] for name in measured} for record in here]


def test_the_second_time_there_is_nothing_to_train(first: Finished, second: Finished) -> None:
    assert (second.status, second.err, second.left_running) == (0, "", [])
    assert re.search(r"done|nothing to train", second.out.partition("results:")[0])
    assert not re.search(r"epochs? trained", second.out)
    assert "running" not in second.out


def test_the_second_time_has_the_same_answer(first: Finished, second: Finished) -> None:
    def table(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.lstrip("│ ").startswith(SWEEP.optimizers)]

    # Times of the first run's progress lines apart, both end with the same ranking and the same files.
    assert table(second.out)
    assert table(second.out) == table(first.out)[-len(table(second.out)) :]
    assert second.store.read_epochs().equals(first.store.read_epochs())
