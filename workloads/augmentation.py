"""Augmentation of a batch on its device: shift, horizontal flip and random erasing, all in one gather and one mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from workloads.trial import Settings

ERASED_AREA = (0.02, 0.33)
"""Smallest and largest fraction of an image to erase (arXiv:1708.04896, as in torchvision's `RandomErasing`)."""
ERASED_RATIO = (0.3, 3.3)
"""Smallest and largest ratio of the erased rectangle's height to its width."""
FLIP_PROBABILITY = 0.5


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

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Returns an augmented copy of a batch (n, channels, height, width).

        Args:
            images: The batch, normalised, on any device.
            generator: A generator on the CPU, so that draws are the same on every device.
        """
        if self.shift or self.flip:
            images = self._moved(images, generator)
        if self.erasing:
            images = self._erased(images, generator)
        return images

    def _moved(self, images: Tensor, generator: Generator) -> Tensor:
        count, _, height, width = images.shape
        down, right = torch.randint(-self.shift, self.shift + 1, (2, count, 1), generator=generator)
        rows = (torch.arange(height) - down).clamp(0, height - 1)
        columns = (torch.arange(width) - right).clamp(0, width - 1)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=generator) < FLIP_PROBABILITY
            columns = torch.where(mirrored, width - 1 - columns, columns)
        rows, columns = rows.to(images.device), columns.to(images.device)
        each = torch.arange(count, device=images.device)[:, None, None]
        # Indices on both sides of a slice put the slice's dimension last.
        return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _erased(self, images: Tensor, generator: Generator) -> Tensor:
        count, _, height, width = images.shape
        chosen, area, ratio, down, right = torch.rand(5, count, 1, generator=generator)
        area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
        low, high = map(math.log, ERASED_RATIO)
        root = torch.exp((low + (high - low) * ratio) / 2)
        tall = (area.sqrt() * root).round().clamp(1, height)
        wide = (area.sqrt() / root).round().clamp(1, width)
        top, left = ((height - tall + 1) * down).floor(), ((width - wide + 1) * right).floor()
        rows, columns = torch.arange(height), torch.arange(width)
        inside = ((rows >= top) & (rows < top + tall))[:, :, None] & ((columns >= left) & (columns < left + wide))[
            :, None
        ]
        mask = inside & (chosen < self.erasing)[:, :, None]
        return images.masked_fill(mask[:, None].to(images.device), 0.0)
