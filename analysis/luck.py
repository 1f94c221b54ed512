"""Luck: what trainings that differ in nothing but their seeds say about their spread, and what to buy against it.

A sweep is about luck if it varies `init_seed`, `order_seed` or `reorder_from` (`sweeps/luck.py`). Trainings from the
start give the components of the variance. Trainings that change their order on the way (late forks) say what was still
open then, and nothing else: they are never counted as seeds.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl

from analysis.aggregate import CHOICE
from analysis.configurations import with_configurations
from analysis.loading import FINISHED, SweepData
from analysis.statistics.components import (
    BOTH,
    ORDER,
    WEIGHTS,
    Array,
    Chance,
    Drawn,
    Estimate,
    Mask,
    components,
    estimate,
    of_examples,
    share,
    still_open,
    with_more_examples,
)
from workloads.console import counted
from workloads.measure import Measure
from workloads.trial import LEFT_TO_SEED

SEEDS, IMAGES, EPOCHS = "seeds", "validation images", "epochs"
"""What can be bought."""


@dataclass(frozen=True)
class Open:
    """What is still open after an epoch."""

    epoch: int
    """The last epoch that was the same."""
    share: Estimate
    """Of the variance."""
    deviation: Estimate
    """The standard deviation of the final value from there on."""
    trunks: int
    """How many trainings forked there; 0 before the first epoch, of which crossed trainings tell."""
    forks: int
    """Into how many others."""


@dataclass(frozen=True)
class OfImages:
    """What the choice of the validation images makes of the spread."""

    count: int
    share: Estimate
    """Of the variance."""
    deviation: float
    """What it makes alone: a standard deviation."""
    rest: Estimate
    """The standard deviation there would be on all images that there could be."""


@dataclass(frozen=True)
class Purchase:
    """What twice the computing time does to the standard error of a mean if it is all spent on one thing."""

    of: str
    """`SEEDS`, `IMAGES` or `EPOCHS`."""
    times: float
    """How many times as many of these that is."""
    factor: Estimate
    """How many times as large the standard error becomes."""


@dataclass(frozen=True)
class Luck:
    """What is known about the luck of one configuration."""

    label: str
    """The settings that vary besides the seeds; empty if none does."""
    weights: int
    """Initial weights that were crossed."""
    orders: int
    """Orders that each of them was trained with."""
    left_out: int
    """Trainings without a result, or not part of the crossed ones."""
    mean: float
    deviation: Estimate
    """Of the final value, from training to training."""
    shares: Mapping[str, Estimate]
    """`WEIGHTS`, `ORDER` and `BOTH` -> the share of the variance."""
    open: tuple[Open, ...]
    """By epoch."""
    images: OfImages | None
    """None unless it is known of each image whether it was right."""
    purchases: tuple[Purchase, ...]


def about_luck(data: SweepData) -> bool:
    """Whether a question is about luck: something that the seed usually determines is an axis."""
    return not LEFT_TO_SEED.keys().isdisjoint(data.axes)


def lucks(data: SweepData) -> tuple[Luck, ...]:
    """Returns what is known about luck, for each configuration (whatever the seeds) that was trained crossed.

    A configuration is left out until there are two initial weights and two orders, each trained with each.
    """
    if not about_luck(data):
        return ()
    seeds = data.trials.select("trial_id", **{name: pl.col(name) for name in _SEEDS})
    plain = data.trials.with_columns(pl.lit(None, data.trials.schema[name]).alias(name) for name in LEFT_TO_SEED)
    named, axes = with_configurations(plain)
    trials = named.drop(*_SEEDS).join(seeds, on="trial_id", maintain_order="left").with_columns(**_EFFECTIVE)
    found = (
        _luck(of_one, data.epochs, of_one["label"][0] if axes else "")
        for of_one in trials.partition_by("configuration", maintain_order=True)
    )
    return tuple(one for one in found if one is not None)


_SEEDS = ("seed", *LEFT_TO_SEED)
_EFFECTIVE = {
    "weights": pl.coalesce("init_seed", "seed"),
    "order": pl.when(pl.col("reorder_from").is_null()).then(pl.coalesce("order_seed", "seed")).otherwise("seed"),
}
"""The seeds that a training begins with."""


def _luck(trials: pl.DataFrame, epochs: pl.DataFrame, label: str) -> Luck | None:
    ended = trials.filter(pl.col("status").is_in(FINISHED))
    begun = ended.filter(pl.col("reorder_from").is_null()).unique(
        ("weights", "order"), keep="first", maintain_order=True
    )
    crossed = _crossed(begun)
    if crossed is None:
        return None
    chance = Chance()
    table = _table(crossed, CHOICE)
    made = components(table, chance)
    if made is None:
        return None
    ordered = made.total * (1 - made.shares[WEIGHTS])
    records = epochs.join(crossed.select("trial_id", "weights", "order"), on="trial_id")
    images = _of_images(records, made.total, chance)
    begun_here = trials.filter(pl.col("reorder_from").is_null())
    return Luck(
        label=label,
        weights=table.shape[0],
        orders=table.shape[1],
        left_out=begun_here.unique(("weights", "order")).height - crossed.height,
        mean=float(table.mean()),
        deviation=estimate(np.sqrt(made.total)),
        shares={name: estimate(part) for name, part in made.shares.items()},
        open=(_opened(0, ordered, made.total, 0, 0), *_open(begun, ended, made.total, chance)),
        images=None if images is None else images[0],
        purchases=tuple(_purchases(crossed, records, made.total, None if images is None else images[1], chance)),
    )


def _crossed(begun: pl.DataFrame) -> pl.DataFrame | None:
    """Returns the trainings of initial weights and orders that were each trained with each; None if there are none.

    Whatever lacks most of the others is left out, one after the other.
    """
    while True:
        rows, columns = begun["weights"].n_unique(), begun["order"].n_unique()
        if min(rows, columns) < 2:
            return None
        if begun.height == rows * columns:
            return begun.sort("weights", "order")
        lacking = [
            (found["len"][0] / whole, name, found[name][0])
            for name, whole in (("weights", columns), ("order", rows))
            for found in [begun.group_by(name).len().sort("len", name, descending=(False, True))]
        ]
        _, name, seed = min(lacking)
        begun = begun.filter(pl.col(name) != seed)


def _table(crossed: pl.DataFrame, column: str) -> Array:
    """Returns a column of crossed trainings, sorted, as a table (initial weights, orders)."""
    return crossed[column].to_numpy().reshape(crossed["weights"].n_unique(), -1)


def _open(begun: pl.DataFrame, ended: pl.DataFrame, total: Drawn, chance: Chance) -> Iterator[Open]:
    own = {(weights, order): value for weights, order, value in begun.select("weights", "order", CHOICE).iter_rows()}
    forks = ended.filter(pl.col("reorder_from").is_not_null() & (pl.col("order_seed") != pl.col("seed")))
    for of_epoch in forks.sort("reorder_from", "weights", "order", "order_seed").partition_by(
        "reorder_from", maintain_order=True
    ):
        trunks: dict[tuple[int, int], list[float]] = {}
        for weights, order, value in of_epoch.select("weights", "order", CHOICE).iter_rows():
            trunks.setdefault((weights, order), []).append(value)
        # A trunk's own end is one more of those that it could have come to.
        values = [np.asarray([*several, *([own[key]] if key in own else [])]) for key, several in trunks.items()]
        found = still_open(values, chance)
        if found is not None:
            yield _opened(of_epoch["reorder_from"][0] - 1, found, total, len(trunks), of_epoch.height)


def _opened(epoch: int, variance: Drawn, total: Drawn, trunks: int, forks: int) -> Open:
    return Open(epoch, estimate(share(variance, total)), estimate(np.sqrt(variance)), trunks, forks)


def _of_images(records: pl.DataFrame, total: Drawn, chance: Chance) -> tuple[OfImages, Drawn] | None:
    last = records.filter(pl.col("epoch") == pl.col("epoch").max().over("trial_id")).sort("weights", "order")
    texts = last["val_right"].to_list()
    if None in texts or len({text.partition(":")[0] for text in texts}) > 1:
        return None
    bits = np.stack([unpacked(text) for text in texts])
    right = bits.reshape(last["weights"].n_unique(), -1, bits.shape[1])
    part = of_examples(right, total, chance)
    noise, rest = sqrt(float(part[0])), np.sqrt(np.maximum(0, total - part))
    return OfImages(bits.shape[1], estimate(share(part, total)), noise, estimate(rest)), part


def unpacked(text: str) -> Mask:
    """Returns which examples are right (n,), from a record's text (`workloads.trial.packed`)."""
    count, _, content = text.partition(":")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(content), dtype=np.uint8), count=int(count))
    return bits.astype(np.bool_)


