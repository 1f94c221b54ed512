"""The report: what a sweep found, how certain that is, and how to reproduce it.

    python analysis/report.py results/optimizers [more sweeps ...]

Writes `summary.parquet`, `plots/*.png`, `plots/*.svg` and `report.html` into the sweep's folder and prints the ranked
table. A report on several sweeps goes into a folder beside the first, e.g. `results/optimizers-and-schedulers`.
`report.html` is self-contained: it can be mailed, archived and opened anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jinja2
import polars as pl
import tyro
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import commands
from analysis.aggregate import summarise, write_summary
from analysis.answer import answer
from analysis.configurations import trainings
from analysis.loading import FINISHED, SweepData, load, open_store, output_store
from analysis.measures import in_words, internal
from analysis.next_steps import NextStep, next_steps
from analysis.origin import MADE_FROM, of_statistics
from analysis.receipt import about, read_receipt
from analysis.statistics.sequences import LEVEL
from analysis.store import DamagedFileError, SweepSpec, SweepStore, without_secrets
from workloads.console import complaining, parse
from workloads.measure import ACCURACY, Measure
from workloads.trial import STATUSES, canonical_json, digest

if TYPE_CHECKING:  # half a second, only for those who draw
    from analysis.plots import Drawn, Failure

MOST_ROWS = 200
"""Maximum rows in the report's table; all configurations are in `summary.parquet`."""
MOST_EXCEPTIONS = 100
"""Maximum lines in the report's list of trials that did not complete; all trials are in `trials.parquet`."""
_MOST_PRINTED = 20
ANSWER_FILE = "answer.json"
"""The question and its answer for programs, with a digest of what they were made from."""


@dataclass(frozen=True)
class Report:
    """What `write_report` found and wrote."""

    ranking: pl.DataFrame
    """One row per configuration, best first: the content of `summary.parquet`, with the columns of accuracy whatever
    the measure."""
    answer: tuple[str, ...]
    """The answer in sentences."""
    files: tuple[str, ...]
    """Locations of the files written."""
    failures: tuple[Failure, ...] = ()
    """Plots that could not be drawn."""
    steps: tuple[NextStep, ...] = ()
    """Suggested next steps."""
    measure: Measure = ACCURACY
    """What configurations are ranked by."""
    stopped: tuple[int, ...] = ()
    """Configurations all of whose trials were stopped early: the terminal does not list them."""
    drawn: bool = False
    """Whether learning rates were drawn from a range."""
    receipts: tuple[str, ...] = ()
    """Whether each sweep was verified, or how to do that."""


@dataclass(frozen=True)
class RankingColumn:
    """A column of the ranked table, printed and in the report; its texts are about accuracy."""

    title: str
    doc: str
    value: str
    """Summary column to show and sort by."""
    form: str | None = "{}"
    """Format of a value; None for values of the measure."""
    to: str | None = None
    """Summary column with the upper end, if the cell shows a range."""
    printed: bool = True
    """Whether it is also shown in the terminal."""
    numeric: bool = True

    def text(self, row: Mapping[str, Any], measure: Measure = ACCURACY) -> str:
        """Returns the cell's text; empty where there is no value."""
        if row[self.value] is None:
            return ""
        said = measure.text if self.form is None else self.form.format
        return said(row[self.value]) if self.to is None else f"{said(row[self.value])} – {said(row[self.to])}"


