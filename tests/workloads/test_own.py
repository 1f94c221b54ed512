"""Networks and data of a user's own: trained as a plain loop would, exactly; refused in one line that says where."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ray import cloudpickle
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from tests.workloads.test_draws import disturb
from tests.workloads.test_training import equal, measured, same_training, trained
from workloads import Range, Workload, blame, datasets, own, preflight
from workloads.draws import generator, global_draws
from workloads.errors import InputError
from workloads.exactness import inexact
from workloads.fingerprint import fingerprints
from workloads.own_data import OwnData
from workloads.registry import WORKLOADS, dataset_of, resolve, settings_of
from workloads.rows import NotApplicableError
from workloads.training import Hardware, Images, build_model, evaluate, seconds_per_epoch, train
from workloads.trial import TrialConfig

CPU = torch.device("cpu")
Arrays = tuple[NDArray[Any], NDArray[Any]]


pytestmark = pytest.mark.usefixtures("workloads_as_before")


def numbers(count: int = 150, columns: int = 4) -> Arrays:
    """Returns inputs and a function of them: (n, columns) and (n, 1)."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, columns)).astype(np.float32)
    return x, (x[:, :1] * x[:, 1:2] - x[:, 2:3]).astype(np.float32)


def sizes(count: int = 150) -> Arrays:
    """Returns inputs and which of three parts the first column is in: (n, 4) and (n,)."""
    x, _ = numbers(count)
    return x, np.digitize(x[:, 0], (-0.5, 0.5))


def small(width: int = 8) -> nn.Module:
    """Two layers, one output."""
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))


def classifier(width: int = 8, dropout: float = 0) -> nn.Module:
    """Two layers, three outputs."""
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3))


def trial(workload: Workload, **fields: Any) -> TrialConfig:
    """Returns a trial of a workload, with all settings filled in."""
    own.register(workload)
    given: dict[str, Any] = {"optimizer": "adam", "lr": 0.01, "batch_size": 32, "epochs": 4} | fields
    return resolve(TrialConfig(workload=workload.name, **given))


def data_of(config: TrialConfig) -> Images:
    source = dataset_of(config)
    assert isinstance(source, OwnData)
    return Images(source.dataset, CPU)


# -- against a plain loop -------------------------------------------------------------------------------------------


def test_numbers_of_a_plain_loop() -> None:
    x, y = map(torch.from_numpy, numbers())
    data = {"train": (x[:100], y[:100]), "val": (x[100:120], y[100:120]), "test": (x[120:], y[120:])}
    config = trial(Workload(name="own", network=small, data=data, loss="mse"), epochs=3)
    with global_draws(config.seed, 0, 2):
        model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for record in train(config, images=data_of(config)):
        total, error = 0.0, 0.0
        for rows in torch.randperm(100, generator=generator(config.seed, record.epoch)).split(32):
            optimizer.zero_grad()
            outputs = model(x[rows])
            loss = functional.mse_loss(outputs, y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
            error += (outputs.detach() - y[rows]).abs().sum().item()
        with torch.no_grad():
            outputs = model(x[100:120])
        assert record.train_loss == pytest.approx(total / 100, rel=1e-6)
        assert record.train_accuracy == pytest.approx(error / 100, rel=1e-5)
        assert record.val_loss == pytest.approx(functional.mse_loss(outputs, y[100:120]).item(), rel=1e-6)
        assert record.val_accuracy == pytest.approx((outputs - y[100:120]).abs().mean().item(), rel=1e-6)
        assert record.val_class_accuracy is None


# -- exact, whatever the layers -------------------------------------------------------------------------------------


class Gru(nn.Module):
    """Two recurrent layers with dropout between them, the last state to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(x[:, :, None])
        return self.last(states[:, -1])  # type: ignore[no-any-return]


class Attention(nn.Module):
    """A transformer's layer over four positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.embed(x[:, :, None])).mean(1))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two layers with the same weights, which are used a third time as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        back = torch.relu(self.first(x)) @ self.first.weight
        return self.last(torch.relu(self.second(back)))  # type: ignore[no-any-return]


class Transposed(nn.Module):
    """A transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.last = nn.ConvTranspose1d(1, 2, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.up(x[:, None])).flatten(1))  # type: ignore[no-any-return]


class Drawn(nn.Module):
    """Weights drawn by a rule of its own, with NumPy's and torch's generators, and noise while training."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.from_numpy(np.random.rand(4).astype(np.float32)))  # noqa: NPY002
        self.weight = nn.Parameter(torch.empty(3, 4))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x) * 0.1 if self.training else torch.zeros_like(x)
        return functional.linear((x + noise) * self.scale, self.weight)


