"""How many epochs it takes to reach a validation accuracy, for a range of accuracies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import best_and_worst
from analysis.statistics.censored import epochs_to_target, median_epochs
from workloads.measure import ACCURACY, Measure

_MOST_TARGETS = 14


@dataclass(frozen=True)
class Reached:
    """When one configuration reached the targets, the easiest first."""

    label: str
    targets: tuple[float, ...]
    epochs: tuple[int, ...]
    """Median over seeds; those that never reach a target count as later than all that do."""
    missed: float | None
    """The easiest target that fewer than half of the seeds reach."""
    watched: int
    """Epochs that it was trained; all that were planned when it diverged, since more could not help."""


@dataclass(frozen=True)
class Targets:
    """Epochs to target of the chosen configurations, the best first."""

    configurations: tuple[Reached, ...]
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Targets | None:
    """Returns epochs to target, or None when nothing learned enough for a target to exist."""
    selection = best_and_worst(sweep, summary)
    chosen = pl.DataFrame({"configuration": selection.configurations}, schema={"configuration": pl.Int32})
    trials = sweep.trials.join(chosen, on="configuration", how="semi").filter(pl.col("epochs_run") > 0)
    epochs = sweep.epochs.join(chosen, on="configuration", how="semi")
    targets = useful_targets(epochs, sweep.measure)
    if not targets:
        return None
    medians = {
        target: dict(
            median_epochs(epochs_to_target(trials, epochs, target, sweep.measure))
            .select("configuration", "median")
            .iter_rows()
        )
        for target in targets
    }
    until = pl.when(pl.col("status") == "diverged").then("epochs").otherwise("epochs_run")
    watched = dict(trials.group_by("configuration").agg(until.max()).iter_rows())
    found = []
    for configuration, label in zip(selection.configurations, selection.labels, strict=True):
        needed = {target: medians[target].get(configuration) for target in targets}
        reached = {target: epoch for target, epoch in needed.items() if epoch is not None}
        missed = next((target for target in targets if target not in reached), None)
        found.append(Reached(label, tuple(reached), tuple(reached.values()), missed, watched[configuration]))
    censored = [_CENSORED] if any(one.missed is not None for one in found) else []
    return Targets(tuple(found), " ".join(filter(None, [selection.note, *censored])), sweep.measure)


_CENSORED = "Open triangles: fewer than half of the seeds reach that accuracy in the epochs trained."


def useful_targets(epochs: pl.DataFrame, measure: Measure = ACCURACY) -> tuple[float, ...]:
    """Returns round accuracies between what is common after the first epoch and the best recorded, the easiest first.

    Args:
        epochs: `epoch, val_accuracy`; others are ignored.
        measure: What the accuracies are.
    """
    quality = epochs.select("epoch", value=measure.sign * pl.col("val_accuracy"))
    first, best = quality.filter(pl.col("epoch") == 1)["value"].median(), quality["value"].max()
    if not isinstance(first, float) or not isinstance(best, float) or best <= first:
        return ()
    targets = scales.round_values(measure.sign * first, measure.sign * best, _MOST_TARGETS, measure)
    return tuple(sorted(targets, key=lambda target: measure.sign * target))


def draw(data: Targets, figure: Figure) -> None:
    """Draws epochs by target, one line a configuration; what was not reached is an open triangle at the last epoch."""
    axes = figure.add_subplot()
    handles = []
    for index, one in enumerate(data.configurations):
        look = style.line(index)
        handles += axes.plot(one.targets, one.epochs, **look, label=one.label)
        if one.missed is not None:
            ends = [*one.targets[-1:], one.missed], [*one.epochs[-1:], one.watched]
            axes.plot(*ends, color=look["color"], linewidth=1, linestyle=":")
            axes.plot(one.missed, one.watched, **_OPEN, markeredgecolor=look["color"])
    if any(one.missed is not None for one in data.configurations):
        handles.append(Line2D([], [], linestyle="none", **_OPEN, markeredgecolor=style.MUTED, label="not reached"))
    axes.set_ylabel("epochs needed")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    missed = [one.missed for one in data.configurations if one.missed is not None]
    targets = [*(target for one in data.configurations for target in one.targets), *missed]
    scales.accuracy_axis(axes, targets, "validation accuracy to reach", "x", measure=data.measure)
    if not data.measure.higher_is_better:
        axes.invert_xaxis()  # what is harder to reach is to the right
    style.title(figure, in_words("Epochs to reach a validation accuracy", data.measure))
    style.legend(figure, handles)


_OPEN: dict[str, Any] = {"marker": "^", "markersize": 10, "markerfacecolor": style.PAPER, "markeredgewidth": 1.8}
