"""Configurations (trials without their seed): numbers, labels and the axes on which they vary."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from workloads.trial import FIELDS, SETTINGS_OF

_IDENTITY = ("dataset", *(name for name, role in FIELDS.items() if role.phrase is not None))
_SETTING_OF = tuple(f"{kind}_" for kind in SETTINGS_OF)
_PHRASES = {name: role.phrase for name, role in FIELDS.items() if role.phrase is not None} | {"variant": "variant {}"}


def with_configurations(trials: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Returns trials with their configurations, and what these vary on.

    Args:
        trials: A trials table; what it has of the two columns is replaced.

    Returns:
        The trials with `configuration` (Int32, counted from 0 in order) and `label` (the settings that vary, in words);
        and the axes: the columns that vary between configurations.
    """
    settings = [name for name in trials.columns if name.startswith(_SETTING_OF)]
    trials = _with_variants(trials, [*_IDENTITY, *settings])
    identity = [*_IDENTITY, *settings, "variant"]
    configurations = trials.select(identity).unique(maintain_order=True)
    axes = _axes(configurations, settings)
    configurations = configurations.with_columns(
        pl.Series("configuration", range(configurations.height), dtype=pl.Int32),
        pl.Series("label", _labels(configurations, axes), dtype=pl.String),
    )
    plain = trials.drop("configuration", "label", strict=False)
    return plain.join(configurations, on=identity, how="left", nulls_equal=True, maintain_order="left"), axes


def _with_variants(trials: pl.DataFrame, identity: Sequence[str]) -> pl.DataFrame:
    """Returns trials with `variant`: a number where trials of equal settings were trained in different ways, else null.

    Such trials (their code, data or machine changed in between) are not comparable, so they are never averaged.
    """
    if "fingerprint" not in trials.columns:
        return trials.with_columns(variant=pl.lit(None, pl.Int32))
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(identity)
    variants = trials.select(*identity, "fingerprint").unique(maintain_order=True)
    variants = variants.with_columns(variant=pl.when(pl.len().over(identity) > 1).then(number))
    plain = trials.drop("variant", strict=False)
    return plain.join(variants, on=[*identity, "fingerprint"], how="left", nulls_equal=True, maintain_order="left")


def _axes(configurations: pl.DataFrame, settings: Sequence[str]) -> tuple[str, ...]:
    def varies(column: str, within: str | None) -> bool:
        groups = configurations.group_by(within or pl.lit(0))
        return bool((groups.agg(pl.col(column).n_unique())[column] > 1).any())

    found: list[str] = []
    for kind in SETTINGS_OF:
        found += [kind] if varies(kind, None) else []
        found += [name for name in settings if name.startswith(f"{kind}_") and varies(name, kind)]
    plain = (name for name in _PHRASES if name not in SETTINGS_OF)
    return (*found, *(name for name in plain if varies(name, None)))


def _labels(configurations: pl.DataFrame, axes: Sequence[str]) -> list[str]:
    short = {axis: axis.partition("_")[2].replace("_", " ") for axis in axes if axis.startswith(_SETTING_OF)}
    phrases = dict(_PHRASES)
    for axis, name in short.items():
        unique = list(short.values()).count(name) == 1
        # A name may hold braces of its own.
        phrases[axis] = (name if unique else axis.replace("_", " ")).replace("{", "{{").replace("}", "}}") + " {}"
    rows = _varied(configurations, axes).select(axes or ("optimizer",)).iter_rows(named=True)
    texts = (", ".join(phrases[axis].format(_text(v)) for axis, v in row.items() if v is not None) for row in rows)
    return [text or "default settings" for text in texts]


def _varied(configurations: pl.DataFrame, axes: Sequence[str]) -> pl.DataFrame:
    """Returns configurations with null for settings that their own optimizer, schedule or workload does not vary."""
    kinds = {axis: axis.partition("_")[0] for axis in axes if axis.startswith(_SETTING_OF)}
    return configurations.with_columns(
        pl.when(pl.col(axis).n_unique().over(kind) > 1).then(pl.col(axis)).alias(axis) for axis, kind in kinds.items()
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())


def with_trainings(trials: pl.DataFrame, epochs: pl.DataFrame) -> pl.DataFrame:
    """Returns which configurations had identical training: bitwise equal records on the same seeds.

    For example, plateau schedules that never lowered the rate train identically, whatever their settings.

    Args:
        trials: `trial_id, configuration, seed`; others are ignored.
        epochs: The records of these trials.

    Returns:
        One row per configuration, in order: `configuration`, `same_as` (the first with identical training, which may
        be itself) and `alike` (how many there are, including itself). One without records is only like itself.
    """
    # A sum of hashes does not depend on the order.
    recorded = epochs.group_by("trial_id").agg(pl.struct("epoch", *_RECORDED).hash().sum().alias("records"))
    whole = (
        trials.select("trial_id", "configuration", "seed")
        .join(recorded, on="trial_id", how="inner")
        .group_by("configuration")
        .agg(pl.struct("seed", "records").hash().sum().alias("training"))
    )
    every = trials.select("configuration").unique().sort("configuration").join(whole, on="configuration", how="left")
    key = (pl.coalesce(pl.col("training").cast(pl.String), pl.format("none of {}", "configuration")),)
    return every.sort("configuration").select(
        "configuration",
        same_as=pl.col("configuration").first().over(*key),
        alike=pl.len().over(*key).cast(pl.Int32),
    )


_RECORDED = ("train_loss", "val_loss", "val_accuracy")


def trainings(summary: pl.DataFrame) -> pl.DataFrame:
    """Returns one row for each distinct training run, the first in the summary, with a display `name`.

    Args:
        summary: Rows of the summary: `label, same_as, alike, lr_reductions`; others are kept.
    """
    once = summary.unique("same_as", keep="first", maintain_order=True)
    names = [_named(*row) for row in once.select("label", "alike", "lr_reductions").iter_rows()]
    return once.with_columns(name=pl.Series(names, dtype=pl.String))


def _named(label: str, alike: int, lr_reductions: float | None) -> str:
    """Returns the name of a training run that several configurations may share.

    Args:
        label: The label of one of these configurations.
        alike: How many there are.
        lr_reductions: How often a plateau schedule lowered the rate; None for other schedules.
    """
    if alike == 1:
        return label
    never = ": the rate was never reduced" if lr_reductions == 0 else ""
    return f"{label} (and {alike - 1:,} identical{never})"
