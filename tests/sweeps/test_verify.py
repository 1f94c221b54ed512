"""Receipts of real sweeps: an honest one is never complained of; whatever is changed afterwards is found."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import sweeps.optimizers
import sweeps.plateau
import sweeps.schedulers
from analysis.receipt import Receipt, read_receipt
from analysis.report import report_of
from analysis.store import SweepStore
from sweeps import Sweep, axis, chain, product
from sweeps.receipts.stored import Stored
from sweeps.verify import main, verify
from tests.sweeps.faults import kill_driver, wait_for_records
from tests.sweeps.runs import ROOT, finish, run_here, start, without_ray, write_script
from workloads.states import History
from workloads.states import test_digest as digest_of_test
from workloads.training import State
from workloads.trial import STATE_FIELDS, canonical_json, digest

pytestmark = pytest.mark.usefixtures("ray_cluster")

STRIPES = axis("workload", "lenet_synthetic")
SWEEP = Sweep(
    name="s",
    question="Is it what it was?",
    grid=product(
        STRIPES,
        chain(
            axis("scheduler", "none", "step"), product(axis("scheduler", "plateau"), axis("scheduler.patience", 0, 1))
        ),
    ),
    optimizers=("sgd_momentum",),
    lrs=(0.01, 1e6),
    epochs=4,
    train_limit=320,
)
"""Shared epochs, schedules that watch a metric, and trials that diverge."""


@dataclass
class Look:
    """What `verify` returned and printed."""

    receipt: Receipt
    text: str


def look(place: str, **how: Any) -> Look:
    text = io.StringIO()
    receipt = verify(place, console=Console(file=text, width=10_000), **how)
    return Look(receipt, text.getvalue())


def assert_verified(place: str, **how: Any) -> Look:
    """Trains everything again, and finds no difference."""
    found = look(place, **{"sample": None} | how)
    assert found.receipt.verified, found.text
    assert found.receipt.exact
    return found


# -- honest ---------------------------------------------------------------------------------------------------------

SMALL = {"dataset": "synthetic", "train_limit": 192, "epochs": 2}
HONEST: Mapping[str, tuple[Sweep, tuple[dict[str, Any], ...]]] = {
    "optimizers": (sweeps.optimizers.SWEEP, ({**SMALL, "optimizers": ("adam", "sgd_momentum"), "lrs": (0.01,)},)),
    "schedulers": (sweeps.schedulers.SWEEP, ({**SMALL, "lrs": (0.01,), "seeds": (1,)},)),
    "plateau": (sweeps.plateau.SWEEP, ({**SMALL, "epochs": 4},)),
    "shared, some diverge": (SWEEP, ({},)),
    "not shared": (SWEEP, ({"share": False},)),
    "no weights": (SWEEP, ({"keep_checkpoints": "none"},)),
    "all weights": (SWEEP, ({"keep_checkpoints": "all"},)),
    "best weights": (SWEEP, ({"keep_checkpoints": "best", "test_every_epoch": True},)),
    "longer, wider, narrower": (SWEEP, ({}, {"epochs": 6}, {"more_seeds": 1}, {"schedulers": ("none",)})),
    "stopped early": (SWEEP, ({"epochs": 9, "stop_early": "halving", "lrs": (0.01, 0.003, 0.001, 0.0001)},)),
    "raced": (SWEEP, ({"decide": True, "max_seeds": 3, "lrs": (0.01,), "epochs": 2},)),
    "rare classes": (
        SWEEP,
        (
            {
                "grid": (
                    "workload=lenet_synthetic",
                    "workload.thin_classes=[0,1]",
                    "workload.thin_to=0.2",
                    "workload.clip_norm=1.0",
                ),
                "epochs": 2,
            },
        ),
    ),
    "a line search": (SWEEP, ({"optimizers": ("lbfgs",), "lrs": (0.1,), "epochs": 2},)),
}


TABLES = ("epochs.parquet", "trials.parquet", "summary.parquet")
SHORT = {"shared, some diverge", "no weights", "longer, wider, narrower"}
"""Those that every run of the suite looks at; the others are for `pytest -m slow`."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in SHORT else pytest.mark.slow) for case in HONEST]
)
def test_an_honest_sweep_is_verified(case: str, storage: str) -> None:
    sweep, questions = HONEST[case]
    for options in questions:
        status, text = run_here(sweep, storage, preflight=False, **options)
        assert status == 0, text
    place = f"{storage}/{sweep.name}"
    before = {path: path.read_bytes() for path in Path(place).rglob("*") if path.suffix in (".parquet", ".pt")}
    found = assert_verified(place)
    assert found.receipt.tables == TABLES
    assert found.receipt.trained >= found.receipt.epochs
    trained = pl.read_parquet(f"{place}/parts/epochs-*.parquet").unique(("computed_by", "epoch")).height
    assert found.receipt.epochs >= trained, "and those in which a trial diverged"
    assert {path: path.read_bytes() for path in before} == before, "nothing that is stored is changed"


