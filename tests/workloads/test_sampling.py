"""Which images an epoch shows: thinned classes, balanced draws and class weights."""

from collections import Counter

import numpy as np
import pytest
import torch

from workloads.draws import generator
from workloads.sampling import Sampler, thinned
from workloads.trial import Settings

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10).repeat(1)
PLAIN: Settings = {"balance": "none", "thin_classes": (), "thin_to": 1.0}


def sampler(**settings: object) -> Sampler:
    return Sampler(LABELS, 3, {**PLAIN, **settings})  # type: ignore[dict-item]


def shown(found: Sampler, epoch: int = 1) -> Counter[int]:
    """Returns class -> how many images of it an epoch shows."""
    return Counter(LABELS[found.order(generator(21, epoch)).numpy()].tolist())


def test_by_default_every_image_once_in_the_order_of_a_plain_loop() -> None:
    assert torch.equal(sampler().order(generator(21, 1)), torch.randperm(100, generator=generator(21, 1)))
    assert sampler().class_weights() is None


def test_thinned_classes_keep_their_first_images() -> None:
    kept = thinned(LABELS, {**PLAIN, "thin_classes": (0, 2), "thin_to": 0.25})
    assert Counter(LABELS[kept].tolist()) == {0: 15, 1: 30, 2: 3}
    assert kept.tolist() == [*range(15), *range(60, 90), 90, 91, 92]
    tiny = thinned(LABELS, {**PLAIN, "thin_classes": (0,), "thin_to": 1e-6})
    assert Counter(LABELS[tiny].tolist())[0] == 1, "no class is lost"


def test_a_thinned_epoch_is_as_long_and_shows_the_rest_again() -> None:
    thin = sampler(thin_classes=(0,), thin_to=0.1)
    order = thin.order(generator(21, 1))
    assert len(order) == 100
    times = Counter(order.tolist())
    assert len(times) == 6 + 30 + 10
    assert set(times.values()) <= {2, 3}, "each as often as the next, but for the part of a last round"
    assert sorted(order[:46].tolist()) == sorted(times), "all once before any again"


@pytest.mark.parametrize("thin", [{}, {"thin_classes": (2,), "thin_to": 0.2}])
def test_oversampling_shows_all_classes_alike(thin: dict[str, object]) -> None:
    over = sampler(balance="oversample", **thin)
    assert shown(over) == {0: 34, 1: 33, 2: 33}
    order = over.order(generator(21, 1))
    times = Counter(order.tolist())
    rare = [times[index] for index in range(90, 100) if index in times]
    assert max(rare) - min(rare) <= 1, "the rare images come round equally often"
    assert torch.equal(order, over.order(generator(21, 1)))
    assert not torch.equal(order, over.order(generator(21, 2)))
    assert len(set(LABELS[order[:20].numpy()].tolist())) == 3, "mixed, not class by class"


def test_class_weights_make_up_for_what_is_rare() -> None:
    weighted = sampler(balance="class_weights")
    weights = weighted.class_weights()
    assert weights is not None
    # 100 / (3 * n); each class counts the same in all, and an image 1 on average.
    torch.testing.assert_close(weights, torch.tensor([100 / 180, 100 / 90, 100 / 30]))
    assert (weights[LABELS].sum() / 100).item() == pytest.approx(1)
    assert torch.equal(weighted.order(generator(21, 1)), sampler().order(generator(21, 1))), "paired with none"


def test_a_class_without_images_is_left_out() -> None:
    settings = {**PLAIN, "balance": "class_weights"}
    weights = Sampler(LABELS, 4, settings).class_weights()
    assert weights is not None
    assert weights[3] == 0
    assert weights[0].item() == pytest.approx(100 / 180)
    drawn = Sampler(LABELS, 4, {**PLAIN, "balance": "oversample"}).order(generator(1))
    assert Counter(LABELS[drawn.numpy()].tolist()) == {0: 34, 1: 33, 2: 33}
