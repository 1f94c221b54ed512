"""Which epochs are trained again, and in which stretches of training. Pure logic: no torch, no files."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from sweeps.receipts.stored import Unit


def chance(fraction: float, count: int) -> float:
    """Returns the probability that a sample finds a wrong epoch, at least.

    Args:
        fraction: Of all epochs, so many are wrong.
        count: The size of the sample.
    """
    return 1 - (1 - fraction) ** count


def draw(epochs: Sequence[Unit], count: int, seed: int) -> list[Unit]:
    """Returns epochs drawn at random, spread over the whole list: one from each of `count` equal stretches of it.

    Every epoch is equally likely to be drawn, and one of a fraction p of them is found with a probability of at least
    1 - (1 - p) ** count: the product of what each stretch misses is largest if all are alike.

    Args:
        epochs: All there are, those of a trial one after the other.
        count: How many to draw; all, if there are not more.
        seed: Of the random numbers.
    """
    if count >= len(epochs):
        return list(epochs)
    random_numbers, width = random.Random(seed), len(epochs) / count if count else 0
    places = (int((number + random_numbers.random()) * width) for number in range(count))
    chosen = dict.fromkeys(epochs[min(place, len(epochs) - 1)] for place in places)
    # An epoch at the border of two stretches may be drawn twice: another one takes its place.
    others = [unit for unit in epochs if unit not in chosen]
    return [*chosen, *random_numbers.sample(others, count - len(chosen))]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Epochs to train one after the other."""

    units: tuple[Unit, ...]
    start: Unit | None
    """After which it goes on; None from the beginning."""


def stretches(wanted: Iterable[Unit], way: Callable[[Unit], Sequence[Unit]], stored: Container[Unit]) -> list[Stretch]:
    """Returns how to train some epochs again, none of them twice.

    Args:
        wanted: The epochs.
        way: Returns the epochs from the first on that lead to one, with it.
        stored: Those whose state is stored: training can go on from there.

    Returns:
        The stretches in order: some begin where an earlier one has passed.
    """
    found: list[Stretch] = []
    trained: set[Unit] = set()
    for unit in sorted(wanted, key=lambda unit: -unit[1]):
        if unit in trained:
            continue
        path = way(unit)
        known = [number for number, one in enumerate(path[:-1], start=1) if one in stored or one in trained]
        begin = known[-1] if known else 0
        found.append(Stretch(units=tuple(path[begin:]), start=path[begin - 1] if begin else None))
        trained.update(path[begin:])
    return found
