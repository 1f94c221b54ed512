"""The command line: what it refuses, that refusing costs and leaves nothing, and what can be asked without training."""

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from sweeps.optimizers import SWEEP
from sweeps.question.grid import axis
from sweeps.question.options import Options
from sweeps.question.sweep import Sweep
from sweeps.tuning.placement import usable_cores
from workloads.optimizers import OPTIMIZERS
from workloads.schedulers import SCHEDULERS

ROOT = Path(cli.__file__).parents[1]
SCRIPTS = {
    path.stem: importlib.import_module(f"sweeps.{path.stem}").SWEEP
    for path in sorted((ROOT / "sweeps").glob("*.py"))
    if "SWEEP = " in path.read_text()
}
"""Every sweep script there is."""

CORES = usable_cores()
QUESTIONS = ("", *(f"{sweep.question}\n" for sweep in SCRIPTS.values()))
"""What may have been printed by the time something is refused: nothing, or what was asked."""

REFUSED: dict[str, tuple[str, ...]] = {
    "--optimizers nope": ("unknown optimizer 'nope'", *OPTIMIZERS, "workloads/optimizers.py"),
    "--optimizers adam Adam": ("unknown optimizer 'Adam'",),
    "--schedulers nope": ("unknown scheduler 'nope'", *SCHEDULERS, "workloads/schedulers.py"),
    "--optimizers sparse_adam": ("no trial is left to run", "sparse"),
    "--lrs -0.1": ("lr must be a number above 0, not -0.1",),
    "--lrs 0.1 0": ("lr must be a number above 0, not 0.0",),
    "--lrs nan": ("lr must be a number above 0, not nan",),
    "--lrs inf": ("lr must be a number above 0, not inf",),
    "--lrs": ("--lrs needs at least one learning rate",),
    "--lrs adam": ("--lrs takes learning rates (0.01 0.1) or those of one optimizer (adam=0.001,0.003), not 'adam'",),
    "--more-lrs adamm=0.1": ("unknown optimizer 'adamm'",),
    "--more-lrs adamw=0.1": ("gives learning rates for adamw, which this sweep does not train", "--optimizers"),
    "--more-seeds -1": ("--more-seeds must be 0 or more, not -1",),
    "--seeds": ("no trial is left to run: the grid is empty",),
    "--epochs 0": ("epochs must be a whole number of at least 1, not 0",),
    "--epochs -3": ("epochs must be a whole number of at least 1, not -3",),
    "--epochs 3000000000": ("epochs must be at most 2147483647, not 3000000000",),
    "--seeds -1": ("seed must be a whole number of at least 0, not -1",),
    "--seeds 9223372036854775808": ("seed must be at most 9223372036854775807, not 9223372036854775808",),
    "--batch-size 0": ("batch_size must be a whole number of at least 1, not 0",),
    "--batch-size 55001": ("batch_size must be at most the 55000 training images, not 55001",),
    "--train-limit 63": ("batch_size must be at most the 63 training images, not 64",),
    "--train-limit 0": ("train_limit must be a whole number of at least 1, not 0",),
    "--grid lr": ("a grid axis is written NAME=VALUE,VALUE", "not 'lr'"),
    "--grid lr=": ("a grid axis is written NAME=VALUE,VALUE", "not 'lr='"),
    "--grid lr=0.1,,0.2": ("a value is empty in 'lr=0.1,,0.2'",),
    "--grid lr=fast": ("lr must be a number above 0, not 'fast'",),
    "--grid lr=[0.1,0.2]": ("lr must be a number above 0, not (0.1, 0.2)",),
    "--grid workload=nope": ("unknown workload 'nope'", "lenet_fashion_mnist"),
    "--grid optimizer=nope": ("unknown optimizer 'nope'", *OPTIMIZERS),
    "--grid scheduler=nope": ("unknown scheduler 'nope'", *SCHEDULERS),
    "--grid batch_size=55001": ("batch_size must be at most the 55000 training images, not 55001",),
    "--grid epochs=1.5": ("epochs must be a whole number of at least 1, not 1.5",),
    "--grid seed=true": ("seed must be a whole number of at least 0, not True",),
    "--grid train_limit=-1": ("train_limit must be a whole number of at least 1, not -1",),
    "--grid workload.clip_norm=-1": ("workload.clip_norm must be a number above 0, not -1",),
    "--grid scheduler.warmup_epochs=99": ("scheduler.warmup_epochs must be below the trial's 10 epochs, not 99",),
    "--grid momentum=0.9": ("unknown axis 'momentum'", "optimizer.<setting>", "batch_size"),
    "--grid optimizer.momentums=0.9": ("no setting 'momentums'", "momentum", "weight_decay"),
    "--grid optimizer.weight_decay=much": ("weight_decay", "much"),
    "--grid lr=0.1 lr=0.2": ("axis 'lr' is given twice",),
    "--dataset nope": ("unknown data set 'nope'", "fashion_mnist", "csv:PATH"),
    "--dataset csv:nope.csv": ("nope.csv cannot be read: No such file or directory", "give a CSV"),
    "--name a/b": ("a sweep's name must consist of letters, digits, '.', '_' and '-' (at most 100), not 'a/b'",),
    "--name ../up": ("a sweep's name must consist of letters", "not '../up'"),
    "--name .hidden": ("a sweep's name must consist of letters", "not '.hidden'"),
    "--storage-path nope://bucket": ("storage path 'nope://bucket' is not usable", "s3://bucket/folder"),
    "--storage-path s3:/bucket/x": ("storage path 's3:/bucket/x' looks like a URI that lacks a slash",),
    "--storage-path s3://": ("storage path 's3://' is not usable", "s3://bucket/folder"),
    "--storage-path /proc/nobody": ("cannot write to /proc/nobody/optimizers", "give another --storage-path"),
    "--cpus-per-trial -1": ("--cpus-per-trial must be 0 or more, not -1",),
    "--cpus-per-trial nan": ("--cpus-per-trial must be 0 or more, not nan",),
    f"--cpus-per-trial {CORES + 1}": (f"asks for more than this machine has: {CORES} CPU cores",),
    "--tf32": ("--tf32 has no effect on the CPU: leave it out, or add --gpus-per-trial",),
    "--cudnn-benchmark": ("--cudnn-benchmark has no effect on the CPU: leave it out, or add --gpus-per-trial",),
    "--no-cudnn-deterministic": ("--no-cudnn-deterministic has no effect on the CPU",),
    "--gpus-per-trial 1.5": ("--gpus-per-trial must be at most 1, not 1.5",),
    "--gpus-per-trial 2": ("at most 1, not 2: a trial trains on one GPU, and others would be idle",),
    "--max-concurrent 0": ("--max-concurrent must be 1 or more, not 0",),
    "--notify ftp://example.org": ("--notify takes an http:// or https:// URL",),
    "--care 0": ("--care is the smallest difference in accuracy that matters to you", "above 0", "not 0;"),
    "--care -1": ("above 0 and below 1", "not -1;", "leave it out if every difference matters"),
    "--care 3": ("0.003 is 0.3 %", "not 3;"),
    "--care nan": ("not nan;",),
    "--hours 1": ("--hours is a budget of --decide: add --decide",),
    "--max-seeds 9": ("--max-seeds is a budget of --decide", "or leave out --max-seeds"),
    "--decide --hours 0": ("--hours must be above 0, not 0",),
    "--decide --hours 0.0001": ("--hours 0.0001 is not enough for the first round", "give more hours"),
    "--decide --max-seeds 1": ("--max-seeds must be at least 2, as one seed says nothing about others, not 1",),
    "--decide --seeds 1 2 3 4 --max-seeds 3": ("--max-seeds must be at least 4, as this question gives 4, not 3",),
    "--decide --optimizers adam --lrs 0.01": ("--decide needs two configurations or more",),
    "--decide --grid workload=lenet_mnist,lenet_fashion_mnist": ("on one data set, not on fashion_mnist, mnist",),
    "--trial-timeout 0": ("--trial-timeout must be 1 or more, not 0",),
}
"""Command line -> what the complaint holds: what was given and what is allowed."""