COLUMNS: tuple[RankingColumn, ...] = (
    RankingColumn("#", "position by mean final validation accuracy; ties share one", "position"),
    RankingColumn("configuration", "the settings that vary", "name", numeric=False),
    RankingColumn("val accuracy", "of the last epoch, mean over seeds", "final_val_accuracy_mean", None),
    RankingColumn(
        "95% interval",
        "of that mean alone (Student's t); not for comparing configurations, which ranks are for",
        "final_val_accuracy_low",
        None,
        to="final_val_accuracy_high",
    ),
    RankingColumn(
        "balanced", "balanced validation accuracy, if classes are rare", "final_balanced_accuracy_mean", "{:.4f}"
    ),
    RankingColumn("rank", "1 + number shown to be better than it, or than one that did at least as well", "rank"),
    RankingColumn(
        "against #1",
        "compared with the first: differ (shown to be worse than some other, or no better than one that is), "
        "practically equal (the difference is shown to be smaller than what matters), or cannot tell",
        "verdict",
        numeric=False,
    ),
    RankingColumn("val loss", "of the last epoch, mean over seeds", "final_val_loss_mean", "{:.4f}", printed=False),
    RankingColumn("seeds", "trials that finished", "n"),
    RankingColumn("diverged", "trials that diverged", "diverged"),
    RankingColumn(
        "edge of grid",
        "the best learning rate of its group is at the edge of the grid: a better one may lie beyond it",
        "lr_edge",
        "{} lr",
        numeric=False,
    ),
)
"""The ranked table; empty columns are dropped."""


METHOD = (
    "Configurations are compared seed by seed with anytime-valid confidence sequences (all pairs together, "
    f"{LEVEL:.0%}): what they show holds however often you add seeds and look again. They assume that differences over "
    "seeds are roughly normal; a failure so rare that no seed has shown it yet is not reckoned with."
)
"""How ranks and verdicts are made."""


def method_of(data: SweepData, summary: pl.DataFrame) -> str:
    """Returns how ranks and verdicts were made and what they assume; empty if there are none."""
    if summary["rank"].null_count() == summary.height:
        return ""
    return METHOD if data.care is None else f"{METHOD} Differences below {data.care:g} do not matter (--care)."


def columns_of(rows: pl.DataFrame, *, drawn: bool = False) -> list[RankingColumn]:
    """Returns the non-empty columns for these rows of `trainings(summary)`.

    Args:
        rows: The rows.
        drawn: Whether learning rates were drawn from a range.
    """
    there = [column for column in COLUMNS if column.value in rows.columns]
    found = [c for c in there if rows[c.value].null_count() < rows.height and not _all_zero(rows[c.value])]
    return [
        replace(c, title=_IN_RANGE, doc=c.doc.replace("the grid", "its range")) if drawn and c.value == "lr_edge" else c
        for c in found
    ]


_IN_RANGE = "edge of range"


def _all_zero(column: pl.Series) -> bool:
    return column.dtype.is_integer() and bool((column == 0).all())


def write_report(sweeps: Sequence[str], *, everything: bool = False) -> Report:
    """Aggregates sweeps, draws every plot that applies to them and writes the report.

    Args:
        sweeps: Folders or URIs of sweeps, finished or running.
        everything: Whether to include every stored trial instead of only those of the last question; the report then
            goes into the subfolder `all`.

    Raises:
        InputError: There is no sweep at one of these locations.
        DamagedFileError: A `sweep.json` is damaged.
    """
    store = output_store(sweeps, everything=everything)
    parts = store.files("parts")
    data = load(sweeps, everything=everything)
    return _written(data, [*sweeps, "--all"] if everything else sweeps, store, parts)


def report_of(store: SweepStore) -> Report:
    """Returns the report of one sweep; an earlier one is reused if nothing has changed since."""
    stored = store.files()  # before they are read: of what comes in meanwhile, it is not known whether it is in there
    parts = [file for file in stored if file.startswith("parts/")]
    data = load([store.uri])
    statistics = of_statistics(data.specs[0], parts)
    made_from = _made_from(store, data, statistics)
    try:
        before = json.loads(store.read(ANSWER_FILE))
        summary, metadata = store.read_table_and_metadata("summary")
        found = [file for file in before["files"] if file in stored]
        ours = metadata.get(MADE_FROM) == statistics
    except (FileNotFoundError, DamagedFileError, ValueError, KeyError):
        before, summary, found, ours = {}, None, [], False
    # Somebody may have put a summary of their own in the place of ours.
    if summary is None or not ours or before.get(MADE_FROM) != made_from or found != before["files"]:
        return _written(data, [store.uri], store, parts, made_from)
    files = tuple(store.locate(file) for file in found)
    summary = internal(summary, data.measure)
    steps = next_steps(data, summary, store.location, stored)
    receipts = (about(store, data.specs[0]),)
    answered = tuple(before["answer"])
    return Report(summary, answered, files, (), steps, data.measure, _stopped(data), _drawn(data), receipts)


