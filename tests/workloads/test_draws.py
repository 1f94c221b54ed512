"""Draws: whatever a network draws is a function of seed, epoch and step, and nobody else's draws are disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.workloads.test_training import measured, same_training, trained
from workloads import preflight
from workloads.datasets import DatasetRow
from workloads.draws import generator, global_draws
from workloads.registry import WORKLOADS, WorkloadRow, resolve
from workloads.training import Images, State, build_model, evaluate, train
from workloads.trial import TEST_FIELDS, Settings, TrialConfig


class Recurrent(nn.Module):
    """Rows of the image, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(32, 12, num_layers=2, dropout=0.3, batch_first=True)
        self.out = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.out(self.rows(images[:, 0])[0][:, -1])
        return out


class Attention(nn.Module):
    """Rows of the image, and where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(32, 16)
        self.rows = nn.Linear(32, 16)
        self.attention = nn.MultiheadAttention(16, 2, dropout=0.3, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.rows(images[:, 0]) + self.places(torch.arange(32, device=images.device))
        out: Tensor = self.out(self.attention(rows, rows, rows)[0].mean(1))
        return out


class OwnParameters(nn.Module):
    """Parameters of no layer, noise from three libraries, and an initialisation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(1024, 10) * 0.01)
        self.scale = nn.Parameter(torch.tensor([random.random(), float(np.random.rand())]))  # noqa: NPY002
        self.last = nn.Linear(10, 10)
        nn.init.orthogonal_(self.last.weight)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        if self.training:
            pixels = pixels + 0.1 * torch.randn_like(pixels) + 0.1 * random.random() + 0.1 * np.random.rand()  # noqa: NPY002
        out: Tensor = self.last(pixels @ self.weights) * self.scale.sum()
        return out


def _with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def _upwards() -> nn.Module:
    return nn.Sequential(
        *(nn.MaxPool2d(4), nn.ConvTranspose2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2)),
        *(nn.Flatten(), nn.Linear(400, 10)),
    )


