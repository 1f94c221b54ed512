"""Checks before the start: they pass for what is right, name what is wrong, and stop nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from workloads import datasets, preflight, training
from workloads.datasets import SYNTHETIC, Dataset
from workloads.registry import resolve
from workloads.sampling import Sampler
from workloads.trial import TrialConfig

CONFIG = resolve(TrialConfig(workload="lenet_synthetic", optimizer="sgd", lr=1e-4))


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORKSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return datasets.load(SYNTHETIC)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared machine may be slow."""
    monkeypatch.setattr(preflight, "SECONDS", 60.0)


def test_all_is_well(stripes: Dataset) -> None:
    seen = preflight.check(CONFIG, stripes)
    assert seen.warnings() == [], "the sweep's slow learning rate is no fault"
    assert seen.final_loss < 0.1 < seen.start_loss
    (line,) = preflight.report(CONFIG, stripes)
    assert line.startswith(f"preflight: initial loss {seen.start_loss:.2f} (ln 4 = 1.39), overfits one batch in ")


def test_of_the_shipped_data_within_three_seconds(dataset: Dataset) -> None:
    started = time.process_time()
    assert preflight.check(resolve(TrialConfig()), dataset).warnings() == []
    assert time.process_time() - started < 3


def _all_alike(data: Dataset) -> Dataset:
    """Equal images of different classes cannot be told apart."""
    noise = np.random.default_rng(0).normal(0, 1, (1, 1, 32, 32)).astype(np.float32)
    return replace(data, images=np.zeros_like(data.images) + noise)


def _sorted(data: Dataset) -> Dataset:
    order = np.argsort(data.labels[: data.train], kind="stable")
    return replace(data, labels=np.concatenate([data.labels[order], data.labels[data.train :]]))


FAULTS: dict[str, tuple[Callable[[Dataset], Dataset], str]] = {
    "not normalised": (
        lambda data: replace(data, images=data.images * 70 + 120),
        "the training inputs are not normalised: mean 1",
    ),
    "of another scale": (
        lambda data: replace(data, images=data.images * 3),
        "the training inputs are not normalised: mean ",
    ),
    "labels that mean nothing": (_all_alike, "the network cannot overfit one batch: the loss went from 1."),
    "one class": (
        lambda data: replace(data, labels=np.zeros_like(data.labels)),
        "the first batch contains only one class",
    ),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_of_the_data(fault: Callable[[Dataset], Dataset], message: str, stripes: Dataset) -> None:
    found = preflight.report(CONFIG, fault(stripes))
    assert any(line.startswith(f"preflight: {message}") for line in found)


def test_a_busy_machine_is_no_fault(stripes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SECONDS", 0.0)
    (line,) = preflight.report(CONFIG, stripes)
    assert "did not finish overfitting one batch in 0 s (loss 1." in line


def test_a_loss_at_the_start_that_is_too_high(stripes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(config: TrialConfig) -> nn.Module:
        model = training.build_model(config)
        for parameter in model.parameters():
            parameter.data *= 8
        return model

    monkeypatch.setattr(preflight, "build_model", loud)
    found = preflight.check(CONFIG, stripes).warnings()
    assert any(warning.startswith("the initial loss is") and "ln(4) = 1.39" in warning for warning in found)


def test_images_that_are_not_shuffled(stripes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampler, "order", lambda self, generator: torch.arange(800))
    found = preflight.check(CONFIG, _sorted(stripes)).warnings()
    assert [warning for warning in found if "not shuffled" in warning]
    assert [warning for warning in found if "sorted by class" in warning]


def test_a_check_that_fails_stops_nothing(stripes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: TrialConfig) -> nn.Module:
        raise RuntimeError("no such\nlayer")

    monkeypatch.setattr(preflight, "build_model", broken)
    assert preflight.report(CONFIG, stripes) == ["preflight checks failed: RuntimeError: no such layer"]
