"""Augmentation of a batch on its device: shift, horizontal flip and random erasing, all in one gather and one mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from workloads.trial import Settings

ERASED_AREA = (0.02, 0.33)
"""Smallest and largest fraction of an image to erase (arXiv:1708.04896, as in torchvision's `RandomErasing`)."""
ERASED_RATIO = (0.3, 3.3)
"""Smallest and largest ratio of the erased rectangle's height to its width."""
FLIP_PROBABILITY = 0.5
_MOVES, _RECTANGLE = 3, 4
"""Columns of what is drawn for an image: down, right, mirrored; top, left, height, width of what is erased."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random augmentation, drawn separately for each image of a batch."""

    shift: int = 0
    """Maximum shift in pixels, vertically and horizontally; border pixels are repeated."""
    flip: bool = False
    """Whether to mirror images left to right with probability 1/2."""
    erasing: float = 0.0
    """Probability of replacing a rectangle by the mean of the training images, which is 0 after normalisation."""

    @classmethod
    def of(cls, settings: Settings) -> Augmentation:
        """Returns the augmentation that a workload's settings ask for."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    @property
    def moves(self) -> bool:
        """Whether images are shifted or mirrored."""
        return bool(self.shift or self.flip)

    def draw(
        self, counts: Sequence[int], size: Sequence[int], generator: Generator, device: torch.device
    ) -> Sequence[Tensor]:
        """Returns what is drawn for the images of each of some batches, whole numbers (n, columns).

        For all batches of an epoch at once: each copy to a GPU makes the program wait for it.

        Args:
            counts: Images of each batch.
            size: Height and width of the images, in pixels.
            generator: A generator on the CPU, so that draws are the same on every device.
            device: Where the images are.
        """
        drawn = [self._drawn(count, size, generator) for count in counts]
        return torch.split(torch.cat(drawn).to(device), list(counts)) if self.moves or self.erasing else drawn

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns an augmented copy of a batch; the batch itself if nothing is asked for.

        Args:
            images: The batch (n, channels, height, width), normalised, on any device.
            drawn: What was drawn for it, on the same device.
        """
        if self.moves:
            images = self._moved(images, drawn[:, :_MOVES])
        if self.erasing:
            images = self._erased(images, drawn[:, -_RECTANGLE:])
        return images

    def _drawn(self, count: int, size: Sequence[int], generator: Generator) -> Tensor:
        columns: list[Tensor] = []
        if self.moves:
            columns += torch.randint(-self.shift, self.shift + 1, (2, count), generator=generator)
            columns.append(
                torch.rand(count, generator=generator) < FLIP_PROBABILITY if self.flip else torch.zeros(count)
            )
        if self.erasing:
            columns += self._rectangles(torch.rand(5, count, generator=generator), size)
        return torch.stack([column.long() for column in columns], 1) if columns else torch.zeros(count, 0)

    def _rectangles(self, drawn: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """Returns top, left, height and width of what is erased of each image: height 0 where nothing is."""
        height, width = size
        chosen, area, ratio, down, right = drawn
        area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
        low, high = map(math.log, ERASED_RATIO)
        root = torch.exp((low + (high - low) * ratio) / 2)
        tall = (area.sqrt() * root).round().clamp(1, height)
        wide = (area.sqrt() / root).round().clamp(1, width)
        top, left = ((height - tall + 1) * down).floor(), ((width - wide + 1) * right).floor()
        return top, left, tall * (chosen < self.erasing), wide

    def _moved(self, images: Tensor, drawn: Tensor) -> Tensor:
        count, _, height, width = images.shape
        down, right, mirrored = drawn.T[:, :, None]
        rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
        columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
        if self.flip:
            columns = torch.where(mirrored.bool(), width - 1 - columns, columns)
        each = torch.arange(count, device=images.device)[:, None, None]
        # Indices on both sides of a slice put the slice's dimension last.
        moved = images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if moved.device.type == "cpu":
            # Grey images keep strides that count as those of channels last too, and convolutions go by them: their last
            # bits are those of stored trials.
            return moved.contiguous()
        return moved.clone(memory_format=torch.contiguous_format)

    def _erased(self, images: Tensor, drawn: Tensor) -> Tensor:
        _, _, height, width = images.shape
        top, left, tall, wide = drawn.T[:, :, None]
        rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        down, across = (rows >= top) & (rows < top + tall), (columns >= left) & (columns < left + wide)
        return images.masked_fill((down[:, :, None] & across[:, None, :])[:, None], 0.0)
