"""The answer in sentences, generated from the statistics: what is best, how certain that is, and caveats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import polars as pl

from analysis import cuts
from analysis.aggregate import CHOICE, MOST_COMPARED, compare
from analysis.configurations import trainings
from analysis.loading import SweepData
from analysis.luck import about_luck, in_sentences, lucks
from analysis.statistics.compare import ENOUGH_SEEDS
from analysis.statistics.sequences import DIFFER, EQUAL, Spread, half_width, seeds_to_decide
from workloads.console import counted
from workloads.measure import Measure
from workloads.trial import SETTINGS_OF, configuration_id

MOST_NAMED = 3
"""Configurations or groups named in a sentence; the others are counted."""


def answer(data: SweepData, summary: pl.DataFrame) -> tuple[str, ...]:
    """Returns the answer to the sweep's question: two sentences, then one for each caveat.

    With several optimizers or schedules, each is compared at its best settings; otherwise all configurations are
    compared. Each data set gets two sentences. Where rates were cut, what cuts were worth follows (`analysis.cuts`). A
    question about luck gets what is known about that.

    Args:
        data: The sweeps.
        summary: `summarise(data)`.
    """
    ended = summary.filter(pl.col("n") + pl.col("diverged") > 0)
    if ended.is_empty():
        return (f"No trial has finished yet, so there is no answer: {', '.join(_missing(data))}.", *data.notes)
    if about_luck(data):
        return (*_about_luck(data), *data.notes)
    pairs = compare(data, summary)
    parts = ended.partition_by("dataset", maintain_order=True)
    verdicts = [f"{_on(part, parts)}{sentence}" for part in parts for sentence in _verdict(part, pairs, data)]
    return (*verdicts, *cuts.sentences(data), *_cautions(data, summary), *data.notes)


def _about_luck(data: SweepData) -> Iterator[str]:
    """Yields what is known about luck: no configuration is best at it."""
    found = lucks(data)
    for one in found:
        yield from in_sentences(one, data.measure)
    if not found:
        yield (
            "Nothing can be said about luck yet: it takes two initial weights (init_seed) or more, each trained with "
            "the same two orders or more (seed), and results that differ."
        )


def _on(part: pl.DataFrame, parts: list[pl.DataFrame]) -> str:
    return f"On {part['dataset'][0]}: " if len(parts) > 1 else ""


def _verdict(ranking: pl.DataFrame, pairs: pl.DataFrame, data: SweepData) -> tuple[str, ...]:
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
    return _best(best, others, equal, data.measure), _certainty(best, others, pairs, data)


def _best(best: dict[str, Any], others: list[dict[str, Any]], equal: list[str], measure: Measure) -> str:
    mean, low, high = (best[f"{CHOICE}_{name}"] for name in ("mean", "low", "high"))
    behind = [row for row in others if row["position"] > best["position"] and row["n"] and not row["diverged"]]
    seeds = "one seed" if best["n"] == 1 else f"{best['n']} seeds"
    sure = f"95% interval {measure.text(low)} to {measure.text(high)}, {seeds}" if low is not None else seeds
    text = f"{_listed([best['label'], *equal])} {'have' if equal else 'has'} "
    text += f"the {measure.extreme} final validation {measure.name}, {measure.text(mean)} ({sure})"
    if behind:
        lead = measure.sign * (best["adjusted_mean"] - behind[0]["adjusted_mean"])
        more = "more" if measure.higher_is_better else "less"
        text += f", {measure.difference(lead)} {more} than {behind[0]['label']}"
    if (test := best["final_test_accuracy_mean"]) is not None:
        text += f"; test {measure.name} {'of the first: ' if equal else ''}{measure.text(test)}"
    return f"{text}."


def _certainty(best: dict[str, Any], others: list[dict[str, Any]], pairs: pl.DataFrame, data: SweepData) -> str:
    """Returns which others are as good as the best, which cannot be told from it, which are worse or not compared."""
    if not others:
        alone = best["alike"] == 1
        return "There is nothing to compare it with." if alone else "All others are bitwise identical to it."
    if best["diverged"]:
        return f"No more can be said: every configuration diverged on some seed, this one on {best['diverged']}."
    care = data.care
    against = {pair["second"]: pair for pair in pairs.filter(pl.col("first") == best["configuration"]).rows(named=True)}
    differ = pairs.filter(pl.col("verdict") == DIFFER)
    shown = set(differ.select(worse=pl.col("first") + pl.col("second") - pl.col("better"))["worse"])
    kinds: dict[_Kind, list[dict[str, Any]]] = {kind: [] for kind in get_args(_Kind)}
    for row in others:
        kinds[_kind(row, against.get(row["configuration"]))].append(row)
    said = []
    if kinds["same"]:
        said.append(f"{_names(kinds['same'])} {_verb(kinds['same'], 'has', 'have')} the same results on every seed.")
    if kinds["equal"]:
        within = f" (within {care:g})" if care is not None else ""
        said.append(f"{_names(kinds['equal'])} {_verb(kinds['equal'], 'is', 'are')} practically equal{within}.")
    if kinds["ahead"]:
        verb = _verb(kinds["ahead"], "is", "are")
        said.append(f"{_names(kinds['ahead'])} {verb} shown to be better on the seeds that both have.")
    if kinds["open"]:
        nearest = against[kinds["open"][0]["configuration"]]
        said.append(f"{_undecided(best, kinds['open'], nearest, data)}.")
    if settled := [*kinds["worse"], *kinds["diverged"]]:
        inherited = any(row["configuration"] not in shown for row in kinds["worse"])
        worse = f"{_verb(settled, 'is', 'are')} shown to be worse" if kinds["worse"] else ""
        parts = [worse, "did no better than one that is" if inherited else ""]
        parts.append("diverged on some seed" if kinds["diverged"] else "")
        subject = "The other one" if len(settled) == 1 else f"The other {len(settled):,}"
        said.append(f"{subject} {', or '.join(part for part in parts if part)}.")
    if kinds["not compared"]:
        said.append(f"Not compared: {len(kinds['not compared']):,} ranked below the best {MOST_COMPARED}.")
    return " ".join(said)


_Kind = Literal["same", "equal", "ahead", "open", "worse", "diverged", "not compared"]


def _kind(row: dict[str, Any], pair: dict[str, Any] | None) -> _Kind:
    """Returns how a configuration compares with the best.

    Args:
        row: Of the summary.
        pair: Of the best and this one, as of `pairwise`; None if they were not compared.
    """
    if row["diverged"]:
        return "diverged"
    if pair is None:
        return "not compared"
    if row["verdict"] == EQUAL:
        return "same" if pair["difference"] == pair["deviation"] == 0 else "equal"
    if row["verdict"] == DIFFER:
        return "ahead" if pair["better"] == row["configuration"] else "worse"
    return "open"


def _names(rows: list[dict[str, Any]]) -> str:
    return _listed([row["label"] for row in rows])


def _verb(rows: list[dict[str, Any]], one: str, several: str) -> str:
    return one if len(rows) == 1 else several


def _undecided(best: dict[str, Any], others: list[dict[str, Any]], pair: dict[str, Any], data: SweepData) -> str:
    """Returns which others the best cannot be told apart from, and how many seeds would tell.

    Args:
        best: The best configuration.
        others: Those that it cannot be told apart from, the best first.
        pair: Of the best and the first of these, as of `pairwise`.
        data: The sweeps.
    """
    care, measure = data.care, data.measure
    if best["n"] == 1:
        return (
            "It is unknown whether other seeds would agree: with a single seed there is no interval and no estimate of "
            "how many seeds would tell"
        )
    cannot = f"It cannot be told apart from {_names(others)}"
    if care is not None:
        they = "it" if len(others) == 1 else "any of these"
        cannot += f", nor is {they} shown to be practically equal (within {care:g})"
    two = "the two" if len(others) == 1 else "it and the first of these"
    if pair["n"] < ENOUGH_SEEDS:
        common = f"{counted(pair['n'], 'seed') if pair['n'] else 'no seeds'} in common"
        return f"{cannot}: {two} have {common}, and {ENOUGH_SEEDS} are the fewest that can tell"
    if pair["deviation"] == 0:
        return f"{cannot}: {two} differ by the same on every seed, so the number of seeds needed cannot be estimated"
    spread, apart = Spread(pair["prior_degrees"], pair["prior_deviation"]), abs(pair["difference"])
    smallest = half_width(pair["n"], pair["deviation"], pair["step_level"], spread)
    possible = smallest < measure.most - measure.least
    shows = f"differences of {measure.text(smallest)} or more" if possible else "no difference yet"
    differ = seeds_to_decide(apart, pair["deviation"], pair["step_level"], prior=spread)
    equal = seeds_to_decide(max(0.0, (care or 0.0) - apart), pair["deviation"], pair["level"], prior=spread)
    needed = min((count for count in (differ, equal) if count is not None), default=None)
    decide = f"about {_rounded_up(max(needed, pair['n'] + 1)):,}" if needed else "no number of"
    would = f"would decide between {two}" if care is not None else f"would tell {two} apart"
    return f"{cannot}: {pair['n']} seeds show {shows}; {decide} seeds {would}"


def _rounded_up(count: int) -> int:
    """Returns a count rounded up to two digits."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _cautions(data: SweepData, summary: pl.DataFrame) -> Iterator[str]:
    edges = summary.filter(pl.col("lr_edge").is_not_null())
    if edges.height:
        names = [
            f"{row['optimizer']}{' with ' + row['scheduler'] if 'scheduler' in data.axes else ''} {row['lr']:g} "
            f"({row['lr_edge']})"
            for row in edges.rows(named=True)
        ]
        grid = "grid" if data.search is None or "lr" not in data.search.drawn else "range"
        yield f"Best learning rate at the edge of its {grid}, so a better one may lie beyond it: {_listed(names)}."
    yield from _flattered(data, summary)
    sound = summary.filter(pl.col("diverged") == 0)
    plain = sound[f"{CHOICE}_mean"]
    if ((plain - sound["adjusted_mean"]).abs() > _ROUNDING * plain.abs().clip(1)).any():
        yield (
            "Not all configurations have the same seeds: they are ordered by means estimated for all seeds "
            "(`adjusted_mean` in summary.parquet)."
        )
    if missing := _missing(data):
        preliminary = "; the answer is preliminary" if "pending" in data.trials["status"] else ""
        yield f"Of {data.trials.height:,} trials, these have no result: {', '.join(missing)}{preliminary}."