class _DropoutAlways(nn.Module):
    """Draws in evaluation mode too (arXiv:1506.02142)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1024, 10)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layer(functional.dropout(images.flatten(1), 0.5, training=True))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dropout": _with_dropout,
    "recurrent": Recurrent,
    "attention and embedding": Attention,
    "own parameters": OwnParameters,
    "transposed convolution and batch norm": _upwards,
    "dropout in evaluation": _DropoutAlways,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TrialConfig:
    """A trial of a network that is not ours: five steps an epoch."""
    make = NETWORKS[request.param]

    def model(dataset: DatasetRow, settings: Settings) -> nn.Module:
        return make()

    row = WorkloadRow(name="own", doc="A network.", dataset="fashion_mnist", model=model)
    monkeypatch.setitem(WORKLOADS, "own", row)
    return resolve(TrialConfig(workload="own", optimizer="adam", batch_size=32, epochs=4, train_limit=150))


def disturb() -> None:
    """Draws from all global generators."""
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002


def state_of_all() -> str:
    """Returns the state of all global generators."""
    return str((torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()))  # noqa: NPY002


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_initial_weights(network: TrialConfig) -> None:
    one = weights(build_model(network))
    disturb()
    assert torch.equal(weights(build_model(network)), one)
    assert not torch.equal(weights(build_model(network.replace(seed=4))), one)


def test_an_initialisation_of_its_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        WORKLOADS,
        "own",
        WorkloadRow(name="own", doc="A network.", dataset="synthetic", model=lambda dataset, settings: OwnParameters()),
    )
    model = build_model(resolve(TrialConfig(workload="own")))
    assert isinstance(model, OwnParameters)
    torch.testing.assert_close(model.last.weight @ model.last.weight.T, torch.eye(10), rtol=0, atol=1e-5)


def test_two_trainings_of_one_config(network: TrialConfig, few_images: Images) -> None:
    before = state_of_all()
    one, one_states = trained(network, few_images)
    assert state_of_all() == before, "the caller's draws are not disturbed"
    disturb()
    other, other_states = trained(network, few_images)
    assert one == other
    assert same_training(one_states[-1], other_states[-1])


def test_with_others_in_between(network: TrialConfig, few_images: Images) -> None:
    """Suspended after every epoch, while somebody draws and another training goes on in the same process."""
    alone = measured(list(train(network, images=few_images)))
    found = []
    other = train(network.replace(seed=4), images=few_images)
    for record in train(network, images=few_images):
        found.append(record)
        disturb()
        next(other)
    assert measured(found) == alone


def test_going_on_after_every_epoch(network: TrialConfig, few_images: Images) -> None:
    records, states = trained(network, few_images)
    for state in states[:-1]:
        disturb()
        rest, later = trained(network, few_images, start=state)
        assert rest == records[state.epoch :]
        assert same_training(later[-1], states[-1])


def test_looking_at_test_images_changes_nothing(network: TrialConfig, few_images: Images) -> None:
    plain, states = trained(network, few_images)
    looked, other_states = trained(network, few_images, test_epochs=(1, 2))
    unmeasured = dict.fromkeys(TEST_FIELDS)
    assert [record | unmeasured for record in looked] == [record | unmeasured for record in plain]
    assert looked[-1] == plain[-1]
    assert torch.equal(*(torch.cat([t.flatten() for t in s[-1].model.values()]) for s in (states, other_states)))


def test_evaluation_is_a_function_of_the_weights(network: TrialConfig, few_images: Images) -> None:
    _, states = trained(network.replace(epochs=1), few_images)
    model = build_model(network)
    model.load_state_dict(states[-1].model)
    disturb()
    assert evaluate(model, few_images, "val").loss == states[-1].history[-1].val_loss


def test_several_evaluations_a_step(network: TrialConfig, few_images: Images) -> None:
    config = network.replace(optimizer="lbfgs", lr=0.1, epochs=2, optimizer_settings={})
    one, states = trained(config, few_images)
    disturb()
    assert trained(config, few_images)[0] == one
    assert trained(config, few_images, start=states[0])[0] == one[1:]


def test_steps_and_epochs_draw_differently(monkeypatch: pytest.MonkeyPatch, few_images: Images) -> None:
    seen: list[tuple[Any, ...]] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1024, 10)

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                seen.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
            out: Tensor = self.layer(images.flatten(1))
            return out

    row = WorkloadRow(name="own", doc="A.", dataset="fashion_mnist", model=lambda dataset, settings: Watched())
    monkeypatch.setitem(WORKLOADS, "own", row)
    config = TrialConfig(workload="own", batch_size=32, epochs=3, train_limit=150)
    trained(config, few_images)
    trained(config.replace(seed=4), few_images)
    assert len(seen) == 2 * 3 * 5
    assert all(len(set(draws)) == len(seen) for draws in zip(*seen, strict=True))


def test_the_check_before_the_start(network: TrialConfig, few_images: Images) -> None:
    before = state_of_all()
    preflight.check(network, few_images.data)
    assert state_of_all() == before


def test_dropout_does_not_keep_a_batch_from_being_overfitted(
    few_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "SECONDS", 60.0)
    row = WorkloadRow(name="own", doc="A.", dataset="fashion_mnist", model=lambda dataset, settings: _with_dropout())
    monkeypatch.setitem(WORKLOADS, "own", row)
    config = resolve(TrialConfig(workload="own", train_limit=320))
    assert preflight.check(config, few_images.data).overfits


# -- the tools ------------------------------------------------------------------------------------------------------


def test_global_draws_are_a_function_of_the_key() -> None:
    def drawn(*key: int) -> tuple[Any, ...]:
        with global_draws(*key):
            return torch.rand(2).tolist(), random.random(), np.random.rand()  # noqa: NPY002

    before = state_of_all()
    one = drawn(21, 1, 2)
    assert state_of_all() == before
    disturb()
    assert drawn(21, 1, 2) == one
    others = [drawn(*key) for key in [(21, 2, 2), (22, 1, 2), (21, 1, 3), (21, 0, 2), (21,)]]
    assert len({str(found) for found in [one, *others]}) == 6


def test_global_draws_after_an_error() -> None:
    before = state_of_all()
    with pytest.raises(ZeroDivisionError), global_draws(1):
        random.random() / 0
    assert state_of_all() == before


def test_generators_are_what_they_were() -> None:
    """All numbers so far depend on their seeds: 64 bits of NumPy's seed sequence of the key."""
    low, high = np.random.SeedSequence((21, 3)).generate_state(2, np.uint32).tolist()
    assert generator(21, 3).initial_seed() == high * 2**32 + low


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_draws_on_a_gpu() -> None:
    device = torch.device("cuda")

    def drawn() -> Tensor:
        with global_draws(1, 2, device=device):
            return torch.rand(3, device=device)

    before = torch.cuda.get_rng_state()
    one = drawn()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.rand(3, device=device)
    assert torch.equal(drawn(), one)


def test_a_state_is_read_from_bytes_too(network: TrialConfig, few_images: Images) -> None:
    _, states = trained(network.replace(epochs=1), few_images)
    assert same_training(State.from_bytes(states[0].to_bytes()), states[0])