@pytest.mark.slow
def test_killed_and_resumed(storage: str, tmp_path: Path) -> None:
    arguments = (
        "name='s', question='?', grid=axis('workload', 'lenet_synthetic'), schedulers=('none', 'step', 'plateau'), "
        "lrs=(0.01,), epochs=30, train_limit=640"
    )
    script = write_script(tmp_path / "script", arguments, "from sweeps.question.grid import axis")
    process = start(script, storage, "--no-preflight")
    wait_for_records(storage, 4, process)
    kill_driver(process)
    finish(process)
    # What was written at the end of the run before, if there was one, is not of what has come in since.
    assert assert_verified(f"{storage}/s", sample=3).receipt.tables == ()
    process = start(script, storage, "--no-preflight")
    assert finish(process)[0] == 0
    assert assert_verified(f"{storage}/s").receipt.tables == TABLES


def test_taken_over_from_another_sweep(storage: str) -> None:
    for name, lrs in {"first": (0.01,), "second": (0.01, 0.003)}.items():
        status, text = run_here(SWEEP, storage, name=name, lrs=lrs)
        assert status == 0, text
    assert "taken over from first: 4 trials" in text
    assert_verified(f"{storage}/second")


def test_records_of_an_older_version_name_no_states(base: str) -> None:
    """They are trained again all the same, and what is trained on from their checkpoints goes on with the chain."""
    rewrite(
        base,
        pl.lit(None, pl.String).alias("state_before"),
        *(pl.lit(None, pl.String).alias(n) for n in STATE_FIELDS[1:]),
    )
    for path in Path(base).glob("checkpoints/*/*.pt"):
        state = State.from_bytes(path.read_bytes())
        history = tuple(replace(record, **dict.fromkeys(STATE_FIELDS)) for record in state.history)
        put_checkpoint(path, replace(state, history=history))
    found = assert_verified(base)
    assert "records of an older version: they name no states" in found.text
    status, text = run_here(SWEEP, str(Path(base).parent), epochs=6)
    assert status == 0, text
    assert_verified(base)


# -- changed afterwards ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a sweep that stays as it is."""
    storage = str(tmp_path_factory.mktemp("trained"))
    status, text = run_here(SWEEP, storage)
    assert status == 0, text
    return f"{storage}/s"


@pytest.fixture
def base(trained: str, tmp_path: Path) -> str:
    """A copy of it, to be changed; without a report, which takes seconds to draw anew."""
    return str(shutil.copytree(trained, tmp_path / "copy" / "s", ignore=shutil.ignore_patterns("report.html")))


def rewrite(place: str, *changes: pl.Expr) -> None:
    """Changes the records, and gives their part the checksum of what it holds now."""
    (path,) = Path(place).glob("parts/epochs-*.parquet")
    frame = pl.read_parquet(path).with_columns(*changes)
    path.unlink()
    content = io.BytesIO()
    frame.write_parquet(content)
    path.with_name(f"{path.name[:27]}-{digest(content.getvalue())}.parquet").write_bytes(content.getvalue())


def put_checkpoint(path: Path, state: State) -> None:
    """Replaces a checkpoint, and gives it the checksum of what it holds now."""
    path.unlink()
    content = state.to_bytes()
    path.with_name(f"{path.name[:5]}-{digest(content)}.pt").write_bytes(content)