def _written(
    data: SweepData, sweeps: Sequence[str], store: SweepStore, parts: Sequence[str], made_from: str = ""
) -> Report:
    from analysis.plots import draw_plots

    summary = summarise(data)
    sentences = answer(data, summary)
    steps = () if "--all" in sweeps else next_steps(data, summary, store.location, store.files("checkpoints"))
    places = [sweep for sweep in sweeps if sweep != "--all"]
    receipts = tuple(about(open_store(place), spec) for place, spec in zip(places, data.specs, strict=True))
    failures: list[Failure] = []
    pictures = in_order_of_answer(draw_plots(data, summary, failures=failures), data.specs)
    write_summary(store, data, summary, parts)
    tables = [f"{name}.parquet" for name in ("trials", "epochs") if f"{name}.parquet" in store.files()]
    files = ("report.html", "summary.parquet", *tables, *write_pictures(store, pictures))
    drawn = {file.rpartition(".")[0] for file in files}
    store.delete(*(path for path in store.files("plots") if path.rpartition(".")[0] not in drawn))
    page = render(data, summary, sentences, pictures, sweeps, failures, steps, receipts)
    store.write("report.html", page.encode())
    if made_from and not failures:
        record = {"question": data.specs[0].question, "answer": sentences, "files": files, MADE_FROM: made_from}
        store.write(ANSWER_FILE, json.dumps(record, indent=1).encode())
    return Report(
        summary,
        sentences,
        tuple(map(store.locate, files)),
        tuple(failures),
        steps,
        data.measure,
        _stopped(data),
        _drawn(data),
        receipts,
    )


def _drawn(data: SweepData) -> bool:
    return data.search is not None and "lr" in data.search.drawn


def _stopped(data: SweepData) -> tuple[int, ...]:
    stopped = data.trials.group_by("configuration", maintain_order=True).agg(
        (pl.col("status") == "early_stopped").all()
    )
    return tuple(stopped.filter("status")["configuration"])


def _made_from(store: SweepStore, data: SweepData, statistics: str) -> str:
    """Returns the digest of everything a sweep's report depends on: its statistics, notes and receipt."""
    receipt = read_receipt(store)
    return digest(canonical_json([statistics, list(data.notes), None if receipt is None else receipt.to_json()]))


def in_order_of_answer(pictures: Sequence[Drawn], specs: Sequence[SweepSpec]) -> list[Drawn]:
    """Sorts the plots: first those that the sweeps name as showing their answer."""
    named = [name for spec in specs for name in spec.plots]
    return sorted(pictures, key=lambda one: named.index(one.name) if one.name in named else len(named))


def write_pictures(store: SweepStore, pictures: Sequence[Drawn]) -> list[str]:
    """Writes each plot as `plots/<name>.png` and `.svg`; returns the PNG paths, relative to the sweep's folder."""
    images = {one.name: {"png": one.picture.png, "svg": one.picture.svg} for one in pictures}
    store.write_all({f"plots/{name}.{kind}": image for name, kinds in images.items() for kind, image in kinds.items()})
    return [f"plots/{one.name}.png" for one in pictures]


