"""Shared training as a tree: branches over epochs, forks, and which settings ended in one leaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from analysis.loading import SweepData
from analysis.plots import scales, style
from analysis.plots.selection import describe, seed_noise
from workloads.measure import ACCURACY, Measure

_MOST_BRANCHES = 40


@dataclass(frozen=True)
class Leaf:
    """Where trials ended."""

    label: str
    """Their settings."""
    accuracy: float | None
    """Their final validation accuracy; None when they diverged."""


@dataclass(frozen=True)
class Branch:
    """Epochs that one trial computed, for itself and for others."""

    trial_id: str
    parent: int | None
    """Place of the branch it forked off; None where training began."""
    first: int
    """Its first epoch."""
    trials: tuple[int, ...]
    """For each of its epochs, how many trials share it."""
    leaf: Leaf | None
    """What ended here; None where that is counted in another sweep."""

    @property
    def last(self) -> int:
        """Its last epoch."""
        return self.first + len(self.trials) - 1


@dataclass(frozen=True)
class Tree:
    """Branches from top to bottom: each above its forks, the latest fork first, so that no connection crosses one."""

    branches: tuple[Branch, ...]
    delivered: int
    """Trial-epochs that have a record."""
    trained: int
    """Epochs that were trained for them."""
    noise: float
    """Standard error of an accuracy, from seed to seed."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Tree | None:
    """Returns the tree of a sweep, or None when no epoch was shared."""
    epochs = sweep.epochs.sort("trial_id", "epoch").with_columns(parent=pl.col("computed_by").shift(1).over("trial_id"))
    trained = epochs.select("computed_by", "epoch").n_unique()
    if trained == epochs.height:
        return None
    branches = (
        epochs.group_by("computed_by", "epoch", maintain_order=True)
        .agg(pl.len().alias("trials"), pl.col("parent").first())
        .sort("epoch", maintain_order=True)
        .group_by("computed_by", maintain_order=True)
        .agg(pl.col("epoch").first(), "trials", pl.col("parent").first())
    )
    parents = dict(branches.select("computed_by", "parent").iter_rows())
    first = dict(branches.select("computed_by", "epoch").iter_rows())
    trials = dict(branches.select("computed_by", "trials").iter_rows())
    every = depth_first(parents, first)
    order = most_shared(every, parents, trials)
    leaves = _leaves(sweep, epochs, order)
    place = {name: index for index, name in enumerate(order)}
    note = "" if len(order) == len(every) else f"Shown: the {len(order)} most shared of {len(every)} branches."
    return Tree(
        tuple(
            Branch(name, place.get(parents[name] or ""), first[name], tuple(trials[name]), leaves.get(name))
            for name in order
        ),
        epochs.height,
        trained,
        seed_noise(summary, sweep.measure),
        note,
        sweep.measure,
    )


def depth_first(parents: Mapping[str, str | None], first: Mapping[str, int]) -> list[str]:
    """Returns branches in the order they are drawn from top to bottom.

    Args:
        parents: Branch -> the one it forked off.
        first: Branch -> its first epoch.
    """
    forks: dict[str | None, list[str]] = {}
    for name, parent in parents.items():
        forks.setdefault(parent if parent in parents else None, []).append(name)
    order, waiting = [], forks.get(None, [])[::-1]
    while waiting:
        name = waiting.pop()
        order.append(name)
        waiting += sorted(forks.get(name, []), key=first.__getitem__)
    return order


def most_shared(
    order: Sequence[str], parents: Mapping[str, str | None], trials: Mapping[str, Sequence[int]]
) -> list[str]:
    """Returns the branches to draw: whole trees, those that saved the most epochs first, none without savings.

    If even the first tree is too large, only its most shared branches are drawn.

    Args:
        order: Every branch, as `depth_first` returns them.
        parents: Branch -> the one it forked off.
        trials: Branch -> for each of its epochs, how many trials share it.
    """
    trees: list[list[str]] = []
    for name in order:
        if parents[name] is None:
            trees.append([])
        trees[-1].append(name)
    saved = {tree[0]: sum(sum(trials[name]) - len(trials[name]) for name in tree) for tree in trees}
    kept: set[str] = set()
    for tree in sorted(trees, key=lambda tree: -saved[tree[0]]):
        if not saved[tree[0]]:
            break
        if len(kept) + len(tree) <= _MOST_BRANCHES:
            kept.update(tree)
        elif not kept:  # a fork begins with fewer trials than what it forked off, so no branch loses its parent
            kept.update(sorted(tree, key=lambda name: -trials[name][0])[:_MOST_BRANCHES])
    return [name for name in order if name in kept]


def _leaves(sweep: SweepData, epochs: pl.DataFrame, branches: list[str]) -> dict[str, Leaf]:
    """Returns what ended in these branches."""
    last = epochs.group_by("trial_id", maintain_order=True).last()
    ended = last.join(sweep.trials.select("trial_id", "status", "seed"), on="trial_id", maintain_order="left")
    ended = ended.filter(pl.col("computed_by").is_in(branches))
    groups = ended.group_by("computed_by", maintain_order=True).agg(
        "configuration",
        pl.col("seed").unique(),
        pl.when((pl.col("status") != "diverged").all())
        .then(pl.col("val_accuracy").sort_by("epoch").last())
        .alias("accuracy"),
    )
    several = sweep.trials["seed"].n_unique() > 1
    return {
        row["computed_by"]: Leaf(
            describe(sweep, row["configuration"]) + (f", seed {row['seed'][0]}" if several else ""),
            row["accuracy"],
        )
        for row in groups.iter_rows(named=True)
    }


def draw(data: Tree, figure: Figure) -> None:
    """Draws the tree: lines are wider where more trials share them, leaves coloured by outcome."""
    labels = [branch.leaf.label if branch.leaf else "" for branch in data.branches]
    style.size_for_rows(figure, labels, extra=1.9, width=10)
    axes = figure.add_subplot()
    colours = scales.AccuracyColours(
        [branch.leaf.accuracy for branch in data.branches if branch.leaf], data.noise, data.measure
    )
    for row, branch in enumerate(data.branches):
        if branch.parent is not None:
            axes.plot([branch.first - 1] * 2, [branch.parent, row], color=style.MUTED, linewidth=1.5, zorder=1)
        start = branch.first - 1
        for sharing, epochs in groupby(branch.trials):
            end = start + len(list(epochs))
            width = 1.5 + 1.6 * np.log2(sharing)
            axes.plot([start, end], [row, row], color=style.SKY, linewidth=width, solid_capstyle="butt", zorder=2)
            start = end
        if branch.leaf is None:
            continue
        if branch.leaf.accuracy is None:
            style.cross(axes, branch.last, row)
        else:
            colour = colours(branch.leaf.accuracy)
            axes.scatter([branch.last], [row], s=110, color=colour, edgecolors=style.INK, linewidths=0.9, zorder=3)
    scales.epoch_axis(axes, max(branch.last for branch in data.branches), first=0)
    style.rows(axes, labels, right=True)
    colours.bar(figure, axes)
    ratio = data.delivered / data.trained
    style.title(figure, f"{data.trained:,} epochs trained for {data.delivered:,} delivered (ratio {ratio:.1f})")
