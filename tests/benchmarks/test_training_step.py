"""The benchmark of the training step in short: that it measures what it says, and wide bounds on what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from tests.benchmarks import training_step, usual
from tests.benchmarks.training_step import SIDES, Measured, Task, measure_here
from workloads import datasets
from workloads.datasets import DATA_ROOT, FASHION_MNIST
from workloads.lenet import LeNet
from workloads.training import Hardware


def test_as_fast_as_a_bare_loop() -> None:
    Hardware(threads=1).apply()
    measured = measure_here(Task(images=1_280), rounds=5, sides=("ours", "bare loop"))
    assert measured.ratio("bare loop") >= 0.8


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("optimizer", training_step.OPTIMIZERS)
def test_every_side_runs(side: str, optimizer: str) -> None:
    assert SIDES[side](Task(optimizer=optimizer, images=100, usual_workers=0)) > 0


def test_arithmetic_of_a_step() -> None:
    # Multiply-adds of an image: 28^2 x 6 x 25 + 10^2 x 16 x 150 + 400 x 120 + 120 x 84 + 84 x 10
    forward, first = 416_520, 117_600
    # Backward takes two products for each forward, but for the images' gradient.
    assert training_step.flop_of_a_step() == 2 * 64 * (3 * forward - first)
    assert training_step.matrix_product_rate(256, 3) > 1e9


def test_the_same_network() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = usual.lenet()
        torch.manual_seed(0)
        ours = LeNet()
        images = torch.randn(usual.BATCH, 1, 32, 32)
    assert torch.equal(parameters_to_vector(plain.parameters()), parameters_to_vector(ours.parameters()))
    labels = torch.arange(usual.BATCH) % 10
    for model in (plain, ours):
        functional.cross_entropy(model(images), labels).backward()
    assert torch.equal(plain(images), ours(images))
    for name, (one, other) in enumerate(zip(plain.parameters(), ours.parameters(), strict=True)):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad), name


def test_the_usual_script_has_the_same_images(tmp_path: Path) -> None:
    usual.unpack_as_torchvision_does(tmp_path)
    data = torchvision.datasets.FashionMNIST(str(tmp_path), train=True)
    raw = FASHION_MNIST.read(DATA_ROOT)
    assert np.array_equal(data.data.numpy(), raw.train_images)
    assert np.array_equal(data.targets.numpy(), raw.train_labels)
    shipped = sorted(path.stem for path in Path(datasets.__file__).parent.rglob("*.gz"))
    assert sorted(path.name for path in (tmp_path / "FashionMNIST" / "raw").iterdir()) == shipped


def test_figures_of_a_measurement() -> None:
    measured = Measured(2, images=6_390, seconds={"ours": [1.0, 9.0, 2.0], "bare loop": [3.0, 3.0, 5.0]})
    assert measured.median("ours") == 2.0
    assert measured.ratio("bare loop") == 1.5
    assert measured.step_milliseconds("ours") == 20.0
    assert measured.images_per_second("ours") == 6_390
