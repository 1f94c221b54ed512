"""Searches: what is drawn, how often, what more draws keep, what is shared, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.store import SweepStore
from sweeps.question.grid import axis, product
from sweeps.question.samplers import SAMPLERS, draw
from sweeps.question.space import SCHEDULES_EACH, Search
from sweeps.question.sweep import Plan, Sweep, plan
from tests.sweeps.runs import run_here, table_of
from workloads.errors import InputError
from workloads.optimizers import OPTIMIZERS
from workloads.registry import resolve
from workloads.rows import NotApplicableError
from workloads.schedulers import SCHEDULERS
from workloads.trial import TrialConfig

ONE = Sweep(name="one", question="?", optimizers=("adam",), epochs=4, train_limit=640, trials=6)


def planned(sweep: Sweep = ONE, **options: Any) -> Plan:
    return plan(sweep, replace(sweep.default_options(), **options))


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(few=st.integers(1, 20), more=st.integers(0, 40), seed=st.integers(0, 5), count=st.integers(1, 5))
def test_more_draws_keep_those_there_are(sampler: str, few: int, more: int, seed: int, count: int) -> None:
    names = [f"s{number}" for number in range(count)]
    places = draw(sampler, seed, names, few + more)
    assert (draw(sampler, seed, names, few) == places[:few]).all()
    assert ((places >= 0) & (places < 1)).all()


@settings(deadline=None, max_examples=15)
@given(few=st.integers(1, 9), more=st.integers(1, 9), schedule=st.sampled_from(sorted(SCHEDULERS)))
def test_a_larger_search_holds_the_smaller_one(few: int, more: int, schedule: str) -> None:
    small, large = (
        {trial.trial_id for trial in planned(trials=count, schedulers=(schedule,)).trials}
        for count in (few, few + more)
    )
    assert small < large


@pytest.mark.parametrize("epochs", [1, 4, 30])
@pytest.mark.parametrize(
    ("kind", "name"), [*(("optimizer", n) for n in OPTIMIZERS), *(("scheduler", n) for n in SCHEDULERS)]
)
def test_every_row_accepts_its_space(kind: str, name: str, epochs: int) -> None:
    point = {"optimizer": "sgd_momentum", "scheduler": "none", "epochs": epochs} | {kind: name}
    if OPTIMIZERS[point["optimizer"]].not_applicable:  # type: ignore[index]
        return
    found = planned(
        optimizers=(str(point["optimizer"]),), schedulers=(str(point["scheduler"]),), epochs=epochs, trials=32
    )
    assert found.left_out == {}
    assert len(found.trials) == 32
    for axis_name, span in Search(trials=1).expand(point)[0].items():
        assert axis_name in point or span is not None


def test_budgets_are_equal() -> None:
    found = planned(optimizers=("sgd", "adam", "muon"), schedulers=("none", "cosine", "step"), trials=7, epochs=30)
    counts = Counter((trial.optimizer, trial.scheduler) for trial in found.trials)
    assert len(counts) == 9
    assert set(counts.values()) == {7}


def test_schedules_share_their_rates() -> None:
    found = planned(schedulers=("none", "step", "plateau", "cosine"), trials=8, epochs=30)
    rates: dict[str, dict[float, int]] = defaultdict(Counter)
    for trial in found.trials:
        rates[trial.scheduler][trial.lr] += 1
    assert rates["step"] == rates["plateau"]
    assert set(rates["step"].values()) == {SCHEDULES_EACH}
    assert list(rates["none"])[:2] == list(rates["step"]), "a constant rate has nothing but rates to draw"
    assert len(rates["none"]) == 8
    betas = {(trial.lr, trial.optimizer_settings["beta1"]) for trial in found.trials}
    assert len(betas) == len({lr for lr, _ in betas})


def test_seeds_and_samplers() -> None:
    def rates(**options: Any) -> list[float]:
        return [trial.lr for trial in planned(**options).trials]

    assert rates() == rates(sampler="sobol", sampler_seed=0)
    assert not set(rates()) & set(rates(sampler_seed=1))
    assert not set(rates()) & set(rates(sampler="random"))
    assert rates(seeds=(1, 2)) == rates() + rates(), "every seed trains the same draws"


def test_ranges_wherever_values_can_be() -> None:
    for options in ({"lrs": ("1e-3..1e-2",)}, {"lrs": ("adam=1e-3..1e-2",)}, {"grid": ("lr=1e-3..1e-2",)}):
        assert all(1e-3 <= trial.lr <= 1e-2 for trial in planned(trials=16, **options).trials)
    found = planned(trials=16, grid=("optimizer.eps=log:1e-9..1e-6", "workload.label_smoothing=0..0.5"))
    eps = [trial.optimizer_settings["eps"] for trial in found.trials]
    assert sum(value < 3e-8 for value in eps) == 8, "half of them below the middle of the scale"  # type: ignore[operator]
    smoothing = [trial.workload_settings["label_smoothing"] for trial in found.trials]
    assert sum(value < 0.25 for value in smoothing) == 8  # type: ignore[operator]
    own = replace(ONE, grid=product(axis("workload.label_smoothing", "0..0.5")), lrs=("0.01..0.1",))
    drawn = plan(own, own.default_options())
    assert all(0.01 <= trial.lr <= 0.1 and trial.workload_settings["label_smoothing"] for trial in drawn.trials)
    assert {trial.batch_size for trial in planned(trials=30, grid=("batch_size=8..16",)).trials} == set(range(8, 17))


def test_listed_values_stay_a_grid() -> None:
    found = planned(trials=5, lrs=("0.01", "0.1"))
    assert Counter(trial.lr for trial in found.trials) == {0.01: 5, 0.1: 5}


def test_the_scale_is_the_settings_own_in_another_row() -> None:
    found = planned(optimizers=("sgd",), grid=("optimizer.momentum=0.9..0.999",), trials=16)
    momentum = [trial.optimizer_settings["momentum"] for trial in found.trials]
    assert sum(value > 0.99 for value in momentum) == 8, "evenly in the logarithm of 1 - x"  # type: ignore[operator]


def test_what_was_drawn_is_stored() -> None:
    found = planned(trials=3, schedulers=("step",))
    assert found.search is not None
    stored = json.loads(json.dumps(found.search.to_json()))
    assert (stored["trials"], stored["sampler"], stored["seed"]) == (3, "sobol", 0)
    (space,) = stored["spaces"]
    assert (space["optimizer"], space["scheduler"]) == ("adam", "step")
    assert set(space["ranges"]) == {"lr", "optimizer.beta1", "scheduler.gamma", "scheduler.step_size"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no draws": ({"trials": 0}, "--trials must be at least 1, not 0: leave it out for the grid"),
    "reversed": ({"lrs": ("0.1..0.01",)}, "0.1..0.01: a range goes from low to high, not from 0.1 down to 0.01"),
    "empty": ({"lrs": ("0.1..0.1",)}, "0.1..0.1: there is nothing between 0.1 and 0.1; write one value without '..'"),
    "log from 0": ({"lrs": ("adam=0..1",)}, "0..1: on the scale log both ends must be above 0, not 0"),
    "up to 1": (
        {"grid": ("optimizer.beta1=0.5..1",)},
        "0.5..1: on the scale 1 - x log both ends must be below 1, not 1",
    ),
    "out of range": (
        {"grid": ("optimizer.eps=-1..1",)},
        "optimizer.eps must be a number of at least 0, not in the range -1..1",
    ),
    "a seed": ({"grid": ("seed=1..5",)}, "seed cannot be drawn from a range, only lr, batch_size and settings can"),
    "a word": (
        {"grid": ("optimizer.amsgrad=0..1",)},
        "optimizer.amsgrad is not a number, so it cannot be drawn from a range; list its values",
    ),
    "a grid": (
        {"trials": None, "lrs": ("1e-4..0.1",)},
        "lr=1e-4..0.1 is a range: add --trials N to draw from it, or list values",
    ),
    "a sampler": (
        {"trials": None, "sampler": "random"},
        "--sampler is about the draws of a search: add --trials N, or leave out --sampler",
    ),
    "a sampler's seed": (
        {"trials": None, "sampler_seed": 1},
        "--sampler-seed is about the draws of a search: add --trials N, or leave out --sampler-seed",
    ),
    "no sampler": ({"sampler": "sobl"}, "unknown sampler 'sobl' (did you mean 'sobol'?); known: sobol, random, tpe"),
    "negative seed": ({"sampler_seed": -1}, "--sampler-seed must be 0 or more, not -1"),
    "more rates": (
        {"more_lrs": ("0.1",)},
        "--more-lrs adds to a grid of learning rates, and --trials draws them: give a wider range with --lrs "
        "LOW..HIGH, or more draws with --trials",
    ),
    "nothing to draw": (
        {"lrs": ("0.1",), "grid": ("optimizer.beta1=0.9",)},
        "there is nothing to draw, as every setting has its values: leave out --trials",
    ),
    "unknown": (
        {"grid": ("optimizer.warmth=0..0.5",)},
        "optimizer 'adam' has no setting 'warmth'; it has: beta1, beta2, eps, weight_decay, amsgrad, "
        "decoupled_weight_decay",
    ),
    "lacking": (
        {"grid": ("scheduler.patience=1..5",)},
        "scheduler.patience=1..5 has nothing to be drawn for: none has no setting 'patience'",
    ),
}


@pytest.mark.parametrize(("options", "complaint"), REFUSED.values(), ids=REFUSED)
def test_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        planned(**options)
    assert not isinstance(error.value, NotApplicableError)
    assert str(error.value) == complaint


def test_draws_are_checked_as_values_are() -> None:
    for trial in planned(optimizers=("sgd", "adam"), schedulers=("plateau", "cyclic"), trials=4).trials:
        assert resolve(trial) == trial
        assert TrialConfig.from_json(trial.to_json()).trial_id == trial.trial_id


def test_a_search_from_start_to_report(ray_cluster: None, tmp_path: Path) -> None:
    sweep = Sweep(
        name="s",
        question="?",
        optimizers=("sgd_momentum", "adam"),
        schedulers=("none", "step"),
        grid=axis("workload", "lenet_synthetic"),
        epochs=3,
        trials=4,
    )
    status, text = run_here(sweep, str(tmp_path))
    assert status == 0, text
    assert "16 trials, 48 trial-epochs" in text
    assert set(table_of(str(tmp_path), "s")["status"]) == {"completed"}
    spec = SweepStore(str(tmp_path), "s").read_spec()
    assert spec is not None
    assert spec.search is not None
    assert {(one["optimizer"], one["scheduler"]) for one in spec.search["spaces"]} == {
        (optimizer, schedule) for optimizer in ("sgd_momentum", "adam") for schedule in ("none", "step")
    }
    assert "weight decay" in text, "drawn for sgd_momentum"
    ranking = re.findall(r"^ *\d+  +(.*)", text, re.MULTILINE)
    assert len(ranking) == 16
    assert not any("adam" in line and "weight decay" in line for line in ranking)
    _, more = run_here(sweep, str(tmp_path), trials=5)
    assert "done before: 16 trials" in more, "more draws keep those there are"