def normed() -> nn.Module:
    """Batch normalisation."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def dropping() -> nn.Module:
    """Dropout."""
    return classifier(dropout=0.5)


NETWORKS: list[Callable[[], nn.Module]] = [dropping, normed, Gru, Attention, Tied, Transposed, Drawn]


@pytest.mark.parametrize("network", NETWORKS)
def test_stopping_and_going_on_is_exact(network: Callable[[], nn.Module]) -> None:
    config = trial(Workload(name="own", network=network, data=sizes()))
    own.check(config)
    images = data_of(config)
    records, states = trained(config, images)
    for state in states[:-1]:
        disturb()
        rest, later = trained(config, images, start=state)
        assert rest == records[state.epoch :]
        assert same_training(later[-1], states[-1])
    assert not equal(states[-1].model, states[0].model)
    assert inexact([config], Hardware()) is None


@pytest.mark.parametrize("network", NETWORKS)
def test_initial_weights_are_a_function_of_the_seed(network: Callable[[], nn.Module]) -> None:
    config = trial(Workload(name="own", network=network, data=sizes()))
    one = build_model(config).state_dict()
    disturb()
    assert equal(dict(one), dict(build_model(config).state_dict()))
    assert not equal(dict(one), dict(build_model(config.replace(seed=4)).state_dict()))


_draws = torch.Generator().manual_seed(0)


class OwnGenerator(nn.Module):
    """Noise from a generator that nobody knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=_draws) if self.training else 0
        return self.layer(x + noise)  # type: ignore[no-any-return]


class Counter(nn.Module):
    """Noise that fades with a count that is in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.steps = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self.layer(x) / self.steps  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "when"), [(OwnGenerator, "trained again"), (Counter, "gone on with from a checkpoint")]
)
def test_what_is_not_exact_is_found(network: Callable[[], nn.Module], when: str) -> None:
    config = trial(Workload(name="own", network=network, data=sizes()))
    found = inexact([config], Hardware())
    assert found is not None
    assert found.startswith("test_own.py, line ")
    assert when in found
    assert "layer.weight differs" in found


# -- data -----------------------------------------------------------------------------------------------------------


def test_data_without_splits_are_split_by_a_fixed_seed() -> None:
    x, y = numbers()
    parts = OwnData("own", (x, y), of_classes=False).dataset.parts
    assert {split: len(part) for split, part in parts.items()} == {"train": 120, "val": 15, "test": 15}
    orders = [part.order for part in parts.values() if part.order is not None]
    assert sorted(np.concatenate(orders).tolist()) == list(range(150)), "each example is in one split"
    again = OwnData("own", lambda: (x.copy(), y), of_classes=False)
    assert again.digest() == OwnData("own", (torch.from_numpy(x), y), of_classes=False).digest()
    taken = Images(again.dataset, CPU)
    inputs, targets = next(taken.batches("val", 100))
    order = again.dataset.parts["val"].order
    assert order is not None
    np.testing.assert_array_equal(inputs.numpy(), x[order])
    np.testing.assert_array_equal(targets.numpy(), y[order])


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_missing_splits_are_drawn_from_the_training_examples(given: tuple[str, ...]) -> None:
    data = OwnData("own", {split: numbers() for split in given}, of_classes=False)
    held = 15 * (3 - len(given))
    expected = {"train": 150 - held} | {s: 150 if s in given else 15 for s in ("val", "test")}
    assert data.counts == expected


def test_types_are_those_that_networks_take() -> None:
    x = np.arange(40).reshape(20, 2)
    parts = OwnData("own", (x.astype(np.int16), x[:, 0].astype(np.uint8)), of_classes=True).dataset.parts
    assert (parts["train"].inputs.dtype, parts["train"].targets.dtype) == (np.int64, np.int64)
    parts = OwnData("own", (x.astype(np.float64), x[:, 0] > 3), of_classes=False).dataset.parts
    assert (parts["train"].inputs.dtype, parts["train"].targets.dtype) == (np.float32, np.float32)
    parts = OwnData("own", (x.astype(np.uint8), x[:, :1] / 2), of_classes=False).dataset.parts
    assert parts["train"].inputs.dtype == np.uint8, "images may stay bytes; the network scales them"


class _Names:
    classes = ("one", "two", "three")


def test_a_torch_data_set_is_that_of_its_arrays() -> None:
    x, y = sizes()
    of_arrays = OwnData("own", (x, y), of_classes=True)
    of_torch = OwnData("own", TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), of_classes=True)
    assert of_torch.digest() == of_arrays.digest()
    assert of_arrays.classes == ("0", "1", "2")

    class Named(_Names, TensorDataset):
        """With names of its classes, as torchvision's data sets have."""

    named = OwnData("own", {"train": Named(torch.from_numpy(x), torch.from_numpy(y))}, of_classes=True)
    assert named.classes == ("one", "two", "three")


