"""Plans: what sweeps ask by themselves, how options narrow and widen it, what is left out and why."""

import importlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps.question.grid import axis, chain, product
from sweeps.question.sweep import FLAG_OF_AXIS, Plan, Sweep, plan
from tests.sweeps import own_sweep
from workloads.errors import InputError
from workloads.optimizers import OPTIMIZERS
from workloads.schedulers import SCHEDULERS
from workloads.trial import TrialConfig

ONE = Sweep(name="one", question="?", lrs=(0.1,), epochs=4, train_limit=640)


def planned(sweep: Sweep = ONE, **options: Any) -> Plan:
    return plan(sweep, replace(sweep.default_options(), **options))


def values(trials: tuple[TrialConfig, ...], *fields: str) -> list[Any]:
    """Returns a field of every trial, or several; a setting is written as its axis is."""

    def value(trial: TrialConfig, field: str) -> Any:
        kind, dot, setting = field.partition(".")
        return getattr(trial, f"{kind}_settings")[setting] if dot else getattr(trial, field)

    rows = [tuple(value(trial, field) for field in fields) for trial in trials]
    return [row[0] for row in rows] if len(fields) == 1 else rows


# -- the scripts ----------------------------------------------------------------------------------------------------

SCRIPTS = {
    path.stem: importlib.import_module(f"sweeps.{path.stem}")
    for path in Path(sweeps.__file__).parent.glob("*.py")
    if "SWEEP = Sweep(" in path.read_text()
}


def test_scripts() -> None:
    assert SCRIPTS.keys() == {"optimizers", "schedulers", "plateau", "cuts", "luck"}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_are_one_page(script: Any) -> None:
    source = Path(script.__file__).read_text()
    assert len(source.splitlines()) <= 60
    assert script.__doc__.startswith(f"{script.SWEEP.question}\n\n    python sweeps/{script.SWEEP.name}.py\n\n")
    assert re.search(r"minutes on 2 cores", script.__doc__), "how long it takes"
    assert f"{script.SWEEP.epochs} epochs" in script.__doc__


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_pictures_that_scripts_name_exist(script: Any) -> None:
    from analysis.plots import PLOTS

    assert set(script.SWEEP.plots) <= {plot.name for plot in PLOTS}


def test_optimizers_by_default() -> None:
    found = planned(SCRIPTS["optimizers"].SWEEP)
    grids = {name: OPTIMIZERS[name].lrs for name in ("sgd", "sgd_momentum", "rmsprop", "adam")}
    assert values(found.trials, "optimizer", "lr") == [(name, lr) for name, lrs in grids.items() for lr in lrs]
    assert set(values(found.trials, "epochs", "seed", "scheduler", "batch_size")) == {(10, 21, "none", 64)}


def test_schedulers_by_default() -> None:
    found = planned(SCRIPTS["schedulers"].SWEEP)
    names = ["none", "time_based", "step", "exponential", "plateau", "cosine", "one_cycle"]
    assert values(found.trials, "scheduler") == names
    assert set(values(found.trials, "optimizer", "optimizer.momentum", "lr", "epochs", "seed")) == {
        ("sgd_momentum", 0.9, 0.02, 30, 21)
    }
    by_name = dict(zip(names, found.trials, strict=True))
    plateau = ("monitor", "factor", "patience", "threshold")
    assert values((by_name["plateau"],), *(f"scheduler.{s}" for s in plateau)) == [("train_loss", 0.3, 2, 0.1)]
    assert by_name["step"].scheduler_settings["step_size"] == 10


def test_plateau_by_default() -> None:
    found = planned(SCRIPTS["plateau"].SWEEP)
    expected = [(f, p, t) for f in (0.1, 0.3, 0.5) for p in (1, 2, 5, 10) for t in (1e-4, 1e-3, 1e-2, 1e-1)]
    assert values(found.trials, "scheduler.factor", "scheduler.patience", "scheduler.threshold") == expected
    assert set(values(found.trials, "optimizer", "lr", "epochs", "scheduler", "scheduler.monitor", "seed")) == {
        ("sgd_momentum", 0.02, 30, "plateau", "train_loss", 21)
    }


def test_cuts_by_default() -> None:
    found = planned(SCRIPTS["cuts"].SWEEP)
    assert found.left_out == {}
    cut = [trial for trial in found.trials if trial.scheduler == "cut"]
    expected = {(f, k) for f in (0.1, 0.3) for k in (1, 3, 5, 7, 9)}
    assert set(values(tuple(cut), "scheduler.factor", "scheduler.after_epoch")) == expected
    assert Counter(values(found.trials, "scheduler", "seed")) == {
        (scheduler, seed): count
        for scheduler, count in {"none": 1, "cut": 10, "plateau": 4}.items()
        for seed in (1, 2, 3)
    }
    assert set(values(found.trials, "optimizer", "lr", "epochs")) == {("sgd_momentum", 0.02, 10)}


