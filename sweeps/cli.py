"""`main`: from the command line to the answer, the same for every sweep script."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import polars as pl
import torch
import tyro
from rich.console import Console
from rich.markup import escape

from analysis.loading import combine
from analysis.schema import EPOCH_COLUMNS, STATUS_COLUMNS, polars_schema
from analysis.store import SweepSpec, SweepStore, without_secrets
from analysis.tables import publish
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.library import changed, merged, near, read_library, refuse_changed, take_over
from sweeps.ledger.lock import Lock, locked
from sweeps.ledger.provenance import provenance
from sweeps.question.command import CommandLine, command, spread, words_of
from sweeps.question.options import Options
from sweeps.question.sweep import Sweep, check_sweep, plan
from sweeps.sharing.tree import ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.errors import PlacementError, StorageError
from sweeps.tuning.placement import Placement, check_storage_path, in_ray_job, usable_cores
from sweeps.watching.forecast import forecast
from sweeps.watching.live import Live, Log, open_logs
from sweeps.watching.notify import Notifier, check_url
from sweeps.watching.progress import Progress
from workloads import datasets, preflight
from workloads.console import USAGE_ERROR, open_console, parse
from workloads.datasets import Dataset
from workloads.errors import InputError
from workloads.fingerprint import Fingerprint, common, fingerprints
from workloads.registry import WORKLOADS, added_workloads, dataset_of
from workloads.trial import FAILED_STATUSES, TrialConfig

SOME_FAILED = 1
INTERRUPTED = 130
SMOKE_TEST = {"epochs": 2, "train_limit": 1920}
"""What `--smoke-test` makes of a sweep, whatever flags and `--grid` say."""


class UsageError(InputError):
    """The user asked for something that cannot be; the message is one line that says what to do."""


class StoppedError(Exception):
    """A sweep could not go on; what it has stored is valid, and the same command goes on from there."""


def _stopped(reason: object) -> StoppedError:
    return StoppedError(f"{reason}; everything stored is still valid; fix that, then run the same command to continue")


def main(sweep: Sweep, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a sweep as its command line says, and exits.

    Exit status: 0 when every trial asked for has its answer; 1 when some failed, or the sweep could not go on; 2 for
    bad input, before anything starts; 130 when interrupted: the same command goes on.

    Args:
        sweep: What to ask.
        arguments: The command line; None takes the process's own.
    """
    console, complaints = open_console(), open_console(stderr=True)
    line = CommandLine(words_of(arguments))
    try:
        with _terminable(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn about among themselves is nothing the user can mend
            check_sweep(sweep)
            status = run(sweep, _options(sweep, line.words), console, line)
    except KeyboardInterrupt as interrupt:
        complaints.print(f"interrupted; {line.goes_on()}")
        status = _exit_status(interrupt)
    except BrokenPipeError:  # `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complaints.print(f"stopped: the output was closed; {line.goes_on()}")
        status = SOME_FAILED
    except (StoppedError, InputError) as error:
        word = "stopped" if isinstance(error, StoppedError) else "error"
        complaints.print(f"[red]{word}:[/red] {escape(without_secrets(' '.join(str(error).split())))}")
        status = _exit_status(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours, whatever it is, is shown whole
        complaints.print(without_secrets(traceback.format_exc()), markup=False)
        complaints.print(f"This is a bug in forksweep. Everything stored is still valid; {line.goes_on()}")
        status = _exit_status(error)
    sys.exit(status)


def _exit_status(error: BaseException) -> int:
    """Returns the exit status that an exception means."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return USAGE_ERROR if isinstance(error, InputError) else SOME_FAILED


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end a sweep as Ctrl-C does, whatever it is at."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _options(sweep: Sweep, words: Sequence[str]) -> Options:
    """Returns the options of a command line.

    Raises:
        InputError: It is not understood.
    """
    return parse(
        Options,
        spread(words),
        default=sweep.default_options(),
        description=sweep.question,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _in_small(options: Options) -> Options:
    """Returns the options of a smoke test of what is asked for."""
    grid = tuple(text for text in options.grid if text.partition("=")[0].strip() not in SMOKE_TEST)
    return replace(options, **SMOKE_TEST, grid=grid, name=f"{options.name}-smoke-test")  # type: ignore[arg-type]


def run(sweep: Sweep, options: Options, console: Console, line: CommandLine | None = None) -> int:
    """Runs a sweep and returns the exit status of `main`.

    Args:
        sweep: What to ask.
        options: How.
        console: Where to print.
        line: The command line that says so.

    Raises:
        InputError: An option is unknown or out of range, or contradicts another; what is stored cannot be compared or
            not be read; another run of the sweep is at work.
        StoppedError: The sweep could not go on.
    """
    with contextlib.ExitStack() as stack:
        try:
            asked = _ask(sweep, options, console, line or CommandLine(), stack)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(str(error)) from None
        if options.plan:
            return 0
        notifier = Notifier(options.notify, asked.spec.name, asked.store.location)
        try:
            status = _answer(asked, console, notifier)
        except BaseException as error:
            notifier.end(asked.ledger.counts(), _exit_status(error))
            raise
        notifier.end(asked.ledger.counts(), status)
        return status


@dataclass(frozen=True)
class _Asked:
    """A question, and what is known of its answer before anything is trained."""

    spec: SweepSpec
    ledger: Ledger
    placement: Placement
    options: Options
    logs: Mapping[str, Log]
    line: CommandLine
    lock: Lock

    @property
    def store(self) -> SweepStore:
        """Where all of it is kept."""
        return self.ledger.store


def _ask(sweep: Sweep, options: Options, console: Console, line: CommandLine, stack: contextlib.ExitStack) -> _Asked:
    """Works out what is asked and what of it is stored, and says so; on the stack are the lock and perhaps a Ray."""
    if options.smoke_test:
        options = _in_small(options)
    if options.notify is not None:
        check_url(options.notify)
    check_storage_path(options)
    placement = _placement(options)
    store = SweepStore(options.storage_path, options.name)
    logs = open_logs(options.log, store)
    console.print(escape(sweep.question))
    if options.smoke_test:
        console.print("  smoke test: 2 epochs on the first 1,920 images, whatever other flags say")
    planned = plan(sweep, options)
    lock = Lock() if options.plan else stack.enter_context(locked(store, lambda text: console.print(escape(text))))
    stored = read_library(store, fresh=options.fresh)
    neighbours = near(planned.trials, stored)
    now = _fingerprints([*planned.trials, *neighbours], placement, options, stack)
    differences = changed(stored, now)
    ledger = Ledger(
        store,
        planned.trials,
        library=[trial for trial in neighbours if trial.trial_id in now and trial.trial_id not in differences],
        changed=differences,
        retry_failed=options.retry_failed,
        fresh=options.fresh,
        keep=options.keep_checkpoints,
    )
    refuse_changed(ledger, differences)
    asked = SweepSpec(
        name=options.name,
        question=sweep.question,
        command=command(line.words),
        trials=planned.trials,
        datasets={trial.workload: WORKLOADS[trial.workload].dataset for trial in planned.trials},
        fingerprint=common(planned.trials, now),
        provenance=provenance() | {"added_workloads": sorted(added_workloads())},
        left_out=planned.left_out,
        plots=sweep.plots,
    )
    spec = merged(asked, stored, ledger, now)
    taken: dict[str, int] = {}
    if options.share and not options.fresh:
        taken = take_over(ledger, now, lambda text: console.print(f"[yellow]warning:[/yellow] {escape(text)}"))
    for text in (*planned.notes, *forecast(spec, ledger, taken, placement, share=options.share).lines()):
        console.print(f"  {escape(text)}")
    if options.fresh and ledger.stored:
        would = "would delete" if options.plan else "deletes"
        console.print(f"  --fresh {would} everything stored here: {ledger.stored:,} trials with their checkpoints")
    if spec.library:
        console.print(f"  also stored here, and kept: {len(spec.library):,} other trial{'s'[: len(spec.library) > 1]}")
    console.print(f"  results: {escape(store.location)}")
    return _Asked(spec, ledger, placement, options, logs, line, lock)


def _fingerprints(
    trials: Sequence[TrialConfig], placement: Placement, options: Options, stack: contextlib.ExitStack
) -> dict[str, Fingerprint]:
    """Returns how trials would train; nothing where only a cluster could tell and nothing is to be trained."""
    root = Path(options.data_root)
    if placement.is_here:
        return fingerprints(trials, placement.hardware(), root)
    if options.plan:
        return {}
    from sweeps.tuning import session

    stack.enter_context(_refusing_placement())
    stack.enter_context(session.ray_session(placement))
    session.check_placement(placement)
    from sweeps.tuning.probing import probe_there

    return fingerprints(trials, placement.hardware(), root, probe_there(trials, placement))


@contextlib.contextmanager
def _refusing_placement() -> Iterator[None]:
    try:
        yield
    except PlacementError as error:
        raise UsageError(str(error)) from None


def _placement(options: Options) -> Placement:
    """Returns what each trial gets.

    Raises:
        UsageError: The flags are out of range, or ask for more than this machine has.
    """
    for flag, value, allowed in (
        ("--cpus-per-trial", options.cpus_per_trial, "0 or more"),
        ("--gpus-per-trial", options.gpus_per_trial, "0 or more"),
        ("--max-concurrent", options.max_concurrent, "1 or more"),
        ("--trial-timeout", options.trial_timeout, "1 or more"),
    ):
        if value is not None and not float(allowed[0]) <= value < float("inf"):
            raise UsageError(f"{flag} must be {allowed}, not {value:g}")
    if options.gpus_per_trial > 1 and options.gpus_per_trial % 1:
        raise UsageError(
            f"--gpus-per-trial must be a fraction below 1 or a whole number, not {options.gpus_per_trial:g}"
        )
    if options.address is None and not in_ray_job():
        for flag, wanted, there, what in (
            ("--cpus-per-trial", options.cpus_per_trial, usable_cores(), "CPU cores"),
            ("--gpus-per-trial", options.gpus_per_trial, torch.cuda.device_count(), "GPUs"),
        ):
            if wanted > there:
                raise UsageError(f"{flag} {wanted:g} asks for more than this machine has: {there} {what}")
    return Placement.of(options)


def _answer(asked: _Asked, console: Console, notifier: Notifier) -> int:
    """Trains what is open, writes what came out, prints it and returns the exit status."""
    ledger = asked.ledger
    # What it takes in before the sweep begins, it writes then.
    ledger.live = Live(asked.logs, complain=lambda text: console.print(f"[yellow]warning:[/yellow] {escape(text)}"))
    ledger.live.begin(ledger.trials.values(), ledger.known, ledger.statuses)
    tree = ledger.tree(share=asked.options.share)
    for news in tree.walk_known():
        ledger.learn(news)
    interrupted = False
    try:
        if tree.done:
            _begin(asked)
            ledger.flush()
        else:
            interrupted = _train(tree, asked, console, notifier)
        return _conclude(asked, console, interrupted=interrupted)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _stopped(f"cannot write to {ledger.store.location}: {error}") from None


def _conclude(asked: _Asked, console: Console, *, interrupted: bool) -> int:
    """Writes tables and report, prints what came out and returns the exit status."""
    ledger = asked.ledger
    ledger.store.remove_half_written()
    ledger.store.compact()
    publish(ledger.store, asked.spec)
    counts = ledger.counts()
    if interrupted:
        console.print(f"interrupted: {counts['pending']:,} trials are left; {escape(asked.line.goes_on())}")
        return INTERRUPTED
    # Imported while Ray ended, if anything was trained: only once there is something to show.
    from analysis.report import print_report, report_of

    try:
        print_report(report_of(ledger.store), console)
    except InputError as error:
        raise RuntimeError("what could be trained could not be reported") from error
    failed = sum(counts[status] for status in FAILED_STATUSES)
    if failed:
        console.print(f"\n[red]{failed:,} of {len(ledger.trials):,} trials failed:[/red]")
        reasons = Counter(
            ledger.statuses[trial_id].error
            for trial_id in ledger.trials
            if trial_id in ledger.statuses and ledger.statuses[trial_id].status in FAILED_STATUSES
        )
        for reason, count in reasons.most_common(_MOST_REASONS):
            console.print(f"  {count:,} x {escape(textwrap.shorten(reason or 'no reason known', 200))}")
    if counts["cancelled"]:
        console.print(f"{counts['cancelled']:,} trials were cancelled; the same command runs them")
    return SOME_FAILED if failed or counts["cancelled"] else 0


_MOST_REASONS = 5
"""Why trials failed: printed up to that many; all are in the report."""


def _begin(asked: _Asked) -> None:
    """Writes what is asked; from here on the sweep is stored."""
    store, ledger = asked.store, asked.ledger
    if asked.options.fresh:
        store.clear()
        asked.line.started_over = True
    store.write_spec(asked.spec)
    ledger.adopt()
    store.remove_damaged()
    store.remove_half_written()
    ledger.live.start()


def _train(tree: ForkTree, asked: _Asked, console: Console, notifier: Notifier) -> bool:
    """Trains what is open and returns whether a signal ended it."""
    # Ray takes a second to import, only once there is something to train; and seconds to start, most of them waiting:
    # the rest is made ready meanwhile.
    from sweeps.tuning import session

    placement, options, ledger = asked.placement, asked.options, asked.ledger
    with ThreadPoolExecutor(max_workers=1) as meanwhile, _refusing_placement():
        prepared = meanwhile.submit(_prepare, asked)
        meanwhile.submit(importlib.import_module, "sweeps.tuning.execution")
        try:
            with session.ray_session(placement) as dashboard:
                from sweeps.tuning import execution

                data, lines, labels = prepared.result()
                for line in lines:
                    console.print(escape(line))
                if dashboard is not None:
                    console.print(f"  Ray's dashboard: {dashboard}")
                session.check_placement(placement)
                session.check_storage(ledger.store)
                _begin(asked)
                with Progress(console, labels) as progress:
                    run = Run(
                        tree,
                        ledger,
                        placement,
                        progress,
                        fail_fast=options.fail_fast,
                        keep=options.keep_checkpoints,
                        notifier=notifier,
                        lock=asked.lock,
                        machine=None if placement.is_here else asked.spec.fingerprint["machine"],
                    )
                    execution.run_tree(run, data=data)
                if not run.interrupted:  # statistics and pictures take a second to import, and Ray two to end
                    meanwhile.submit(importlib.import_module, "analysis.report")
        except StorageError as error:
            raise _stopped(error) from None
    delivered = ledger.delivered_by_training
    ratio = f": {delivered / run.trained:.1f} times as many" if delivered > 1.05 * run.trained > 0 else ""
    console.print(f"{delivered:,} trial-epochs delivered, {run.trained:,} epochs trained{ratio}")
    return run.interrupted


def _prepare(asked: _Asked) -> tuple[dict[str, Dataset], Sequence[str], dict[str, str]]:
    """Returns the data sets by name, what the checks before the start have to say, and the labels of the trials."""
    left = asked.ledger.open
    rows = {row.name: row for row in map(dataset_of, left)}
    data = {name: datasets.load(row, Path(asked.options.data_root)) for name, row in rows.items()}
    first = left[0]
    lines = preflight.report(first, data[dataset_of(first).name]) if asked.options.preflight else ()
    return data, lines, _labels(asked.spec)


def _labels(spec: SweepSpec) -> dict[str, str]:
    """Returns what a person calls each trial: the settings that vary, and the seed if that does."""
    epochs, statuses = (pl.DataFrame(schema=polars_schema(columns)) for columns in (EPOCH_COLUMNS, STATUS_COLUMNS))
    trials = combine([(spec, epochs, statuses)]).trials
    seeds = trials["seed"].n_unique() > 1
    return {
        row["trial_id"]: f"{row['label']}, seed {row['seed']}" if seeds else row["label"]
        for row in trials.select("trial_id", "label", "seed").iter_rows(named=True)
    }