def test_memory_mapped_arrays_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path / "cache"))
    x, y = numbers(50_000)
    np.save(tmp_path / "x.npy", x)
    mapped = OwnData("own", (np.load(tmp_path / "x.npy", mmap_mode="r"), y), of_classes=False)
    assert mapped.digest() == OwnData("own", (x, y), of_classes=False).digest()
    travelling = pickle.dumps(mapped.dataset)
    assert len(travelling) < x.nbytes, "the numbers do not travel, their place does"
    images = Images(pickle.loads(travelling), CPU)
    there = Images(OwnData("own", (x, y), of_classes=False).dataset, CPU)
    rows = torch.tensor([5, 40_000 - 1, 0])
    assert all(torch.equal(*pair) for pair in zip(images.take("train", rows), there.take("train", rows), strict=True))
    np.save(tmp_path / "x.npy", x + 1)
    changed = OwnData("own", (np.load(tmp_path / "x.npy", mmap_mode="r"), y), of_classes=False)
    assert changed.digest() != mapped.digest(), "what is remembered of a file is forgotten when it changes"


def test_what_travels_holds_no_data() -> None:
    calls = []

    def load() -> Arrays:
        calls.append(1)
        return numbers(100_000)

    data = OwnData("own", load, of_classes=False)
    content = cloudpickle.dumps(data)
    assert len(content) < 100_000
    there = cloudpickle.loads(content)
    assert (there.counts, there.digest(), there.classes) == (data.counts, data.digest(), data.classes)
    assert len(there.sample.parts["train"]) == 192
    assert calls == [1], "read once"


def test_a_sample_of_large_examples_is_short() -> None:
    large = np.zeros((20, 1024, 1024), np.float32)
    data = OwnData("own", (large, np.zeros((20, 1), np.float32)), of_classes=False)
    assert {split: len(part) for split, part in data.sample.parts.items()} == {"train": 7, "val": 2, "test": 2}, (
        "4 MiB each"
    )


def _not_a_number() -> Arrays:
    x, y = numbers()
    x[7, 2] = np.nan
    return x, y


def _raising() -> Arrays:
    raise FileNotFoundError("no mine.csv")