def victim(place: str) -> tuple[str, str]:
    """Returns a trial whose epochs are its own from the third on, and what a person calls it."""
    stored = Stored.read(place)
    trial_id = next(i for i, rows in stored.rows.items() if len(rows) == 4 and rows[2]["computed_by"] == i)
    return trial_id, stored.names[trial_id]


def of(trial_id: str, epoch: int, name: str, value: Any) -> pl.Expr:
    here = (pl.col("trial_id") == trial_id) & (pl.col("epoch") == epoch)
    return pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)


def value_of(place: str, trial_id: str, epoch: int, name: str) -> Any:
    return Stored.read(place).rows[trial_id][epoch - 1][name]


@pytest.mark.parametrize("name", ["val_loss", "train_loss", "val_accuracy", "lr"])
def test_a_changed_number_is_found_by_the_chain_and_named_by_training(name: str, base: str) -> None:
    trial_id, label = victim(base)
    before = value_of(base, trial_id, 3, name)
    rewrite(base, of(trial_id, 3, name, before * 1.001))
    found = look(base, sample=1)
    assert not found.receipt.verified
    assert f"{label}, epoch 3: {name}: stored {before * 1.001}, retrained {before}" in found.text, found.text
    assert "by the epoch's numbers, which have been changed" in found.text
    alone = look(base, sample=0)
    assert not alone.receipt.verified, "without training too"
    assert alone.receipt.trained == 0


def test_a_changed_test_result(base: str) -> None:
    trial_id, label = victim(base)
    before = value_of(base, trial_id, 4, "test_accuracy")
    rewrite(base, of(trial_id, 4, "test_accuracy", 0.99))
    found = look(base)
    assert f"{label}, epoch 4: test_accuracy: stored 0.99, retrained {before}" in found.text
    assert "by the test results, which have been changed" in found.text


def make_names_anew(place: str) -> None:
    """Names all states by the numbers that are stored, as one who knows how it is done."""
    (path,) = Path(place).glob("parts/epochs-*.parquet")
    rows = []
    for _, own in pl.read_parquet(path).sort("trial_id", "epoch").group_by("trial_id", maintain_order=True):
        history, before = History(), None
        for row in own.iter_rows(named=True):
            history.add(row)
            row["state_before"] = before or row["state_before"]
            row["state_after"] = before = row["state_after"][:16] + history.digest
            row["test_digest"] = digest_of_test(before, row) if row["test_digest"] else None
            rows.append(row)
    content = io.BytesIO()
    pl.DataFrame(rows, schema=pl.read_parquet_schema(path)).write_parquet(content)
    path.unlink()
    path.with_name(f"{path.name[:27]}-{digest(content.getvalue())}.parquet").write_bytes(content.getvalue())


@pytest.mark.parametrize("weights", [True, False])
def test_a_changed_number_with_all_names_made_anew(weights: bool, base: str) -> None:
    """Then a checkpoint tells; where none is left, only training does."""
    trial_id, label = victim(base)
    rewrite(base, of(trial_id, 4, "val_loss", 0.125))
    make_names_anew(base)
    if not weights:
        shutil.rmtree(Path(base) / "checkpoints")
    without_training = look(base, sample=0)
    assert without_training.receipt.verified is not weights, without_training.text
    found = look(base, sample=None)
    assert f"{label}, epoch 4: val_loss: stored 0.125, retrained " in found.text


def test_a_changed_weight(base: str) -> None:
    trial_id, label = victim(base)
    (path,) = Path(base, "checkpoints", trial_id).glob("00004-*.pt")
    state = State.from_bytes(path.read_bytes())
    name = next(iter(state.model))
    state.model[name].view(-1)[0] += 1e-6
    put_checkpoint(path, state)
    found = look(base, sample=0)
    assert [one for one in found.receipt.differences if one.startswith(f"{label}, epoch 4: weights: stored ")]
    assert len(found.receipt.differences) == 1


def test_changed_optimizer_state_is_found(base: str) -> None:
    trial_id, label = victim(base)
    (path,) = Path(base, "checkpoints", trial_id).glob("00004-*.pt")
    state = State.from_bytes(path.read_bytes())
    state.optimizer[0]["momentum_buffer"].view(-1)[0] += 1e-6
    put_checkpoint(path, state)
    assert f"{label}, epoch 4: weights: stored " in look(base, sample=0).text


