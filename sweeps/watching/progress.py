"""What a person watches while a sweep runs: a live view on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workloads.console import duration
from workloads.measure import ACCURACY, Measure

PLAIN_SECONDS = 5.0
"""Away from a terminal, at most one line in that time."""
LIVE_SECONDS = 0.25
"""On a terminal, the view changes that often."""


@dataclass
class Counts:
    """How far a sweep is."""

    trials: int = 0
    trials_done: int = 0
    failed: int = 0
    trial_epochs: int = 0
    """Epochs of all trials, as if each trained alone."""
    delivered: int = 0
    """Trial-epochs there is a record for."""
    trained: int = 0
    """Epochs really trained in this run."""
    running: int = 0
    waiting: int = 0
    epochs_left: int = 0
    """Epochs the current paths still have to train: a lower bound while schedules may fork."""
    slots: int = 1
    """Trainings that fit at once on the nodes there were at the start."""


class View(Protocol):
    """What is drawn again and again in one place."""

    def start(self) -> None:
        """Draws it for the first time."""

    def refresh(self) -> None:
        """Draws it anew."""

    def stop(self) -> None:
        """Takes it away."""


class _InNotebook:
    """A view below a notebook's cell; rich's own needs widgets, which few notebooks have.

    Args:
        render: Returns what to draw.
    """

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render = render
        self._handle: Any = None

    def start(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._handle.display(self._drawn())

    def refresh(self) -> None:
        self._handle.update(self._drawn())

    def stop(self) -> None:
        self._handle.update(Table.grid())

    def _drawn(self) -> Table:
        table = Table.grid()  # which notebooks can show
        table.add_row(self._render())
        return table


@dataclass
class Progress:
    """Draws the state of a running sweep.

    Args:
        console: Where to.
        labels: Trial id -> what a person calls it.
        measure: What the trials are ranked by.
    """

    console: Console
    labels: Mapping[str, str]
    counts: Counts = field(default_factory=Counts)
    measure: Measure = ACCURACY
    _running: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _followers: dict[str, int] = field(default_factory=dict)
    _epoch_seconds: float | None = None
    _live: View | None = None
    _started: float = field(default_factory=time.monotonic)
    _updated: float = float("-inf")

    def __enter__(self) -> Progress:
        if self.console.is_jupyter and not self.console.quiet:
            self._live = _InNotebook(self._render)
            self._live.start()
        elif self.console.is_interactive:
            rate = 1 / LIVE_SECONDS
            self._live = Live(
                console=self.console, get_renderable=self._render, refresh_per_second=rate, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line, above what is shown live."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def failed(self, leader: str, error: str) -> None:
        """A trial has failed."""
        self.say(f"failed: {self.labels.get(leader, leader)}: {error}")

    def started(self, leader: str, members: int) -> None:
        """A path is being trained."""
        self._running[leader] = {}
        self._followers[leader] = members - 1

    def record(self, leader: str, record: Mapping[str, Any], members: int) -> None:
        """A path has trained an epoch."""
        self._running[leader] = record
        self._followers[leader] = members - 1
        seconds = record["train_seconds"] + record["eval_seconds"]
        before = self._epoch_seconds
        self._epoch_seconds = seconds if before is None else 0.9 * before + 0.1 * seconds

    def ended(self, leader: str) -> None:
        """A path is no longer trained."""
        self._running.pop(leader, None)

    @property
    def pace(self) -> float | None:
        """What an epoch takes, divided by how many train at once; None before the first."""
        return None if self._epoch_seconds is None else self._epoch_seconds / max(1, self.counts.slots)

    @property
    def seconds_left(self) -> float | None:
        """An estimate, None before the first epoch."""
        if self._epoch_seconds is None:
            return None
        c = self.counts
        lanes = max(1, min(max(c.slots, c.running), c.running + c.waiting))
        return c.epochs_left * self._epoch_seconds / lanes

    def due(self) -> bool:
        """Whether it is time to show something new."""
        return time.monotonic() - self._updated >= (LIVE_SECONDS if self._live is not None else PLAIN_SECONDS)

    def update(self) -> None:
        """The counts are new: the live view shows them by itself, elsewhere a line is printed."""
        self._updated = time.monotonic()
        if self._live is not None:
            self._live.refresh()
        else:
            losses = ", ".join(self._describe(leader) for leader in self._running)
            self.console.print(
                f"{self._summary()}; now: {losses or 'waiting for a worker'}", soft_wrap=True, highlight=False
            )

    def _summary(self) -> str:
        c = self.counts
        left = self.seconds_left
        failed = f", {c.failed} failed" if c.failed else ""
        shared = f" ({c.trained} trained)" if c.trained != c.delivered else ""
        return (
            f"{c.trials_done}/{c.trials} trials done{failed}, {c.running} running, "
            f"{c.delivered}/{c.trial_epochs} epochs{shared}, {duration(time.monotonic() - self._started)} so far, "
            f"{'about ' + duration(left) if left is not None else '?'} left"
        )

    def _describe(self, leader: str) -> str:
        record = self._running[leader]
        label = self.labels.get(leader, leader)
        if not record:
            return f"{label} starting"
        value = self.measure.text(record["val_accuracy"], 3)
        return f"{label} epoch {record['epoch']} loss {record['train_loss']:.3f} val {value}"

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("training now")
        for name in ("with", "epoch", "train loss", "val loss", f"val {self.measure.name}"):
            table.add_column(name, justify="right", no_wrap=True)
        for leader, record in list(self._running.items()):
            followers = self._followers.get(leader, 0)
            losses = [f"{record[name]:.4f}" for name in ("train_loss", "val_loss")] if record else [""] * 2
            value = self.measure.text(record["val_accuracy"]) if record else ""
            others = f"+{followers}" if followers else ""
            # Where there is little room, a label gives way to the numbers.
            label = Text(self.labels.get(leader, leader), no_wrap=True, overflow="ellipsis")
            table.add_row(label, others, str(record.get("epoch", "-")), *losses, value)
        done = Table.grid()  # a bar alone ends no line
        done.add_row(ProgressBar(total=max(1, self.counts.trial_epochs), completed=self.counts.delivered, width=60))
        return Group(Text(self._summary()), done, table)
