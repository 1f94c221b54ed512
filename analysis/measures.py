"""The measure that configurations are ranked by, in words and in the names of columns.

Inside, whatever is measured has the names of accuracy: `val_accuracy`, `final_val_accuracy_mean`. Tables for users and
other tools, and sentences, say the measure's own name: `final_val_mean_absolute_error_mean`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import polars as pl

from analysis.schema import EPOCH_COLUMNS, METRICS, STATISTICS, TRIAL_COLUMNS
from analysis.store import SweepSpec
from workloads.errors import InputError
from workloads.measure import ACCURACY, Measure


def common_measure(specs: Iterable[SweepSpec]) -> Measure:
    """Returns the one measure that all trials of some sweeps are ranked by.

    Raises:
        InputError: There are several.
    """
    specs = list(specs)
    found = measured_by(specs)
    if len(found) > 1:
        kinds = "; ".join(f"{_described(measure)} of {', '.join(of)}" for measure, of in found.items())
        raise InputError(f"no ranking over different measures ({kinds}): ask and report one of them at a time")
    asked = {(i, trial.workload) for i, spec in enumerate(specs) for trial in spec.trials}
    units = {specs[i].measures.get(workload, ACCURACY).loss_unit for i, workload in asked}
    unit = units.pop() if len(units) == 1 else ""
    return next((replace(measure, loss_unit=unit) for measure in found), ACCURACY)


def measured_by(specs: Iterable[SweepSpec]) -> dict[Measure, list[str]]:
    """Returns what trials of sweeps are ranked by, whatever the units of their losses -> the workloads that are."""
    found: dict[Measure, dict[str, None]] = {}
    for spec in specs:
        for workload in dict.fromkeys(trial.workload for trial in spec.trials):
            measure = replace(spec.measures.get(workload, ACCURACY), loss_unit="")
            found.setdefault(measure, {})[workload] = None
    return {measure: list(of) for measure, of in found.items()}


def _described(measure: Measure) -> str:
    return f"{measure.name}, {'higher' if measure.higher_is_better else 'lower'} is better,"


def in_words(text: str, measure: Measure) -> str:
    """Returns a text about accuracy as one about another measure."""
    return re.sub(r"\baccuracy\b", lambda _: measure.name, text)


def column_name(name: str, measure: Measure) -> str:
    """Returns what a column about accuracy is called for another measure: `final_val_mean_absolute_error`."""
    return name.replace(ACCURACY.column, measure.column)


def published(table: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """Returns a table as users and other tools see it: named after the measure, without what only classes have."""
    if measure.column == ACCURACY.column:
        return table
    names = [name for name in table.columns if name in _NAMED]
    return table.drop(_OF_CLASSES, strict=False).rename(
        {name: column_name(name, measure) for name in names if name not in _OF_CLASSES}
    )


def internal(table: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    """Returns a published table with the names it has inside; the inverse of `published` but for columns it dropped."""
    if measure.column == ACCURACY.column:
        return table
    names = {column_name(name, measure): name for name in _NAMED if name not in _OF_CLASSES}
    return table.rename({name: inside for name, inside in names.items() if name in table.columns})


def tags(columns: Mapping[str, str], measure: Measure) -> dict[str, str]:
    """Returns the names that other tools know columns by (`analysis.schema.SCALARS`), as `published` names columns."""
    if measure.column == ACCURACY.column:
        return dict(columns)
    return {name: column_name(tag, measure) for name, tag in columns.items() if name not in _OF_CLASSES}


_OF_METRICS = [f"{metric.name}_{statistic}" for metric in METRICS for statistic in STATISTICS]
_NAMED = frozenset(
    name
    for name in (*(column.name for column in (*EPOCH_COLUMNS, *TRIAL_COLUMNS)), *_OF_METRICS)
    if ACCURACY.column in name
)
"""The columns about accuracy. A setting may have that word in its name too."""
_OF_CLASSES = frozenset(name for name in _NAMED if "balanced" in name or "class" in name)
"""Those that only a classification has."""
