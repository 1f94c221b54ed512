"""Optimizers: a row for every class of torch, rows that pass every setting on, and steps that make the loss fall."""

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workloads.draws import generator
from workloads.lenet import initialise
from workloads.optimizers import OPTIMIZERS, OptimizerRow, torch_arguments
from workloads.registry import resolve
from workloads.rows import NotApplicableError, complete
from workloads.training import Images, train
from workloads.trial import Setting, TrialConfig

APPLICABLE = [row.name for row in OPTIMIZERS.values() if not row.not_applicable]

RATES = {
    "sgd": 0.1,
    "sgd_momentum": 0.03,
    "rmsprop": 0.001,
    "adam": 0.003,
    "sgd_nesterov": 0.03,
    "sgd_dampened": 0.3,
    "rmsprop_centered": 0.001,
    "rmsprop_momentum": 0.0001,
    "adagrad": 0.01,
    "adadelta": 1.0,
    "amsgrad": 0.003,
    "adamw": 0.003,
    "nadam": 0.003,
    "radam": 0.01,
    "adamax": 0.003,
    "asgd": 0.1,
    "rprop": 0.0001,
    "adafactor": 0.03,
    "muon": 0.003,
    "lbfgs": 1.0,
}
"""Row -> a learning rate of its grid that does well, where it is not the middle one."""


def rate(name: str) -> float:
    lrs = OPTIMIZERS[name].lrs
    return RATES.get(name, lrs[len(lrs) // 2])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums are slower on two threads, above all where both have other things to do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings_of(row: OptimizerRow, **given: Setting) -> dict[str, Setting]:
    return complete("optimizer", row, given, 10)


def network() -> nn.Module:
    """Returns a small network with weights of four, two and one dimensions."""
    model = nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 10))
    initialise(model, generator(0))
    return model


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns what is set for each group of parameters."""
    return [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]


# -- the table ------------------------------------------------------------------------------------------------------


def test_every_class_of_torch_has_a_row() -> None:
    classes = {c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, Optimizer)}
    assert {row.torch_class for row in OPTIMIZERS.values()} >= classes - {Optimizer}


def test_the_default_sweep_takes_the_first_four() -> None:
    assert list(OPTIMIZERS)[:4] == ["sgd", "sgd_momentum", "rmsprop", "adam"]


IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable", "maximize"}
"""Arguments that say how a step is computed (or which way), not which step."""
NOT_SETTINGS = {"asgd": {"t0"}}
"""Row -> arguments that have no effect here; the row says why."""


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_settings_are_all_arguments_of_the_class(row: OptimizerRow) -> None:
    arguments = set(inspect.signature(row.torch_class).parameters) - {"params", "lr"} - IMPLEMENTATION
    assert set(torch_arguments(settings_of(row))) == arguments - NOT_SETTINGS.get(row.name, set())


DEPARTURES: dict[str, dict[str, Any]] = {
    "sgd_momentum": {"momentum": 0.9},
    "sgd_nesterov": {"momentum": 0.9, "nesterov": True},
    "sgd_dampened": {"momentum": 0.9, "dampening": 0.9},
    "rmsprop_centered": {"centered": True},
    "rmsprop_momentum": {"momentum": 0.9},
    "amsgrad": {"amsgrad": True},
    "muon": {"adjust_lr_fn": "match_rms_adamw"},
    "lbfgs": {"max_iter": 4, "max_eval": 5, "history_size": 10, "line_search_fn": "strong_wolfe"},
}
"""Row -> where its defaults are not torch's."""
FIRST = list({row.torch_class: row for row in reversed(OPTIMIZERS.values())}.values())
"""The first row of each class: its defaults are torch's, but for departures listed here."""


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_defaults_are_those_of_torch(row: OptimizerRow) -> None:
    weights = [torch.zeros(2, 2, requires_grad=True)]
    constructor: Callable[..., Optimizer] = row.torch_class
    (theirs,) = groups_of(constructor(weights, lr=0.5))
    ours = groups_of(row.build(nn.Linear(2, 2), 0.5, settings_of(row)))[0]
    departures = {name: value for name, value in ours.items() if value != theirs[name]}
    if row in FIRST or row.name in DEPARTURES:
        assert departures == DEPARTURES.get(row.name, {})
    else:
        assert departures, "another row of the same class is another default"
    assert ours.keys() == theirs.keys()


