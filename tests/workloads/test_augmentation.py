"""Augmentation: what is drawn, against a loop over images; and nothing but what was asked for."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from workloads.augmentation import ERASED_AREA, ERASED_RATIO, Augmentation
from workloads.draws import generator


def batch(count: int = 40, channels: int = 2) -> Tensor:
    """Returns images in which every pixel has a value of its own."""
    return torch.arange(count * channels * 32 * 32, dtype=torch.float32).reshape(count, channels, 32, 32) + 1


def augmented(augmentation: Augmentation, images: Tensor, draws: Generator) -> Tensor:
    (drawn,) = augmentation.draw([len(images)], images.shape[-2:], draws, images.device)
    return augmentation(images, drawn)


def test_off_is_the_batch_itself() -> None:
    images = batch()
    assert augmented(Augmentation(), images, generator(1)) is images


def test_an_epoch_is_drawn_as_its_batches_would_be() -> None:
    augmentation, images = Augmentation(shift=3, flip=True, erasing=0.5), batch(100)
    draws = generator(2)
    one_by_one = torch.cat([augmented(augmentation, part, draws) for part in images.split(40)])
    draws = generator(2)
    at_once = augmentation.draw([40, 40, 20], images.shape[-2:], draws, images.device)
    assert [len(drawn) for drawn in at_once] == [40, 40, 20]
    found = [augmentation(*pair) for pair in zip(images.split(40), at_once, strict=True)]
    assert torch.equal(torch.cat(found), one_by_one)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(shift=3), Augmentation(flip=True), Augmentation(erasing=0.5)], ids=str
)
def test_a_function_of_the_generator_that_leaves_the_batch_alone(augmentation: Augmentation) -> None:
    images = batch()
    before = images.clone()
    one, again, other = (augmented(augmentation, images, generator(21, epoch, 1)) for epoch in (1, 1, 2))
    assert torch.equal(images, before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert (one.shape, one.dtype, one.is_contiguous()) == (images.shape, images.dtype, True)


def test_shifted_images_continue_their_border() -> None:
    images = batch(200, channels=1)
    shifted = augmented(Augmentation(shift=2), images, generator(3))
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    found = []
    for image, wide in zip(shifted, padded, strict=True):
        matches = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(image, wide[:, down : down + 32, right : right + 32])
        ]
        assert len(matches) == 1
        found += matches
    assert set(found) == {(down, right) for down in range(5) for right in range(5)}, "all 25 shifts occur"


def test_half_of_the_images_are_mirrored() -> None:
    images = batch(400)
    mirrored = augmented(Augmentation(flip=True), images, generator(4))
    same = torch.tensor([torch.equal(one, other) for one, other in zip(mirrored, images, strict=True)])
    assert torch.equal(mirrored[~same], images[~same].flip(-1))
    assert abs(same.float().mean() - 0.5) < 4 * math.sqrt(0.25 / 400)


def test_erased_rectangles() -> None:
    images = batch(600)
    erased = augmented(Augmentation(erasing=0.75), images, generator(5))
    gone = erased != images
    assert (erased[gone] == 0).all()
    assert torch.equal(gone[:, 0], gone[:, 1]), "the same in all channels"
    hit = gone[:, 0].flatten(1).any(1)
    assert abs(hit.float().mean() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 600)
    for mask in gone[hit, 0]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        tall, wide = (int(found.max() - found.min()) + 1 for found in (rows, columns))
        assert mask.sum() == tall * wide, "a whole rectangle"
        # Sides are rounded to pixels.
        assert (tall - 1) * (wide - 1) <= ERASED_AREA[1] * 32 * 32
        assert (tall + 1) * (wide + 1) >= ERASED_AREA[0] * 32 * 32
        assert ERASED_RATIO[0] * (wide - 1) <= tall + 1
        assert tall - 1 <= ERASED_RATIO[1] * (wide + 1)
