"""Schedules: the learning rates of every row, worked out by hand, and that a trial gets just these."""

import contextlib
import inspect
import math
from itertools import combinations, pairwise, product
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from workloads import training
from workloads.optimizers import OPTIMIZERS
from workloads.registry import resolve, steps_per_epoch
from workloads.rows import NotApplicableError
from workloads.schedulers import SCHEDULERS, UNSCHEDULED, Schedule, SchedulerRow, Trace, bare_optimizer
from workloads.training import Images, train
from workloads.trial import TrialConfig, canonical_json, digest

LOSSES = [2.0, 1.0, 0.95, 0.94, 0.93, 0.92]
"""Training losses of six epochs. From the third on they are never a tenth better than the best, 1.0."""

EXPECTED: dict[str, list[float]] = {
    "none": [1, 1, 1, 1, 1, 1],
    # 1 / (1 + 0.5 * epoch)
    "time_based": [1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3, 1 / 3.5],
    # halved every third of the horizon: two epochs
    "step": [1, 1, 0.5, 0.5, 0.25, 0.25],
    # 0.9 ** epoch
    "exponential": [1, 0.9, 0.81, 0.729, 0.6561, 0.59049],
    # epochs 3, 4 and 5 are bad: the third of them is more than patience 2 allows
    "plateau": [1, 1, 1, 1, 1, 0.3],
    # (1 + cos(pi * epoch / 6)) / 2: the cosine of 30, 60, 90, 120 and 150 degrees
    "cosine": [1, (1 + math.sqrt(0.75)) / 2, 0.75, 0.5, 0.25, (1 - math.sqrt(0.75)) / 2],
    # 60 steps. From 1/25 at step 0 up half a cosine to 1 at step 0.3 * 60 - 1 = 17, then down to 1/250,000 at step 59:
    # where steps 0, 10, 20, 30, 40 and 50 are
    "one_cycle": [
        0.04,
        0.04 + 0.96 * (1 - math.cos(math.pi * 10 / 17)) / 2,
        4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * 3 / 42)) / 2,
        4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * 13 / 42)) / 2,
        4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * 23 / 42)) / 2,
        4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * 33 / 42)) / 2,
    ],
    # two epochs as they are, then times 0.9 before each
    "multiplicative": [1, 1, 0.9, 0.81, 0.729, 0.6561],
    # a tenth after three epochs (half), a tenth of that after four (three quarters, rounded down)
    "multi_step": [1, 1, 1, 0.1, 0.01, 0.01],
    # a tenth after half: three epochs
    "cut": [1, 1, 1, 0.1, 0.1, 0.1],
    # a third for a sixth of the horizon: one epoch
    "constant": [1 / 3, 1, 1, 1, 1, 1],
    # a line to 0 after six epochs
    "linear": [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    # that line to the power of 0.9
    "polynomial": [1, (5 / 6) ** 0.9, (4 / 6) ** 0.9, (3 / 6) ** 0.9, (2 / 6) ** 0.9, (1 / 6) ** 0.9],
    # half a cosine over two epochs (0, 90 degrees), another over four (0, 45, 90 and 135 degrees)
    "cosine_restarts": [1, 0.5, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2],
    # from a tenth up for an epoch, down for an epoch
    "cyclic": [0.1, 1, 0.1, 1, 0.1, 1],
    # as it is, then a line over the last third: two epochs, from 1 to 0
    "sequential": [1, 1, 1, 1, 1, 0.5],
    # from a third to 1 in one epoch, times 0.9 ** epoch
    "chained": [1 / 3, 0.9, 0.81, 0.729, 0.6561, 0.59049],
}
"""Row -> the learning rate of each of six epochs' first step, as the row is by default, from 1, ten steps an epoch.

A new row is tested without an entry too, against itself; one worked out by hand says more.
"""


def expected(name: str) -> list[float]:
    return EXPECTED.get(name) or rates(config(name), [{"train_loss": loss} for loss in LOSSES])


def config(
    scheduler: str, *, optimizer: str = "sgd_momentum", lr: float = 1.0, epochs: int = 6, **settings: Any
) -> TrialConfig:
    """Returns a trial of ten steps an epoch."""
    return resolve(
        TrialConfig(
            optimizer=optimizer, lr=lr, epochs=epochs, train_limit=640, scheduler=scheduler, scheduler_settings=settings
        )
    )


