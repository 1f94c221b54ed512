"""Keywords of `run`: every option, in any natural form; what is wrong is said in a line."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.commands import with_flag
from sweeps import Sweep, axis, chain, product, run
from sweeps.question.command import ONCE
from sweeps.question.grid import parse_axis
from sweeps.question.keywords import Call, in_python, options_of
from sweeps.question.options import Options
from sweeps.question.sweep import plan
from workloads import Workload
from workloads.errors import InputError

SWEEP = Sweep(name="keywords", question="Which?", optimizers=("adam", "sgd"), lrs=(0.01,), epochs=2)
OPTIONS = SWEEP.default_options()


NATURAL: list[tuple[str, Any, Any]] = [
    ("seeds", 1, (1,)),
    ("seeds", (1, 2), (1, 2)),
    ("seeds", range(3), (0, 1, 2)),
    ("seeds", np.arange(2), (0, 1)),
    ("seeds", np.int64(7), (7,)),
    ("seeds", pl.Series([3, 4]), (3, 4)),
    ("seeds", None, None),
    ("more_seeds", np.int32(4), 4),
    ("epochs", 3, 3),
    ("optimizers", "adam", ("adam",)),
    ("optimizers", ["adam", "sgd"], ("adam", "sgd")),
    ("lrs", 0.01, ("0.01",)),
    ("lrs", 1, ("1.0",)),
    ("lrs", (0.001, 1e-05), ("0.001", "1e-05")),
    ("lrs", np.array([0.1, 0.3]), ("0.1", "0.3")),
    ("lrs", "adam=0.01,0.1", ("adam=0.01,0.1",)),
    ("lrs", ("adam=0.01,0.1", 0.3), ("adam=0.01,0.1", "0.3")),
    ("lrs", {"adam": (0.001, 0.003), "sgd": 0.1}, ("adam=0.001,0.003", "sgd=0.1")),
    ("more_lrs", {"adam": [0.3]}, ("adam=0.3",)),
    ("grid", "lr=0.01,0.1", ("lr=0.01,0.1",)),
    ("grid", {"optimizer.weight_decay": (0, 1e-4)}, ("optimizer.weight_decay=0,0.0001",)),
    (
        "grid",
        {"optimizer.nesterov": True, "scheduler.monitor": "val_loss"},
        ("optimizer.nesterov=true", "scheduler.monitor=val_loss"),
    ),
    ("grid", {"optimizer.betas": [(0.9, 0.99), (0.8, 0.9)]}, ("optimizer.betas=[0.9, 0.99],[0.8, 0.9]",)),
    ("grid", {"workload.clip_norm": (None, np.float64(1.5))}, ("workload.clip_norm=null,1.5",)),
    ("grid", axis("batch_size", 32, 64), ("batch_size=32,64",)),
    ("grid", product(axis("batch_size", 32, 64), axis("lr", 0.1, 0.2)), ("batch_size=32,64", "lr=0.1,0.2")),
    ("care", np.float32(0.5), 0.5),
    ("hours", 2, 2.0),
    ("decide", True, True),
    ("plan", np.True_, True),
    ("storage_path", Path("a") / "b", "a/b"),
    ("keep_checkpoints", "all", "all"),
    ("log", "tensorboard", ("tensorboard",)),
    ("address", None, None),
]


@pytest.mark.parametrize(("name", "given", "held"), NATURAL, ids=lambda value: str(value)[:40])
def test_natural_values(name: str, given: Any, held: Any) -> None:
    found = getattr(options_of(OPTIONS, {name: given}), name)
    assert found == held
    assert type(found) is type(held)


def test_values_of_a_grid_come_back_as_they_were_given() -> None:
    values = (0, 1e-4, True, None, "true", "val_loss", (0.9, 0.99))
    (text,) = options_of(OPTIONS, {"grid": {"optimizer.x": list(values)}}).grid
    assert [point["optimizer.x"] for point in parse_axis(text)] == list(values)


def test_every_option_is_a_keyword() -> None:
    values = {field.name: getattr(OPTIONS, field.name) for field in fields(Options)}
    assert options_of(OPTIONS, values) == OPTIONS


WRONG = [
    ({"epoch": 3}, r"^unknown keyword 'epoch' \(did you mean 'epochs'\?\); known: name, storage_path, epochs, "),
    ({"epochs": "3"}, r"^epochs must be a whole number or None, not '3'$"),
    ({"epochs": 2.5}, r"^epochs must be a whole number or None, not 2.5$"),
    ({"epochs": True}, r"^epochs must be a whole number or None, not True$"),
    ({"seeds": "1 2"}, r"^seeds must be a whole number or several or None, not '1 2'$"),
    ({"seeds": {1: 2}}, r"^seeds must be a whole number"),
    ({"name": None}, r"^name must be a text, not None$"),
    ({"hours": "2"}, r"^hours must be a number or None, not '2'$"),
    ({"decide": 1}, r"^decide must be True or False, not 1$"),
    ({"decide": "yes"}, r"^decide must be True or False, not 'yes'$"),
    ({"optimizers": 3}, r"^optimizers must be a text or several or None, not 3$"),
    ({"lrs": object}, r"^lrs must be learning rates: 0.01, \(0.01, 0.1\) or "),
    ({"lrs": {"adam": {}}}, r"^lrs"),
    ({"lrs": {1: 0.1}}, r"^lrs must be learning rates"),
    ({"lrs": True}, r"^lrs must be learning rates"),
    ({"lrs": "fast"}, r"^lrs takes learning rates \(0.01 0.1\)"),
    ({"lrs": ()}, r"^lrs needs at least one learning rate"),
    ({"grid": {"lr": ()}}, r"^grid must be axes and their values"),
    ({"grid": {"lr": [{}]}}, r"^grid must be axes and their values"),
    ({"grid": 3}, r"^grid must be axes and their values"),
    ({"grid": {"workload.balance": "a,b"}}, r"^a value of grid cannot be empty or have commas"),
    ({"grid": chain(axis("lr", 1), axis("batch_size", 2))}, r"^grid takes whole axes; what chain and zipped make"),
    ({"grid": {"optimiser.momentum": 1}}, r"^unknown axis 'optimiser.momentum' \(did you mean 'optimizer'\?\)"),
    ({"keep_checkpoints": "al"}, r"^keep_checkpoints must be one of .* not 'al' \(did you mean 'all'\?\)$"),
    ({"log": ("wandb",)}, r"^log must be one of 'tensorboard', 'mlflow', not 'wandb'$"),
    ({"storage_path": 3}, r"^storage_path must be a text, not 3$"),
    ({"hours": 1}, r"^hours is a budget of decide=True: add decide=True, or leave out hours$"),
    ({"decide": True, "optimizers": "adam"}, r"^decide=True needs two configurations or more"),
    ({"cpus_per_trial": 999}, r"^cpus_per_trial=999 asks for more than this machine has"),
    ({"optimizers": "adm"}, r"^unknown optimizer 'adm' \(did you mean 'adam'\?\)"),
    ({"dataset": "csv:"}, r"^no CSV given; pass one with dataset='csv:PATH'$"),
    ({"more_seeds": -1}, r"^more_seeds must be 0 or more, not -1$"),
]


@pytest.mark.parametrize(("keywords", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_in_a_line(keywords: Any, message: str, storage: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        run(SWEEP, **{"storage_path": storage} | keywords)
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)
    assert not Path(storage).exists()


def test_only_sweeps_are_run() -> None:
    with pytest.raises(InputError, match=r"^run takes a Sweep, not 'optimizers': run\(Sweep\("):
        run("optimizers")  # type: ignore[arg-type]


# -- texts ------------------------------------------------------------------------------------------------------------


def test_a_call_says_what_differs_from_the_sweep() -> None:
    keywords = {"seeds": (1, 2), "lrs": {"adam": (0.001, 0.003)}, "epochs": 2, "more_lrs": [0.1, 0.3], "decide": True}
    call = Call(SWEEP, options_of(OPTIONS, keywords | {"fresh": True, "plan": True}), {"_1": SWEEP, "MINE": SWEEP})
    assert call.command == "run(MINE, seeds=(1, 2), lrs='adam=0.001,0.003', more_lrs=(0.1, 0.3), decide=True)"


@pytest.mark.parametrize(("name", "given", "held"), NATURAL, ids=lambda value: str(value)[:40])
def test_a_call_means_the_same_again(name: str, given: Any, held: Any) -> None:
    """What is suggested works when typed: it comes to the same options."""
    options = options_of(OPTIONS, {name: given})
    text = Call(SWEEP, options, {}).command

    def again(sweep: Sweep, **keywords: Any) -> tuple[Sweep, Options]:
        return sweep, options_of(sweep.default_options(), keywords)

    sweep, found = eval(text, {"run": again, "Sweep": Sweep})
    assert sweep == SWEEP
    once = {flag.removeprefix("--").replace("-", "_") for flag in ONCE}
    for field in fields(Options):
        expected = getattr(OPTIONS if field.name in once else options, field.name)
        if field.name in ("lrs", "more_lrs") and expected:
            expected = tuple(value if "=" in value else str(float(value)) for value in expected)
        assert getattr(found, field.name) == expected, text


def test_a_call_keeps_secrets() -> None:
    options = options_of(OPTIONS, {"storage_path": "s3://key:secret@bucket/folder"})
    assert Call(SWEEP, options, {"S": SWEEP}).command == "run(S, storage_path='s3://bucket/folder')"


def test_how_to_go_on() -> None:
    call = Call(SWEEP, options_of(OPTIONS, {"fresh": True, "epochs": 3}), {"S": SWEEP})
    assert call.goes_on() == "run it again to go on"
    call.started_over = True
    assert call.goes_on() == "to go on, leave out fresh=True: run(S, epochs=3)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--hours 0.1 is not enough", "hours=0.1 is not enough"),
        ("--hours must be above 0", "hours must be above 0"),
        ("use either --grid or --dataset", "use either grid or dataset"),
        ("give another --storage-path", "give another storage_path"),
        ("--fresh deletes 3 trials", "fresh=True deletes 3 trials"),
        ("with --no-preflight", "with preflight=False"),
        ("(--retry-failed runs them again)", "(retry_failed=True runs them again)"),
        ("run it with --address auto", "run it with address='auto'"),
        ("--log mlflow failed", "log='mlflow' failed"),
        ("analysis/report.py --all, and a--b", "analysis/report.py --all, and a--b"),
    ],
)
def test_flags_are_said_as_keywords(text: str, expected: str) -> None:
    assert in_python(text) == expected


def test_keywords_make_the_same_plan_as_flags() -> None:
    keywords = {"lrs": {"adam": (0.001, 0.003)}, "seeds": (1, 2), "grid": {"optimizer.weight_decay": (0, 1e-4)}}
    flags = {
        "lrs": ("adam=0.001,0.003",),
        "seeds": (1, 2),
        "grid": ("optimizer.weight_decay=0,1e-4",),
    }
    assert plan(SWEEP, options_of(OPTIONS, keywords)) == plan(SWEEP, replace(OPTIONS, **flags))  # type: ignore[arg-type]


def test_a_sweep_of_a_workload_of_one_s_own_is_said_by_names() -> None:
    mine = Workload(name="mine", network=object, data=None)  # type: ignore[arg-type]
    sweep = Sweep(name="a", question="?", workload=mine)
    options = replace(sweep.default_options(), more_seeds=4)
    named = "run(Sweep(name='a', question='?', workload=net), more_seeds=4)"
    assert Call(sweep, options, {"net": mine}).command == named
    assert Call(sweep, options, {}).command == "run(..., more_seeds=4)", "a function has no text"
    assert with_flag("run(..., more_seeds=4)", "--more-seeds", "6") == "run(..., more_seeds=6)"