class _Random(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(index)
        return x + torch.rand(4), y


WRONG_DATA: dict[str, tuple[Any, bool, str]] = {
    "raises": (_raising, False, "data raised FileNotFoundError: no mine.csv"),
    "one array": (lambda: numbers()[0], False, "data must be (inputs, targets) or a torch Dataset with a length"),
    "three arrays": (lambda: (*numbers(), 1), False, "not tuple of 3"),
    "lengths": (lambda: (numbers()[0], numbers()[1][:-1]), False, "there are 150 inputs but 149 targets"),
    "empty": (
        lambda: {"train": numbers(), "val": (np.zeros((0, 4)), np.zeros((0, 1)))},
        False,
        "'val' has no examples",
    ),
    "few": (lambda: numbers(5), False, "5 examples are too few to split off val and test: 10 are the fewest"),
    "split": (lambda: {"train": numbers(), "dev": numbers()}, False, "splits train, val and test, not 'dev'"),
    "no train": (lambda: {"val": numbers()}, False, "data has no split 'train'"),
    "nan": (lambda: {"train": _not_a_number()}, False, "example 7 is NaN or infinite"),
    "texts": (
        lambda: (np.array(["a"] * 20), np.zeros(20)),
        False,
        "data: inputs must be an array or a tensor of numbers",
    ),
    "numbers as labels": (numbers, True, "must be class labels for this loss, whole numbers from 0, not float32"),
    "labels as numbers": (sizes, False, "must be floating-point numbers for this loss, not int64"),
    "negative": (lambda: (sizes()[0], sizes()[1] - 1), True, "must be from 0, not -1"),
    "random": (lambda: _Random(*map(torch.from_numpy, sizes())), True, "example 0 is different each time it is read"),
    "shapes": (lambda: [np.zeros((2, 2)), np.zeros((3, 1))], False, "there are 2 inputs but 3 targets"),
}


@pytest.mark.parametrize("given", WRONG_DATA)
def test_wrong_data_are_refused_in_one_line(given: str) -> None:
    data, of_classes, expected = WRONG_DATA[given]
    with pytest.raises(blame.OwnCodeError) as refused:
        assert OwnData("own", data, of_classes=of_classes).dataset
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("test_own.py, line "), "it says where"


# -- losses and measures --------------------------------------------------------------------------------------------


def _r2(outputs: Tensor, targets: Tensor) -> float:
    return float(1 - (outputs - targets).square().sum() / (targets - targets.mean()).square().sum())


def _huber(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.huber_loss(outputs, targets)


def test_a_measure_of_a_whole_split() -> None:
    mine = Workload(name="own", network=small, data=numbers, loss=_huber, measure=_r2, higher_is_better=True)
    config = trial(mine, epochs=2)
    own.check(config)
    measure = mine.row.objective.measure
    assert (measure.name, measure.higher_is_better, measure.loss_unit) == ("r2", True, "")
    images = data_of(config)
    records, states = trained(config, images)
    model = build_model(config)
    model.load_state_dict(states[-1].model)
    x, y = next(images.batches("val", 1000))
    with torch.no_grad():
        assert records[-1]["val_accuracy"] == pytest.approx(_r2(model(x), y), rel=1e-5)
        assert records[-1]["val_loss"] == pytest.approx(_huber(model(x), y).item(), rel=1e-5)
    assert records[-1]["train_accuracy"] is None, "not while training"


def _error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs()[:, 0]


def test_a_measure_with_a_value_for_each_example() -> None:
    mine = Workload(name="own", network=small, data=numbers, loss="mse", measure=_error, higher_is_better=False)
    named = Workload(name="other", network=small, data=numbers, loss="mse")
    one, other = (trained(trial(w, epochs=1), data_of(trial(w)))[0][0] for w in (mine, named))
    assert one["val_accuracy"] == pytest.approx(other["val_accuracy"], rel=1e-12)


def test_ranked_by_the_loss() -> None:
    config = trial(Workload(name="own", network=small, data=numbers, loss="mse", measure="loss"), epochs=1)
    ((record,), _) = trained(config, data_of(config))
    assert record["val_accuracy"] == record["val_loss"]
    assert record["train_accuracy"] == pytest.approx(record["train_loss"], rel=1e-6)
    measure = WORKLOADS["own"].objective.measure
    assert (measure.name, measure.higher_is_better) == ("mean squared error", False)


def test_targets_of_0_and_1() -> None:
    x, y = numbers()
    config = trial(Workload(name="own", network=small, data=(x, (y > 0).astype(np.float32)), loss="bce"), epochs=20)
    own.check(config)
    records, _ = trained(config, data_of(config))
    assert 0.6 < records[-1]["val_accuracy"] <= 1


def test_several_labels_an_example() -> None:
    """Logits (n, classes, positions), labels (n, positions): the accuracy is that of all positions."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 5, (200, 7))

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.last = nn.Embedding(5, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.embed(x)).movedim(2, 1)  # type: ignore[no-any-return]

    config = trial(Workload(name="own", network=Reader, data=(tokens, (tokens + 1) % 5)), epochs=30)
    own.check(config)
    images = data_of(config)
    records, states = trained(config, images)
    assert records[-1]["val_accuracy"] == 1
    model = build_model(config)
    model.load_state_dict(states[0].model)
    found = evaluate(model, images, "test", WORKLOADS["own"].objective)
    x, y = next(images.batches("test", 1000))
    with torch.no_grad():
        assert found.loss == pytest.approx(functional.cross_entropy(model(x), y).item(), rel=1e-6)
        assert found.accuracy == pytest.approx((model(x).argmax(1) == y).double().mean().item(), rel=1e-12)


WRONG_OBJECTIVES: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": "mes"}, "unknown loss 'mes'; known: cross_entropy, mse, mae, bce, or a function"),
    "measure": ({"measure": "acuracy"}, "unknown measure 'acuracy' (did you mean 'accuracy'?)"),
    "direction": ({"measure": _r2}, "measure=_r2 is a function of yours: say higher_is_better=True or"),
    "needless direction": ({"higher_is_better": True}, "higher_is_better is for a measure that is a function of yours"),
    "a name": ({"name": "lenet_mnist"}, "a workload of forksweep is named 'lenet_mnist' already"),
    "range": ({"ranges": {"depth": Range(above=0)}}, "has 'depth', which the network does not take as a keyword"),
}


@pytest.mark.parametrize("given", WRONG_OBJECTIVES)
def test_wrong_fields_are_refused(given: str) -> None:
    fields, expected = WRONG_OBJECTIVES[given]
    with pytest.raises(InputError) as refused:
        own.register(Workload(**({"name": "own", "network": classifier, "data": sizes} | fields)))
    assert expected in str(refused.value)


# -- settings -------------------------------------------------------------------------------------------------------


def test_the_network_s_keywords_are_settings() -> None:
    mine = Workload(
        name="own",
        network=classifier,
        data=sizes,
        ranges={"dropout": Range(at_least=0, below=1), "width": Range(at_least=1)},
        refuses={"a narrow network needs no dropout": lambda s: s["width"] < 4 and s["dropout"] > 0},
    )
    config = trial(mine, workload_settings={"width": 16})
    assert config.workload_settings["dropout"] == 0.0
    assert isinstance(config.workload_settings["dropout"], float), "as its annotation says"
    assert build_model(config)[0].out_features == 16  # type: ignore[index, union-attr]
    assert "batch_norm" not in config.workload_settings, "it is LeNet's"
    for given, expected in {
        ("dropout", 1.5): "workload.dropout must be a number of at least 0 and below 1, not 1.5",
        ("width", 0): "workload.width must be a whole number of at least 1, not 0",
        ("depth", 3): "workload 'own' has no setting 'depth'; it has: ",
    }.items():
        with pytest.raises(InputError, match=expected):
            trial(mine, workload_settings=dict([given]))
    with pytest.raises(NotApplicableError, match="a narrow network needs no dropout"):
        trial(mine, workload_settings={"width": 2, "dropout": 0.5})


def test_settings_that_would_do_nothing_are_not_there() -> None:
    config = trial(Workload(name="own", network=small, data=numbers, loss="mse"))
    assert set(config.workload_settings) == {"clip_norm", "width"}
    assert settings_of(config)["balance"] == "none"
    with pytest.raises(InputError, match=r"workload.flip is for images, floating-point inputs .* not \(16, 4\)"):
        own.check(trial(Workload(name="own", network=classifier, data=sizes), workload_settings={"flip": True}))


def test_class_balance_and_augmentation_are_those_of_ours() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0] * 140 + [1] * 60)
    pictures = random.normal(size=(200, 1, 6, 6)).astype(np.float32) + labels[:, None, None, None]

    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))

    mine = Workload(name="own", network=flat, data=(pictures, labels))
    config = trial(mine, workload_settings={"balance": "oversample", "shift": 1, "label_smoothing": 0.1})
    own.check(config)
    records, _ = trained(config, data_of(config))
    assert records[-1]["val_balanced_accuracy"] > 0.5


# -- comparable, or not ---------------------------------------------------------------------------------------------


def _fingerprint(workload: Workload) -> str:
    (found,) = fingerprints([trial(workload)], Hardware()).values()
    return found.training


def test_what_decides_whether_trials_are_comparable_is_what_training_does() -> None:
    def same(width: int = 8) -> nn.Module:
        # Another name, another comment, and a layer that is called otherwise: the same numbers.
        first = nn.Linear(4, width)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(width, 1))

    def other(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def make(network: Callable[..., nn.Module], **fields: Any) -> Workload:
        return Workload(**({"name": "own", "network": network, "data": numbers, "loss": "mse"} | fields))

    mine = _fingerprint(make(small))
    assert _fingerprint(make(same)) == mine
    assert _fingerprint(make(other)) != mine
    assert _fingerprint(make(small, loss="mae")) != mine
    assert _fingerprint(make(small, measure="mean_squared_error")) != mine
    assert _fingerprint(make(small)) == mine, "the table has the first again"


def test_an_epoch_s_time_can_be_estimated() -> None:
    config = trial(Workload(name="own", network=small, data=numbers, loss="mse"), batch_size=64)
    assert 0 < seconds_per_epoch(config, Hardware()) < 10


# -- networks that cannot be trained --------------------------------------------------------------------------------


class _Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("nothing")


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.layer(x), None


def _not_importable() -> nn.Module:
    import not_installed

    return not_installed.network()  # type: ignore[no-any-return]


def _needs(width: int) -> nn.Module:
    return classifier(width)


WRONG_NETWORKS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (_Raises, r"test_own.py, line \d+, in forward: the network, .* raised KeyError: 'nothing'"),
    "a tuple": (_Pair, r"test_own.py, line \d+, _Pair: the network must return a tensor, not tuple"),
    "an import": (_not_importable, r"line \d+, in _not_importable: the network raised ModuleNotFoundError: No module"),
    "no module": (lambda: 3, r"the network must be a torch.nn.Module, not int"),
    "shape": (lambda: nn.Linear(5, 3), r"line \d+, <lambda>: the network, given inputs \(16, 4\), raised RuntimeError"),
    "few logits": (lambda: nn.Linear(4, 2), r"returns 2 logits, but there are 3 classes, labels 0 to 2"),
    "flat": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), r"a row for each of 16 examples, not \(48,\)"),
    "nothing to train": (nn.Flatten, r"the network has no parameters to train"),
    "no default": (_needs, r"line \d+, _needs: parameter 'width' of the network needs a default"),
    "detached": (lambda: _Detached(), r"the loss must be one number, .* with a gradient"),
}


class _Detached(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


@pytest.mark.parametrize("given", WRONG_NETWORKS)
def test_wrong_networks_are_refused_in_one_line(given: str) -> None:
    network, expected = WRONG_NETWORKS[given]
    with pytest.raises(blame.OwnCodeError, match=expected) as refused:
        own.check(trial(Workload(name="own", network=network, data=sizes)))
    assert "\n" not in str(refused.value)


def test_a_network_instead_of_a_function() -> None:
    with pytest.raises(InputError, match="must be a function or class that builds the network"):
        own.register(Workload(name="own", network=nn.Linear(4, 3), data=sizes))


def test_outputs_that_would_be_broadcast_are_refused() -> None:
    x, y = numbers()
    with pytest.raises(blame.OwnCodeError, match=r"returns \(16, 1\), targets are \(16,\)"):
        own.check(trial(Workload(name="own", network=small, data=(x, y[:, 0]), loss="mse")))


def test_plateau_monitors_the_measure_by_its_direction() -> None:
    mine = Workload(name="own", network=small, data=numbers, loss="mse")
    with pytest.raises(InputError, match=r"val_accuracy does not fit 'own', .* mean absolute error: monitor val_error"):
        trial(mine, scheduler="plateau", scheduler_settings={"monitor": "val_accuracy"})
    config = trial(
        mine,
        scheduler="plateau",
        scheduler_settings={"monitor": "val_error", "patience": 0, "threshold": 0.9},
        epochs=4,
    )
    records, _ = trained(config, data_of(config))
    rates = [record["lr"] for record in records]
    assert rates == pytest.approx([0.01, 0.01, 0.003, 0.0009]), "a ninth of the error is no improvement by 90 %"


def test_checks_before_the_start() -> None:
    config = trial(Workload(name="own", network=small, data=numbers, loss="mse"))
    (line,) = preflight.report(config, data_of(config).data)
    assert line.startswith("preflight: initial loss ")
    assert line.endswith("examples shuffled and normalised")
    x, y = numbers()
    config = trial(Workload(name="own", network=small, data=(1000 * x, y), loss="mse"))
    lines = preflight.report(config, data_of(config).data)
    assert any("the training inputs are not normalised" in line and "subtract the mean" in line for line in lines)


def test_lenet_is_not_a_user_s() -> None:
    assert inexact([resolve(TrialConfig())], Hardware()) is None
    own.check(resolve(TrialConfig()))
    assert datasets.FASHION_MNIST is dataset_of(TrialConfig())
    assert measured([]) == []
