"""Suggested next commands, based on what a sweep found, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.commands import adding, is_call, script, shown, values_of, with_flag, without_flag
from analysis.loading import SweepData
from analysis.luck import about_luck
from analysis.measures import measured_by
from analysis.race import ahead
from analysis.search import Search
from analysis.statistics.outlook import Outlook
from analysis.store import SweepSpec
from workloads.console import counted, duration
from workloads.trial import FAILED_STATUSES

ENOUGH_SEEDS = 5
"""More seeds are suggested if there are fewer than this."""
MOST_SEEDS_MORE = 4
"""A race that its budget has ended is suggested to go on with up to so many times the seeds."""


@dataclass(frozen=True)
class NextStep:
    """A command and what it is for."""

    command: str
    reason: str


def next_steps(
    data: SweepData, summary: pl.DataFrame, location: str, stored: Container[str] = ()
) -> tuple[NextStep, ...]:
    """Returns suggested next steps; none for several sweeps, or if no command is stored.

    Args:
        data: One sweep.
        summary: `summarise(data)`.
        location: The sweep's folder or URI, without credentials.
        stored: The sweep's files, relative to its folder.
    """
    if len(data.specs) != 1 or not data.specs[0].command:
        return ()
    return tuple(_steps(data, summary, data.specs[0], shown(location), stored))


def _steps(
    data: SweepData, summary: pl.DataFrame, spec: SweepSpec, location: str, stored: Container[str]
) -> Iterator[NextStep]:
    in_python = is_call(spec.command)
    counts = dict(data.trials.group_by("status").len().iter_rows())
    if left := counts.get("pending", 0) + counts.get("cancelled", 0):
        yield NextStep(spec.command, f"resumes the {_trials(left, 'remaining ')}")
    if failed := sum(counts.get(status, 0) for status in FAILED_STATUSES):
        yield NextStep(with_flag(spec.command, "--retry-failed"), f"retries the {_trials(failed, 'failed ')}")
    ended = summary.filter(pl.col("n") > 0)
    if stopped := counts.get("early_stopped", 0):
        yield NextStep(
            without_flag(spec.command, "--stop-early"), f"trains the {_trials(stopped, 'stopped ')} to the end"
        )
    if not left and not about_luck(data):
        yield from _deciding(data, spec, all_ended=not stopped)
    seeds = data.trials["seed"].n_unique()
    if ended.height and seeds < ENOUGH_SEEDS and not spec.race:
        given = sum(int(value) for value in values_of(spec.command, "--more-seeds"))
        more = ENOUGH_SEEDS - seeds
        yield NextStep(
            with_flag(spec.command, "--more-seeds", str(given + more)),
            f"adds {more} seed{'s' if more > 1 else ''} to every configuration, "
            + ("and with them confidence intervals" if seeds == 1 else "for narrower confidence intervals"),
        )
    edges = ended.filter(pl.col("lr_edge").is_not_null()).unique("optimizer", maintain_order=True)
    if data.search is not None:
        yield from _searching(data.search, spec, edges)
    elif edges.height:
        rates = [f"{row['optimizer']}={','.join(_beyond(row, data))}" for row in edges.iter_rows(named=True)]
        yield NextStep(
            adding(spec.command, "--more-lrs", *rates),
            "extends the learning-rate grids whose best value is at the edge",
        )
    if spec.library and len(measured_by([spec.everything()])) == 1:
        everything = f"Result.load({location!r}, everything=True).report" if in_python else ""
        yield NextStep(
            everything or script("analysis/report.py", location, "--all"),
            f"reports everything stored here: these trials and {_trials(len(spec.library), 'other ')}",
        )
    weights = _weights(data, ended)
    if weights is not None and weights in stored and in_python:
        label = ended["label"][0]
        yield NextStep(
            f"Result.load({location!r}).network({label!r})", "returns the trained network of the best configuration"
        )
    elif weights is not None and weights in stored and "://" not in location:
        yield NextStep(
            script("workloads/evaluate.py", f"{location}/{weights}"),
            "evaluates the final weights of the best configuration on all images",
        )


def _deciding(data: SweepData, spec: SweepSpec, *, all_ended: bool) -> Iterator[NextStep]:
    """Yields the command that would decide the question, or goes on with deciding it, and what that takes."""
    race, search = data.race, data.search
    if search is not None and not spec.race and _groups(data) > 1:
        best = "races the best of each optimizer and schedule, on seeds that were not searched with"
        yield NextStep(with_flag(spec.command, "--then-decide"), best)
    elif not all_ended or (search is not None and search.learns):
        return  # it could not race them
    elif race is None:
        if (known := ahead(data.specs, data.trials)) and known.in_question:
            yield NextStep(with_flag(spec.command, "--decide"), f"decides which is best: {_cost(known, data)}")
    elif race.course.over and not race.course.decided and spec.race:
        used = len(spec.race["seeds"])
        needed = known.seeds if (known := ahead(data.specs, data.trials, MOST_SEEDS_MORE * used)) else None
        most = 2 * used if needed is None else min(used + needed, MOST_SEEDS_MORE * used)
        if (known := ahead(data.specs, data.trials, most)) and known.in_question:
            yield NextStep(with_flag(spec.command, "--max-seeds", str(most)), f"goes on deciding: {_cost(known, data)}")
    elif not race.course.over:
        yield NextStep(spec.command, f"goes on deciding: {_cost(ahead(data.specs, data.trials), data)}")


def _groups(data: SweepData) -> int:
    """Returns how many optimizers with a schedule were searched."""
    return data.trials.select("workload", "optimizer", "scheduler").n_unique()


def _searching(search: Search, spec: SweepSpec, edges: pl.DataFrame) -> Iterator[NextStep]:
    """Yields the command that searches where the best rates lie at an edge, or else the one that searches on."""
    wider = {}
    for optimizer, scheduler, edge in edges.select("optimizer", "scheduler", "lr_edge").iter_rows():
        span = search.span("lr", optimizer, scheduler)
        if span is not None and span.scale == "log":
            wider[optimizer] = f"{optimizer}={span.widened(edge)}"
    if wider:
        command, given = _rates_of(spec.command)
        given = [rates for rates in given if rates.partition("=")[0] not in wider]
        yield NextStep(
            with_flag(command, "--lrs", *given, *wider.values()),
            "widens the ranges of learning rates whose best value is at the edge",
        )
    else:
        yield NextStep(
            with_flag(spec.command, "--trials", str(2 * search.trials)),
            "searches on: twice as many draws, these included",
        )


def _rates_of(command: str) -> tuple[str, list[str]]:
    """Returns a command without learning rates in `--grid`, and those it gives, as `--lrs` takes them."""
    axes = values_of(command, "--grid")
    others = [text for text in axes if text.partition("=")[0].strip() != "lr"]
    if len(others) == len(axes):
        return command, values_of(command, "--lrs")
    given = [text.partition("=")[2].strip() for text in axes if text not in others]
    return with_flag(command, "--grid", *others) if others else without_flag(command, "--grid"), given


def _cost(known: Outlook | None, data: SweepData) -> str:
    """Returns in words what certainty will cost."""
    if known is None:
        return "some seeds more"
    seconds = (data.epochs["train_seconds"] + data.epochs["eval_seconds"]).mean()
    if isinstance(seconds, float):
        finished = data.trials.filter(pl.col("status") == "completed")
        seconds /= 1 + (finished.select(pl.col("neighbours").median()).item() or 0)
    else:
        seconds = None
    if known.round:
        return known.said(seconds)
    at_most = "at most " if data.specs[0].library else ""  # some may be stored
    takes = "" if seconds is None else f", about {duration(known.trial_epochs * seconds)}"
    return f"{at_most}{_trials(known.trials)}{takes} to begin with, then only seeds that are needed"


def _trials(count: int, kind: str = "") -> str:
    return counted(count, f"{kind}trial")


def _beyond(row: dict[str, Any], data: SweepData) -> list[str]:
    """Returns two learning rates beyond the edge of a grid, spaced like its last two, rounded to one digit."""
    grid = sorted(data.trials.filter(pl.col("optimizer") == row["optimizer"])["lr"].unique().to_list())
    end, before = (grid[-1], grid[-2]) if row["lr_edge"] == "highest" else (grid[0], grid[1])
    rates = (end * (end / before) ** step for step in (1, 2))
    return list(dict.fromkeys(f"{round(rate, -math.floor(math.log10(rate))):g}" for rate in rates))


def _weights(data: SweepData, ended: pl.DataFrame) -> str | None:
    """Returns the checkpoint of the best configuration's first trial that has one."""
    if ended.is_empty():
        return None
    best = data.trials.filter(pl.col("configuration") == ended["configuration"][0])
    if best["workload"][0] in data.specs[0].provenance.get("added_workloads", ()):
        return None  # a network that only the script knows
    found: list[str] = best["checkpoint"].drop_nulls().to_list()
    return found[0] if found else None
