"""`main`: from the command line to the answer, the same for every sweep script."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch
import tyro
from rich.console import Console
from rich.markup import escape

from analysis.loading import combine
from analysis.store import SPEC_FILE, SweepSpec, SweepStore, without_secrets
from analysis.tables import publish
from sweeps.forecast import forecast
from sweeps.ledger import Ledger
from sweeps.live import Live, Log, open_logs
from sweeps.lock import locked
from sweeps.notify import Notifier, check_url
from sweeps.options import Options
from sweeps.placement import Placement, check_storage_path, in_ray_job
from sweeps.progress import Progress
from sweeps.provenance import fingerprint, provenance
from sweeps.stored import reconcile, take_over
from sweeps.sweep import Sweep, check_sweep, plan
from sweeps.trajectories import Delivery, ForkTree
from sweeps.tuning.errors import PlacementError, StorageError
from sweeps.tuning.run import Run
from workloads import datasets, preflight
from workloads.console import USAGE_ERROR, open_console, parse
from workloads.datasets import Dataset
from workloads.errors import InputError
from workloads.registry import WORKLOADS, dataset_of

SOME_FAILED = 1
INTERRUPTED = 130
SMOKE_TEST = {"epochs": 2, "train_limit": 1920}
"""What `--smoke-test` makes of a sweep, whatever flags and `--grid` say."""


class UsageError(InputError):
    """The user asked for something that cannot be; the message is one line that says what to do."""


class StoppedError(Exception):
    """A sweep could not go on; what it has stored is valid, and the same command goes on from there."""


def _stopped(reason: object) -> StoppedError:
    return StoppedError(f"{reason}; what is stored stays valid, and the same command goes on once that is mended")


_USER_ERRORS = (InputError, OSError)


def main(sweep: Sweep, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a sweep as its command line says, and exits.

    Exit status: 0 when every planned trial has its answer; 1 when some failed, or the sweep could not go on; 2 for bad
    input, before anything starts; 130 when interrupted: the same command goes on.

    Args:
        sweep: What to ask.
        arguments: The command line; None takes the process's own.
    """
    console, complaints = open_console(), open_console(stderr=True)
    try:
        with _terminable():
            check_sweep(sweep)
            status = run(sweep, _options(sweep, arguments), console)
    except KeyboardInterrupt as interrupt:
        complaints.print("interrupted; the same command goes on")
        status = _exit_status(interrupt)
    except (StoppedError, *_USER_ERRORS) as error:
        word = "stopped" if isinstance(error, StoppedError) else "error"
        complaints.print(f"[red]{word}:[/red] {escape(_one_line(error))}")
        status = _exit_status(error)
    sys.exit(status)


def _exit_status(error: BaseException) -> int:
    """Returns the exit status that an exception means."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return USAGE_ERROR if isinstance(error, _USER_ERRORS) else SOME_FAILED


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


def _options(sweep: Sweep, arguments: Sequence[str] | None) -> Options:
    """Returns the options of a command line.

    Raises:
        InputError: It is not understood.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sweep's value of another kind: the plan says so better
        return parse(
            Options,
            arguments,
            default=sweep.default_options(),
            description=sweep.question,
            config=(tyro.conf.FlagCreatePairsOff,),
        )


def _in_small(options: Options) -> Options:
    """Returns the options of a smoke test of what is asked for."""
    grid = tuple(text for text in options.grid if text.partition("=")[0].strip() not in SMOKE_TEST)
    return replace(options, **SMOKE_TEST, grid=grid, name=f"{options.name}-smoke-test")  # type: ignore[arg-type]


def _one_line(error: Exception) -> str:
    return without_secrets(" ".join(str(error).split()))


def run(sweep: Sweep, options: Options, console: Console) -> int:
    """Runs a sweep and returns the exit status of `main`.

    Raises:
        UsageError: The options contradict each other or the machine.
        ConflictError: They contradict what is stored.
        LockedError: Another run of the sweep is at work.
        StoppedError: The sweep could not go on.
        InputError: An option is unknown or out of range.
        DataError: A data set's files are missing or damaged.
        DamagedFileError: `sweep.json` is not what was written.
        OSError: The storage path cannot be used.
    """
    if options.smoke_test:
        options = _in_small(options)
    if options.notify is not None:
        check_url(options.notify)
    check_storage_path(options)
    placement = _placement(options)
    planned = plan(sweep, options)
    asked = SweepSpec(
        name=options.name,
        question=sweep.question,
        command=without_secrets(shlex.join(["python", *sys.orig_argv[1:]])),
        trials=planned.trials,
        datasets={trial.workload: WORKLOADS[trial.workload].dataset for trial in planned.trials},
        fingerprint=fingerprint(planned.trials, placement.hardware(), Path(options.data_root)),
        provenance=provenance(),
        left_out=planned.left_out,
        plots=sweep.plots,
    )
    store = SweepStore(options.storage_path, options.name)
    logs = open_logs(options.log, store)
    with contextlib.nullcontext() if options.plan else locked(store):
        spec = reconcile(store, asked, fresh=options.fresh)
        ledger = Ledger(
            store, spec.trials, retry_failed=options.retry_failed, fresh=options.fresh, keep=options.keep_checkpoints
        )
        taken = take_over(ledger, spec) if options.share and not options.fresh else {}
        console.print(escape(spec.question))
        for line in forecast(spec, ledger, taken, placement, share=options.share).lines():
            console.print(f"  {escape(line)}")
        console.print(f"  results: {escape(store.location)}")
        if options.plan:
            return 0
        notifier = Notifier(options.notify, spec.name, store.location)
        try:
            status = _answer(spec, ledger, placement, options, logs, console, notifier)
        except BaseException as error:
            notifier.end(ledger.counts(), _exit_status(error))
            raise
        notifier.end(ledger.counts(), status)
        return status


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
            ("--cpus-per-trial", options.cpus_per_trial, os.cpu_count() or 1, "CPU cores"),
            ("--gpus-per-trial", options.gpus_per_trial, torch.cuda.device_count(), "GPUs"),
        ):
            if wanted > there:
                raise UsageError(f"{flag} {wanted:g} asks for more than this machine has: {there} {what}")
    return Placement.of(options)


