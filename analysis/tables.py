"""Builds `trials.parquet` from the records: one row per trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import polars as pl

from analysis.configurations import with_configurations
from analysis.measures import common_measure, published
from analysis.origin import MADE_FROM, of_records
from analysis.schema import TRIAL_COLUMNS, polars_schema, setting_columns, setting_value
from analysis.store import SweepSpec, SweepStore
from workloads.measure import Measure
from workloads.trial import SETTINGS_OF, TrialConfig, canonical_json, digest


def build_trials(spec: SweepSpec, epochs: pl.DataFrame, statuses: pl.DataFrame) -> pl.DataFrame:
    """Returns the trials table of a sweep, finished or still running.

    Args:
        spec: The sweep's spec.
        epochs: The sweep's records (`SweepStore.read_epochs`).
        statuses: The trials' last statuses (`SweepStore.read_statuses`); a trial without one, or one that has lost
            records since (to a damaged file), is `pending`.

    Returns:
        One row per trial of the spec, in its order, with the columns of `TRIAL_COLUMNS` and of the settings.

    Raises:
        InputError: Its trials are ranked by different measures.
    """
    by_trial = epochs.sort("trial_id", "epoch").group_by("trial_id", maintain_order=True)
    measured = by_trial.agg(*_measured(common_measure([spec])))
    records = measured.select("trial_id", records="epochs_run")
    held = statuses.join(records, on="trial_id", how="left").filter(
        pl.col("records").fill_null(0) >= pl.col("epochs_run").fill_null(0)
    )
    table = (
        _configs(spec)
        .join(held.drop("sweep", "epochs_run", "records"), on="trial_id", how="left", maintain_order="left")
        .join(measured, on="trial_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("status").fill_null("pending"),
            pl.col("epochs_run", "shared_epochs").fill_null(0),
            pl.col("train_seconds", "computed_seconds").fill_null(0.0),
        )
    )
    completed = pl.col("status") == "completed"
    plateau = (pl.col("scheduler") == "plateau") & pl.col("lr_reductions").is_not_null()
    table = table.with_columns(
        *(pl.when(completed).then(pl.col(name)).alias(name) for name in ("test_loss", "test_accuracy")),
        *(
            pl.when(plateau).then(pl.col(name)).alias(name)
            for name in ("lr_reductions", "first_reduction_epoch", "last_reduction_epoch")
        ),
        computed_seconds=pl.when(pl.col("taken_from").is_null()).then("computed_seconds").otherwise(0.0),
        shared_epochs=pl.when(pl.col("taken_from").is_null()).then("shared_epochs").otherwise("epochs_run"),
    )
    table, _ = with_configurations(table)
    schema = polars_schema(TRIAL_COLUMNS)
    settings = [name for name in setting_columns(spec.trials) if name not in schema]
    return table.select([pl.col(name).cast(type_) for name, type_ in schema.items()] + [pl.col(n) for n in settings])


def build_epochs(spec: SweepSpec, epochs: pl.DataFrame) -> pl.DataFrame:
    """Returns the records of a sweep's trials, in their order, from all that are stored (`SweepStore.read_epochs`)."""
    order = pl.DataFrame({"trial_id": [trial.trial_id for trial in spec.trials]}).with_row_index("order")
    return epochs.join(order, on="trial_id", how="inner").sort("order", "epoch").drop("order")


def build_published(store: SweepStore, spec: SweepSpec) -> dict[str, pl.DataFrame]:
    """Returns what `epochs.parquet` and `trials.parquet` of a sweep must hold, from its parts."""
    measure = common_measure([spec])
    epochs, statuses = store.read_epochs(), store.read_statuses()
    tables = {"epochs": build_epochs(spec, epochs), "trials": build_trials(spec, epochs, statuses)}
    return {name: published(table, measure) for name, table in tables.items()}


def publish(store: SweepStore, spec: SweepSpec) -> None:
    """Writes `epochs.parquet` and `trials.parquet` from the parts."""
    metadata = {"schema_version": spec.schema_version, "sweep": spec.name} | {
        "question": spec.question,
        "fingerprint": dict(spec.fingerprint),
        "provenance": dict(spec.provenance),
        MADE_FROM: of_records(spec, store.files("parts")),
    }
    for name, table in build_published(store, spec).items():
        store.write_table(name, table, metadata)


_FELL = pl.col("lr") < pl.col("lr").shift(1)
_OWN = pl.col("computed_by") == pl.col("trial_id")


def _measured(measure: Measure) -> tuple[pl.Expr, ...]:
    """Returns what the trials table tells of a trial's records."""
    best = (measure.sign * pl.col("val_accuracy")).arg_max()
    return (
        pl.len().alias("epochs_run"),
        pl.col("train_loss").last().alias("final_train_loss"),
        pl.col("val_loss").last().alias("final_val_loss"),
        pl.col("val_accuracy").last().alias("final_val_accuracy"),
        pl.col("val_balanced_accuracy").last().alias("final_balanced_accuracy"),
        pl.col("val_accuracy").get(best).alias("best_val_accuracy"),
        pl.col("epoch").get(best).alias("best_epoch"),
        pl.col("test_loss").last(),
        pl.col("test_accuracy").last(),
        _FELL.sum().alias("lr_reductions"),
        pl.col("epoch").filter(_FELL).first().alias("first_reduction_epoch"),
        pl.col("epoch").filter(_FELL).last().alias("last_reduction_epoch"),
        pl.col("train_seconds").sum(),
        pl.col("train_seconds").filter(_OWN).sum().alias("computed_seconds"),
        (~_OWN).sum().alias("shared_epochs"),
    )


_PLAIN_FIELDS = [f.name for f in fields(TrialConfig) if f.name not in SETTINGS_OF.values()]


def comparable(fingerprint: Mapping[str, str] | None) -> str | None:
    """Returns the digest of what determined a trial's numbers; None where that was not recorded."""
    if fingerprint is None:
        return None
    return digest(canonical_json({name: value for name, value in fingerprint.items() if name != "machine"}))


def _configs(spec: SweepSpec) -> pl.DataFrame:
    settings = setting_columns(spec.trials)
    types = {**polars_schema(TRIAL_COLUMNS), **settings}
    plain = ["sweep", "dataset", "trial_id", "fingerprint", *_PLAIN_FIELDS]
    rows: list[dict[str, Any]] = []
    for trial in spec.trials:
        row = {name: getattr(trial, name, None) for name in plain}
        row |= {"sweep": spec.name, "dataset": spec.datasets[trial.workload]}
        row["fingerprint"] = comparable(spec.fingerprints.get(trial.trial_id))
        for kind, field in SETTINGS_OF.items():
            for key, value in getattr(trial, field).items():
                row[f"{kind}_{key}"] = setting_value(value, settings[f"{kind}_{key}"])
        rows.append(row)
    return pl.DataFrame(rows, schema={name: types[name] for name in [*plain, *settings]})