def other_value(row: OptimizerRow, name: str, default: Setting) -> Setting:
    """Returns a value of a setting that is not its default."""
    if name in row.choices:
        return next(choice for choice in row.choices[name] if choice != default)
    if isinstance(default, bool):
        return not default
    if default is None:
        return 2
    assert isinstance(default, (int, float))
    smaller = default - 1 if isinstance(default, int) else default / 2 if default else 0.25
    return smaller if smaller in row.ranges[name] else 2 * default


@pytest.mark.parametrize("row", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_setting_reaches_torch(row: OptimizerRow) -> None:
    """No axis of a sweep may do nothing."""
    changed = {name: other_value(row, name, default) for name, default in settings_of(row).items()}
    if "nesterov" in changed:
        changed["nesterov"] = False  # goes with no dampening; that it arrives is seen above
    group = groups_of(row.build(nn.Linear(2, 2), 0.5, changed))[0]
    assert {name: group[name] for name in torch_arguments(changed)} == torch_arguments(changed)
    assert group["lr"] == 0.5


@pytest.mark.parametrize("name", APPLICABLE)
def test_grids_of_learning_rates(name: str) -> None:
    lrs = OPTIMIZERS[name].lrs
    assert 0.001 in lrs
    assert len(lrs) >= 3
    assert all(low < high for low, high in pairwise(lrs))
    assert lrs[-1] / lrs[0] >= 100, "two orders of magnitude"
    assert lrs[0] < rate(name) < lrs[-1], "what does well is not at the edge"
    assert rate(name) in lrs


# -- what cannot be -------------------------------------------------------------------------------------------------


def test_sparse_adam_takes_no_dense_gradients() -> None:
    model = nn.Linear(2, 2)
    row = OPTIMIZERS["sparse_adam"]
    optimizer = row.build(model, 0.1, settings_of(row))
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):
        optimizer.step()
    reason = "optimizer 'sparse_adam': it only supports sparse gradients, and this network's gradients are all dense"
    with pytest.raises(NotApplicableError, match=f"^{reason}$"):
        resolve(TrialConfig(optimizer="sparse_adam"))


def pairs_of_values(row: OptimizerRow) -> Iterator[dict[str, Setting]]:
    """Yields every pair of settings, each at all the values that are special to it."""
    values: dict[str, set[Setting]] = {}
    for name, default in settings_of(row).items():
        allowed = row.ranges.get(name)
        edges = {allowed.at_least, allowed.at_most} - {None} if allowed and not isinstance(default, bool) else set()
        values[name] = {default, other_value(row, name, default), *row.choices.get(name, edges)}
    for one, other in combinations(values, 2):
        for first, second in product(values[one], values[other]):
            yield {one: first, other: second}


HEAVY = OptimizerRow(
    name="heavy",
    doc="A row that somebody added.",
    torch_class=torch.optim.SGD,
    settings=OPTIMIZERS["sgd"].settings | {"momentum": 0.99},  # type: ignore[operator]
    lrs=(1e-4, 1e-3, 1e-2),
)


