"""train: the numbers of a plain PyTorch loop, bit for bit, however often it was stopped, whoever trains beside it."""

import io
import pickle
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads.datasets import Split
from workloads.draws import generator
from workloads.lenet import LeNet, initialise
from workloads.optimizers import OPTIMIZERS
from workloads.registry import resolve
from workloads.schedulers import SCHEDULERS
from workloads.training import Hardware, Images, State, build_model, evaluate, seconds_per_epoch, train
from workloads.trial import TEST_FIELDS, Diverged, EpochRecord, TrialConfig, canonical_json, packed

SHORT = TrialConfig(optimizer="sgd_momentum", lr=0.02, batch_size=32, epochs=6, train_limit=150)
"""A trial of a second on `few_images`: five steps an epoch, the last of 22 images."""


def measured(records: Collection[EpochRecord]) -> list[dict[str, Any]]:
    """Returns records without what a clock says."""
    clocks = {"train_seconds", "eval_seconds"}
    return [{name: value for name, value in r.to_json().items() if name not in clocks} for r in records]


def trained(config: TrialConfig, images: Images, **how: Any) -> tuple[list[dict[str, Any]], list[State]]:
    """Returns what training measured, and copies of its states."""
    states: list[State] = []
    records = list(
        train(config, images=images, save=lambda state: states.append(State.from_bytes(state.to_bytes())), **how)
    )
    return measured(records), states


