"""A question in, a `Result` out: prints nothing unless it is given a console, and exits nowhere.

result = run(SWEEP, seeds=(1, 2, 3), epochs=5)
result.answer
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from analysis.loading import labels
from analysis.store import SweepSpec, SweepStore
from analysis.tables import publish
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.library import changed, merged, near, read_library, refuse_changed, take_over
from sweeps.ledger.lock import Lock, TakenOverError, locked
from sweeps.ledger.provenance import provenance
from sweeps.policies import Decision, configuration_id, results
from sweeps.question.command import CommandLine
from sweeps.question.keywords import Call, options_of
from sweeps.question.options import Options, in_small
from sweeps.question.picking import check_picking, picked, race_of_picked
from sweeps.question.race import check_race, configurations_of, race_of
from sweeps.question.stopping import check_stopping, policy_of
from sweeps.question.sweep import Sweep, check_sweep, plan
from sweeps.result import INTERRUPTED, SOME_FAILED, Result
from sweeps.sharing.tree import ForkTree
from sweeps.tuning import environment
from sweeps.tuning.driver import Run
from sweeps.tuning.errors import PlacementError, StorageError
from sweeps.tuning.placement import check_storage_path, placement_of
from sweeps.unchanged import unchanged
from sweeps.watching.forecast import forecast
from sweeps.watching.live import Live, open_logs
from sweeps.watching.notify import Notifier, check_url
from sweeps.watching.progress import Progress
from workloads import preflight
from workloads.console import USAGE_ERROR, counted, duration
from workloads.datasets import Dataset
from workloads.errors import InputError
from workloads.exactness import inexact
from workloads.fingerprint import Fingerprint, common, fingerprints
from workloads.measure import ACCURACY
from workloads.own_data import OwnDataset
from workloads.registry import WORKLOADS, added_workloads, data_of, dataset_of, measure_of
from workloads.training import Hardware
from workloads.trial import FAILED_STATUSES, TrialConfig


def exit_status(error: BaseException) -> int:
    """Returns the exit status that an exception means."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return USAGE_ERROR if isinstance(error, InputError) else SOME_FAILED


class StoppedError(Exception):
    """A sweep could not go on; what it has stored is valid, and the same command goes on from there."""


def run(
    sweep: Sweep,
    options: Options | None = None,
    console: Console | None = None,
    *,
    quiet: bool | None = None,
    **keywords: Any,
) -> Result:
    """Trains what a question needs, and returns what came out.

    The process stays as it was: environment, threads, signals, warnings and logging.

    Args:
        sweep: What to ask.
        options: How; None for the sweep's own.
        console: Where to show how it goes.
        quiet: Whether to show nothing; None shows it in a notebook and at a prompt, and nowhere else. Without a meaning
            if a console is given.
        keywords: Every field of `Options`, on top of `options`: `seeds=(1, 2, 3)`, `epochs=5`,
            `lrs={"adam": (0.001, 0.003)}`, `grid={"optimizer.weight_decay": (0, 1e-4)}`.

    Raises:
        InputError: A keyword is unknown or out of range, or contradicts another; what is stored cannot be compared or
            not be read; another run of the sweep is at work.
        StoppedError: The sweep could not go on.
    """
    if not isinstance(sweep, Sweep):
        raise InputError(f"run takes a Sweep, not {sweep!r}: run(Sweep(name=..., question=...), epochs=5)")
    check_sweep(sweep)
    chosen = options_of(options or sweep.default_options(), keywords)
    call = Call(sweep, chosen, sys._getframe(1).f_globals)
    if quiet is None:
        quiet = not hasattr(sys, "ps1")  # which prompts and notebooks have
    if console is None and not quiet:
        console = Console(soft_wrap=True, highlight=False)
    with unchanged(), _telling(call), asking(sweep, chosen, call, console) as asked:
        asked.show_lines()
        result = asked.planned() if chosen.plan else asked.answer()
        asked.show_end(result)
        return result