def _answer(
    spec: SweepSpec,
    ledger: Ledger,
    placement: Placement,
    options: Options,
    logs: Mapping[str, Log],
    console: Console,
    notifier: Notifier,
) -> int:
    """Trains what is open, writes what came out, prints it and returns the exit status."""
    ledger.live = Live(logs, complain=lambda text: console.print(f"[yellow]warning:[/yellow] {escape(text)}"))
    ledger.live.begin(ledger.trials.values(), ledger.known, ledger.statuses)
    tree = ledger.tree(share=options.share)
    for news in tree.walk_known():
        if isinstance(news, Delivery):
            ledger.deliver(news, None)
        else:
            for member in news:
                ledger.set_status(member.trial_id, "diverged", error="the same training as a trial that diverged")
    interrupted = False
    if tree.done:
        _begin(spec, ledger, options)
        ledger.flush()
    else:
        interrupted = _train(tree, spec, ledger, placement, options, console, notifier)
    try:
        return _conclude(spec, ledger, console, interrupted=interrupted)
    except OSError as error:
        raise _stopped(f"cannot write to {ledger.store.location}: {error}") from None


def _conclude(spec: SweepSpec, ledger: Ledger, console: Console, *, interrupted: bool) -> int:
    """Writes tables and report, prints what came out and returns the exit status."""
    ledger.store.remove_half_written()
    ledger.store.compact()
    tables = publish(ledger.store, spec)
    counts = ledger.counts()
    if interrupted:
        console.print(f"interrupted: {counts['pending']:,} trials are left; the same command goes on")
        return INTERRUPTED
    # Imported while Ray ended, if anything was trained: only once there is something to show.
    from analysis.report import print_report, write_report

    print_report(write_report([ledger.store.uri]), console)
    for location in (ledger.store.locate(SPEC_FILE), *tables):
        console.print(escape(location), soft_wrap=True)
    failed, cancelled = counts["failed"], counts["cancelled"]
    if failed:
        console.print(
            f"[red]{failed:,} trials failed[/red] (why: report.html, trials.parquet); --retry-failed runs them again"
        )
    if cancelled:
        console.print(f"{cancelled:,} trials were cancelled; the same command goes on with them")
    return SOME_FAILED if failed or cancelled else 0


def _begin(spec: SweepSpec, ledger: Ledger, options: Options) -> None:
    """Writes what is asked; from here on the sweep is stored."""
    if options.fresh:
        ledger.store.clear()
    ledger.store.write_spec(spec)
    ledger.store.remove_damaged()
    ledger.store.remove_half_written()
    ledger.live.start()


def _train(
    tree: ForkTree,
    spec: SweepSpec,
    ledger: Ledger,
    placement: Placement,
    options: Options,
    console: Console,
    notifier: Notifier,
) -> bool:
    """Trains what is open and returns whether a signal ended it."""
    # Ray takes a second to import, only once there is something to train; and seconds to start, most of them waiting:
    # the rest is made ready meanwhile.
    from sweeps.tuning import session

    with ThreadPoolExecutor(max_workers=1) as meanwhile:
        prepared = meanwhile.submit(_prepare, spec, ledger, options)
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
                _begin(spec, ledger, options)
                keep = options.keep_checkpoints
                with Progress(console, labels) as progress:
                    run = Run(
                        tree, ledger, placement, progress, fail_fast=options.fail_fast, keep=keep, notifier=notifier
                    )
                    execution.run_tree(run, data=data)
                if not run.interrupted:  # statistics and pictures take a second to import, and Ray two to end
                    meanwhile.submit(importlib.import_module, "analysis.report")
        except PlacementError as error:
            raise UsageError(str(error)) from None
        except StorageError as error:
            raise _stopped(error) from None
    delivered = ledger.delivered - ledger.delivered_before
    ratio = f": {delivered / run.trained:.1f} times as many" if run.trained and delivered != run.trained else ""
    console.print(f"{delivered:,} trial-epochs delivered, {run.trained:,} epochs trained{ratio}")
    return run.interrupted


def _prepare(
    spec: SweepSpec, ledger: Ledger, options: Options
) -> tuple[dict[str, Dataset], Sequence[str], dict[str, str]]:
    """Returns the data sets by name, what the checks before the start have to say, and the labels of the trials."""
    rows = {row.name: row for row in map(dataset_of, ledger.open)}
    data = {name: datasets.load(row, Path(options.data_root)) for name, row in rows.items()}
    first = ledger.open[0]
    lines = preflight.report(first, data[dataset_of(first).name]) if options.preflight else ()
    return data, lines, _labels(spec, ledger)


def _labels(spec: SweepSpec, ledger: Ledger) -> dict[str, str]:
    """Returns what a person calls each trial: the settings that vary, and the seed if that does."""
    nothing = ledger.store.read_epochs().clear(), ledger.store.read_statuses().clear()
    trials = combine([(spec, *nothing)]).trials
    seeds = trials["seed"].n_unique() > 1
    return {
        row["trial_id"]: f"{row['label']}, seed {row['seed']}" if seeds else row["label"]
        for row in trials.select("trial_id", "label", "seed").iter_rows(named=True)
    }