def schedule(trial: TrialConfig) -> Schedule:
    return Schedule(trial, bare_optimizer(trial), steps_per_epoch(trial))


def rates(trial: TrialConfig, metrics: list[dict[str, float]]) -> list[float]:
    """Returns the learning rate of every epoch's first step, given what the epochs measure."""
    found = schedule(trial)
    lrs = []
    for measured in metrics:
        lrs.append(found.values()[0][0])
        found.replay(measured)
    return lrs  # type: ignore[return-value]


def steps(trial: TrialConfig) -> list[tuple[float, float]]:
    """Returns learning rate and momentum of every step of a schedule that acts on batches."""
    found = schedule(trial)
    values = []
    for _ in range(trial.epochs):
        for _ in range(10):
            lr, momentum, _ = found.values()[0]
            values.append((lr, momentum))
            found.step_batch()
        found.step_epoch({})
    return values  # type: ignore[return-value]


# -- the rates of every row -----------------------------------------------------------------------------------------


def test_every_class_of_torch_has_a_row() -> None:
    classes = {c for c in vars(lr_scheduler).values() if inspect.isclass(c) and issubclass(c, LRScheduler)}
    bases = {LRScheduler, lr_scheduler._LRScheduler}
    assert {c for row in SCHEDULERS.values() for c in row.torch_classes} >= classes - bases


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rows_are_made_of_their_classes(name: str) -> None:
    made = schedule(config(name))._scheduler
    parts = [made, *getattr(made, "_schedulers", [])]
    assert tuple(dict.fromkeys(type(part) for part in parts)) == SCHEDULERS[name].torch_classes


@pytest.mark.parametrize("name", EXPECTED)
def test_rates_epoch_by_epoch(name: str) -> None:
    assert rates(config(name), [{"train_loss": loss} for loss in LOSSES]) == pytest.approx(EXPECTED[name], rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_scale_with_the_trials(name: str) -> None:
    found = rates(config(name, lr=0.02), [{"train_loss": loss} for loss in LOSSES])
    assert found == pytest.approx([0.02 * rate for rate in expected(name)], rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_warmup_before_any_schedule(name: str) -> None:
    """A line up to the rate, then what the row does in a trial of the epochs that are left."""
    trial = config(name, epochs=9, warmup_epochs=3)
    metrics = [{"train_loss": loss} for loss in [0.5, 0.4, 0.3, *LOSSES]]
    assert rates(trial, metrics) == pytest.approx([0.25, 0.5, 0.75, *expected(name)], rel=1e-12)


def test_defaults_of_the_schedule_sweep() -> None:
    def settings(name: str) -> dict[str, Any]:
        return dict(resolve(TrialConfig(scheduler=name, epochs=30)).scheduler_settings)

    assert settings("time_based") == {"k": 0.5, "warmup_epochs": 0}
    assert settings("step") == {"step_size": 10, "gamma": 0.5, "warmup_epochs": 0}
    assert settings("exponential") == {"gamma": 0.9, "warmup_epochs": 0}
    plateau = {"monitor": "train_loss", "factor": 0.3, "patience": 2, "threshold": 0.1, "threshold_mode": "rel"}
    assert settings("plateau").items() >= plateau.items()
    assert settings("cosine") == {"t_max": 30, "eta_min": 0.0, "warmup_epochs": 0}


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10, 30])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in (UNSCHEDULED, "plateau")])
def test_schedules_act_however_short_the_trial(name: str, epochs: int) -> None:
    """Within the epochs of the trial the rate is not always the trial's: defaults do not lie beyond the horizon."""
    trial = config(name, epochs=epochs)
    found = [lr for lr, _ in steps(trial)] if SCHEDULERS[name].steps_on == "batch" else rates(trial, [{}] * epochs)
    assert all(0 < rate <= 1 for rate in found)
    if epochs > 2:
        assert len(set(found)) > 1


