"""The report: what a sweep found, how sure that is, and how to see for oneself; for people.

    python analysis/report.py results/optimizers [more sweeps ...]

Writes `summary.parquet`, `plots/*.png`, `plots/*.svg` and `report.html` beside the (first) sweep and prints the ranked
table. `report.html` is one file: it loads nothing, so it can be mailed, archived and opened anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import polars as pl
import tyro
from rich.console import Console
from rich.table import Table

from analysis import aggregate
from analysis.aggregate import SweepData
from analysis.answer import answer
from analysis.plots import PLOTS, Drawn, drawn
from analysis.plots.style import adaptive
from analysis.schema import SCHEMA_VERSION
from analysis.store import DamagedFileError, SweepSpec
from workloads.trial import STATUSES

MOST_ROWS = 200
"""Configurations in the report's table; all are in `summary.parquet`."""
MOST_EXCEPTIONS = 100
"""Trials in the report's list of those that did not complete; all are in `trials.parquet`."""
_PRINTED_ROWS = 20


@dataclass(frozen=True)
class Report:
    """What `write_report` found and wrote."""

    ranking: pl.DataFrame
    """One row a configuration, the best first: the content of `summary.parquet`."""
    answer: tuple[str, ...]
    """The question's answer in sentences."""
    files: tuple[str, ...]
    """Where everything is that was written."""


def write_report(sweeps: Sequence[str]) -> Report:
    """Aggregates sweeps, draws every plot that says something about them and writes the report beside the first.

    Args:
        sweeps: Folders or URIs of sweeps, finished or running.

    Raises:
        ValueError: There is no sweep at one of these places.
        DamagedFileError: A `sweep.json` is damaged.
    """
    data = aggregate.load(sweeps)
    summary = aggregate.summarise(data)
    sentences = answer(data, summary)
    store = aggregate.open_store(sweeps[0])
    pictures = [one for plot in PLOTS if (one := drawn(plot, data, summary)) is not None]
    page = render(data, summary, sentences, pictures, sweeps)
    files = [store.write_table("summary", summary, _provenance(data))]
    for one in pictures:
        store.write(f"plots/{one.name}.svg", one.picture.svg)
        store.write(f"plots/{one.name}.png", one.picture.png)
        files.append(f"{store.location}/plots/{one.name}.png")
    store.write("report.html", page.encode())
    return Report(summary, sentences, (*files, f"{store.location}/report.html"))


def print_report(report: Report, console: Console) -> None:
    """Prints the ranked table, the answer and where the files are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column.title, justify="right" if column.numeric else "left")
    for row in report.ranking.head(_PRINTED_ROWS).iter_rows(named=True):
        table.add_row(*(column.text(row) for column in COLUMNS))
    console.print(table)
    if report.ranking.height > _PRINTED_ROWS:
        console.print(f"… and {report.ranking.height - _PRINTED_ROWS} more", style="dim")
    console.print()
    for sentence in report.answer:
        console.print(sentence, markup=False, highlight=False)
    console.print()
    for file in report.files:
        console.print(file, style="dim", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class RankingColumn:
    """A column of the ranked table, printed and in the report."""

    title: str
    doc: str
    numeric: bool
    value: str
    """Column of the summary that it sorts by."""
    form: str = "{}"
    """How the value is written."""
    to: str | None = None
    """Column that the written range goes to."""

    def text(self, row: Mapping[str, Any]) -> str:
        """Returns the cell's text; empty where there is no value."""
        if row[self.value] is None:
            return ""
        text = self.form.format(row[self.value])
        return text if self.to is None else f"{text} – {self.form.format(row[self.to])}"


COLUMNS: tuple[RankingColumn, ...] = (
    RankingColumn("#", "place by mean final validation accuracy", True, "position"),
    RankingColumn("configuration", "the settings that vary", False, "label"),
    RankingColumn(
        "validation accuracy", "mean over seeds, after the last epoch", True, "final_val_accuracy_mean", "{:.4f}"
    ),
    RankingColumn(
        "95% interval", "of that mean", True, "final_val_accuracy_low", "{:.4f}", to="final_val_accuracy_high"
    ),
    RankingColumn("validation loss", "mean over seeds, after the last epoch", True, "final_val_loss_mean", "{:.4f}"),
    RankingColumn("seeds", "trials that finished", True, "n"),
    RankingColumn("diverged", "trials that diverged", True, "diverged"),
)
"""The ranked table."""


def render(
    data: SweepData, summary: pl.DataFrame, sentences: Sequence[str], pictures: Sequence[Drawn], sweeps: Sequence[str]
) -> str:
    """Returns the report as one HTML text that needs nothing else.

    Args:
        data: The sweeps.
        summary: `aggregate.summarise(data)`.
        sentences: The answer.
        pictures: What to show, in order.
        sweeps: The command line's sweeps, to say how to write the report again.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (environment.get_template(f"report.{kind}").render() for kind in ("css", "js"))
    shown, unfinished = summary.head(MOST_ROWS), exceptions(data)
    return environment.get_template("report.html.j2").render(
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        title=", ".join(spec.name for spec in data.specs),
        questions=list(dict.fromkeys(spec.question for spec in data.specs)),
        specs=data.specs,
        sentences=sentences,
        columns=COLUMNS,
        rows=[[(column.text(row), row[column.value]) for column in COLUMNS] for row in shown.iter_rows(named=True)],
        configurations=summary.height,
        pictures=[(one.name, one.caption, _data_uri(one)) for one in pictures],
        ledger=ledger(data),
        exceptions=unfinished.head(MOST_EXCEPTIONS).to_dicts(),
        exceptions_in_all=unfinished.height,
        provenance=[(spec.name, flat(_facts(spec))) for spec in data.specs],
        again=[*(spec.command for spec in data.specs), "python analysis/report.py " + " ".join(sweeps)],
        notes=data.notes,
    )


def ledger(data: SweepData) -> list[tuple[str, int]]:
    """Returns how many trials have each status, in the order of `STATUSES`; their sum is the number planned."""
    counts = dict(data.trials.group_by("status").len().iter_rows())
    return [(status, counts[status]) for status in STATUSES if status in counts]


def exceptions(data: SweepData) -> pl.DataFrame:
    """Returns the trials that ended otherwise than completed and why."""
    return data.trials.filter(~pl.col("status").is_in(("completed", "pending"))).select(
        "label", "seed", "status", "epochs_run", "error", "traceback"
    )


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns nested facts as lines: `git.commit`, `c1c3beb`."""
    lines = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        lines += flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, str(value))]
    return lines


def _facts(spec: SweepSpec) -> dict[str, Any]:
    return {**spec.provenance, **spec.fingerprint, "schema version": spec.schema_version}


def _provenance(data: SweepData) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "sweeps": {spec.name: _facts(spec) for spec in data.specs}}


def _csp_hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(one: Drawn) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(adaptive(one.picture.svg.decode()).encode()).decode()


@dataclass(frozen=True)
class Arguments:
    """Aggregates sweeps, draws their pictures and writes the report beside the first."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers."""


def main() -> None:
    """Runs the script."""
    arguments = tyro.cli(Arguments)
    try:
        report = write_report(arguments.sweeps)
    except (ValueError, OSError, DamagedFileError) as error:
        sys.exit(f"error: {error}")
    print_report(report, Console())


if __name__ == "__main__":
    main()