def equal(one: Any, other: Any) -> bool:
    """Whether two states are bitwise equal, through all their containers."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def same_training(one: State, other: State) -> bool:
    """Whether two states are bitwise equal in all but times."""
    return (
        equal(one.model, other.model)
        and equal(one.optimizer, other.optimizer)
        and measured(one.history) == measured(other.history)
    )


# -- against a plain loop -------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "sgd_momentum": lambda model, lr: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
    "adam": lambda model, lr: torch.optim.Adam(model.parameters(), lr=lr),
}
"""Optimizers as a tutorial would make them."""


def plain_loop(config: TrialConfig, images: Images) -> Iterator[dict[str, float]]:
    """Trains as any tutorial does.

    Sums of losses are exact in double precision, in whatever order: single-precision terms leave it 29 bits to spare.
    """
    x, y = images.images, images.labels
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    initialise(model, generator(config.seed))
    optimizer = PLAIN[config.optimizer](model, config.lr)
    for epoch in range(1, config.epochs + 1):
        model.train()
        order = torch.randperm(config.train_limit, generator=generator(config.seed, epoch))
        loss_sum, right = 0.0, 0
        for batch in order.split(config.batch_size):
            optimizer.zero_grad()
            logits = model(x[batch])
            loss = functional.cross_entropy(logits, y[batch])
            loss.backward()
            optimizer.step()
            loss_sum += (loss * len(batch)).item()
            right += int((logits.argmax(1) == y[batch]).sum())
        measured = {"train_loss": loss_sum / len(order), "train_accuracy": right / len(order)}
        model.eval()
        for split, begin, end in (("val", 55_000, 60_000), ("test", 60_000, 70_000)):
            loss_sum, right = 0.0, 0
            for low in range(begin, end, 250):
                with torch.no_grad():
                    logits = model(x[low : low + 250])
                loss_sum += functional.cross_entropy(logits, y[low : low + 250], reduction="sum").item()
                right += int((logits.argmax(1) == y[low : low + 250]).sum())
            measured |= {f"{split}_loss": loss_sum / (end - begin), f"{split}_accuracy": right / (end - begin)}
        yield measured


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd_momentum", 0.05), ("adam", 0.001)])
def test_numbers_of_a_plain_loop(optimizer: str, lr: float, images: Images) -> None:
    config = TrialConfig(optimizer=optimizer, lr=lr, epochs=2, train_limit=1_290, test_every_epoch=True)
    ours = [record.to_json() for record in train(config, images=images)]
    plain = list(plain_loop(config, images))
    assert [{name: record[name] for name in plain[0]} for record in ours] == plain
    assert plain[1]["train_loss"] < plain[0]["train_loss"] < 2.4
    assert plain[1]["test_accuracy"] > 0.25, "it learns"
    assert [(r["lr"], r["lr_last"], r["function_evaluations"]) for r in ours] == [(lr, lr, 21)] * 2


@pytest.mark.slow
def test_adam_after_ten_epochs(images: Images) -> None:
    *_, last = train(TrialConfig(optimizer="adam", lr=0.001, epochs=10), images=images)
    assert last.test_accuracy is not None
    assert 0.885 <= last.test_accuracy <= 0.915


# -- what decides the numbers ---------------------------------------------------------------------------------------


def test_the_same_trial_twice(few_images: Images) -> None:
    one, one_states = trained(SHORT, few_images)
    other, other_states = trained(SHORT, few_images)
    assert one == other
    assert same_training(one_states[-1], other_states[-1])


def test_a_trial_beside_another(few_images: Images) -> None:
    other = SHORT.replace(optimizer="adam", lr=0.001, seed=4)
    alone = [measured(list(train(config, images=few_images))) for config in (SHORT, other)]
    turns = zip(train(SHORT, images=few_images), train(other, images=few_images), strict=True)
    assert [measured(records) for records in zip(*turns, strict=True)] == alone


def test_seeds_differ(few_images: Images) -> None:
    (one, *_), (other, *_) = (trained(SHORT.replace(seed=seed), few_images)[0] for seed in (1, 2))
    assert one["train_loss"] != other["train_loss"]
    assert one["val_loss"] != other["val_loss"]


def test_order_of_the_images_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.randperm(50, generator=generator(seed, epoch)).tolist()

    keys = [(seed, epoch) for seed in (0, 1, 21, 2**40) for epoch in (1, 2, 30)]
    orders = [order(*key) for key in keys]
    torch.manual_seed(3)
    assert orders == [order(*key) for key in keys]
    assert len({tuple(order) for order in orders}) == len(keys)


@pytest.mark.parametrize("workload_epochs", [1, 2])
def test_initial_weights_do_not_depend_on_the_epochs(workload_epochs: int, few_images: Images) -> None:
    first, *_ = trained(SHORT.replace(epochs=workload_epochs), few_images)[0]
    assert first["train_loss"] == trained(SHORT, few_images)[0][0]["train_loss"]


def test_global_state_is_left_alone(few_images: Images) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - it is the global state that is looked at
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    records = trained(SHORT, few_images)[0]
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == str(before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    torch.manual_seed(2)
    assert trained(SHORT, few_images)[0] == records


def test_images_are_left_alone(few_images: Images) -> None:
    before = few_images.images.clone(), few_images.labels.clone()
    trained(SHORT.replace(epochs=1), few_images)
    assert torch.equal(few_images.images, before[0])
    assert torch.equal(few_images.labels, before[1])


def test_read_only_arrays(few_images: Images) -> None:
    """Arrays in Ray's object store cannot be written to; torch's warning of that would be an error here."""
    data = replace(few_images.data, images=few_images.data.images.copy(), labels=few_images.data.labels.copy())
    data.images.flags.writeable = data.labels.flags.writeable = False
    records, _ = trained(SHORT, Images(data, torch.device("cpu")))
    assert records == trained(SHORT, few_images)[0]


# -- what is measured -----------------------------------------------------------------------------------------------


def test_means_are_over_images(few_images: Images) -> None:
    """A step so small that the weights stay what they are makes an epoch an evaluation of the training images."""
    config = SHORT.replace(optimizer="sgd", lr=1e-30, epochs=1)
    (record,) = trained(config, few_images)[0]
    model = LeNet()
    initialise(model, generator(config.seed))
    with torch.no_grad():
        logits = model(few_images.images[:150])
        loss = functional.cross_entropy(logits.double(), few_images.labels[:150]).item()
        right = (logits.argmax(1) == few_images.labels[:150]).sum().item()
    assert record["train_loss"] == pytest.approx(loss, rel=1e-6)
    assert record["train_accuracy"] == right / 150
    assert record["function_evaluations"] == 5, "the last, smaller batch is trained too"


class _OneHot(nn.Module):
    """Calls every image by the class in its first pixel, with a loss of ln(1 + 9 / e) where it is right."""

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        return functional.one_hot(images[:, 0, 0, 0].long(), 10).float()


@pytest.mark.parametrize("count", [10_000, 610], ids=["all", "a last batch of 110"])
def test_all_images_are_evaluated(count: int, images: Images) -> None:
    begin, end = images.data.span("test")
    assert end - begin == 10_000
    end = begin + count
    labels = images.labels[:end]
    told = torch.zeros(end, 1, 1, 1)
    told[:, 0, 0, 0] = labels
    # Wrong about 3 of them, the first and the last among them.
    for wrong in (begin, begin + 500, end - 1):
        told[wrong] = (labels[wrong] + 1) % 10
    data = replace(images.data, images=told.numpy(), labels=labels.numpy())
    found = evaluate(_OneHot(), Images(data, torch.device("cpu")), "test")
    assert found.images == count
    assert found.accuracy == (count - 3) / count
    expected = ((count - 3) * np.log(1 + 9 / np.e) + 3 * np.log(9 + np.e)) / count
    assert found.loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "test_epochs", "expected"),
    [({}, (), [6]), ({}, (2, 3), [2, 3, 6]), ({"test_every_epoch": True}, (), [1, 2, 3, 4, 5, 6])],
    ids=["at the end", "where asked", "every epoch"],
)
def test_when_test_images_are_evaluated(
    changes: dict[str, Any], test_epochs: tuple[int, ...], expected: list[int], few_images: Images
) -> None:
    config = SHORT.replace(**changes)
    records, _ = trained(config, few_images, test_epochs=test_epochs)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    for name in ("test_loss", "test_accuracy"):
        assert [record["epoch"] for record in records if record[name] is not None] == expected
    plain, _ = trained(SHORT, few_images)
    unmeasured = dict.fromkeys(("trial_id", "computed_by", *TEST_FIELDS))
    assert [r | unmeasured for r in records] == [r | unmeasured for r in plain], "looking does not change training"
    assert records[-1]["test_loss"] == plain[-1]["test_loss"]


def test_identity_of_records(few_images: Images) -> None:
    records = list(train(SHORT, images=few_images))
    assert {(r.trial_id, r.computed_by) for r in records} == {(resolve(SHORT).trial_id,) * 2}
    assert all(r.train_seconds > 0 and r.eval_seconds > 0 for r in records)


# -- seeds of its own -----------------------------------------------------------------------------------------------

RANDOM = SHORT.replace(
    workload_settings={"shift": 2, "flip": True, "erasing": 0.2}, optimizer="adam", lr=0.001, per_image=True
)
"""Augmentation draws random numbers besides the order of the images."""


def numbers(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns records without whose they are."""
    return [{name: value for name, value in one.items() if name not in ("trial_id", "computed_by")} for one in records]