SETTINGS: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "k": ("time_based", {"k": 1}, [1, 1 / 2, 1 / 3, 1 / 4]),
    "step_size": ("step", {"step_size": 3, "gamma": 0.1}, [1, 1, 1, 0.1]),
    "gamma": ("exponential", {"gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
    "t_max": ("cosine", {"t_max": 2, "eta_min": 0.2}, [1, 0.6, 0.2, 0.6]),
    "start_epoch": ("multiplicative", {"start_epoch": 3, "gamma": 0.5}, [1, 1, 1, 0.5]),
    "milestones": ("multi_step", {"milestones": (1, 3), "gamma": 0.5}, [1, 0.5, 0.5, 0.25]),
    "after_epoch": ("cut", {"after_epoch": 3, "factor": 0.5}, [1, 1, 1, 0.5]),
    "total_iters": ("constant", {"total_iters": 2, "factor": 0.25}, [0.25, 0.25, 1, 1]),
    "line": ("linear", {"start_factor": 0.5, "end_factor": 0.2, "total_iters": 3}, [0.5, 0.4, 0.3, 0.2]),
    "power": ("polynomial", {"power": 2, "total_iters": 3}, [1, 4 / 9, 1 / 9, 0]),
    "t_0": ("cosine_restarts", {"t_0": 2, "t_mult": 1, "eta_min": 0.2}, [1, 0.6, 1, 0.6]),
    "decay_epochs": ("sequential", {"decay_epochs": 3, "end_factor": 0.4}, [1, 1, 0.8, 0.6]),
    "all of them decay": ("sequential", {"decay_epochs": 4}, [1, 0.75, 0.5, 0.25]),
    "more than all decay": ("sequential", {"decay_epochs": 10}, [1, 0.9, 0.8, 0.7]),
    "ramp": ("chained", {"start_factor": 0.5, "total_iters": 2, "gamma": 0.8}, [0.5, 0.75 * 0.8, 0.64, 0.512]),
    "epochs_up": ("cyclic", {"epochs_up": 2, "epochs_down": 1, "div_factor": 5}, [0.2, 0.6, 1, 0.2]),
}


@pytest.mark.parametrize(("scheduler", "settings", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_settings(scheduler: str, settings: dict[str, Any], expected: list[float]) -> None:
    assert rates(config(scheduler, epochs=4, **settings), [{}] * 4) == pytest.approx(expected, rel=1e-12)


# -- plateau --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
def test_patience_ends_with_the_bad_epoch_after_it(patience: int) -> None:
    """Epoch 1 sets the best, so the first bad epoch is the second, and the lower rate is trained one epoch after."""
    found = rates(config("plateau", epochs=10, patience=patience), [{"train_loss": 1.0}] * 10)
    bad_epochs = patience + 1
    assert found.index(0.3) == 1 + bad_epochs


PLATEAUS: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    # best: 1.0, then 0.8; 0.79 and 0.75 are not a tenth better
    "train_loss": ({"monitor": "train_loss"}, [1.0, 0.8, 0.79, 0.75, 0.7], [1, 1, 1, 0.3, 0.09]),
    "val_loss": ({"monitor": "val_loss"}, [1.0, 0.8, 0.79, 0.75, 0.7], [1, 1, 1, 0.3, 0.09]),
    # more is better: best 0.5, then 0.6; 0.65 is not a tenth better, 0.67 is
    "val_accuracy": ({"monitor": "val_accuracy"}, [0.5, 0.6, 0.65, 0.67, 0.5], [1, 1, 1, 0.3, 0.3]),
    "factor": ({"factor": 0.5}, [1, 1, 1, 1, 1], [1, 1, 0.5, 0.25, 0.125]),
    # more than one bad epoch in a row; a good one in between starts the count anew
    "patience": ({"patience": 1}, [1.0, 1.0, 0.8, 1.0, 1.0], [1, 1, 1, 1, 1]),
    "patience over": ({"patience": 1}, [1.0, 1.0, 1.0, 1.0, 1.0], [1, 1, 1, 0.3, 0.3]),
    # a hundredth better is enough now
    "threshold": ({"threshold": 0.01}, [1.0, 0.98, 0.96, 0.955, 0.94], [1, 1, 1, 1, 0.3]),
    # better by more than 0.1, not by a tenth: 0.55 is not
    "threshold_mode": ({"threshold_mode": "abs"}, [1.0, 0.8, 0.6, 0.55, 0.3], [1, 1, 1, 1, 0.3]),
    "abs, more is better": (
        {"threshold_mode": "abs", "monitor": "val_accuracy", "threshold": 0.01},
        [0.5, 0.52, 0.525, 0.54, 0.54],
        [1, 1, 1, 0.3, 0.3],
    ),
    # two epochs after the fall do not count
    "cooldown": ({"cooldown": 2}, [1, 1, 1, 1, 1], [1, 1, 0.3, 0.3, 0.3]),
    "cooldown over": ({"cooldown": 1}, [1, 1, 1, 1, 1], [1, 1, 0.3, 0.3, 0.09]),
    "min_lr": ({"min_lr": 0.2}, [1, 1, 1, 1, 1], [1, 1, 0.3, 0.2, 0.2]),
    # a fall from 0.3 to 0.09 is smaller than 0.5, and so is not made
    "eps": ({"eps": 0.5}, [1, 1, 1, 1, 1], [1, 1, 0.3, 0.3, 0.3]),
}


@pytest.mark.parametrize(("settings", "measured", "expected"), PLATEAUS.values(), ids=PLATEAUS)
def test_plateau(settings: dict[str, Any], measured: list[float], expected: list[float]) -> None:
    trial = config("plateau", epochs=5, **{"patience": 0} | settings)
    monitor = str(trial.scheduler_settings["monitor"])
    distraction = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "test_loss": None}
    assert rates(trial, [distraction | {monitor: value} for value in measured]) == pytest.approx(expected)


def test_every_plateau_setting_is_tested() -> None:
    assert {name for settings, _, _ in PLATEAUS.values() for name in settings} | {"warmup_epochs"} == set(
        SCHEDULERS["plateau"].settings
    )


def test_plateau_waits_for_what_it_monitors() -> None:
    assert rates(config("plateau", epochs=8), [{}] * 8) == [1.0] * 8, "a forecast knows no metrics"


# -- within an epoch ------------------------------------------------------------------------------------------------


def test_one_cycle_within_an_epoch() -> None:
    """20 steps: up a line of 5 steps (0.3 * 20 - 1), down one of 14."""
    found = steps(config("one_cycle", epochs=2, anneal_strategy="linear"))
    assert found[0] == pytest.approx((0.04, 0.95))
    assert found[1] == pytest.approx((0.04 + 0.96 / 5, 0.93))
    assert found[5] == pytest.approx((1.0, 0.85))
    assert found[9] == pytest.approx((1 - (1 - 4e-6) * 4 / 14, 0.85 + 0.1 * 4 / 14)), "the first epoch's last step"
    assert found[10] == pytest.approx((1 - (1 - 4e-6) * 5 / 14, 0.85 + 0.1 * 5 / 14)), "the second's first"
    assert found[19] == pytest.approx((4e-6, 0.95))


def test_one_cycle_in_three_phases() -> None:
    """Up for 5 steps, down as steeply (to step 2 * 6 - 2 = 10), then on to almost nothing."""
    found = steps(config("one_cycle", epochs=2, anneal_strategy="linear", three_phase=True, final_div_factor=100))
    assert [found[step] for step in (0, 5, 10, 19)] == [
        pytest.approx(values) for values in [(0.04, 0.95), (1.0, 0.85), (0.04, 0.95), (0.0004, 0.95)]
    ]


@pytest.mark.parametrize(
    ("settings", "peaks"),
    [
        ({"mode": "triangular"}, [1, 1, 1]),
        ({"mode": "triangular2"}, [1, 0.1 + 0.9 / 2, 0.1 + 0.9 / 4]),
        # gamma is the factor of a whole epoch: at the peaks, half an epoch and then whole ones are over
        ({"mode": "exp_range", "gamma": 0.25}, [0.1 + 0.9 / 2, 0.1 + 0.9 / 8, 0.1 + 0.9 / 32]),
    ],
)
def test_cyclic_within_an_epoch(settings: dict[str, Any], peaks: list[float]) -> None:
    """A cycle an epoch of ten steps: up for five, down for five; momentum the other way."""
    found = steps(config("cyclic", epochs=3, epochs_up=0.5, epochs_down=0.5, **settings))
    assert [found[step][0] for step in (5, 15, 25)] == pytest.approx(peaks)
    assert [found[step] for step in (0, 10, 20)] == [pytest.approx((0.1, 0.95))] * 3
    assert found[5][1] == pytest.approx(0.95 - 0.1 * (peaks[0] - 0.1) / 0.9)


@pytest.mark.parametrize(
    "name", [row.name for row in OPTIMIZERS.values() if not (row.not_applicable or row.unscheduled)]
)
@pytest.mark.parametrize("scheduler", [row.name for row in SCHEDULERS.values() if row.steps_on == "batch"])
def test_momentum_is_cycled_only_where_there_is_one(name: str, scheduler: str) -> None:
    trial = config(scheduler, optimizer=name, lr=0.01)
    settings = trial.optimizer_settings
    bare = bare_optimizer(trial)
    before = [(group.get("momentum"), group.get("betas")) for group in bare.param_groups]
    found = Schedule(trial, bare, 10)
    for _ in range(12):
        found.step_batch()
    after = [(group.get("momentum"), group.get("betas")) for group in bare.param_groups]
    if name == "muon":
        assert after == before, "torch cycles by one name only, Muon's and AdamW's momenta have two"
    elif "beta1" in settings:
        assert [after[0][1][0] != 0.9, after[0][1][1]] == [True, settings["beta2"]]
    elif settings.get("momentum"):
        assert after[0][0] != settings["momentum"]
    else:
        assert after == before
    assert bare.param_groups[0]["lr"] != 0.01


# -- what a trial gets ----------------------------------------------------------------------------------------------

APPLIED = {
    **{name: {"scheduler": name} for name in SCHEDULERS},
    **{f"{name} after warm-up": {"scheduler": name, "scheduler_settings": {"warmup_epochs": 2}} for name in SCHEDULERS},
    "plateau that acts": {"scheduler": "plateau", "scheduler_settings": {"patience": 0, "threshold": 0.9}},
    "one_cycle of beta1": {"scheduler": "one_cycle", "optimizer": "adam"},
    "one_cycle of two groups": {"scheduler": "one_cycle", "optimizer": "muon"},
}


@pytest.mark.parametrize("fields", APPLIED.values(), ids=APPLIED)
def test_trace_replay_and_records_are_what_training_applies(
    fields: dict[str, Any], few_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[Any] = []

    class Watched(Schedule):
        def step_batch(self) -> None:
            applied.append(self.values())
            super().step_batch()

    monkeypatch.setattr(training, "Schedule", Watched)
    trial = resolve(TrialConfig(**{"optimizer": "sgd_momentum", "lr": 0.02, "epochs": 5, "train_limit": 150} | fields))
    trace, replayed = Trace(trial, 3), schedule(trial)
    for record in train(trial, images=few_images):
        assert len(applied) == 3
        assert (record.lr, record.lr_last) == (applied[0][0][0], applied[-1][0][0])
        assert replayed.values() == applied[0]
        if (
            SCHEDULERS[trial.scheduler].steps_on == "batch"
            and not record.epoch <= trial.scheduler_settings["warmup_epochs"]
        ):  # type: ignore[operator]
            assert trace.next_epoch() == digest(canonical_json(applied), 64)
            assert len(set(applied)) > 1
        else:
            assert [trace.next_epoch()] * 3 == applied
        metrics = record.to_json()
        trace.observe(metrics)
        replayed.replay(metrics)
        applied.clear()


def test_traces_differ_where_schedules_do() -> None:
    """Two cycles of momentum over equal learning rates are two trainings."""
    one, other = (Trace(config("one_cycle", base_momentum=momentum), 10) for momentum in (0.85, 0.8))
    assert one.next_epoch() != other.next_epoch()


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "settings", "message"),
    [
        ("none", {"warmup_epochs": -1}, "scheduler.warmup_epochs must be a whole number of at least 0, not -1"),
        ("none", {"factor": 0.5}, "scheduler 'none' has no setting 'factor'; it has: warmup_epochs"),
        (
            "plateau",
            {"monitor": "test_loss"},
            "scheduler.monitor must be one of train_loss, val_loss, val_accuracy, val_score, val_error, not "
            '"test_loss"',
        ),
        ("step", {"step_size": 0}, "scheduler.step_size must be a whole number of at least 1, not 0"),
    ],
)
def test_settings_refused(scheduler: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\S") as caught:
        config(scheduler, **settings)
    assert str(caught.value) == message
    assert not isinstance(caught.value, NotApplicableError)


IDLE = "momentum is not cycled, so setting {} has no effect"
NEVER_CUT = "after_epoch must be below the number of epochs after warm-up, or the rate is never cut"


@pytest.mark.parametrize(
    ("scheduler", "optimizer", "settings", "reason"),
    [
        (
            "one_cycle",
            "sgd",
            {"base_momentum": 0.8},
            "scheduler 'one_cycle' with optimizer 'sgd': " + IDLE.format("base_momentum"),
        ),
        (
            "one_cycle",
            "muon",
            {"max_momentum": 0.9},
            "scheduler 'one_cycle' with optimizer 'muon': " + IDLE.format("max_momentum"),
        ),
        (
            "cyclic",
            "sgd",
            {"cycle_momentum": False},
            "scheduler 'cyclic' with optimizer 'sgd': " + IDLE.format("cycle_momentum"),
        ),
        (
            "cyclic",
            "adam",
            {"cycle_momentum": False, "base_momentum": 0.8, "max_momentum": 0.9},
            "scheduler 'cyclic' with optimizer 'adam': " + IDLE.format("base_momentum and max_momentum"),
        ),
        ("cyclic", "adam", {"gamma": 0.5}, "scheduler 'cyclic': gamma has no effect unless mode is exp_range"),
        ("cosine", "adam", {"warmup_epochs": 6}, "scheduler.warmup_epochs must be below the trial's 6 epochs, not 6"),
        ("plateau", "adam", {"factor": 1.0}, "scheduler 'plateau': a factor of 1 has no effect"),
        ("cut", "adam", {"factor": 1.0}, "scheduler 'cut': a factor of 1 has no effect"),
        ("cut", "adam", {"after_epoch": 6}, f"scheduler 'cut': {NEVER_CUT}"),
        ("cut", "adam", {"after_epoch": 5, "warmup_epochs": 1}, f"scheduler 'cut': {NEVER_CUT}"),
        ("one_cycle", "adam", {"pct_start": 1 / 60}, "scheduler 'one_cycle' divides by zero with 60 training steps"),
        (
            "one_cycle",
            "adam",
            {"three_phase": True, "pct_start": 0.6},
            "scheduler 'one_cycle': three_phase needs pct_start to be at most 0.5",
        ),
        (
            "step",
            "rprop",
            {},
            "optimizer 'rprop' with a schedule: its learning rate only sets the size of the first step",
        ),
        (
            "none",
            "rprop",
            {"warmup_epochs": 1},
            "optimizer 'rprop' with a schedule: its learning rate only sets the size of the first step",
        ),
    ],
)
def test_pairs_that_make_no_sense(scheduler: str, optimizer: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotApplicableError) as caught:
        config(scheduler, optimizer=optimizer, **settings)
    assert str(caught.value) == reason


@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=SCHEDULERS)
def test_pairs_of_settings_are_taken_or_left_out(row: SchedulerRow) -> None:
    """What is allowed alone makes no sense together, at worst: it never keeps a sweep from starting."""
    values: dict[str, set[Any]] = {}
    for name, default in config(row.name).scheduler_settings.items():
        allowed = row.ranges.get(name)
        edges = {e for e in (allowed.at_least, allowed.at_most) if e is not None} if allowed else {True, False}
        others = {(int(edge),) for edge in edges} if isinstance(default, tuple) else row.choices.get(name, edges)
        values[name] = {default, *others}
    for one, other in combinations(values, 2):
        for first, second in product(values[one], values[other]):
            with contextlib.suppress(NotApplicableError):
                config(row.name, **{one: first, other: second})


def test_momentum_can_be_left_alone() -> None:
    assert {momentum for _, momentum in steps(config("one_cycle", cycle_momentum=False))} == {0.9}


def test_no_random_numbers_are_drawn() -> None:
    before = torch.get_rng_state()
    config("one_cycle")
    assert torch.equal(torch.get_rng_state(), before)


def test_time_based_decay_is_from_the_initial_rate() -> None:
    """Not compounded: ratios of neighbours are (1 + k * epoch) / (1 + k * (epoch + 1))."""
    found = rates(config("time_based", epochs=4), [{}] * 4)
    assert [b / a for a, b in pairwise(found)] == pytest.approx([1 / 1.5, 1.5 / 2, 2 / 2.5])