def test_checkpoints_that_are_exchanged_or_broken(base: str) -> None:
    one, other = sorted(Path(base).glob("checkpoints/*/00004-*.pt"))[:2]
    content, theirs = one.read_bytes(), other.read_bytes()
    one.unlink()
    other.unlink()
    one.with_name(other.name).write_bytes(theirs)
    other.with_name(f"00004-{digest(b'no file of ours')}.pt").write_bytes(b"no file of ours")
    found = look(base, sample=0)
    assert len(found.receipt.differences) == 2, found.text
    assert "damaged" in found.text
    assert content


def test_damage_and_losses(base: str) -> None:
    trial_id, label = victim(base)
    (path,) = Path(base).glob("parts/epochs-*.parquet")
    frame = pl.read_parquet(path)
    keep = (pl.col("trial_id") != trial_id) | (pl.col("epoch") != 2)
    content = io.BytesIO()
    frame.filter(keep).write_parquet(content)
    path.unlink()
    path.with_name(f"{path.name[:27]}-{digest(content.getvalue())}.parquet").write_bytes(content.getvalue())
    found = look(base, sample=0)
    assert f"{label}, epoch 2: record: stored none, there are later ones" in found.text
    assert f"{label}: records: stored 1, 4 promised" in found.text
    assert not look(base).receipt.verified, "what is left is trained again"
    (path,) = Path(base).glob("parts/epochs-*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    found = look(base)
    assert f"different: {path.relative_to(base)}: stored damaged" in found.text
    assert not found.receipt.verified


def change_table(place: str, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Changes a table that people read, and leaves what it says of its origin as it is."""
    store = SweepStore(str(Path(place).parent), Path(place).name)
    frame, metadata = store.read_table_and_metadata(name)
    assert frame is not None
    store.write_table(name, change(frame), metadata)


def in_first_row(name: str, value: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Returns what changes a column in the first row where it has a value."""
    first = (pl.col(name).is_not_null().cum_sum() == 1) & pl.col(name).is_not_null()
    return lambda frame: frame.with_columns(pl.when(first).then(value).otherwise(name).alias(name))


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ("epochs", "val_accuracy", pl.col("val_accuracy") + 1e-12),
        ("epochs", "epoch", pl.lit(9, pl.Int32)),
        ("trials", "final_val_accuracy", pl.col("final_val_accuracy") + 1e-9),
        ("trials", "status", pl.lit("failed")),
        ("trials", "lr", pl.lit(0.02)),
        ("summary", "final_val_accuracy_mean", pl.col("final_val_accuracy_mean") + 1e-4),
        ("summary", "position", pl.col("position") + 1),
    ],
)
def test_a_changed_table(table: str, name: str, value: pl.Expr, base: str) -> None:
    change_table(base, table, in_first_row(name, value))
    (difference,) = look(base, sample=0).receipt.differences
    assert f"{table}.parquet" in difference
    assert name in difference or name == "epoch"
    assert (" rows, not those of the records" in difference) == (name == "epoch")


def test_tables_without_a_row_or_a_column(base: str) -> None:
    change_table(base, "epochs", lambda frame: frame[1:])
    change_table(base, "trials", lambda frame: frame.drop("final_val_accuracy"))
    Path(base, "summary.parquet").write_bytes(b"no file of ours")
    rows, column, damaged = look(base, sample=0).receipt.differences
    records = pl.read_parquet(f"{base}/epochs.parquet").height + 1
    assert rows == f"epochs.parquet: stored {records - 1} rows, not those of the records, {records}"
    assert column == "trials.parquet, column final_val_accuracy: stored none, there must be one"
    assert damaged == "summary.parquet: stored damaged, its checksums do not match it"