@pytest.mark.parametrize("row", [*OPTIMIZERS.values(), HEAVY], ids=[*OPTIMIZERS, "heavy"])
def test_pairs_of_settings_are_taken_or_left_out(row: OptimizerRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allowed alone makes no sense together, at worst: it never keeps a sweep from starting."""
    monkeypatch.setitem(OPTIMIZERS, row.name, row)
    for given in pairs_of_values(row):
        with contextlib.suppress(NotApplicableError):
            resolve(TrialConfig(optimizer=row.name, optimizer_settings=given))


def test_rows_of_a_class_refuse_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "heavy", HEAVY)
    with pytest.raises(NotApplicableError, match=r"^optimizer 'heavy': nesterov needs momentum above 0$"):
        resolve(TrialConfig(optimizer="heavy", optimizer_settings={"nesterov": True, "momentum": 0}))


@pytest.mark.parametrize(
    ("optimizer", "settings", "reason"),
    [
        ("sgd", {"nesterov": True}, "optimizer 'sgd': nesterov needs momentum above 0"),
        ("sgd", {"nesterov": True, "momentum": 0}, "optimizer 'sgd': nesterov needs momentum above 0"),
        ("sgd_dampened", {"nesterov": True}, "optimizer 'sgd_dampened': nesterov needs zero dampening"),
        ("sgd", {"dampening": 0.5}, "optimizer 'sgd': dampening has no effect unless momentum is above 0"),
        ("muon", {"momentum": 0}, "optimizer 'muon': nesterov needs momentum above 0"),
        (
            "adam",
            {"decoupled_weight_decay": True},
            "optimizer 'adam': decoupled_weight_decay has no effect unless weight_decay is above 0",
        ),
        ("rprop", {"step_min": 100}, "optimizer 'rprop': step_min is above step_max"),
    ],
)
def test_combinations_that_make_no_sense(optimizer: str, settings: dict[str, Setting], reason: str) -> None:
    with pytest.raises(NotApplicableError) as caught:
        resolve(TrialConfig(optimizer=optimizer, optimizer_settings=settings))
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        (
            "adam",
            {"momentum": 0.9},
            "optimizer 'adam' has no setting 'momentum'; it has: beta1, beta2, eps, weight_decay",
        ),
        ("adam", {"beta1": 1.0}, "optimizer.beta1 must be a number of at least 0 and below 1, not 1.0"),
        ("sgd", {"weight_decay": -1}, "optimizer.weight_decay must be a number of at least 0, not -1"),
        (
            "lbfgs",
            {"line_search_fn": "armijo"},
            'optimizer.line_search_fn must be one of null, strong_wolfe, not "armijo"',
        ),
        ("lbfgs", {"max_eval": 2.5}, "optimizer.max_eval must be a whole number of at least 1, not 2.5"),
        ("adafactor", {"d": 0.5}, "optimizer.d must be a number of at least 1, not 0.5"),
        ("asgd", {"t0": 1}, "optimizer 'asgd' has no setting 't0'; it has: lambd, alpha, weight_decay"),
    ],
)
def test_settings_refused(optimizer: str, settings: dict[str, Setting], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\S") as caught:
        resolve(TrialConfig(optimizer=optimizer, optimizer_settings=settings))
    assert str(caught.value).startswith(message)
    assert not isinstance(caught.value, NotApplicableError)


# -- steps ----------------------------------------------------------------------------------------------------------


def stepped(
    optimizers: Sequence[Optimizer], model: nn.Module, rates: Sequence[float] = (), steps: int = 3
) -> list[Tensor]:
    """Returns the parameters of a network after some steps on two images, at rates of their own if given."""
    images = torch.randn(2, 1, 8, 8, generator=generator(1))
    labels = torch.tensor([0, 1])

    def closure() -> Tensor:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rates[step] if rates else group["lr"]
        if len(optimizers) > 1:
            closure()
        for optimizer in optimizers:
            optimizer.step(closure if len(optimizers) == 1 else None)  # type: ignore[arg-type]
    return [parameter.detach() for parameter in model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", APPLICABLE)
def test_only_rprop_takes_no_notice_of_a_schedule(name: str) -> None:
    """Which optimizers a schedule of learning rates can change: all that do not say otherwise."""
    row = OPTIMIZERS[name]
    # A full step of L-BFGS would end at the minimum of two images, whatever the rate.
    settings = settings_of(row, **({"max_iter": 1, "line_search_fn": None} if name == "lbfgs" else {}))
    constant, falling = [
        stepped([row.build(model, 0.01, settings)], model, rates)
        for model, rates in ((network(), [0.01, 0.01, 0.01]), (network(), [0.01, 0.005, 0.001]))
    ]
    assert same(constant, falling) is (row.unscheduled is not None)


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model, twin = network(), network()
    combined = OPTIMIZERS["muon"].build(model, 0.01, settings_of(OPTIMIZERS["muon"]))
    matrices = [p for p in twin.parameters() if p.ndim == 2]
    rest = [p for p in twin.parameters() if p.ndim != 2]
    assert [len(group["params"]) for group in combined.param_groups] == [len(matrices), len(rest)] == [2, 4]
    parts = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1),
    ]
    # The rate of both follows the one schedule.
    rates = [0.01, 0.02, 0.005]
    assert same(stepped([combined], model, rates), stepped(parts, twin, rates))


def test_muon_and_adamw_go_on_from_their_state() -> None:
    """Loaded groups are new ones: a schedule has to reach the parts through them."""
    row = OPTIMIZERS["muon"]
    model, twin = network(), network()
    one, other = (row.build(m, 0.01, settings_of(row)) for m in (model, twin))
    stepped([one], model, [0.01, 0.02, 0.005])
    twin.load_state_dict(model.state_dict())
    groups = other.state_dict()["param_groups"]
    other.load_state_dict({"state": copy.deepcopy(one.state_dict()["state"]), "param_groups": groups})
    rates = [0.02, 0.01, 0.03]
    assert same(stepped([one], model, rates), stepped([other], twin, rates))


def test_lbfgs_counts_its_function_evaluations(few_images: Images) -> None:
    def evaluations(**settings: Setting) -> int:
        trial = TrialConfig(optimizer="lbfgs", lr=0.1, epochs=1, train_limit=128, optimizer_settings=settings)
        return next(train(trial, images=few_images)).function_evaluations

    # Two batches. Without a search along lines, an iteration is one evaluation and the last needs none after it.
    assert evaluations(max_iter=3, line_search_fn=None) == 6
    assert evaluations(max_iter=3, line_search_fn="strong_wolfe") > 6
    (adam,) = train(TrialConfig(epochs=1, train_limit=128), images=few_images)
    assert adam.function_evaluations == 2


@pytest.mark.parametrize("name", APPLICABLE)
def test_loss_falls(name: str, few_images: Images) -> None:
    """80 steps of eight images bring the loss well below that of guessing, ln 10 = 2.3 (L-BFGS: 10 steps of 64)."""
    batch_size = 64 if name == "lbfgs" else 8
    trial = TrialConfig(optimizer=name, epochs=2, batch_size=batch_size, train_limit=320)
    # A row that is not known to the table of rates may need its fastest: 80 steps are few.
    lrs = [rate(name)] if name in RATES else OPTIMIZERS[name].lrs
    losses = [list(train(trial.replace(lr=lr), images=few_images))[-1].train_loss for lr in lrs]
    assert min(losses) < 0.9 * math.log(10)


BAND = (0.84, 0.91, "")
SHORT_OF_THE_BAND = {
    "rprop": (0.65, 0.84, "each step follows the signs of one batch's gradient, mostly noise: it needs full batches"),
    "lbfgs": (0.75, 0.87, "its curvature is the difference between two batches, mostly noise: it needs large batches"),
}
"""Row -> what it reaches on batches of 64 instead, and why."""


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICABLE)
def test_accuracy_after_three_epochs(name: str, images: Images) -> None:
    """LeNet ends at 0.89 to 0.915 after 10 to 30 epochs; after three it is on its way there."""
    *_, last = train(TrialConfig(optimizer=name, lr=rate(name), epochs=3), images=images)
    low, high, why = SHORT_OF_THE_BAND.get(name, BAND)
    assert low < last.val_accuracy < high, why
