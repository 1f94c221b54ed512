"""One look at a sweep: the chain of its states, then some of its epochs trained again; says how it goes."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.markup import escape

from analysis.receipt import Receipt, write_receipt
from analysis.store import Checkpoint
from sweeps.ledger.ledger import sharing_group
from sweeps.receipts.chain import check_checkpoints, check_files, check_records
from sweeps.receipts.retraining import OR_WITHIN, WITHIN, Retraining, Terms
from sweeps.receipts.sample import Stretch, chance, draw
from sweeps.receipts.stored import Difference, Stored, Unit
from sweeps.receipts.tables import check_tables
from sweeps.watching.progress import Progress
from workloads.console import counted, duration
from workloads.errors import InputError
from workloads.fingerprint import Fingerprint, fingerprints, hardware_of
from workloads.registry import WORKLOADS, dataset_of, measure_of
from workloads.training import Hardware, initial_digest
from workloads.trial import EpochRecord, TrialConfig

MOST_SAID = 20
"""So many differences are said, and kept in the receipt."""
MOST_SUSPECTS = 5
"""So many epochs that the chain has found to be changed are trained again, to tell which number it is."""
FRACTION = 0.1
"""The sample is said to find wrong epochs if there is this fraction of them."""


class Verification:
    """One look at a sweep.

    Args:
        stored: The sweep.
        data_root: The folder of downloaded data sets.
        console: Where to say how it goes.
    """

    def __init__(self, stored: Stored, data_root: Path, console: Console) -> None:
        self._stored, self._data_root, self._console = stored, data_root, console
        self._differences: list[Difference] = []
        if not stored.rows and not stored.damaged:
            raise InputError(f"nothing is stored in {stored.store.location} yet: there is nothing to verify")
        for name in sorted({trial.workload for trial in stored.trials.values()} - WORKLOADS.keys()):
            raise InputError(
                f"workload {name!r} is in a file of your own: give the script that trained it with --script PATH "
                f"(the sweep was asked for by: {stored.spec.command})"
            )

    def run(self, sample: int | None, seed: int) -> Receipt:
        """Looks, and returns what was found; it is stored with the sweep.

        Args:
            sample: How many epochs to train again; None for all.
            seed: Of their choice.
        """
        stored = self._stored
        held = (len(stored.trials), "trial"), (stored.records, "record"), (len(stored.checkpoints), "checkpoint")
        self._say(f"{stored.store.location}: {', '.join(counted(*one) for one in held)}")
        terms = self._terms()
        exact = {trial_id for trial_id, one in terms.items() if one.exact}
        if len(exact) < len(terms):
            self._say(
                f"{counted(len(terms) - len(exact), 'trial')} trained on another type of machine: the same bits cannot "
                f"be expected here; losses and accuracies are compared within {WITHIN:.0%} or {OR_WITHIN:g}, whichever "
                "is more"
            )
        good = self._check_chain(exact)
        broken = tuple(self._differences)
        tables, others = self._check_tables()
        again = Retraining(stored=stored, terms=terms, good=good, data_root=self._data_root)
        population = list(again.epochs)
        chosen = draw(population, len(population) if sample is None else sample, seed)
        # What the chain has found is trained again too: then it is known which number has been changed.
        found = (self._unit_of(stored, one) for one in broken) if sample != 0 else ()
        suspects = [unit for unit in found if unit is not None and unit in again.epochs]
        plan = again.plan(list(dict.fromkeys([*chosen, *suspects[:MOST_SUSPECTS]])))
        self._say_plan(again, plan, len(chosen), len(population), seed)
        self._retrain(again, plan)
        receipt = Receipt(
            when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            parts=stored.parts,
            records=stored.records,
            checkpoints=len(stored.checkpoints),
            epochs=len(population),
            sampled=len(chosen),
            sample_seed=seed,
            trained=again.trained,
            exact=exact == set(terms),
            differences=tuple(one.said(stored.names) for one in self._differences),
            tables=tables,
            not_compared=others,
        )
        if (more := len(self._differences) - MOST_SAID) > 0:
            self._say(f"and {counted(more, 'more difference')}")
        self._say(receipt.said())
        self._store(receipt)
        return receipt

    def _store(self, receipt: Receipt) -> None:
        """Stores the receipt, and shows it in the report if there is one."""
        store = self._stored.store
        try:
            write_receipt(store, receipt)
            if "report.html" in store.files():
                from analysis.report import report_of

                report_of(store)
        except OSError as error:
            self._say(f"the receipt could not be stored: {error}")

    # -- without training -------------------------------------------------------------------------------------------

    def _terms(self) -> dict[str, Terms]:
        """Returns on what terms each trial can be trained again; those that would train differently are left out."""
        stored, prints = self._stored, self._stored.spec.fingerprints
        groups: dict[tuple[str, str], list[TrialConfig]] = {}
        for trial_id, trial in stored.trials.items():
            if trial_id in stored.rows or stored.diverged(trial_id):
                device = prints.get(trial_id, {}).get("device", _DEVICE)
                groups.setdefault((dataset_of(trial).name, device), []).append(trial)
        terms: dict[str, Terms] = {}
        reasons: Counter[tuple[str, str, str]] = Counter()
        for (data, device), trials in groups.items():
            described = hardware_of(device)
            there = not described.gpu or torch.cuda.is_available()
            hardware = described if there else Hardware()
            then = prints.get(trials[0].trial_id, {}).get("data", "unknown")
            try:
                now = fingerprints(trials, hardware, self._data_root)
            except (InputError, OSError) as error:
                reasons[f"data set {data}", then, " ".join(str(error).split())] += len(trials)
                continue
            for trial_id, found in now.items():
                known = prints.get(trial_id)
                kind = "same" if known is None else _kind_of(found, known) if there else "machine"
                if kind == "data":
                    reasons[f"data set {data}", then, found.data] += 1
                elif kind == "code":
                    reasons["code", "another", _CODE] += 1
                else:
                    terms[trial_id] = Terms(hardware=hardware, exact=kind == "same")
        for (field, then, found_now), count in reasons.items():
            how = f"for {counted(count, 'trial')}; now"
            self._found(Difference(trial_id=None, epoch=None, field=field, stored=then, how=how, found=found_now))
        if unknown := sum(trial_id not in prints for trial_id in terms):
            self._say(f"{counted(unknown, 'trial')} of an older version: it is not known how they trained")
        return terms

    def _check_chain(self, exact: Collection[str]) -> dict[tuple[str, int], Checkpoint]:
        """Follows the chain of states; returns the checkpoints that hold what they should."""
        stored, before = self._stored, len(self._differences)
        for one in (*check_files(stored), *check_records(stored, _initial(exact))):
            self._found(one)
        found, good = check_checkpoints(stored)
        for one in found:
            self._found(one)
        unnamed = sum(row["state_after"] is None for rows in stored.rows.values() for row in rows)
        if unnamed:
            self._say(f"{counted(unnamed, 'record')} of an older version: they name no states")
        if len(self._differences) == before:
            self._say("chain of states: holds, from the seeds to the final weights")
        return good

    def _check_tables(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Compares the tables with the records; returns those that were compared, and those that could not be."""
        if self._differences:
            return (), ()  # the tables may be right, and the records not
        found, compared, others = check_tables(self._stored)
        for one in found:
            self._found(one)
        if compared and not found:
            self._say(f"tables: {', '.join(compared)} match the records")
        if others:
            self._say(
                f"tables: {', '.join(others)} cannot be compared, as made from other records or by another version of "
                "forksweep"
            )
        if found or others:
            self._say(f"the sweep's command makes its tables anew: {self._stored.asked.command}")
        return compared, others

    @staticmethod
    def _unit_of(stored: Stored, one: Difference) -> Unit | None:
        """Returns the epoch that a difference is about, as it was trained."""
        rows = stored.rows.get(one.trial_id or "", ())
        if one.epoch is None or not 1 <= one.epoch <= len(rows):
            return None
        return rows[one.epoch - 1]["computed_by"], one.epoch

    # -- with training ----------------------------------------------------------------------------------------------

    def _say_plan(self, again: Retraining, plan: Sequence[Stretch], chosen: int, population: int, seed: int) -> None:
        count = sum(len(stretch.units) for stretch in plan)
        if not count:
            return
        which = (
            f"all {population:,} epochs are trained again"
            if chosen == population
            else f"{chosen:,} of {population:,} epochs, chosen at random (--sample-seed {seed}), are trained again"
        )
        ways = f", with those that lead to them {count:,}" if count > chosen else ""
        self._say(f"{which}{ways}: about {duration(again.seconds(plan))}, if an epoch takes what it took in the sweep")
        if chosen < population:
            found = chance(FRACTION, chosen)
            self._say(
                f"if 1 in {1 / FRACTION:.0f} epochs were wrong, {chosen:,} samples would find one with probability "
                f"{found:.2f}"
            )

    def _retrain(self, again: Retraining, plan: Sequence[Stretch]) -> None:
        if not plan:
            return
        stored, first = self._stored, next(iter(self._stored.trials.values()))
        with Progress(self._console, stored.names, measure=measure_of(first)) as progress:
            counts = progress.counts
            counts.trials, counts.running = len(plan), 1
            counts.trial_epochs = counts.epochs_left = sum(len(stretch.units) for stretch in plan)

            def see(trial_id: str, record: EpochRecord | None) -> None:
                counts.delivered = counts.trained = again.trained
                counts.epochs_left = counts.trial_epochs - again.trained
                if record is not None:
                    progress.record(trial_id, record.to_json(), 1)
                if progress.due():
                    progress.update()

            for number, stretch in enumerate(plan):
                trial_id = again.epochs[stretch.units[-1]]
                counts.trials_done = number
                progress.started(trial_id, 1)
                for one in again.run(stretch, see):
                    self._found(one)
                progress.ended(trial_id)

    # -- what comes out ---------------------------------------------------------------------------------------------

    def _found(self, one: Difference) -> None:
        self._differences.append(one)
        if len(self._differences) <= MOST_SAID:
            self._console.print(f"[red]different:[/red] {escape(one.said(self._stored.names))}", soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True, highlight=False)


_DEVICE = "cpu, 1 thread"
"""What trials of older versions trained on, as far as is known."""
_CODE = "one that trains differently: that of the network, optimizer, schedule or training has changed since"


def _kind_of(now: Fingerprint, then: Mapping[str, str]) -> Literal["same", "data", "machine", "code"]:
    """Returns whether a trial would train as it did, or else what has changed."""
    if then.get("data") != now.data:
        return "data"
    if then.get("device", now.device) != now.device:  # the number of threads, and how a GPU computes, are as they were
        return "machine"
    if then.get("training") == now.training:
        return "same"
    return "code" if then.get("machine") == now.machine else "machine"


def _initial(exact: Collection[str]) -> Callable[[TrialConfig], str | None]:
    """Returns what says with which state a trial begins; of those that train in the same way here."""
    known: dict[str, str | None] = {}

    def initial(trial: TrialConfig) -> str | None:
        if trial.trial_id not in exact:
            return None
        group = sharing_group(trial)
        if group not in known:
            known[group] = initial_digest(trial)
        return known[group]

    return initial