def test_tables_of_ones_own_in_the_place_of_ours(base: str) -> None:
    """They are found, and made anew by the sweep's command."""
    for name in ("epochs", "trials", "summary"):
        pl.read_parquet(f"{base}/{name}.parquet")[:1].write_parquet(f"{base}/{name}.parquet")
    found = look(base, sample=0)
    assert found.receipt.differences == tuple(
        f"{table}: stored a table that no sweep wrote, it has been replaced" for table in TABLES
    )
    assert f"the sweep's command makes its tables anew: {Stored.read(base).asked.command}\n" in found.text
    status, text = run_here(SWEEP, str(Path(base).parent))
    assert status == 0, text
    assert look(base, sample=0).receipt.tables == TABLES


def test_tables_of_other_records_or_another_version_cannot_be_compared(base: str) -> None:
    store = SweepStore(str(Path(base).parent), "s")
    for name in ("epochs", "trials", "summary"):
        frame, metadata = store.read_table_and_metadata(name)
        assert frame is not None
        store.write_table(name, frame[:1], metadata | {"made_from": "something else"})
    found = look(base, sample=0)
    assert found.receipt.verified
    assert (found.receipt.tables, found.receipt.not_compared) == ((), TABLES)
    assert "tables: epochs.parquet, trials.parquet, summary.parquet cannot be compared, as made from " in found.text
    assert "holds; epochs.parquet, trials.parquet, summary.parquet not compared; no epoch trained again" in found.text


def test_a_trial_that_is_said_to_be_another(base: str) -> None:
    """Its settings in `sweep.json` are changed, the checksum is made anew: its id is another one then."""
    path = Path(base, "sweep.json")
    values = json.loads(path.read_text())
    values["trials"][0]["optimizer_settings"]["weight_decay"] = 0.5
    del values["sha256"]
    values["sha256"] = digest(canonical_json(values), 64)
    path.write_text(json.dumps(values))
    assert "trial: stored records, not in sweep.json" in look(base, sample=0).text


# -- trained differently --------------------------------------------------------------------------------------------

PATCHES = {
    "the network": ("workloads.training.build_model", "lambda *a: before(*a).requires_grad_().apply(changed)"),
    "later epochs only": ("workloads.training._train_epoch", "lambda c, e, *a: before(c, e if e < 3 else e + 1, *a)"),
}


@pytest.mark.parametrize("what", PATCHES)
def test_other_code(what: str, base: str, tmp_path: Path) -> None:
    """The program in a process whose code trains in another way; what a few steps do not show, training does."""
    name, other = PATCHES[what]
    module, _, function = name.rpartition(".")
    script = tmp_path / "patched.py"
    script.write_text(
        f"import importlib, sys\n"
        f"def changed(layer):\n    getattr(layer, 'weight', None) is None or layer.weight.data.mul_(1.001)\n"
        f"module = importlib.import_module({module!r})\nbefore = module.{function}\n"
        f"module.{function} = {other}\nfrom sweeps.verify import main\nmain(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), base, "--all"],
        capture_output=True,
        text=True,
        env=without_ray() | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    if what == "later epochs only":
        assert "chain of states: holds" in done.stdout
        assert "epoch 3: train_loss: stored " in done.stdout
        assert "epoch 2" not in done.stdout
    else:
        assert "code: stored another, for 8 trials; now one that trains differently" in done.stdout
    assert "not verified: " in done.stdout


def values() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


OWN = """
import numpy as np
from torch import nn
from sweeps import Sweep, main
from workloads import Workload

def network():
    return nn.Linear(3, 1)

def data():
    x = np.load("values.npy")
    return x, x[:, :1] * 2

SWEEP = Sweep(
    name="own", question="?", workload=Workload(name="mine", network=network, data=data, loss="mse"),
    optimizers=("adam",), schedulers=("none",), lrs=(0.01,), epochs=2,
)
if __name__ == "__main__":
    main(SWEEP)
"""


def run_program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = without_ray() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, env=env)


