"""`main`: from the command line to the answer, the same for every sweep script."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import torch
import tyro
from rich.console import Console

from analysis.store import DamagedFileError, SweepSpec, SweepStore
from analysis.tables import publish
from sweeps.ledger import Ledger
from sweeps.options import Options
from sweeps.placement import Placement, in_ray_job
from sweeps.progress import Progress, duration
from sweeps.provenance import fingerprint, provenance
from sweeps.sweep import Plan, Sweep, plan
from sweeps.trajectories import Delivery, ForkTree, apart, count_epochs
from workloads.datasets import DataError
from workloads.registry import dataset_of
from workloads.training import Hardware, seconds_per_epoch
from workloads.trial import TrialConfig

USAGE_ERROR = 2
INTERRUPTED = 130
SMOKE_TEST = {"epochs": 2, "train_limit": 1920}
"""What `--smoke-test` makes of a sweep."""


class UsageError(Exception):
    """The user asked for something that cannot be; the message is one line that says what to do."""


def main(sweep: Sweep, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a sweep as its command line says, and exits.

    Exit status: 0 when every planned trial has its answer, 1 when some failed, 2 for bad input (before Ray starts),
    130 when interrupted; the same command then goes on.

    Args:
        sweep: What to ask.
        arguments: The command line; None takes the process's own.
    """
    options = tyro.cli(
        Options,
        default=sweep.default_options(),
        description=sweep.question,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    console = Console(soft_wrap=not sys.stdout.isatty())
    try:
        status = run(sweep, options, console)
    except (UsageError, ValueError, DataError, DamagedFileError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {_one_line(error)}", markup=True)
        status = USAGE_ERROR
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on")
        status = INTERRUPTED
    sys.exit(status)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace("[", r"\[")


def run(sweep: Sweep, options: Options, console: Console) -> int:
    """Runs a sweep and returns the exit status of `main`.

    Raises:
        UsageError: The options contradict what is stored, or nothing can run.
        ValueError: An option is unknown or out of range.
        DataError: A data set's files are missing or damaged.
        DamagedFileError: `sweep.json` is not what was written.
    """
    if options.smoke_test:
        options = replace(options, **SMOKE_TEST, name=f"{options.name}-smoke-test")
    hardware = _hardware(options)
    planned = plan(sweep, options)
    store = SweepStore(options.storage_path, options.name)
    spec = _spec(sweep, options, planned, store, hardware)
    ledger = Ledger(store, spec.trials, retry_failed=options.retry_failed, fresh=options.fresh)
    console.print(_plan_text(spec, ledger, hardware, options), highlight=False)
    if options.plan:
        return 0
    tree = ForkTree(ledger.members(), share=options.share)
    for news in tree.walk_known():
        if isinstance(news, Delivery):
            ledger.deliver(news, None)
        else:
            for member in news:
                ledger.set_status(member.trial_id, "diverged", error="the same training as a trial that diverged")
    interrupted = False
    if tree.done:
        _write_spec(store, spec, options)
        ledger.flush()
    else:
        interrupted = _train(tree, ledger, spec, options, console)
    return _finish(store, spec, ledger, console, interrupted=interrupted)


def _hardware(options: Options) -> Hardware:
    """Returns what a trial gets.

    Raises:
        UsageError: The flags are out of range, or ask for more than this machine has.
    """
    for flag, value, least in (
        ("--cpus-per-trial", options.cpus_per_trial, 0),
        ("--gpus-per-trial", options.gpus_per_trial, 0),
        ("--max-concurrent", options.max_concurrent, 1),
    ):
        if value is not None and not (value >= least and value != float("inf")):
            raise UsageError(f"{flag} must be at least {least}, not {value}")
    if options.gpus_per_trial > 1 and not float(options.gpus_per_trial).is_integer():
        raise UsageError(f"--gpus-per-trial above 1 must be a whole number, not {options.gpus_per_trial}")
    if options.address is None and not in_ray_job():
        for flag, wanted, there, what in (
            ("--cpus-per-trial", options.cpus_per_trial, os.cpu_count() or 1, "CPU cores"),
            ("--gpus-per-trial", options.gpus_per_trial, torch.cuda.device_count(), "GPUs"),
        ):
            if wanted > there:
                raise UsageError(f"{flag} {wanted:g} asks for more than this machine has: {there} {what}")
    return Placement.of(options).hardware()


def _spec(sweep: Sweep, options: Options, planned: Plan, store: SweepStore, hardware: Hardware) -> SweepSpec:
    """Returns the spec of this run: what is stored, widened by what is asked for.

    Raises:
        UsageError: What is stored under this name was made otherwise.
        DamagedFileError: `sweep.json` is not what was written.
    """
    asked = SweepSpec(
        name=options.name,
        question=sweep.question,
        command=shlex.join(["python", *sys.orig_argv[1:]]),
        trials=planned.trials,
        datasets={trial.workload: dataset_of(trial.workload).name for trial in planned.trials},
        fingerprint=fingerprint(planned.trials, hardware),
        provenance=provenance(),
        left_out=planned.left_out,
        plots=sweep.plots,
    )
    stored = None if options.fresh else store.read_spec()
    return asked if stored is None else widened(stored, asked)


def widened(stored: SweepSpec, asked: SweepSpec) -> SweepSpec:
    """Returns the asked spec with the stored trials first.

    Raises:
        UsageError: The asked one leaves stored trials out, or its numbers would not be comparable.
    """
    differences = [
        f"{key} was {stored.fingerprint.get(key)}, is {asked.fingerprint.get(key)}"
        for key in sorted({*stored.fingerprint, *asked.fingerprint})
        if json.dumps(stored.fingerprint.get(key)) != json.dumps(asked.fingerprint.get(key))
    ]
    here = {trial.trial_id for trial in asked.trials}
    missing = [trial for trial in stored.trials if trial.trial_id not in here]
    if missing:
        differences.append(f"{len(missing)} of its {len(stored.trials)} trials are not asked for: {_contrast(missing, asked)}")
    if differences:
        raise UsageError(
            f"the sweep {asked.name!r} is stored but was made otherwise: {'; '.join(differences)}. "
            "Go on under another --name, or start over with --fresh (its results are deleted)"
        )
    known = {trial.trial_id for trial in stored.trials}
    added = tuple(trial for trial in asked.trials if trial.trial_id not in known)
    return replace(asked, trials=stored.trials + added)


def _contrast(missing: Sequence[TrialConfig], asked: SweepSpec) -> str:
    """Returns the fields in which stored trials have values that no asked one has."""
    stored_values: dict[str, dict[str, object]] = {}
    for trial in missing:
        for name, value in trial.to_json().items():
            stored_values.setdefault(name, {})[json.dumps(value)] = value
    parts = []
    for name, values in stored_values.items():
        there = {json.dumps(trial.to_json()[name]): trial.to_json()[name] for trial in asked.trials}
        gone = [value for key, value in values.items() if key not in there]
        if gone:
            parts.append(f"{name} was {_few(gone)}, asked for: {_few(list(there.values()))}")
    return ", ".join(parts) or "other combinations"


def _few(values: Sequence[object], most: int = 6) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def _plan_text(spec: SweepSpec, ledger: Ledger, hardware: Hardware, options: Options) -> str:
    """Returns what would run, and about how long it takes."""
    total = sum(trial.epochs for trial in spec.trials)
    lines = [spec.question, f"{len(spec.trials)} trials, {total:,} trial-epochs, in {ledger.store.location}"]
    lines += [f"  left out: {count} x {reason}" for reason, count in spec.left_out.items()]
    done = len(spec.trials) - len(ledger.open)
    if done:
        lines.append(f"  done before: {done} trials")
    if not ledger.open:
        return "\n".join([*lines, "everything is done: nothing to train"])
    members = ledger.members()
    least = count_epochs(members, share=options.share)
    most = count_epochs(apart(members, ledger.metric_driven), share=options.share)
    lanes = options.max_concurrent or max(1, int((os.cpu_count() or 1) / max(options.cpus_per_trial, 0.01)))
    seconds = seconds_per_epoch(ledger.open[0], hardware) / min(lanes, len(ledger.open))
    epochs = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    time_needed = f"about {duration(least * seconds)}"
    if least != most:
        time_needed += f" to {duration(most * seconds)}: schedules that watch a metric fork when it says so"
    return "\n".join([*lines, f"epochs to train: {epochs}; {time_needed}"])


def _train(tree: ForkTree, ledger: Ledger, spec: SweepSpec, options: Options, console: Console) -> bool:
    """Trains what is open and returns whether a signal ended it."""
    # Ray and Tune take seconds to import: only once there is something to train.
    from sweeps import tuning

    placement = Placement.of(options)
    labels = _labels(spec, ledger)
    try:
        with tuning.ray_session(placement), Progress(console, labels) as progress:
            tuning.check_placement(placement)
            _write_spec(ledger.store, spec, options)
            run = tuning.Run(tree, ledger, placement, progress)
            tuning.run_tree(run)
    except tuning.PlacementError as error:
        raise UsageError(str(error)) from None
    delivered = ledger.delivered - ledger.delivered_before
    if run.trained:
        ratio = f", {delivered / run.trained:.1f}x" if delivered != run.trained else ""
        console.print(f"{delivered:,} trial-epochs delivered, {run.trained:,} epochs trained{ratio}", highlight=False)
    return run.interrupted


def _labels(spec: SweepSpec, ledger: Ledger) -> dict[str, str]:
    """Returns what a person calls each trial: the settings that vary, and the seed if that does."""
    # Statistics take a second to import: only once there is something to train.
    from analysis.aggregate import combine

    nothing = ledger.store.read_epochs().clear(), ledger.store.read_statuses().clear()
    trials = combine([(spec, *nothing)]).trials
    seeds = trials["seed"].n_unique() > 1
    return {
        row["trial_id"]: f"{row['label']}, seed {row['seed']}" if seeds else row["label"]
        for row in trials.select("trial_id", "label", "seed").iter_rows(named=True)
    }


def _write_spec(store: SweepStore, spec: SweepSpec, options: Options) -> None:
    if options.fresh:
        store.clear()
    store.write_spec(spec)
    store.remove_damaged()


def _finish(store: SweepStore, spec: SweepSpec, ledger: Ledger, console: Console, *, interrupted: bool) -> int:
    """Writes the tables, says what came out and returns the exit status."""
    store.compact()
    publish(store, spec)
    counts = ledger.counts()
    if interrupted:
        console.print(f"interrupted with {counts['pending']} trials left; the same command goes on", highlight=False)
        return INTERRUPTED
    # Statistics and pictures take a second to import: only once there is something to show.
    from analysis.report import print_report, write_report

    print_report(write_report([store.location]), console)
    unanswered = counts["failed"] + counts["cancelled"] + counts["pending"]
    if unanswered:
        console.print(f"[red]{unanswered} trials failed[/red]; --retry-failed runs them again", highlight=False)
    return 1 if unanswered else 0