def _purchases(
    crossed: pl.DataFrame, records: pl.DataFrame, total: Drawn, part: Drawn | None, chance: Chance
) -> Iterator[Purchase]:
    yield Purchase(SEEDS, 2, Estimate(*[sqrt(0.5)] * 3))
    seconds = records.select(pl.col("train_seconds", "eval_seconds").median()).row(0)
    if part is not None and None not in seconds and min(seconds) > 0:
        times = 1 + sum(seconds) / seconds[1]
        yield Purchase(IMAGES, times, estimate(with_more_examples(total, part, times)))
    epochs = crossed["epochs"][0]
    # Half a schedule is not the schedule of a training half as long.
    constant = crossed["scheduler"][0] == "none" and not _settings(crossed, "scheduler_warmup_epochs").sum()
    if epochs % 2 == 0 and constant:
        half = records.filter(pl.col("epoch") == epochs // 2).sort("weights", "order")
        before = components(_table(half, "val_accuracy"), chance)
        if before is not None:
            yield Purchase(EPOCHS, 2, estimate(np.sqrt(total / before.total)))


def _settings(trials: pl.DataFrame, column: str) -> pl.Series:
    return trials[column].fill_null(0) if column in trials.columns else pl.Series([0])


# -- in words ----------------------------------------------------------------------------------------------------------


def in_sentences(luck: Luck, measure: Measure) -> Iterator[str]:
    """Yields what is known about luck, and what to buy against it."""
    name = f"{luck.label}: trainings" if luck.label else "Trainings"
    low, high = (measure.difference(end) for end in luck.deviation[1:])
    yield (
        f"{name} that differ in nothing but luck end with a validation {measure.name} of {measure.text(luck.mean)} on "
        f"average, with a standard deviation of {measure.difference(luck.deviation.value)} (95% interval {low} to "
        f"{high}): {luck.weights} initial weights, each with {luck.orders} orders of the images."
    )
    weights, order, both = (_percent(luck.shares[part]) for part in (WEIGHTS, ORDER, BOTH))
    yield (
        f"Of this variance, the initial weights make {weights}, the order makes {order}, and what only the pair of "
        f"both decides makes {both}."
    )
    if settled := [f"{_percent(_rest(one.share))} after epoch {one.epoch}" for one in luck.open if one.epoch]:
        still = luck.open[-1].deviation
        ends = " to ".join(measure.difference(end) for end in still[1:])
        yield (
            f"Forks from the same training show how much of it is settled: {_listed(settled, 'and')}, when a standard "
            f"deviation of {measure.difference(still.value)} ({ends}) is still to come."
        )
    if luck.images is not None:
        images = luck.images
        of_rest = " to ".join(measure.difference(end) for end in images.rest[1:])
        yield (
            f"The choice of the {images.count:,} validation images makes {_percent(images.share)} of it: two trainings "
            f"that are equally good would still differ by {measure.difference(sqrt(2) * images.deviation)} on these "
            f"(one standard deviation). On all images there could be, the standard deviation from training to training "
            f"would be {measure.difference(images.rest.value)} ({of_rest})."
        )
    if len(luck.purchases) > 1:
        yield from _advice(luck.purchases)
    if luck.left_out:
        yield f"Left out, as not every initial weights have every order: {counted(luck.left_out, 'training')}."


def _advice(purchases: tuple[Purchase, ...]) -> Iterator[str]:
    said = [
        f"{_factor(one.factor)} times {'' if place else 'as large '}if spent on {one.of}{_much(one)}"
        for place, one in enumerate(purchases)
    ]
    yield f"Twice the computing time makes the standard error of a mean {_listed(said, 'and')}."
    least = min(one.factor.high for one in purchases)
    best = [one.of for one in sorted(purchases, key=lambda one: one.factor.value) if one.factor.low <= least]
    unknown = ": these trainings cannot tell which of them" if len(best) > 1 else ""
    yield f"So a given budget is best spent on {_listed(best, 'or')}{unknown}."


def _much(one: Purchase) -> str:
    """Returns how much of something twice the time buys, where that is not simply twice."""
    if one.of == IMAGES:
        return f" ({one.times:.0f} times as many)"
    return " (judging by the last doubling)" if one.of == EPOCHS else ""


def _rest(of: Estimate) -> Estimate:
    return Estimate(1 - of.value, 1 - of.high, 1 - of.low)


def _percent(of: Estimate) -> str:
    return f"{of.value:.0%} ({100 * of.low:.0f} to {of.high:.0%})"


def _factor(factor: Estimate) -> str:
    if factor.low == factor.high:
        return f"{factor.value:.2f}"
    return f"{factor.value:.2f} ({factor.low:.2f} to {factor.high:.2f})"


def _listed(parts: list[str], word: str) -> str:
    return f" {word} ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