def test_a_network_and_data_of_ones_own(tmp_path: Path) -> None:
    """With the script that states them; the report says so. With another file of data it is refused, and why."""
    (tmp_path / "own.py").write_text(OWN)
    np.save(tmp_path / "values.npy", values())
    done = run_program(tmp_path, "own.py")
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stdout.splitlines() if line.startswith("not verified yet: "))
    assert said.endswith("-m sweeps.verify results/own --sample 5 --script own.py")

    without = run_program(tmp_path, "-m", "sweeps.verify", "results/own")
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "workload 'mine' is in a file of your own: give the script that trained it with --script" in without.stderr
    missing = run_program(tmp_path, "-m", "sweeps.verify", "results/own", "--script", "no.py")
    assert (missing.returncode, missing.stderr) == (2, "error: --script no.py is no file\n")

    words = ("-m", "sweeps.verify", "results/own", "--script", "own.py")
    done = run_program(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout

    np.save(tmp_path / "values.npy", values() + np.float32(1e-3))
    done = run_program(tmp_path, *words)
    assert (done.returncode, done.stderr) == (1, "")
    assert "data set mine: stored " in done.stdout
    (tmp_path / "values.npy").unlink()
    done = run_program(tmp_path, *words)
    assert (done.returncode, done.stderr) == (1, "")
    assert "No such file" in done.stdout


# -- another type of machine ----------------------------------------------------------------------------------------


def as_if_from_elsewhere(place: str) -> None:
    """Lets the probes have come to something else, as on another type of machine."""
    path = Path(place, "sweep.json")
    values = json.loads(path.read_text())
    for kind in values["fingerprints"]["kinds"].values():
        kind |= {"machine": "0" * 16, "training": "0" * 16}
    del values["sha256"]
    values["sha256"] = digest(canonical_json(values), 64)
    path.write_text(json.dumps(values))


def test_another_type_of_machine(base: str) -> None:
    as_if_from_elsewhere(base)
    trial_id, label = victim(base)
    before = value_of(base, trial_id, 4, "val_loss")
    rewrite(base, of(trial_id, 4, "val_loss", before * 1.001))
    make_names_anew(base)
    shutil.rmtree(Path(base) / "checkpoints")
    found = look(base, sample=None)
    assert found.receipt.verified, found.text
    assert not found.receipt.exact
    assert "the same bits cannot be expected here; losses and accuracies are compared within 10%" in found.text
    assert "equal within the tolerance for another type of machine" in found.text
    rewrite(base, of(trial_id, 4, "val_loss", before + 1))
    make_names_anew(base)
    found = look(base, sample=None)
    assert f"{label}, epoch 4: val_loss: stored {before + 1}, retrained {before}" in found.text


# -- the program ----------------------------------------------------------------------------------------------------


def test_what_is_said_and_stored(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = SweepStore(str(Path(base).parent), "s")
    Path(base, "report.html").touch()
    with pytest.raises(SystemExit) as end:
        main([base, "--sample", "2", "--sample-seed", "7"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    first, chain_, tables, plan, chance_, *_, last = said.splitlines()
    records, kept = len(store.read_epochs()), len(store.list_checkpoints())
    assert first == f"{base}: 8 trials, {records} records, {kept} checkpoint{'' if kept == 1 else 's'}"
    assert chain_ == "chain of states: holds, from the seeds to the final weights"
    assert tables == "tables: epochs.parquet, trials.parquet, summary.parquet match the records"
    assert "2 of " in plan
    assert "(--sample-seed 7)" in plan
    assert chance_ == "if 1 in 10 epochs were wrong, 2 samples would find one with probability 0.19"
    assert last.startswith("verified: the chain of ")
    assert "; 3 tables match the records; " in last
    assert last.endswith("all numbers bit for bit equal")
    receipt = read_receipt(store)
    assert receipt is not None
    assert receipt.sample_seed == 7
    assert report_of(store).receipts == (f"{receipt.said()}; {receipt.when.replace('T', ' ')[:19]} UTC",)
    assert receipt.said() in " ".join(Path(base, "report.html").read_text().replace("V", "v").split())

    status, text = run_here(SWEEP, str(Path(base).parent), epochs=5, lrs=(0.01,))
    assert status == 0, text
    assert "; more has been stored since: " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no sweep found at 'nowhere'"),
        (["SWEEP", "--sample", "-1"], "--sample must be 0 or more, not -1"),
        (["SWEEP", "--sample", "many"], "many"),
        ([], "SWEEP"),
    ],
)
def test_mistakes_are_said_in_a_line(
    words: list[str], message: str, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([trained if word == "SWEEP" else word for word in words])
    assert end.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert message in complaint