def print_report(report: Report, console: Console) -> None:
    """Prints the ranked table, the answer and the locations of the files.

    The table is wrapped to the width of a terminal; in other output, lines are as long as needed. Characters that the
    console cannot show are replaced.
    """

    def say(text: str, **how: Any) -> None:
        console.print(Text(shown_in(console.encoding, text)), highlight=False, **how)

    rows = trainings(report.ranking.filter(~pl.col("configuration").is_in(list(report.stopped))))
    shown = rows.head(_MOST_PRINTED)
    columns = [column for column in columns_of(shown, drawn=report.drawn) if column.printed]
    cells = [
        [shown_in(console.encoding, c.text(row, report.measure)) for c in columns]
        for row in shown.iter_rows(named=True)
    ]
    titles = [in_words(column.title, report.measure) for column in columns]
    if console.file.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, title in zip(columns, titles, strict=True):
            justify: Literal["left", "right"] = "right" if column.numeric else "left"
            table.add_column(title, justify=justify, no_wrap=column.numeric, overflow="fold")
        for texts in cells:
            table.add_row(*map(Text, texts))
        console.print(table, highlight=False)
    else:
        for line in aligned([titles, *cells], [column.numeric for column in columns]):
            say(line, soft_wrap=True)
    if rows.height > shown.height:
        say(f"and {rows.height - shown.height:,} more", style="dim")
    console.print()
    for sentence in report.answer:
        say(sentence, soft_wrap=not console.file.isatty())
    console.print()
    pictures = [file for file in report.files if file.endswith(".png")]
    plots = [f"{pictures[0].rpartition('/')[0]}/ ({len(pictures)} plots)"] if pictures else []
    for file in [*(file for file in report.files if file not in pictures), *plots]:
        say(commands.shown(file), soft_wrap=True)
    for receipt in report.receipts:
        say(receipt, soft_wrap=True)
    for failure in report.failures:
        say(f"Plot {failure.name} could not be drawn: {failure.error} (traceback in report.html)", soft_wrap=True)
    if report.steps:
        say("\nNext steps:")
    for step in report.steps:
        say(f"  {step.command}", soft_wrap=True)
        say(f"    {step.reason}", soft_wrap=not console.file.isatty(), style="dim")


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Returns the lines of a table without rules, columns two spaces apart.

    Args:
        rows: The texts, row by row.
        right: For each column, whether it is aligned to the right.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            " " * (width - cell_len(text)) + text if to_right else text + " " * (width - cell_len(text))
            for text, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def shown_in(encoding: str, text: str) -> str:
    """Replaces the characters of a text that an encoding lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(_PLAIN)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


_PLAIN = str.maketrans({"–": "-", "—": "-", "…": "...", "×": "x", "≤": "<=", "’": "'", "“": '"', "”": '"'})


def render(
    data: SweepData,
    summary: pl.DataFrame,
    sentences: Sequence[str],
    pictures: Sequence[Drawn],
    sweeps: Sequence[str],
    failures: Sequence[Failure] = (),
    steps: Sequence[NextStep] = (),
    receipts: Sequence[str] = (),
) -> str:
    """Returns the report as self-contained HTML.

    Args:
        data: The sweeps.
        summary: `summarise(data)`.
        sentences: The answer.
        pictures: The plots, in order.
        sweeps: The sweeps as given on the command line, for the command that rewrites the report.
        failures: Plots that could not be drawn.
        steps: Suggested next steps.
        receipts: Whether each sweep was verified, or how to do that.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, behaviour = (environment.get_template(f"report.{kind}").render() for kind in ("css", "js"))
    distinct, unfinished = trainings(summary), exceptions(data)
    shown = distinct.head(MOST_ROWS)
    columns = columns_of(shown, drawn=_drawn(data))
    return environment.get_template("report.html.j2").render(
        style=style,
        script=behaviour,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(behaviour),
        title=", ".join(spec.name for spec in data.specs),
        questions=list(dict.fromkeys(spec.question for spec in data.specs)),
        specs=data.specs,
        sentences=sentences,
        columns=[replace(c, title=in_words(c.title, data.measure), doc=in_words(c.doc, data.measure)) for c in columns],
        rows=[[(c.text(row, data.measure), row[c.value]) for c in columns] for row in shown.iter_rows(named=True)],
        method=method_of(data, summary),
        distinct=distinct.height,
        configurations=summary.height,
        failures=failures,
        pictures=[(one.name, one.caption, _data_uri(one), one.picture.wide) for one in pictures],
        decisions=decisions(data),
        saved=saved(data),
        ledger=ledger(data),
        exceptions=unfinished.head(MOST_EXCEPTIONS).to_dicts(),
        exceptions_in_all=unfinished.height,
        provenance=[(spec.name, flat(_facts(spec))) for spec in data.specs],
        steps=steps,
        receipts=receipts,
        again=[
            *(spec.command for spec in data.specs),
            without_secrets(commands.script("analysis/report.py", *map(commands.shown, sweeps))),
        ],
    )