@contextlib.contextmanager
def _telling(line: CommandLine) -> Iterator[None]:
    """Says what is wrong as the one who asked has to say it."""
    try:
        yield
    except (InputError, StoppedError) as error:
        error.args = (line.said(str(error)),)
        raise


@contextlib.contextmanager
def asking(
    sweep: Sweep, options: Options, line: CommandLine | None = None, console: Console | None = None
) -> Iterator[Asked]:
    """Works out what is asked and what of it is stored; until the end of the context, nobody else writes there.

    Raises:
        InputError: As `run`.
        StoppedError: As `run`.
    """
    console, line = console or Console(file=io.StringIO(), quiet=True), line or CommandLine()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(environment())
            try:
                asked = Asked(sweep, options, line, console, stack)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise InputError(str(error)) from None
            yield asked
    except StorageError as error:  # Ray ended, at whatever it was
        raise _stopped(error, line) from None


class Asked:
    """A question at work: what is asked, what is known of it, and what is to be trained.

    Args:
        sweep: What to ask.
        options: How.
        line: The command line that says so.
        console: Where to show how it goes.
        stack: Takes the lock, and perhaps a Ray.
    """

    def __init__(
        self, sweep: Sweep, options: Options, line: CommandLine, console: Console, stack: contextlib.ExitStack
    ) -> None:
        self.options = options = in_small(options) if options.smoke_test else options
        self.line, self.console, self._stack = line, console, stack
        if options.notify is not None:
            check_url(options.notify)
        check_storage_path(options)
        self.placement = placement_of(options)
        self.store = SweepStore(options.storage_path, options.name)
        self._logs = open_logs(options.log, self.store)
        self._show(sweep.question)
        if options.smoke_test:
            self._show(f"  smoke test: {options.epochs} epochs on the first 1,920 examples, whatever other flags say")
        planned = plan(sweep, options)
        check_race(planned, options)
        check_stopping(planned, options)
        check_picking(planned, options)
        self._lock = Lock() if options.plan else stack.enter_context(locked(self.store, self._show))
        self._stored = read_library(self.store, fresh=options.fresh)
        self._now: dict[str, Fingerprint] = {}
        self._taken: Counter[str] = Counter()
        self._tree: ForkTree | None = None
        self._begun = False
        self._labels: dict[str, str] = {}
        self.ledger = Ledger(
            self.store, retry_failed=options.retry_failed, fresh=options.fresh, keep=options.keep_checkpoints
        )
        self._question = SweepSpec(
            name=options.name,
            question=sweep.question,
            command=line.command,
            trials=(),
            datasets={},
            fingerprint={},
            provenance=provenance() | {"added_workloads": sorted(added_workloads())},
            left_out=planned.left_out,
            plots=sweep.plots,
            care=options.care,
            search=planned.search.to_json() if planned.search else None,
        )
        self.policy = policy_of(planned, options)
        if options.decide:
            theirs = self._stored_of(configurations_of(planned))
            self._fingerprint(theirs)
            # Any of them may be asked for later, when much has been trained: whether they compare is found now.
            refuse_changed(self.ledger, changed(self._stored, self._now), {trial.trial_id for trial in theirs})
            self._add(self.ledger.ended_before(theirs))
            self.policy = race_of(sweep, planned, options, self._stored, results(self.ledger.ended()))
        self.decisions = self.ledger.decisions(self.policy.policy_id)
        self._noted = len(self.decisions)
        self._over = False
        self._ends, self._rested = 0, 0.0
        """What the last decision knew of, and when the next may be taken though others are trained."""
        self._sweep = sweep
        self._searched: tuple[TrialConfig, ...] = ()
        """The trials of a search, once what it picked is raced."""
        self._picked: dict[str, float] = {}
        for decision in self.decisions:
            self._add(decision.add)
        while not self.ledger.open and not self._is_over():
            self._decide()
        if self._may_decide():  # what is stored of its trials is known now
            self._decide()
        self._ahead = forecast(self.spec, self.ledger, self._taken, self.placement, share=options.share)
        self._notes = planned.notes
        self._check_hours()

    def lines(self) -> list[str]:
        """Returns what is asked and what lies ahead, for people."""
        found = [*self._notes, *self._ahead.lines(), *self._outlook(self._ahead.seconds)]
        if self.options.fresh and self.ledger.stored:
            would = "would delete" if self.options.plan else "deletes"
            found.append(
                f"--fresh {would} everything stored here: {self.ledger.stored:,} trials with their checkpoints"
            )
        if library := self.spec.library:
            found.append(f"also stored here, and kept: {counted(len(library), 'other trial')}")
        return [*found, f"results: {self.store.location}"]

    # -- what is asked ----------------------------------------------------------------------------------------------

    @property
    def spec(self) -> SweepSpec:
        """What is asked, as far as it is known by now."""
        # However the trials came in: a race that was killed and resumed has the same tables.
        past = {trial.trial_id for trial in self._searched}
        asked = (trial for trial_id, trial in self.ledger.trials.items() if trial_id not in past)
        trials, race = self.policy.ordered(asked), self.policy.to_json()
        if race and self._picked:
            race = {**race, "picked": self._picked}
        question = replace(
            self._question,
            trials=tuple(trials),
            datasets={trial.workload: WORKLOADS[trial.workload].dataset for trial in trials},
            measures={trial.workload: measure for trial in trials if (measure := measure_of(trial)) != ACCURACY},
            fingerprint=common(trials, self._now),
            race=race,
            seed_orders={race["configurations"]: race["seeds"]} if race else {},
        )
        return merged(question, self._stored, self.ledger, self._now)

    def _stored_of(self, configurations: Sequence[TrialConfig]) -> list[TrialConfig]:
        """Returns the stored trials of some configurations."""
        ids = {configuration_id(trial) for trial in configurations}
        stored = self._stored.trials + self._stored.library if self._stored else ()
        return [trial for trial in stored if configuration_id(trial) in ids]

    def _add(self, trials: Sequence[TrialConfig]) -> None:
        """Takes in trials that are asked for, and what is stored of them here and in other sweeps."""
        new = [trial for trial in trials if trial.trial_id not in self.ledger.trials]
        if not new and self.ledger.trials:
            return
        neighbours = near(new, self._stored)
        self._fingerprint([*new, *neighbours])
        differences = changed(self._stored, self._now)
        library = [t for t in neighbours if t.trial_id in self._now and t.trial_id not in differences]
        self.ledger.add(new, library=library, changed=differences)
        refuse_changed(self.ledger, differences, self.ledger.trials.keys())
        if self.options.share and not self.options.fresh:
            self._taken.update(take_over(self.ledger, self._now, self._warn))

    def _fingerprint(self, trials: Sequence[TrialConfig]) -> None:
        """Finds how trials would train; not where only a cluster could tell and nothing is to be trained."""
        # Seeds of a configuration train in the same way: what a race adds has been probed.
        alike = {configuration_id(trial): self._now[i] for i, trial in self.ledger.trials.items() if i in self._now}
        named = ((trial.trial_id, configuration_id(trial)) for trial in trials) if alike else ()
        self._now |= {trial_id: alike[one] for trial_id, one in named if one in alike}
        left = [trial for trial in trials if trial.trial_id not in self._now]
        hardware, root = self.placement.hardware(), Path(self.options.data_root)
        if not left:
            return
        if self.placement.is_here:
            self._now |= fingerprints(left, hardware, root)
        elif not self.options.plan:
            from sweeps.tuning import session
            from sweeps.tuning.probing import probe_there

            with _refusing_placement():
                self._stack.enter_context(session.ray_session(self.placement))
                session.check_placement(self.placement)
                self._now |= fingerprints(left, hardware, root, probe_there(left, self.placement))

    # -- what is decided --------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether nothing more will be added, asked once all has ended; after a search, its best may be raced."""
        if self._over and self.options.then_decide and not self._searched:
            self._race_best()
        return self._over

    def _race_best(self) -> None:
        """Goes on from a search to the race of what it picked, if that is more than one configuration."""
        stored, trials = self.spec, tuple(self.ledger.trials.values())
        found = picked(trials, results(self.ledger.ended()))
        if len(found) < 2:
            return
        self._stored, self._searched, self._picked = stored, trials, found
        self.policy = race_of_picked(self._sweep, self.options, trials, list(found))
        self.decisions = self.ledger.decisions(self.policy.policy_id)
        self._noted, self._over = len(self.decisions), False
        for decision in self.decisions:
            self._add(decision.add)

    def _decide(self, seconds: float | None = None, until: float | None = None) -> None:
        """Asks the policy what to train next, and takes it in.

        Args:
            seconds: What an epoch takes; None where that is not known yet.
            until: When the time given ends, by the clock of `time.monotonic`; None if it does not.
        """
        began, self._ends = time.monotonic(), self.ledger.ends
        decision = self.policy.decide(results(self.ledger.ended()))
        self._rested = time.monotonic() + RESTS * (time.monotonic() - began)
        takes = sum(trial.epochs for trial in decision.add) * (seconds or 0.0)
        if until is not None and not decision.over and time.monotonic() + takes > until:
            end = f"The time given ends here: the next round takes about {duration(takes)}."
            decision = Decision(over=True, reason=f"{decision.reason} {end}")
        self._over = decision.over
        last = [(one.add, one.reason) for one in self.decisions[-1:]]
        if decision.reason and (decision.add, decision.reason) not in last:
            self.decisions.append(decision)
        self._add(decision.add)
        for trial_id, why in decision.stop.items():
            self.ledger.stop(trial_id, why)
        self.ledger.pause_at(decision.until)

    def _may_decide(self) -> bool:
        """Whether something may be decided though not all has ended, and by more than was known the last time."""
        news = self.policy.eager and not self._over and self.ledger.ends > self._ends
        return news and time.monotonic() >= self._rested

    def _go_on(self, seconds: float | None = None, until: float | None = None) -> bool:
        """Takes in what the policy decides by now; returns whether there is more to train.

        Args:
            seconds: As of `_decide`.
            until: As of `_decide`.
        """
        tree = self._tree
        assert tree is not None
        while tree.done or self._may_decide():
            if self._is_over():
                break
            before, noted = {trial_id: self.ledger.is_open(trial_id) for trial_id in self.ledger.trials}, self._noted
            self._decide(seconds, until)
            self._note(seconds)
            new = [trial for trial_id, trial in self.ledger.trials.items() if trial_id not in before]
            goes_on = [trial for trial in self.ledger.open if not before.get(trial.trial_id, True)]
            if new:
                self.ledger.adopt()
                self.ledger.live.begin(new, self.ledger.known, self.ledger.statuses)
                self._labels.update(labels(self.spec))
            if new or self._noted > noted:
                self.store.write_spec(self.spec)
            if new or goes_on:
                tree.add(self.ledger.members([*new, *goes_on]))
            for news in tree.walk_known():
                self.ledger.learn(news)
            if not tree.done:
                break
        return not tree.done

    def _note(self, seconds: float | None) -> None:
        """Stores what was decided, and what is asked with it, and says so."""
        new = self.decisions[self._noted :]
        for number, decision in enumerate(new, start=self._noted):
            if self.policy.policy_id is not None:
                self.ledger.decided(self.policy.policy_id, number, decision)
            self._show(f"  {decision.reason}")
        if new and self._noted and not self._over and self.policy.policy_id is not None:
            for line in self._outlook(seconds):
                self._show(f"  {line}")
        self._noted = len(self.decisions)

    def _outlook(self, seconds: float | None) -> list[str]:
        outlook = self.policy.outlook(results(self.ledger.ended()))
        then = [] if self._searched or not self.options.then_decide else [_THEN]
        return [*([] if outlook is None or self._over else [outlook.said(seconds)]), *then]

    def _check_hours(self) -> None:
        """Refuses a time in which not even the trials asked for now can be trained."""
        hours, takes = self.options.hours, self._ahead.least * (self._ahead.seconds or 0.0)
        if hours is not None and takes > hours * 3600:
            raise InputError(
                f"--hours {hours:g} is not enough for the first round, which takes about {duration(takes)}: give more "
                "hours, or ask for fewer configurations or epochs"
            )

    # -- what is trained --------------------------------------------------------------------------------------------

    def answer(self) -> Result:
        """Trains what is open, and writes what came out.

        Raises:
            InputError: There is no room for the trials.
            StoppedError: The sweep could not go on.
        """
        notifier = Notifier(self.options.notify, self.store.name, self.store.location)
        try:
            result = self._answer(notifier)
        except BaseException as error:
            notifier.end(self.ledger.counts(), exit_status(error))
            raise
        notifier.end(result.counts, result.exit_status)
        return result

    def _check_exactness(self) -> None:
        """Refuses to share epochs of a network of the user's own that does not train exactly."""
        options = self.options
        if not options.preflight or not options.share or options.allow_inexact:
            return
        hardware = self.placement.hardware() if self.placement.is_here else Hardware()
        if (reason := inexact(self.ledger.open, hardware)) is not None:
            raise InputError(
                f"{reason}, so epochs cannot be shared exactly. Does it have a random generator, a counter or weights "
                "outside of its state_dict()? If that is meant: --no-share trains every trial alone, --allow-inexact "
                "shares all the same"
            )

    def _answer(self, notifier: Notifier) -> Result:
        ledger = self.ledger
        self._check_exactness()
        # What it takes in before the sweep begins, it writes then.
        ledger.live = Live(self._logs, complain=self._warn)
        ledger.live.begin(ledger.trials.values(), ledger.known, ledger.statuses)
        self._tree = ledger.tree(share=self.options.share)
        for news in self._tree.walk_known():
            ledger.learn(news)
        interrupted, trained = False, 0
        try:
            if self._tree.done:
                self._begin()
            if not self._tree.done or self._go_on():
                interrupted, trained = self._train(self._tree, notifier)
            ledger.flush()
            self.store.remove_half_written()
            self.store.compact()
            spec = self.spec
            publish(self.store, spec)
            ended = [ledger.statuses[i] for i in ledger.trials if i in ledger.statuses]
            result = Result(
                store=self.store,
                spec=spec,
                counts=ledger.counts(),
                failures=Counter(one.error or "no reason known" for one in ended if one.status in FAILED_STATUSES),
                decisions=tuple(self.decisions) if self.policy.policy_id is not None else (),
                interrupted=interrupted,
                delivered=ledger.delivered_by_training,
                trained=trained,
            )
            if not interrupted:
                _write_report(result)
            return result
        except BrokenPipeError:
            raise
        except TakenOverError as error:
            raise self._stopped(error) from None
        except OSError as error:
            raise self._stopped(f"cannot write to {self.store.location}: {error}") from None

    def _begin(self) -> None:
        """Writes what is asked; from here on the sweep is stored."""
        if self._begun:
            return
        self._begun = True
        if self.options.fresh:
            self.store.clear()
            self.line.started_over = True
        self._note(self._ahead.seconds)
        self.store.write_spec(self.spec)
        self.ledger.adopt()
        self.store.remove_damaged()
        self.store.remove_half_written()
        self.ledger.live.start()

    def _train(self, tree: ForkTree, notifier: Notifier) -> tuple[bool, int]:
        """Trains what is open; returns whether a signal ended it, and how many epochs were trained."""
        # Ray takes a second to import, only once there is something to train; and seconds to start, most of them
        # waiting: the rest is made ready meanwhile.
        from sweeps.tuning import session

        placement, ledger = self.placement, self.ledger
        with (
            session.own_environment(placement),
            ThreadPoolExecutor(max_workers=1) as meanwhile,
            _refusing_placement(),
        ):
            prepared = meanwhile.submit(self._prepare)
            meanwhile.submit(importlib.import_module, "sweeps.tuning.execution")
            try:
                with session.ray_session(placement) as dashboard:
                    from sweeps.tuning import execution

                    data, lines = prepared.result()
                    for line in lines:
                        self._show(line)
                    if dashboard is not None:
                        self._show(f"  Ray's dashboard: {dashboard}")
                    session.check_placement(placement)
                    session.check_storage(ledger.store)
                    self._begin()
                    hours = self.options.hours
                    until = None if hours is None else time.monotonic() + hours * 3600

                    def more(seconds: float | None) -> bool:
                        return self._go_on(seconds or self._ahead.seconds, until)

                    with Progress(
                        self.console, self._labels, measure=measure_of(next(iter(ledger.trials.values())))
                    ) as progress:
                        run = Run(
                            tree,
                            ledger,
                            placement,
                            progress,
                            more=more,
                            fail_fast=self.options.fail_fast,
                            keep=self.options.keep_checkpoints,
                            notifier=notifier,
                            lock=self._lock,
                            machine=None if placement.is_here else self.spec.fingerprint["machine"],
                            device=None if placement.is_here else self.spec.fingerprint["device"],
                        )
                        execution.run_tree(run, data=data)
                    if not run.interrupted:  # statistics and pictures take a second to import, and Ray two to end
                        meanwhile.submit(importlib.import_module, "analysis.report")
            except StorageError as error:
                raise self._stopped(error) from None
        return run.interrupted, run.trained

    def _prepare(self) -> tuple[dict[str, Dataset | OwnDataset], Sequence[str]]:
        """Returns the data sets by name, and what the checks before the start have to say; labels the trials."""
        left = self.ledger.open
        rows = {row.name: row for row in map(dataset_of, left)}
        data = {name: data_of(row, Path(self.options.data_root)) for name, row in rows.items()}
        first = left[0]
        self._labels.update(labels(self.spec))
        return data, preflight.report(first, data[dataset_of(first).name]) if self.options.preflight else ()

    def planned(self) -> Result:
        """Returns what is stored of what is asked, and what would be trained."""
        return Result(
            store=self.store, spec=self.spec, counts=self.ledger.counts(), failures={}, plan=tuple(self.lines())
        )

    def _stopped(self, reason: object) -> StoppedError:
        return _stopped(reason, self.line)

    # -- what is shown ----------------------------------------------------------------------------------------------

    def show_lines(self) -> None:
        """Shows what is asked and what lies ahead."""
        for text in self.lines():
            self._show(f"  {text}")

    def show_end(self, result: Result) -> None:
        """Shows how much was trained, and how to go on if it was interrupted."""
        if result.work:
            self._show(result.work)
        if result.interrupted:
            self._show(f"interrupted: {_left(result.counts['pending'])}; {self.line.goes_on()}")

    def _show(self, text: str) -> None:
        self.console.print(escape(self.line.said(text)))

    def _warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(self.line.said(text))}")


def _stopped(reason: object, line: CommandLine) -> StoppedError:
    return StoppedError(f"{reason}; everything stored is still valid; fix that, then {line.again} to continue")


def _left(count: int) -> str:
    return f"{counted(count, 'trial')} {'is' if count == 1 else 'are'} left"


def _write_report(result: Result) -> None:
    try:
        assert result.report  # written now
    except InputError as error:
        raise RuntimeError("what could be trained could not be reported") from error


RESTS = 20
"""While others are trained, at most one part in so many of the driver's time goes to decisions."""
_THEN = "then the best of each optimizer and schedule is raced on other seeds"


@contextlib.contextmanager
def _refusing_placement() -> Iterator[None]:
    try:
        yield
    except PlacementError as error:
        raise InputError(str(error)) from None