def test_initial_weights_and_order_can_have_seeds_of_their_own(few_images: Images) -> None:
    plain, _ = trained(RANDOM.replace(seed=3), few_images)
    for same in (
        {"seed": 4, "init_seed": 3, "order_seed": 3},
        {"seed": 3, "init_seed": 3},
        {"seed": 3, "order_seed": 3},
    ):
        other, _ = trained(RANDOM.replace(**same), few_images)
        assert numbers(plain) == numbers(other)
    here, there = (build_model(resolve(RANDOM.replace(seed=seed, init_seed=5))).state_dict() for seed in (3, 4))
    assert equal(dict(here), dict(there)), "the same initial weights"
    other, _ = trained(RANDOM.replace(seed=4, init_seed=3), few_images)
    assert other[0]["train_loss"] != plain[0]["train_loss"], "in another order"


def test_another_order_from_an_epoch_on_is_that_of_the_other_seed(few_images: Images) -> None:
    """Its augmentation too: from the state before, the same as a training with that seed alone."""
    trunk, states = trained(RANDOM.replace(seed=3), few_images)
    forked, ends = trained(RANDOM.replace(seed=3, order_seed=8, reorder_from=4), few_images)
    assert numbers(forked[:3]) == numbers(trunk[:3])
    rest, alone = trained(RANDOM.replace(seed=8), few_images, start=states[2])
    assert numbers(forked[3:]) == numbers(rest)
    assert forked[3]["train_loss"] != trunk[3]["train_loss"]
    assert equal(ends[-1].model, alone[-1].model)


def test_which_validation_images_are_right(few_images: Images) -> None:
    records, states = trained(RANDOM, few_images)
    model = build_model(states[-1].config)
    model.load_state_dict(states[-1].model)
    model.eval()
    batches = list(few_images.batches("val", 100))
    with torch.inference_mode():
        right = torch.cat([model(batch).argmax(1) == labels for batch, labels in batches])
    assert records[-1]["val_right"] == packed(right.tolist())
    plain, _ = trained(RANDOM.replace(per_image=False), few_images)
    assert plain[-1]["val_right"] is None
    assert numbers(plain) == [one | {"val_right": None} for one in numbers(records)], "looking changes no training"


# -- stopping and going on ------------------------------------------------------------------------------------------

APPLICABLE = [row.name for row in OPTIMIZERS.values() if row.not_applicable is None]