@dataclass(frozen=True)
class Decided:
    """A line of the report's table of what a race decided."""

    number: int
    """Counted from 1."""
    reason: str
    """What was found, and what follows, in words."""
    added: int
    """Trials to be trained next."""


def decisions(data: SweepData) -> list[tuple[str, list[Decided]]]:
    """Returns the names of the sweeps that are races, and what each has decided so far; empty if there is none."""
    found = []
    for spec in data.specs:
        if not spec.race:
            continue
        own = data.decisions.filter(pl.col("policy") == spec.race["policy"])
        rows = own.select("number", "reason", "add").iter_rows()
        lines = [Decided(number + 1, reason, len(json.loads(add))) for number, reason, add in rows]
        found += [(spec.name, lines)] if lines else []
    return found


def saved(data: SweepData) -> str:
    """Returns a sentence on what a race cost, and what as many seeds for all would have cost; empty without a race."""
    race = data.race
    if race is None or not race.trials:
        return ""
    seeds, count = race.most_seeds, len(race.labels)
    everything = f"{seeds:,} seeds for each of the {count:,} configurations would be {seeds * count:,}"
    return f"The race has looked at {race.trials:,} trials; {everything}."


def ledger(data: SweepData) -> list[tuple[str, int]]:
    """Returns the number of trials with each status, in the order of `STATUSES`; they sum to the number planned."""
    counts = dict(data.trials.group_by("status").len().iter_rows())
    return [(status, counts[status]) for status in STATUSES if status in counts]


def exceptions(data: SweepData) -> pl.DataFrame:
    """Returns which configurations ended without a usable accuracy, and why.

    Returns:
        One row per configuration, status and reason: `label, status, error`, the lists `seeds` and `epochs_run`, and
        `traceback` (of the first trial).
    """
    ended = ~pl.col("status").is_in((*FINISHED, "pending"))
    reasons = data.trials.filter(ended).group_by("configuration", "label", "status", "error", maintain_order=True)
    return reasons.agg(pl.col("seed").alias("seeds"), "epochs_run", pl.col("traceback").first())


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flattens nested facts to pairs such as `git.commit`, `c1c3beb`."""
    lines = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        lines += flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, str(value))]
    return lines


def _facts(spec: SweepSpec) -> dict[str, Any]:
    return {**spec.provenance, **spec.fingerprint, "schema_version": spec.schema_version}


def _csp_hash(text: str) -> str:
    """Returns the hash of an inline style or script for a Content-Security-Policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(one: Drawn) -> str:
    from analysis.plots.style import adaptive

    svg = adaptive(one.picture.svg.decode())
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


@dataclass(frozen=True)
class Arguments:
    """Writes summary.parquet, plots and report.html of sweeps, finished or running, into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""
    all: bool = False
    """Include every stored trial instead of only those of the last question."""


def main() -> None:
    """Runs the script."""
    with complaining() as console:
        arguments = parse(Arguments)
        print_report(write_report(arguments.sweeps, everything=arguments.all), console)


if __name__ == "__main__":
    main()