@dataclass(frozen=True)
class Outcome:
    status: object
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Returns a function that runs a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, sweep: Sweep = SWEEP) -> Outcome:
        with pytest.raises(SystemExit) as end:
            cli.main(sweep, line.split())
        text = capsys.readouterr()
        return Outcome(end.value.code, text.out, text.err)

    return run


@pytest.mark.parametrize("line", REFUSED)
def test_refused(line: str, call: Call, tmp_path: Path) -> None:
    outcome = call(line)
    assert outcome.status == 2
    assert outcome.out in QUESTIONS
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, "one line"
    assert [part for part in REFUSED[line] if part not in outcome.err] == []
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    "line",
    [
        "--epochs ten",
        "--no-such-flag",
        "--lrs 0.1 fast",
        "--seeds 1.5",
        "--keep-checkpoints some",
        "--log paper",
        "--fresh yes",
        "loose words",
        "--storage-path",
    ],
)
def test_not_a_command_line(line: str, call: Call, tmp_path: Path) -> None:
    outcome = call(line)
    assert outcome.status == 2
    assert outcome.out in QUESTIONS
    assert line.split()[-1] in outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert "---" not in outcome.err
    assert "───" not in outcome.err
    assert list(tmp_path.iterdir()) == []


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is no text": ({"name": 3}, "the sweep's name must be a text, not 3"),
    "a name with a slash": ({"name": "../up"}, "a sweep's name must consist of letters"),
    "no question": ({"question": None}, "the sweep's question must be a text, not None"),
    "a mapping as grid": ({"grid": {"lr": 0.1}}, "the sweep's grid must be made with axis, product and chain"),
    "no grid": ({"grid": None}, "the sweep's grid must be made with axis, product and chain"),
    "an unknown axis": ({"grid": axis("optimiser", "adam")}, "unknown axis 'optimiser'"),
    "a setting nobody has": ({"grid": axis("scheduler.gama", 0.1)}, "has no setting 'gama'"),
    "an unknown optimizer": ({"optimizers": ("adamm",)}, "unknown optimizer 'adamm'"),
    "text as a number": ({"lrs": ("0.1",)}, "lr must be a number above 0, not '0.1'"),
    "half an epoch": ({"epochs": 2.5}, "epochs must be a whole number of at least 1, not 2.5"),
    "a batch above the data": ({"train_limit": 10}, "batch_size must be at most the 10 training images, not 64"),
}
"""What is wrong with a user's sweep -> its fields, and how the complaint begins."""


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_sweep_is_refused(what: str, call: Call, tmp_path: Path) -> None:
    fields, complaint = BROKEN[what]
    outcome = call("", replace(SWEEP, **fields))
    assert outcome.status == 2
    assert outcome.out in QUESTIONS
    assert outcome.err.startswith("error: ")
    assert complaint in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fresh", ["", "--fresh"])