def _flattered(data: SweepData, summary: pl.DataFrame) -> Iterator[str]:
    """Yields by how much better the best configuration looked where it was picked than it is on other seeds."""
    race = data.specs[0].race if len(data.specs) == 1 else None
    best = summary.filter((pl.col("position") == 1) & (pl.col("n") > 0)).head(1)
    if not race or not race.get("picked") or best.is_empty():
        return
    (row,) = best.rows(named=True)
    of = {trial.trial_id: configuration_id(trial) for trial in data.specs[0].trials}
    ids = data.trials.filter(pl.col("configuration") == row["configuration"])["trial_id"]
    picked, now, measure = race["picked"].get(of[ids[0]]), row[f"{CHOICE}_mean"], data.measure
    if picked is None or now is None:
        return
    lead = picked - measure.sign * now  # what policies compare by: more is better
    name = f"{row['label']}{_drawn(data, row['configuration'])}"
    before = measure.text(measure.sign * picked)
    found = f"The search picked {name} at {before}; on seeds that it did not see, the mean is {measure.text(now)}"
    yield f"{found}: it looked {measure.difference(lead)} better than it is." if lead >= _SHOWN else f"{found}."


def _drawn(data: SweepData, configuration: int) -> str:
    """Returns in brackets what was drawn for a configuration and is no part of its label."""
    trial = data.trials.filter(pl.col("configuration") == configuration).row(0, named=True)
    search, key = data.search, (trial["optimizer"], trial["scheduler"])
    columns = sorted(search.spaces.get(key, ())) if search is not None else []
    said = [
        f"{column.partition('_')[2].replace('_', ' ')} {trial[column]:.12g}"
        for column in columns
        if column.startswith(tuple(f"{kind}_" for kind in SETTINGS_OF)) and column not in data.axes
    ]
    return f" ({', '.join(said)})" if said else ""


_SHOWN = 0.00005
_ROUNDING = 1e-9


def _missing(data: SweepData) -> list[str]:
    counts = dict(data.trials.group_by("status").len().iter_rows())
    said = {status: f"{counts[status]:,} {words}" for status, words in _MISSING.items() if status in counts}
    if "early_stopped" in said:
        stopped = data.trials.filter(pl.col("status") == "early_stopped").group_by("epochs_run").len()
        rungs = (f"{count:,} after epoch {epoch}" for epoch, count in stopped.sort("epochs_run").iter_rows())
        said["early_stopped"] += f" ({', '.join(rungs)})"
    return list(said.values())


_MISSING = {
    "pending": "pending",
    "early_stopped": "stopped early",
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