def test_cuts_that_never_come_are_left_out() -> None:
    found = planned(SCRIPTS["cuts"].SWEEP, epochs=6)
    assert set(values(tuple(t for t in found.trials if t.scheduler == "cut"), "scheduler.after_epoch")) == {1, 3, 5}
    (reason,) = found.left_out
    assert "the rate is never cut" in reason
    assert found.left_out[reason] == 2 * 2 * 3, "after epochs 7 and 9, by two factors, of three seeds"


def test_own_sweep() -> None:
    """The example in the README: Adam with and without weight decay, AdamW with it, five seeds each."""
    found = planned(own_sweep.SWEEP)
    expected = [("adam", 0.0), *((name, decay) for name in ("adam", "adamw") for decay in (1e-4, 1e-3, 1e-2))]
    assert Counter(values(found.trials, "optimizer", "optimizer.weight_decay")) == dict.fromkeys(expected, 5)
    assert set(values(found.trials, "lr", "scheduler", "scheduler.t_max")) == {(1e-3, "cosine", 10)}
    assert found.left_out == {}


def test_own_sweep_is_short() -> None:
    lines = Path(own_sweep.__file__).read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 25


# -- narrowing and widening -----------------------------------------------------------------------------------------


def test_every_option_of_an_axis_is_a_field_of_a_sweep() -> None:
    options = vars(ONE.default_options())
    asked = {flag: options[flag] for flag in FLAG_OF_AXIS.values()}
    assert asked == {flag: getattr(ONE, flag) for flag in FLAG_OF_AXIS.values()} | {"lrs": ("0.1",)}


def test_flags_narrow_and_widen() -> None:
    base = planned()
    assert values(base.trials, "optimizer", "scheduler", "lr", "epochs", "seed", "batch_size", "train_limit") == [
        ("sgd_momentum", "none", 0.1, 4, 21, 64, 640)
    ]
    flags = {"optimizers": ("sgd", "adam"), "schedulers": ("step",), "lrs": (0.1, 0.2), "seeds": (1, 2)}
    wide = planned(**flags, epochs=6, batch_size=32, train_limit=64)
    fields = ["optimizer", "scheduler", "lr", "seed", "epochs", "batch_size", "train_limit"]
    assert sorted(values(wide.trials, *fields)) == [
        (name, "step", lr, seed, 6, 32, 64) for name in ("adam", "sgd") for lr in (0.1, 0.2) for seed in (1, 2)
    ]
    assert set(values(wide.trials, "scheduler.step_size")) == {2}, "a third of what --epochs says"


def test_the_whole_table() -> None:
    found = planned(schedulers=("all",))
    assert values(found.trials, "scheduler") == list(SCHEDULERS)
    found = planned(optimizers=("all",))
    applicable = [row.name for row in OPTIMIZERS.values() if not row.not_applicable]
    assert values(found.trials, "optimizer") == applicable


def test_each_optimizer_has_its_own_learning_rates() -> None:
    found = planned(replace(ONE, lrs=None), optimizers=("sgd", "adam"))
    expected = [(name, lr) for name in ("sgd", "adam") for lr in OPTIMIZERS[name].lrs]
    assert values(found.trials, "optimizer", "lr") == expected


def test_learning_rates_of_one_optimizer_only() -> None:
    own = {name: list(OPTIMIZERS[name].lrs) for name in ("sgd", "adam")}
    for given, expected in {
        ("lrs", ("adam=0.5,0.6",)): own | {"adam": [0.5, 0.6]},
        ("lrs", ("0.4", "adam=0.5", "adam=0.6")): {"sgd": [0.4], "adam": [0.5, 0.6]},
        ("more_lrs", ("adam=0.5",)): own | {"adam": [*own["adam"], 0.5]},
        ("more_lrs", ("0.4", "adam=0.5")): {"sgd": [*own["sgd"], 0.4], "adam": [*own["adam"], 0.4, 0.5]},
        ("more_lrs", (f"adam={own['adam'][0]}",)): own,
    }.items():
        found = planned(replace(ONE, lrs=None), optimizers=("sgd", "adam"), **dict([given]))
        assert values(found.trials, "optimizer", "lr") == [(name, lr) for name, lrs in expected.items() for lr in lrs]