def test_a_folder_of_another_program_is_left_alone(fresh: str, call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "optimizers"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    outcome = call(fresh)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.out in QUESTIONS
    assert f"{folder} holds files but no sweep.json" in outcome.err
    assert [path.name for path in folder.rglob("*")] == ["thesis.tex"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_refuses_alike(name: str, call: Call, tmp_path: Path) -> None:
    outcome = call("--optimizers nope", SCRIPTS[name])
    assert outcome.status == 2
    assert outcome.out in QUESTIONS
    assert outcome.err.startswith("error: unknown optimizer 'nope'; known: ")
    assert list(tmp_path.iterdir()) == []


def test_storage_path_that_is_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    outcome = call("--storage-path file")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert str(tmp_path / "file") in outcome.err
    assert (tmp_path / "file").read_text() == "mine"


def test_refusing_starts_nothing(tmp_path: Path) -> None:
    """In a process of its own, as this one may have Ray already."""
    code = """
import sys
from sweeps import cli
from sweeps.question.grid import axis
from sweeps.optimizers import SWEEP
for line in sys.argv[1:]:
    try:
        cli.main(SWEEP, line.split())
    except SystemExit as end:
        print("ended with", end.code)
print("ray" in sys.modules, "matplotlib" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *REFUSED, "--plan"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    ends = [found for found in done.stdout.split("\n") if found.startswith("ended with")]
    assert ends == ["ended with 2"] * len(REFUSED) + ["ended with 0"]
    assert done.stdout.endswith("False False\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["--optimizers nope", "--epochs 0"])
def test_refused_by_the_script(line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "sweeps" / "optimizers.py", *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout in QUESTIONS
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nobody"])
def test_an_address_where_nobody_answers(
    address: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tuning.session.ray.is_initialized", lambda: False)
    started = time.monotonic()
    outcome = call(f"--address {address} --train-limit 640")
    assert time.monotonic() - started < 30, "soon"
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"error: no Ray cluster answers at '{address}'")
    assert list(tmp_path.iterdir()) == [], "nothing is written, not even an empty folder"


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_without_the_cores_asked_for(call: Call, tmp_path: Path) -> None:
    outcome = call("--address auto --cpus-per-trial 99 --train-limit 640 --no-preflight")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("error: --cpus-per-trial 99 asks for more than any node has")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_has_started(
    number: signal.Signals, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("sweeps.runner.plan", lambda *_: signal.raise_signal(number))
    outcome = call("")
    assert (outcome.status, outcome.err) == (130, "interrupted; the same command goes on\n")
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_nobody_reads_on_is_no_fault(tmp_path: Path) -> None:
    for flags in ("--help", "--plan"):
        command = f"{sys.executable} {ROOT / 'sweeps' / 'optimizers.py'} {flags} | head -c 1"
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        assert "bug in forksweep" not in done.stderr


# -- what can be asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_plan(name: str, call: Call, tmp_path: Path) -> None:
    outcome = call("--plan --epochs 2 --train-limit 640", SCRIPTS[name])
    assert (outcome.status, outcome.err) == (0, "")
    assert SCRIPTS[name].question in outcome.out
    assert "trials" in outcome.out
    assert str(tmp_path / "results" / SCRIPTS[name].name) in outcome.out
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


def test_a_sweep_may_say_lists_for_tuples(call: Call) -> None:
    outcome = call("--plan", replace(SWEEP, optimizers=["sgd"], lrs=[0.1, 0.2], seeds=[1, 2]))  # type: ignore[arg-type]
    assert (outcome.status, outcome.err) == (0, "")
    assert "4 trials, 40 trial-epochs" in outcome.out


def test_plan_counts(call: Call) -> None:
    outcome = call("--plan --optimizers sgd adam --lrs 0.1 0.01 0.001 --seeds 1 2 --epochs 5")
    assert "12 trials, 60 trial-epochs" in outcome.out


def test_a_smoke_test_is_small_whatever_else_is_asked_for(call: Call) -> None:
    outcome = call(
        "--plan --smoke-test --epochs 9 --grid epochs=10,20 train_limit=100,200 lr=0.1,0.2 --optimizers sgd --seeds 1"
    )
    assert (outcome.status, outcome.err) == (0, "")
    assert "2 trials, 4 trial-epochs" in outcome.out
    assert "results/optimizers-smoke-test" in outcome.out


def test_help_explains_every_flag(call: Call) -> None:
    outcome = call("--help")
    assert outcome.status == 0
    assert SWEEP.question.split()[0] in outcome.out
    for field in fields(Options):
        assert f"-{field.name.replace('_', '-')}" in outcome.out


def test_scripts_are_found() -> None:
    assert "optimizers" in SCRIPTS
    for name, sweep in SCRIPTS.items():
        assert sweep.name == name, "results are where the script's name says"
        assert sweep.question.endswith("?")
