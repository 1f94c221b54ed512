"""The workload's settings in training: against a plain loop with torch's own arguments, and off by default."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads import datasets
from workloads.augmentation import Augmentation
from workloads.datasets import SYNTHETIC
from workloads.draws import generator
from workloads.lenet import LeNet, initialise
from workloads.registry import WORKLOADS, resolve
from workloads.rows import NotApplicableError
from workloads.sampling import Sampler
from workloads.training import EVALUATION_BATCH, Hardware, Images, State, build_model, evaluate, train
from workloads.trial import EpochRecord, TrialConfig

SHORT = TrialConfig(workload="lenet_synthetic", optimizer="sgd_momentum", lr=0.02, epochs=2, train_limit=160)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Images:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORKSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Images(datasets.load(SYNTHETIC), torch.device("cpu"))


def with_settings(**settings: Any) -> TrialConfig:
    return SHORT.replace(workload_settings=settings)


Loss = Callable[[Tensor, Tensor], Tensor]


def plain_loop(
    config: TrialConfig, images: Images, loss_of: Loss, clip: float | None = None
) -> list[tuple[float, float]]:
    """Trains as a tutorial does; returns training loss and mean gradient norm of each epoch."""
    config = resolve(config)
    settings = config.workload_settings
    model = LeNet(1, 4, batch_norm=bool(settings["batch_norm"]))
    initialise(model, generator(config.seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    sampler = Sampler(images.data.labels[:160], 4, settings)
    found = []
    for epoch in (1, 2):
        model.train()
        losses, norms = [], []
        draws = generator(config.seed, epoch, 1)
        for batch in sampler.order(generator(config.seed, epoch)).split(64):
            optimizer.zero_grad()
            augmentation = Augmentation.of(settings)
            (drawn,) = augmentation.draw([len(batch)], (32, 32), draws, torch.device("cpu"))
            x = augmentation(images.images[batch], drawn)
            loss = loss_of(model(x), images.labels[batch])
            loss.backward()
            norms.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item())
            if clip is not None and norms[-1] > clip:
                for p in model.parameters():
                    assert p.grad is not None
                    p.grad *= clip / norms[-1]
            optimizer.step()
            losses.append(loss.item() * len(batch))
        found.append((sum(losses) / 160, float(np.mean(norms))))
    return found


WEIGHTS = torch.tensor([4.0, 0.5, 1.0, 0.25])

CASES: dict[str, tuple[dict[str, Any], Loss, float | None]] = {
    "nothing": ({}, functional.cross_entropy, None),
    "label smoothing": (
        {"label_smoothing": 0.2},
        # Its definition: a fifth of the target is spread over all classes.
        lambda logits, y: -((0.8 * functional.one_hot(y, 4) + 0.05) * logits.log_softmax(1)).sum(1).mean(),
        None,
    ),
    "clipped": ({"clip_norm": 0.1}, functional.cross_entropy, 0.1),
    "batch norm": ({"batch_norm": True}, functional.cross_entropy, None),
    "augmented": ({"shift": 2, "flip": True, "erasing": 0.3}, functional.cross_entropy, None),
    "thinned": ({"thin_classes": (0,), "thin_to": 0.1}, functional.cross_entropy, None),
    "oversampled": (
        {"thin_classes": (0,), "thin_to": 0.1, "balance": "oversample"},
        functional.cross_entropy,
        None,
    ),
}


@pytest.mark.parametrize(("settings", "loss", "clip"), CASES.values(), ids=CASES)
def test_numbers_of_a_plain_loop(settings: dict[str, Any], loss: Loss, clip: float | None, stripes: Images) -> None:
    records = list(train(with_settings(**settings), images=stripes))
    plain = plain_loop(with_settings(**settings), stripes, loss, clip)
    assert [record.train_loss for record in records] == pytest.approx([loss for loss, _ in plain], rel=1e-4)
    if clip is None:
        assert [record.grad_norm for record in records] == [None, None]
    else:
        assert [record.grad_norm for record in records] == pytest.approx([norm for _, norm in plain], rel=1e-3)
        assert max(norm for _, norm in plain) > clip, "it was clipped"
    if settings:
        alone = list(train(SHORT, images=stripes))
        assert alone[0].train_loss != records[0].train_loss, "the setting does something"


def test_class_weights_are_in_the_loss(stripes: Images) -> None:
    config = with_settings(thin_classes=(0,), thin_to=0.1, balance="class_weights")
    weights = Sampler(stripes.data.labels[:160], 4, resolve(config).workload_settings).class_weights()
    assert weights is not None

    def weighted(logits: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(logits, y, reduction="none")
        return (weights[y] * each).sum() / weights[y].sum()

    records = list(train(config, images=stripes))
    plain = plain_loop(config, stripes, weighted)
    assert [record.train_loss for record in records] == pytest.approx([loss for loss, _ in plain], rel=1e-4)


def test_accuracy_by_class(stripes: Images) -> None:
    states: list[State] = []
    config = with_settings(balance="oversample")
    *_, last = train(config, images=stripes, save=states.append)
    assert isinstance(last, EpochRecord)
    begin, end = stripes.data.span("val")
    labels = stripes.labels[begin:end]
    model = build_model(resolve(config))
    model.load_state_dict(states[-1].model)
    model.eval()
    with torch.no_grad():
        right = model(stripes.images[begin:end]).argmax(1) == labels
    expected = [right[labels == label].double().mean().item() for label in range(4)]
    assert last.val_class_accuracy is not None
    assert json.loads(last.val_class_accuracy) == pytest.approx(expected)
    assert last.val_balanced_accuracy == pytest.approx(np.mean(expected))
    assert last.test_balanced_accuracy is not None
    assert last.test_class_accuracy is not None
    first, _ = train(SHORT, images=stripes)
    measured = (first.val_balanced_accuracy, first.val_class_accuracy, first.grad_norm)
    assert measured == (None, None, None), "not asked for"
    first, _ = train(config, images=stripes)
    assert first.test_balanced_accuracy is first.test_class_accuracy is None, "no test images were evaluated"


def test_a_class_without_images_has_no_accuracy(stripes: Images) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(5)[0].expand(len(images), 5)

    data = replace(stripes.data, classes=("a", "b", "c", "d", "e"))
    found = evaluate(Constant(), Images(data, torch.device("cpu")), "val")
    assert found.class_accuracy == (1.0, 0.0, 0.0, 0.0, None)
    assert found.balanced_accuracy == 0.25
    assert found.images == 200 <= EVALUATION_BATCH


EVERYTHING = {
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "shift": 1,
    "flip": True,
    "erasing": 0.5,
    "batch_norm": True,
    "balance": "oversample",
    "thin_classes": (1,),
    "thin_to": 0.5,
}


@pytest.mark.parametrize("balance", ["oversample", "class_weights"])
def test_going_on_from_a_checkpoint_is_never_having_stopped(balance: str, stripes: Images) -> None:
    config = with_settings(**{**EVERYTHING, "balance": balance}).replace(epochs=4)
    assert EVERYTHING.keys() == WORKLOADS["lenet_synthetic"].settings.keys()
    states: list[State] = []
    records = list(train(config, images=stripes, save=lambda s: states.append(State.from_bytes(s.to_bytes()))))
    assert states[1].config == resolve(config)
    assert any("running_var" in name for name in states[1].model), "statistics are in checkpoints"
    rest = list(train(config, images=stripes, start=states[1]))

    def measured(record: EpochRecord) -> dict[str, Any]:
        return {name: value for name, value in record.to_json().items() if not name.endswith("_seconds")}

    assert [measured(record) for record in rest] == [measured(record) for record in records[2:]]


def test_batch_norm_variant() -> None:
    kinds = [type(layer).__name__ for layer in LeNet(batch_norm=True).layers]
    block = ["Conv2d", "BatchNorm2d", "MaxPool2x2", "ReLU"]
    assert kinds == [*block, *block, "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [layer.bias for layer in LeNet(batch_norm=True).layers if isinstance(layer, nn.Conv2d)] == [None, None]
    # Two biases less and two pairs more: 6 + 16 parameters.
    assert sum(p.numel() for p in LeNet(batch_norm=True).parameters()) == 61_706 + 22


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"label_smoothing": 1.0}, ValueError, "workload.label_smoothing must be a number of at least 0 and below 1"),
        ({"clip_norm": 0}, ValueError, "workload.clip_norm must be a number above 0, not 0"),
        ({"balance": "smote"}, ValueError, "workload.balance must be one of none, oversample, class_weights"),
        (
            {"thin_classes": (4,), "thin_to": 0.1},
            ValueError,
            r"thin_classes must be classes from 0 to 3, not \[4\]",
        ),
        ({"thin_to": 0.1}, NotApplicableError, "thin_to has no effect unless thin_classes is set"),
        ({"flip": 1}, ValueError, "workload.flip must be true or false, not 1"),
    ],
)
def test_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(with_settings(**settings))


def test_a_checkpoint_written_on_a_gpu_is_read_without_one(stripes: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []

    def save(state: State) -> None:
        with monkeypatch.context() as on_gpu:
            on_gpu.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
            kept.append(state.to_bytes())

    *_, last = train(with_settings(**EVERYTHING), images=stripes, save=save)
    assert b"cuda:0" in kept[0], "that is what it says of its tensors"
    state = State.from_bytes(kept[0])
    assert {value.device.type for value in state.model.values()} == {"cpu"}
    (again,) = train(with_settings(**EVERYTHING), images=stripes, start=state)
    assert again.val_loss == last.val_loss


def test_round_trip_from_gpu_to_cpu(stripes: Images) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    on_gpu = Images(stripes.data, torch.device("cuda"))
    config = with_settings(**EVERYTHING)
    kept: list[bytes] = []
    list(train(config, images=on_gpu, hardware=Hardware(gpu=True), save=lambda s: kept.append(s.to_bytes())))
    (record,) = train(config, images=stripes, start=State.from_bytes(kept[0]))
    assert record.epoch == 2
    (back,) = train(config, images=on_gpu, hardware=Hardware(gpu=True), start=State.from_bytes(kept[0]))
    assert back.train_loss == pytest.approx(record.train_loss, rel=1e-2)