VARIANTS = {
    **{f"optimizer {name}": SHORT.replace(optimizer=name, lr=OPTIMIZERS[name].lrs[0]) for name in APPLICABLE},
    **{f"scheduler {name}": SHORT.replace(scheduler=name) for name in SCHEDULERS},
    "plateau that acts": SHORT.replace(
        scheduler="plateau", scheduler_settings={"patience": 0, "threshold": 0.5, "monitor": "val_loss"}
    ),
    "warm-up over the stop": SHORT.replace(scheduler="one_cycle", scheduler_settings={"warmup_epochs": 4}),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_going_on_from_a_checkpoint(config: TrialConfig, few_images: Images) -> None:
    records, states = trained(config, few_images)
    start = states[2]
    assert (start.epoch, len(records), len(states)) == (3, 6, 6)
    rest, later = trained(config, few_images, start=start)
    assert rest == records[3:]
    assert same_training(later[-1], states[-1])
    assert start.history == states[-1].history[:3], "what was is kept, times too"


def test_stopped_after_every_epoch(few_images: Images) -> None:
    config = SHORT.replace(scheduler="step", scheduler_settings={"step_size": 2})
    records, states = trained(config, few_images)
    kept: list[bytes] = []
    for epoch in range(6):
        start = State.from_bytes(kept[-1]) if kept else None
        go_on = train(config, images=few_images, start=start, save=lambda state: kept.append(state.to_bytes()))
        assert measured([next(go_on)]) == [records[epoch]]
        go_on.close()
    assert len(kept) == 6
    assert same_training(State.from_bytes(kept[-1]), states[-1])


def test_nothing_is_left_after_the_last_epoch(few_images: Images) -> None:
    _, states = trained(SHORT, few_images)
    assert list(train(SHORT, images=few_images, start=states[-1])) == []


@pytest.mark.parametrize("optimizer", APPLICABLE)
def test_a_state_can_be_gone_on_from_twice(optimizer: str, few_images: Images) -> None:
    config = SHORT.replace(optimizer=optimizer, lr=OPTIMIZERS[optimizer].lrs[0], epochs=3)
    _, states = trained(config, few_images)
    one, other = (trained(config, few_images, start=states[0]) for _ in range(2))
    assert one[0] == other[0]
    assert same_training(one[1][-1], other[1][-1])


@pytest.mark.parametrize("optimizer", APPLICABLE)
def test_a_state_stays_what_it_was(optimizer: str, few_images: Images) -> None:
    config = SHORT.replace(optimizer=optimizer, lr=OPTIMIZERS[optimizer].lrs[0], epochs=3)
    kept: list[tuple[State, State]] = []

    def save(state: State) -> None:
        kept.append((state, State.from_bytes(state.to_bytes())))

    list(train(config, images=few_images, save=save))
    start = kept[0][0]
    list(train(config, images=few_images, start=start, save=save))
    assert all(same_training(state, then) for state, then in kept)
    pointers = [{t.data_ptr() for t in state.model.values()} for state, _ in kept]
    assert not pointers[0] & pointers[1], "each has tensors of its own"


def test_checkpoints_are_plain(few_images: Images) -> None:
    kept: list[bytes] = []
    list(train(SHORT.replace(optimizer="adam", epochs=2), images=few_images, save=lambda s: kept.append(s.to_bytes())))
    content = torch.load(io.BytesIO(kept[-1]), weights_only=True)
    assert content.keys() == {"config", "model", "optimizer", "epoch", "history", "images"}
    assert TrialConfig.from_json(content["config"]) == resolve(SHORT.replace(optimizer="adam", epochs=2))
    assert content["epoch"] == 2 == len(content["history"])
    LeNet().load_state_dict(content["model"])
    assert {name for state in content["optimizer"].values() for name in state} == {"step", "exp_avg", "exp_avg_sq"}


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    content = io.BytesIO()
    torch.save({"model": Trap()}, content)
    with pytest.raises(pickle.UnpicklingError):
        State.from_bytes(content.getvalue())
    assert not mark.exists()
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)
    assert mark.exists(), "it would have"


# -- outcomes and settings ------------------------------------------------------------------------------------------


def test_divergence_at_once(few_images: Images) -> None:
    with pytest.raises(Diverged, match=r"^training loss is (nan|inf) in epoch 1$"):
        list(train(SHORT.replace(optimizer="sgd", lr=1e6), images=few_images))


