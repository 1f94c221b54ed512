"""Which training images an epoch uses, in which order; and class weights.

An epoch has as many images as without thinning or oversampling, so that the number of steps, and every schedule, is
known in advance. To fill it, images are repeated, all images of a class equally often (give or take one).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from workloads.trial import Settings


class Sampler:
    """Draws the training images of an epoch.

    Args:
        labels: Labels (n,) of the available training images, in the order of their indices.
        classes: Number of classes.
        settings: The workload's settings: `thin_classes` and `thin_to` drop images, `balance` balances the classes.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int, settings: Settings) -> None:
        self._count = len(labels)
        self._balance = settings["balance"]
        kept = thinned(labels, settings)
        by_class = [kept[labels[kept] == label] for label in range(classes)] if self._balance != "none" else []
        self._pools = [torch.from_numpy(pool) for pool in by_class if len(pool)] or [torch.from_numpy(kept)]
        self._sizes = [len(pool) for pool in by_class]

    def class_weights(self) -> Tensor | None:
        """Returns the weight of each class in the loss (classes,), 1 on average over the images; None if not asked for.

        A class with n of the N images has weight N / (C n), where C is the number of classes with images.
        """
        if self._balance != "class_weights":
            return None
        total, present = sum(self._sizes), len(self._pools)
        return torch.tensor([total / (present * size) if size else 0.0 for size in self._sizes])

    def order(self, generator: Generator) -> Tensor:
        """Returns the indices of an epoch's images in training order."""
        if self._balance != "oversample":
            return _rounds(torch.cat(self._pools).sort().values, self._count, generator)
        share, more = divmod(self._count, len(self._pools))
        drawn = [_rounds(pool, share + (number < more), generator) for number, pool in enumerate(self._pools)]
        return _rounds(torch.cat(drawn), self._count, generator)


def thinned(labels: NDArray[np.int64], settings: Settings) -> NDArray[np.int64]:
    """Returns the indices of the images left after thinning the chosen classes, at least one per class.

    Args:
        labels: Labels of all images.
        settings: `thin_classes`, the classes to thin, and `thin_to`, the fraction to keep.
    """
    keep = np.ones(len(labels), bool)
    part, chosen = settings["thin_to"], settings["thin_classes"]
    assert isinstance(part, float)
    assert isinstance(chosen, tuple)
    for label in chosen:
        (own,) = np.nonzero(labels == label)
        keep[own[math.ceil(part * len(own)) :]] = False
    return np.nonzero(keep)[0]


def _rounds(pool: Tensor, count: int, generator: Generator) -> Tensor:
    """Returns `count` items of a pool in random order: the whole pool once, then once more, and so on."""
    rounds = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(math.ceil(count / len(pool)))]
    return torch.cat(rounds)[:count]