def test_more_learning_rates_than_a_sweep_names_itself() -> None:
    assert values(planned(more_lrs=("0.2",)).trials, "lr") == [0.1, 0.2]
    assert values(planned(grid=("lr=0.3",), more_lrs=("0.2",)).trials, "lr") == [0.3, 0.2]
    own = replace(ONE, grid=product(axis("lr", 0.5, 0.6)))
    assert values(planned(own, more_lrs=("sgd_momentum=0.2",)).trials, "lr") == [0.5, 0.2, 0.6]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"lrs": ("a",)},
            "--lrs takes learning rates (0.01 0.1) or those of one optimizer (adam=0.001,0.003), not 'a'",
        ),
        ({"more_lrs": ("adam=0.1,",)}, "--more-lrs takes learning rates"),
        ({"more_lrs": ("adma=0.1",)}, "unknown optimizer 'adma'"),
        (
            {"more_lrs": ("adam=0.1",)},
            "for adam, which this sweep does not train; it trains sgd_momentum (--optimizers)",
        ),
        ({"more_lrs": ("-1",)}, "lr must be a number above 0, not -1.0"),
        ({"more_seeds": -1}, "--more-seeds must be 0 or more, not -1"),
    ],
    ids=str,
)
def test_rates_and_seeds_that_cannot_be(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        planned(**given)


def test_more_seeds_are_the_next_that_are_free() -> None:
    assert values(planned(more_seeds=3).trials, "seed") == [21, 1, 2, 3]
    assert values(planned(seeds=(2, 3), more_seeds=2).trials, "seed") == [2, 3, 1, 4]
    assert values(planned(grid=("seed=1,5",), more_seeds=1).trials, "seed") == [1, 5, 2]
    assert Counter(values(planned(PLATEAUS, more_seeds=2).trials, "seed")) == {1: 2, 2: 2, 3: 2, 4: 2}


def test_an_axis_concerns_the_rows_that_have_its_setting() -> None:
    found = planned(schedulers=("none", "plateau"), grid=("scheduler.factor=0.1,0.5",))
    assert values(found.trials, "scheduler") == ["none", "plateau", "plateau"]
    assert found.notes == ("scheduler.factor has no effect on none",)
    with pytest.raises(InputError, match="scheduler 'none' has no setting 'factro'"):
        planned(grid=("scheduler.factro=0.1",))


def test_any_setting_is_an_axis() -> None:
    found = planned(schedulers=("plateau",), grid=("optimizer.weight_decay=0,1e-4", "scheduler.factor=0.1,0.5"))
    assert values(found.trials, "optimizer.weight_decay", "scheduler.factor") == [
        (0.0, 0.1),
        (0.0, 0.5),
        (1e-4, 0.1),
        (1e-4, 0.5),
    ]


def test_grid_takes_fields_too() -> None:
    found = planned(grid=("epochs=2,3", "scheduler=none,cosine", "train_limit=64,128"))
    fields = values(found.trials, "epochs", "scheduler", "train_limit")
    assert sorted(fields) == [(e, s, n) for e in (2, 3) for s in ("cosine", "none") for n in (64, 128)]


PLATEAUS = replace(ONE, schedulers=("plateau",), grid=product(axis("scheduler.factor", 0.1, 0.5), axis("seed", 1, 2)))


def test_options_replace_axes_of_the_sweeps_own_grid() -> None:
    fields = ["scheduler.factor", "seed"]
    assert values(planned(PLATEAUS).trials, *fields) == [(0.1, 1), (0.1, 2), (0.5, 1), (0.5, 2)]
    assert values(planned(PLATEAUS, seeds=(7,)).trials, *fields) == [(0.1, 7), (0.5, 7)]
    assert sorted(values(planned(PLATEAUS, grid=("scheduler.factor=0.2",)).trials, *fields)) == [(0.2, 1), (0.2, 2)]
    wider = planned(PLATEAUS, grid=("scheduler.patience=1,2",), seeds=(7,))
    assert values(wider.trials, *fields, "scheduler.patience") == [(f, 7, p) for f in (0.1, 0.5) for p in (1, 2)]


def test_points_of_a_chain_may_leave_axes_open() -> None:
    """What one point says and another does not comes from the sweep's fields."""
    grid = chain(
        product(axis("optimizer", "sgd"), axis("lr", 0.5)),
        axis("optimizer", "adam"),
        product(axis("scheduler", "step"), axis("scheduler.gamma", 0.1)),
    )
    found = planned(replace(ONE, grid=grid))
    assert values(found.trials, "optimizer", "lr", "scheduler") == [
        ("sgd", 0.5, "none"),
        ("adam", 0.1, "none"),
        ("sgd_momentum", 0.1, "step"),
    ]
    found = planned(replace(ONE, grid=grid, lrs=None))
    expected = [("sgd", 0.5), *(("adam", lr) for lr in OPTIMIZERS["adam"].lrs)]
    assert values(found.trials, "optimizer", "lr")[: len(expected)] == expected


def test_equal_trials_are_one() -> None:
    assert len(planned(lrs=(0.1, 0.1), grid=("optimizer.momentum=0.9,0.9",)).trials) == 1
    assert len(planned(grid=("optimizer.weight_decay=0,0.0",)).trials) == 1


def test_seeds_share_everything_but_the_seed() -> None:
    one, other = planned(seeds=(1, 2)).trials
    assert one.replace(seed=2) == other


# -- left out -------------------------------------------------------------------------------------------------------


def test_pairs_that_make_no_sense_are_counted() -> None:
    found = planned(
        optimizers=("sgd",), lrs=(0.1, 0.2), grid=("optimizer.nesterov=true,false", "optimizer.momentum=0,0.9")
    )
    assert set(values(found.trials, "optimizer.nesterov", "optimizer.momentum")) == {
        (False, 0),
        (False, 0.9),
        (True, 0.9),
    }
    assert len(found.trials) == 6
    assert found.left_out == {"optimizer 'sgd': nesterov needs momentum above 0": 2}


def test_everything_at_once() -> None:
    found = planned(optimizers=("all",), schedulers=("all",))
    applicable = [row for row in OPTIMIZERS.values() if not row.not_applicable]
    unscheduled = [row for row in applicable if row.unscheduled]
    count = (len(applicable) - len(unscheduled)) * len(SCHEDULERS) + len(unscheduled)
    assert len(found.trials) == count
    assert found.left_out == {
        "optimizer 'rprop' with a schedule: its learning rate only sets the size of the first step": len(SCHEDULERS)
        - 1,
        "optimizer 'sparse_adam': it only supports sparse gradients, and this network's gradients are all dense": len(
            SCHEDULERS
        ),
    }


def test_nothing_left() -> None:
    with pytest.raises(
        ValueError, match=r"^no trial is left to run: optimizer 'sparse_adam': it only supports sparse gradients"
    ):
        planned(optimizers=("sparse_adam",))
    with pytest.raises(ValueError, match=r"^no trial is left to run: the grid is empty$"):
        planned(replace(ONE, grid=[]))


# -- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizers": ("adamm",)}, "unknown optimizer 'adamm' (did you mean 'adam'?); known: sgd, sgd_momentum, "),
        ({"schedulers": ("steps",)}, "unknown scheduler 'steps' (did you mean 'step'?); known: none, time_based, "),
        ({"grid": ("optimizer=adamm",)}, "unknown optimizer 'adamm' (did you mean 'adam'?); known: sgd, "),
        ({"lrs": (0.0,)}, "lr must be a number above 0, not 0.0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"train_limit": 10}, "batch_size must be at most the 10 training images, not 64"),
        (
            {"grid": ("scheduler.factro=0.1,0.5",)},
            "scheduler 'none' has no setting 'factro'; it has: warmup_epochs",
        ),
        (
            {"grid": ("optimizer.beta=0.8",)},
            "optimizer 'sgd_momentum' has no setting 'beta'; it has: momentum, dampening, nesterov, weight_decay",
        ),
        (
            {"grid": ("optimizer.momentum=1.5",)},
            "optimizer.momentum must be a number of at least 0 and below 1, not 1.5",
        ),
        (
            {"grid": ("scheduler.warmup_epochs=4",)},
            "no trial is left to run: scheduler.warmup_epochs must be below the trial's 4 epochs, not 4",
        ),
        ({"grid": ("lr=0.1", "lr=0.2")}, "axis 'lr' is given twice; use either --grid or its own flag"),
        (
            {"grid": ("train_limit=128",), "train_limit": 64},
            "axis 'train_limit' is given twice; use either --grid or its own flag",
        ),
        ({"grid": ("lr=0.2",), "lrs": (0.3,)}, "axis 'lr' is given twice; use either --grid or its own flag"),
        ({"grid": ("momentum=0.9",)}, "unknown axis 'momentum'; known: "),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        planned(**options)


def test_axes_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"^unknown axis 'momentum'; known: "):
        planned(replace(ONE, grid=axis("momentum", 0.9)))