def test_divergence_after_some_epochs(few_images: Images) -> None:
    config = SHORT.replace(optimizer="sgd", scheduler="step", scheduler_settings={"step_size": 2, "gamma": 1e10})
    records = []
    with pytest.raises(Diverged, match=r"loss is (nan|inf) in epoch 3$"):
        records.extend(train(config, images=few_images))
    # list.extend takes in what comes before the exception.
    assert [record.epoch for record in records] == [1, 2]
    assert all(np.isfinite([record.train_loss, record.val_loss]).all() for record in records)


def too_bright(images: Images, split: Split) -> Images:
    """Returns images of which one of a split is so bright that its loss is not finite."""
    data = images.data.images.copy()
    data[images.data.span(split)[0]] = np.inf
    return Images(replace(images.data, images=data), torch.device("cpu"))


def test_divergence_on_the_validation_images(few_images: Images) -> None:
    with pytest.raises(Diverged, match=r"^validation loss is (nan|inf) in epoch 1$"):
        list(train(SHORT, images=too_bright(few_images, "val")))


def test_a_test_loss_that_is_not_finite_ends_nothing(few_images: Images) -> None:
    """A trial that ends sooner may share this training and look at the test images there: its longer twin goes on."""
    images = too_bright(few_images, "test")
    alone, _ = trained(SHORT, images)
    shared, _ = trained(SHORT, images, test_epochs=(2,))
    assert [record["epoch"] for record in alone] == [1, 2, 3, 4, 5, 6]
    short, _ = trained(SHORT.replace(epochs=2), images)
    unmeasured = {"trial_id": None, "computed_by": None}
    assert shared[1] | unmeasured == short[1] | unmeasured, "the shorter trial's record, wherever it is trained"
    assert [r for r in shared if r["epoch"] != 2] == [r for r in alone if r["epoch"] != 2]
    for record in (shared[1], alone[-1]):
        assert record["test_loss"] is None, "a number that does not exist"
        assert record["test_accuracy"] is not None, "the images were looked at"
    canonical_json(shared)  # would raise for what is no JSON


@pytest.mark.parametrize("threads", [2, 1])
def test_threads(threads: int) -> None:
    assert Hardware(threads=threads).apply() == torch.device("cpu")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("benchmark", "deterministic"), [(False, True), (True, False)])
def test_cudnn_flags(benchmark: bool, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not benchmark)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", not deterministic)
    hardware = Hardware(gpu=True, cudnn_benchmark=benchmark, cudnn_deterministic=deterministic)
    assert hardware.apply() == torch.device("cuda")
    assert torch.backends.cudnn.benchmark is benchmark
    assert torch.backends.cudnn.deterministic is deterministic


def test_share_of_the_gpus_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=16 * 2**30))
    Hardware(gpu=True).apply()
    Hardware(gpu=True, gpu_memory_fraction=0.25).apply()
    # Four processes with half a gibibyte for CUDA's context each, and 3.5 GiB for tensors, are 16 GiB.
    assert asked == [3.5 / 16]
    with pytest.raises(ValueError, match=r"^0.03 of a GPU with 16 GiB is not enough for a process, which takes 0.5 "):
        Hardware(gpu=True, gpu_memory_fraction=0.03).apply()


def test_a_worker_that_had_a_share_gets_all_of_the_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    Hardware(gpu=True).apply()
    assert asked == [1.0]


def test_a_gpu_has_finished_when_its_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    clock = time.perf_counter
    monkeypatch.setattr(Hardware, "apply", lambda self: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: happened.append("finished"))
    monkeypatch.setattr(time, "perf_counter", lambda: happened.append("time") or clock())
    seconds_per_epoch(resolve(TrialConfig(workload="lenet_synthetic", epochs=1)), Hardware(gpu=True))
    assert happened == ["finished", "time"] * 4, "before and after, of a step and of an evaluation"


def test_estimate_of_an_epoch(images: Images) -> None:
    config = resolve(TrialConfig(epochs=1, train_limit=6_400))
    (record,) = train(config, images=images)
    estimate = seconds_per_epoch(config, Hardware())
    # An epoch's test evaluation is not part of it; a shared machine makes both times vague.
    assert record.train_seconds / 5 < estimate < 5 * (record.train_seconds + record.eval_seconds)


def test_trials_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"^unknown optimizer 'adamm' \(did you mean 'adam'\?\); known: sgd, "):
        next(train(TrialConfig(optimizer="adamm")))
    with pytest.raises(ValueError, match=r"^batch_size must be at most the 10 training images, not 64$"):
        next(train(TrialConfig(train_limit=10)))
