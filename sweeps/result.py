"""What came out of a sweep: tables, sentences, pictures and networks, from a run of this process or from its folder."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.loading import SweepData, load_specs, open_sweep
from analysis.measures import published
from analysis.store import SweepSpec, SweepStore
from analysis.tables import build_epochs, build_trials
from sweeps.ledger.ledger import stored_decisions
from sweeps.policies import Decision
from workloads.console import counted
from workloads.errors import InputError, did_you_mean
from workloads.trial import FAILED_STATUSES, Status

if TYPE_CHECKING:  # half a second each, only for those who ask
    import polars as pl
    from matplotlib.figure import Figure
    from torch import nn

    from analysis.report import Report
    from workloads import Workload

SOME_FAILED = 1
INTERRUPTED = 130

_PIXELS_HIGH = 720
"""Of the report in a notebook; what is longer is scrolled to."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """What came out of a sweep; all of it is stored.

    In a notebook it is shown as its report.
    """

    store: SweepStore
    """Where."""
    spec: SweepSpec
    """What was asked."""
    counts: Mapping[Status, int]
    """How many trials have each status."""
    failures: Mapping[str, int]
    """Why trials failed -> how many."""
    decisions: tuple[Decision, ...] = ()
    """What a race decided so far, in order; none for a sweep of fixed trials."""
    interrupted: bool = False
    """Whether a signal ended the run before all was trained."""
    delivered: int = 0
    """Trial-epochs that came from epochs trained in this run."""
    trained: int = 0
    """Epochs trained in this run."""
    plan: tuple[str, ...] = ()
    """What would be trained and what that would take, if that was all that was asked for (`plan=True`)."""
    everything: bool = False
    """Whether it is about all that is stored, and not only about the last question."""

    @classmethod
    def load(cls, place: str | Path, *, everything: bool = False, workload: Workload | None = None) -> Result:
        """Returns what is stored of a sweep, finished or running.

        Args:
            place: Its folder or URI, such as `results/optimizers`.
            everything: Whether to take in every stored trial instead of only those of the last question.
            workload: A workload of your own that was trained, if its networks are asked for (`network`).

        Raises:
            InputError: There is no sweep; the message names those near it.
        """
        if workload is not None:
            from workloads.own import register

            register(workload)
        store, spec = open_sweep(str(place))
        spec = spec.everything() if everything else spec
        trials = build_trials(spec, store.read_epochs(), store.read_statuses())
        counts = Counter(trials["status"].to_list())
        failed = trials.filter(trials["status"].is_in(list(FAILED_STATUSES)))
        return cls(
            store=store,
            spec=spec,
            counts=counts,
            failures=Counter(error or "no reason known" for error in failed["error"]),
            decisions=() if everything or not spec.race else tuple(stored_decisions(store, spec.race["policy"])),
            everything=everything,
        )

    @property
    def exit_status(self) -> int:
        """What a process exits with: 0 when every trial has its result, 1 when some lack it, 130 when interrupted."""
        if self.interrupted:
            return INTERRUPTED
        return SOME_FAILED if self.failures or self.counts["cancelled"] else 0

    @property
    def work(self) -> str:
        """What was trained in this run, in words; empty if nothing was."""
        if not self.trained and not self.delivered:
            return ""
        ratio = self.delivered / self.trained if self.delivered > 1.05 * self.trained > 0 else None
        times = "" if ratio is None else f": {ratio:.1f} times as many"
        return f"{counted(self.delivered, 'trial-epoch')} delivered, {counted(self.trained, 'epoch')} trained{times}"

    # -- tables ---------------------------------------------------------------------------------------------------

    @cached_property
    def summary(self) -> pl.DataFrame:
        """A row for each configuration, best first: the content of `summary.parquet` (docs/columns.md)."""
        return published(self._summary, self._data.measure)

    @cached_property
    def trials(self) -> pl.DataFrame:
        """A row for each trial: the content of `trials.parquet` (docs/columns.md)."""
        trials = build_trials(self.spec, self.store.read_epochs(), self.store.read_statuses())
        return published(trials, self._data.measure)

    @cached_property
    def epochs(self) -> pl.DataFrame:
        """A row for each trial and epoch: the content of `epochs.parquet` (docs/columns.md)."""
        return published(build_epochs(self.spec, self.store.read_epochs()), self._data.measure)

    @cached_property
    def _summary(self) -> pl.DataFrame:
        """The summary with the names it has inside."""
        from analysis.aggregate import summarise

        return summarise(self._data)

    @cached_property
    def _data(self) -> SweepData:
        return load_specs([(self.store, self.spec)])

    # -- answers --------------------------------------------------------------------------------------------------

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """The answer, in sentences."""
        from analysis.answer import answer

        return tuple(answer(self._data, self._summary))

    @cached_property
    def report(self) -> Report:
        """The answer: ranking, sentences, files and next steps; it is written where it is not up to date.

        Raises:
            InputError: Nothing is stored, or another question was asked under the same name meanwhile.
        """
        from analysis.report import report_of, write_report

        if not self._is_last:
            raise InputError(
                f"there is no report: {self.store.location} holds another question by now; run this one again"
                if self.store.is_sweep()
                else f"there is no report: nothing has been stored at {self.store.location} yet"
            )
        return write_report([self.store.uri], everything=True) if self.everything else report_of(self.store)

    @property
    def _is_last(self) -> bool:
        """Whether this is what was asked last under this name: then the report is about it."""
        spec = self.store.read_spec()
        if spec is None:
            return False
        spec = spec.everything() if self.everything else spec
        return (spec.trials, spec.care, spec.race) == (self.spec.trials, self.spec.care, self.spec.race)

    def plot(self, name: str) -> Figure:
        """Returns a plot of the report as a figure, to show, change and save; pyplot knows nothing of it.

        Args:
            name: One of `analysis.plots.PLOTS`, such as `accuracy_by_lr`; a wrong one is told which there are.

        Raises:
            InputError: The name is unknown, or the plot does not apply to this sweep.
        """
        from analysis.plots import draw_figure

        return draw_figure(self._data, self._summary, name)

    # -- networks -------------------------------------------------------------------------------------------------

    def network(self, label: str, seed: int | None = None) -> nn.Module:
        """Returns a trained network with its final weights, in evaluation mode, on the CPU.

        Args:
            label: What its configuration is called in the ranking, such as `adam, lr 0.001`.
            seed: Its seed; None for the first whose weights are stored.

        Raises:
            InputError: There is no such configuration or seed, or its weights were not kept.
        """
        import polars as pl

        from analysis.configurations import trainings
        from workloads.registry import WORKLOADS
        from workloads.training import State, build_model

        known = dict(trainings(self._summary).select("name", "label").iter_rows()) if self._summary.height else {}
        known = {one: one for one in self._data.trials["label"].unique(maintain_order=True)} | known
        if label not in known:
            best_first = dict.fromkeys([*self._summary["label"], *known])
            raise InputError(
                f"unknown configuration {label!r}{did_you_mean(str(label), known)}; known: {_some(best_first)}"
            )
        trials = self._data.trials.filter(pl.col("label") == known[label])
        seeds = trials["seed"].to_list()
        if seed is not None and seed not in seeds:
            raise InputError(f"{label!r} has no seed {seed!r}; known: {_some(sorted(seeds))}")
        kept = trials.drop_nulls("checkpoint")
        chosen = kept if seed is None else kept.filter(pl.col("seed") == seed)
        if chosen.is_empty():
            raise InputError(self._without_weights(label, seed, trials, kept))
        path = chosen["checkpoint"][0]
        try:
            state = State.from_bytes(self.store.read(path))
        except FileNotFoundError:
            raise InputError(f"the weights of {label!r} are gone: {self.store.locate(path)}") from None
        except Exception as error:  # noqa: BLE001 - unpickling a damaged file can raise anything
            raise InputError(f"{self.store.locate(path)} is damaged ({type(error).__name__})") from None
        name = state.config.workload
        if name not in WORKLOADS:
            raise InputError(
                f"workload {name!r} is in a file of your own: import it from there, and load the result with "
                "Result.load(place, workload=...)"
            )
        network = build_model(state.config)
        try:
            network.load_state_dict(state.model)
        except RuntimeError:
            raise InputError(f"the network of {name!r} has changed since: the weights do not fit it") from None
        return network.eval()

    def _without_weights(self, label: str, seed: int | None, trials: pl.DataFrame, kept: pl.DataFrame) -> str:
        """Returns why there are no weights, and which there are."""
        which = f"{label!r}" if seed is None else f"{label!r}, seed {seed}"
        if kept.height:
            return f"no weights are stored of {which}; there are those of seed {_some(sorted(kept['seed'].to_list()))}"
        others = self._data.trials.drop_nulls("checkpoint")["label"].unique(maintain_order=True).to_list()
        ended = trials["status"].unique().to_list()
        if ended != ["completed"]:
            why = f"its trials are {', '.join(sorted(ended))}"
        else:
            why = "they were not kept (keep_checkpoints='none')"
        return f"no weights are stored of {which}: {why}; there are {f'those of {_some(others)}' if others else 'none'}"

    # -- for people -----------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        done = ", ".join(f"{count:,} {status}" for status, count in self.counts.items() if count)
        lines = [f"{self.spec.name}: {len(self.spec.trials):,} trials ({done}), {self.store.location}", *self.plan]
        if self.interrupted:
            lines.append("interrupted: run it again to go on")
        return "\n".join([*lines, *(() if self.plan else self.answer)])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        shown = {"text/plain": repr(self)}
        if not self.plan and self._is_last:
            assert self.report  # written now
            page = self.store.read("all/report.html" if self.everything else "report.html").decode()
            shown["text/html"] = _FRAME.format(page=html.escape(page), height=_PIXELS_HIGH)
        return shown


_FRAME = (
    '<iframe srcdoc="{page}" sandbox="allow-scripts allow-popups" loading="lazy" title="forksweep report" '
    'style="width: 100%; height: {height}px; border: 1px solid #8884; border-radius: 4px"></iframe>'
)
"""A page of its own within the notebook's: neither's style touches the other."""

_MOST_NAMED = 20


def _some(names: Any) -> str:
    """Returns names one after the other, the first of many."""
    texts = [repr(name) if isinstance(name, str) else str(name) for name in names]
    more = f", and {len(texts) - _MOST_NAMED:,} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more
