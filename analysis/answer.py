"""The answer in sentences, generated from the statistics: what is best, how certain that is, and caveats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from analysis.aggregate import CHOICE, MOST_COMPARED, compare
from analysis.configurations import trainings
from analysis.loading import SweepData
from analysis.statistics.compare import LEVEL, detectable_difference, seeds_to_decide

MOST_NAMED = 3
"""Configurations or groups named in a sentence; the others are counted."""


def answer(data: SweepData, summary: pl.DataFrame) -> tuple[str, ...]:
    """Returns the answer to the sweep's question: two sentences, then one for each caveat.

    With several optimizers or schedules, each is compared at its best settings; otherwise all configurations are
    compared. Each data set gets two sentences.

    Args:
        data: The sweeps.
        summary: `summarise(data)`.
    """
    ended = summary.filter(pl.col("position").is_not_null())
    if ended.is_empty():
        return (f"No trial has finished yet, so there is no answer: {', '.join(_missing(data))}.", *data.notes)
    pairs = compare(data, summary)
    parts = ended.partition_by("dataset", maintain_order=True)
    verdicts = [f"{_on(part, parts)}{sentence}" for part in parts for sentence in _verdict(part, pairs)]
    return (*verdicts, *_cautions(data, summary), *data.notes)


def _on(part: pl.DataFrame, parts: list[pl.DataFrame]) -> str:
    return f"On {part['dataset'][0]}: " if len(parts) > 1 else ""


def _verdict(ranking: pl.DataFrame, pairs: pl.DataFrame) -> tuple[str, ...]:
    """Returns what is best and how certain that is, among the configurations of one data set that ended."""
    groups = ranking.unique(("optimizer", "scheduler"), keep="first", maintain_order=True)
    compared = groups if groups.height > 1 else trainings(ranking).with_columns(label="name")
    best, *others = compared.rows(named=True)
    if best["n"] == 0:
        return ("Every trial that ended diverged, so there is no best one.",)
    # Groups are named first, then what else did as well in one of them.
    tied = trainings(ranking).filter(position=best["position"])["label"].to_list() if groups.height > 1 else []
    equal = [row["label"] for row in others if row["position"] == best["position"]]
    equal = [label for label in dict.fromkeys([*equal, *tied]) if label != best["label"]]
    return _best(best, others, equal), _certainty(best, others, pairs)


def _best(best: dict[str, Any], others: list[dict[str, Any]], equal: list[str]) -> str:
    mean, low, high = (best[f"{CHOICE}_{name}"] for name in ("mean", "low", "high"))
    behind = [row for row in others if row["position"] > best["position"] and row["n"] and not row["diverged"]]
    seeds = "one seed" if best["n"] == 1 else f"{best['n']} seeds"
    sure = f"95% interval {low:.4f} to {high:.4f}, {seeds}" if low is not None else seeds
    text = f"{_listed([best['label'], *equal])} {'have' if equal else 'has'} the highest final validation accuracy, "
    text += f"{mean:.4f} ({sure})"
    if behind:
        lead = best["adjusted_mean"] - behind[0]["adjusted_mean"]
        text += f", {f'{lead:.4f}' if lead >= 0.00005 else 'less than 0.0001'} more than {behind[0]['label']}"
    if (test := best["final_test_accuracy_mean"]) is not None:
        text += f"; test accuracy {'of the first: ' if equal else ''}{test:.4f}"
    return f"{text}."


def _certainty(best: dict[str, Any], others: list[dict[str, Any]], pairs: pl.DataFrame) -> str:
    """Returns which others differ significantly from the best, which do not, and how many were not compared."""
    if not others:
        alone = best["alike"] == 1
        return "There is nothing to compare it with." if alone else "All others are bitwise identical to it."
    if best["diverged"]:
        return f"No more can be said: every configuration diverged on some seed, this one on {best['diverged']}."
    against = pairs.filter(pl.col("first") == best["configuration"])
    shown = set(against.filter(pl.col("p_holm") < LEVEL, pl.col("difference") > 0)["second"])
    compared = set(against["second"])
    diverged = [row for row in others if row["diverged"]]
    sound = [row for row in others if not row["diverged"]]
    worse = [row for row in sound if row["configuration"] in shown or (row["rank"] or 1) > 1]
    tied = [row for row in sound if row not in worse and row["configuration"] in compared]
    passed_over = len(sound) - len(worse) - len(tied)
    rest = f" Not compared: {passed_over:,} ranked below the best {MOST_COMPARED}." if passed_over else ""
    if tied:
        return f"{_undecided(best, tied, against)}.{rest}"
    parts = []
    if worse:
        inherited = any(row["configuration"] not in shown for row in worse)
        also = " or no better than one that is" if inherited else ""
        are = "is" if len(worse) + len(diverged) == 1 else "are"
        parts.append(f"{are} significantly worse (p < {LEVEL:g}, Holm-corrected){also}")
    if diverged:
        parts.append("diverged on some seed")
    settled = len(worse) + len(diverged)
    subject = "The other one" if settled == 1 else f"The other {settled:,}"
    nearest = against.filter(pl.col("second").is_in([row["configuration"] for row in worse])).head(1).rows(named=True)
    return f"{subject} {' or '.join(parts)}{''.join(f'; {_detectable(pair)}' for pair in nearest)}.{rest}"


def _undecided(best: dict[str, Any], tied: list[dict[str, Any]], against: pl.DataFrame) -> str:
    """Returns which others the best is not significantly different from, and how many seeds would tell."""
    if best["n"] == 1:
        return (
            "It is unknown whether other seeds would agree: with a single seed there is no interval and no estimate of "
            "how many seeds would tell"
        )
    cannot = f"It is not significantly different from {_listed([row['label'] for row in tied])}"
    first = "it" if len(tied) == 1 else "the first of these"
    nearest = against.filter(pl.col("second") == tied[0]["configuration"], pl.col("n") > 1)
    if nearest.is_empty():
        return (
            f"{cannot}: the two have fewer than two seeds in common"
            if len(tied) == 1
            else (f"{cannot}: the first of these has fewer than two seeds in common with it")
        )
    pair = nearest.row(0, named=True)
    if pair["deviation"] == 0:
        equal = pair["difference"] == 0
        alike = (
            f"{'they' if len(tied) == 1 else f'it and {first}'} {'are equal' if equal else 'differ by the same amount'}"
        )
        return f"{cannot}: {alike} on every seed, so the number of seeds needed cannot be estimated"
    needed = seeds_to_decide(pair["difference"], pair["deviation"], pair["comparisons"])
    decide = f"about {float(f'{needed:.2g}'):,.0f}" if needed else "no number of"
    between = "the two" if len(tied) == 1 else "it and the first of these"
    return f"{cannot}: {_detectable(pair)}, and {decide} seeds would tell {between} apart at the observed spread"


def _detectable(pair: dict[str, Any]) -> str:
    smallest = detectable_difference(pair["deviation"], pair["n"], pair["comparisons"])
    possible = smallest is not None and smallest < 1
    return f"{pair['n']} seeds can detect {f'differences of {smallest:.4f} or more' if possible else 'no difference'}"


def _cautions(data: SweepData, summary: pl.DataFrame) -> Iterator[str]:
    edges = summary.filter(pl.col("lr_edge").is_not_null())
    if edges.height:
        names = [
            f"{row['optimizer']}{' with ' + row['scheduler'] if 'scheduler' in data.axes else ''} {row['lr']:g} "
            f"({row['lr_edge']})"
            for row in edges.rows(named=True)
        ]
        yield f"Best learning rate at the edge of its grid, so a better one may lie beyond it: {_listed(names)}."
    sound = summary.filter(pl.col("diverged") == 0)
    if ((sound[f"{CHOICE}_mean"] - sound["adjusted_mean"]).abs() > _ROUNDING).any():
        yield (
            "Not all configurations have the same seeds: they are ordered by means estimated for all seeds "
            "(`adjusted_mean` in summary.parquet)."
        )
    if missing := _missing(data):
        preliminary = "; the answer is preliminary" if "pending" in data.trials["status"] else ""
        yield f"Of {data.trials.height:,} trials, these have no result: {', '.join(missing)}{preliminary}."


_ROUNDING = 1e-9


def _missing(data: SweepData) -> list[str]:
    counts = dict(data.trials.group_by("status").len().iter_rows())
    return [f"{counts[status]:,} {words}" for status, words in _MISSING.items() if status in counts]


_MISSING = {
    "pending": "pending",
    "failed": "failed",
    "cancelled": "cancelled",
    "out_of_memory": "out of memory",
}
"""Status of a trial without a result -> in words."""


def _listed(names: list[str]) -> str:
    """Returns names as a phrase: `a`, `a and b`, `a; b and 4 more`; semicolons where names hold commas."""
    shown = names if len(names) <= MOST_NAMED + 1 else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"]
    comma = "; " if any("," in name for name in shown) else ", "
    return " and ".join(part for part in (comma.join(shown[:-1]), shown[-1]) if part)
