"""What is said of cuts of the learning rate: what each factor's best moment is worth, and what a plateau made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import polars as pl

from analysis.loading import SweepData
from analysis.statistics.compare import ENOUGH_SEEDS
from analysis.statistics.cuts import Factor, MeanDifference, Plateau, Trunk, trunks
from workloads.measure import Measure, rounded

MOST_TRUNKS, MOST_FACTORS = 3, 4
"""Trunks, and factors of each, that sentences tell of: those with the highest gains."""


def sentences(data: SweepData) -> Iterator[str]:
    """Yields a sentence for each factor that rates were cut by, and one on the plateau settings; none without cuts."""
    found = trunks(data)
    told = 0
    for trunk in _highest(found, lambda trunk: trunk.best[1].gain.mean, MOST_TRUNKS):
        factors = _highest(trunk.factors, lambda factor: factor.best.gain.mean, MOST_FACTORS)
        told += len(factors)
        said = [_of_factor(factor, trunk.epochs, data.measure) for factor in factors]
        said += [_of_plateaus(trunk, data)] if trunk.plateaus else []
        yield from (f"{trunk.label}: {text}." if trunk.label else f"{text[:1].upper()}{text[1:]}." for text in said)
    if left := sum(len(trunk.factors) for trunk in found) - told:
        yield f"Cuts that gained less, by other factors or elsewhere, are left out here: {left}."


T = TypeVar("T")


def _highest(found: Sequence[T], gain: Callable[[T], float], count: int) -> list[T]:
    """Returns those with the highest gains, in the order given."""
    chosen = set(sorted(range(len(found)), key=lambda place: -gain(found[place]))[:count])
    return [one for place, one in enumerate(found) if place in chosen]


def _of_factor(factor: Factor, epochs: int, measure: Measure) -> str:
    best = factor.best
    than = f"in final validation {measure.name} than never cutting"
    worth = _said(best.gain, f"better {than}", f"worse {than}", measure)
    text = f"cut by {factor.factor:g}, the best moment is after epoch {best.after} of {epochs}: {worth}"
    if best.gain.low is not None and best.gain.high is not None and best.gain.low <= 0 <= best.gain.high:
        text += ", so it is not shown to make a difference"
    others = [moment for moment in factor.moments if moment is not best]
    if not others or best.gain.seeds < ENOUGH_SEEDS:
        return text
    tried = [moment.after for moment in factor.moments]
    good = in_words([moment.after for moment in others if moment.as_good], tried)
    worse = in_words([moment.after for moment in others if not moment.as_good], tried)
    if not worse:
        return f"{text}; no other moment is shown to be worse"
    if not good:
        return f"{text}; every other moment is shown to be worse"
    return f"{text}; after {good} it is not shown to be worse, after {worse} it is"


def _of_plateaus(trunk: Trunk, data: SweepData) -> str:
    factor, moment = trunk.best
    nearest, farthest = trunk.plateaus[0], trunk.plateaus[-1]
    best = f"the best of these cuts, by {factor.factor:g} after epoch {moment.after}"
    if nearest is farthest:
        return f"{_name(nearest, data)} {_when(nearest)} and ended {_behind(nearest, best, data.measure)}"
    settings = sum(len(one.configurations) for one in trunk.plateaus)
    return (
        f"of {settings} plateau settings, {_name(nearest, data)} comes closest to {best}: it {_when(nearest)} and "
        f"ended {_behind(nearest, 'it', data.measure)}; {_name(farthest, data)} {_when(farthest)} and ended "
        f"{_behind(farthest, 'it', data.measure)}"
    )


def _name(plateau: Plateau, data: SweepData) -> str:
    labels = data.trials.filter(pl.col("configuration") == plateau.configurations[0])["label"]
    others = len(plateau.configurations) - 1
    return f"{labels[0]}{f' (and {others:,} identical)' if others else ''}"


def _when(plateau: Plateau) -> str:
    """Returns when a plateau setting first cut the rate, over its seeds: `first cut after epochs 5 to 7`."""
    first = sorted({after[0] for after in plateau.after if after})
    if not first:
        return "never cut"
    when = f"epoch {first[0]}" if len(first) == 1 else f"epochs {first[0]} to {first[-1]}"
    return f"first cut after {when}" + ("" if all(plateau.after) else " or never")


def _behind(plateau: Plateau, best: str, measure: Measure) -> str:
    if plateau.regret.mean == 0:
        return f"level with {best}"
    return _said(plateau.regret, f"behind {best}", f"ahead of {best}", measure)


def _said(estimate: MeanDifference, more: str, less: str, measure: Measure) -> str:
    """Returns an estimate and its interval: `0.0106 behind it (95% interval 0.0043 to 0.0170, 8 seeds)`.

    Args:
        estimate: The estimate.
        more: What is said of a positive one.
        less: What is said of a negative one, whose sign is left out and whose interval is that of its opposite.
        measure: What it is of.
    """
    way, shown = (more, estimate) if estimate.mean >= 0 else (less, estimate.opposite)
    return f"{measure.difference(shown.mean)} {way} ({_sure(shown, measure)})"


def _sure(estimate: MeanDifference, measure: Measure) -> str:
    """Returns the interval of an estimate and its seeds, or why there is none."""
    if estimate.seeds == 1:
        return "one seed, so no interval"
    if estimate.seeds < ENOUGH_SEEDS:
        return f"{estimate.seeds} seeds, too few for an interval"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.seeds} seeds, which set no limits yet"
    low, high = (signed(end, measure) for end in (estimate.low, estimate.high))
    return f"95% interval {low} to {high}, {estimate.seeds} seeds"


def signed(value: float, measure: Measure) -> str:
    """Returns how a difference of two values is written with its sign: `-0.0012`, `0.0012`."""
    return f"{round(value, 4) + 0.0:.4f}" if measure.is_share else rounded(value)  # 0 has no sign


def in_words(chosen: Sequence[int], tried: Sequence[int]) -> str:
    """Returns epochs as a phrase; three or more that follow each other among those tried are a range.

    Args:
        chosen: Some of the epochs tried, in order.
        tried: All of them, in order.

    Returns:
        For example `epochs 3 to 7 and 12`; empty for none.
    """
    runs: list[list[int]] = []
    for epoch in chosen:
        if runs and tried.index(epoch) == tried.index(runs[-1][-1]) + 1:
            runs[-1].append(epoch)
        else:
            runs.append([epoch])
    parts = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    if not parts:
        return ""
    *first, last = parts
    return f"epoch{'s' if len(chosen) > 1 else ''} {', '.join(first)}{' and ' if first else ''}{last}"
