"""Max-pooling: torch's values and gradients, bit for bit, also where several values of a window are the largest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workloads.pooling import MaxPool2x2

VALUES = torch.tensor([0.0, -0.0, 1.0, 2.0, -1.0, 1e-40, float("inf"), -float("inf")])


def bits(tensor: Tensor) -> Tensor:
    """Returns a tensor as integers: -0.0 is not 0.0."""
    return tensor.contiguous().view(torch.int32)


def both(images: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns values and gradients, ours and torch's."""
    found = []
    for pool in (MaxPool2x2(), torch.nn.MaxPool2d(2)):
        leaf = images.clone().requires_grad_()
        pooled = pool(leaf)
        upstream = torch.arange(1.0, pooled.numel() + 1).reshape(pooled.shape)
        pooled.backward(upstream)
        assert leaf.grad is not None
        found.append((pooled.detach(), leaf.grad))
    return found[0], found[1]


def assert_same(images: Tensor) -> None:
    ours, torchs = both(images)
    for one, other in zip(ours, torchs, strict=True):
        assert torch.equal(bits(one), bits(other))
    with torch.inference_mode():
        assert torch.equal(bits(MaxPool2x2()(images)), bits(torchs[0]))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 7), st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 1000),
)
def test_ties_and_odd_sizes(shape: tuple[int, ...], seed: int) -> None:
    """Few distinct values, so that most windows hold their largest several times."""
    chosen = torch.randint(len(VALUES), shape, generator=torch.Generator().manual_seed(seed))
    assert_same(VALUES[chosen])


@pytest.mark.parametrize("shape", [(64, 6, 28, 28), (22, 16, 10, 10), (250, 6, 28, 28)])
def test_shapes_of_lenet(shape: tuple[int, ...]) -> None:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert_same(images)
    assert_same(images.relu())
    assert_same(images.contiguous(memory_format=torch.channels_last))


def test_by_hand() -> None:
    image = torch.tensor([[[[1.0, 5.0, 2.0, 2.0], [5.0, 0.0, 2.0, 2.0]]]])
    (pooled, gradient), _ = both(image)
    assert pooled.tolist() == [[[[5.0, 2.0]]]]
    # The first of equals, row by row, takes the gradient: 1 for the first window, 2 for the second.
    assert gradient.tolist() == [[[[0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]


def test_nan_is_passed_on() -> None:
    images = torch.zeros(3, 2, 4, 4)
    images[1, 1, 2, 3] = float("nan")
    expected = torch.zeros(3, 2, 2, 2, dtype=torch.bool)
    expected[1, 1, 1, 1] = True
    assert torch.equal(MaxPool2x2()(images).isnan(), expected)
