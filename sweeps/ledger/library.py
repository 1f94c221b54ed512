"""What is stored under a name is a library of trials; the command line is a question.

A question takes the trials it needs from the library, or from those of its siblings, and the rest is trained into it.
Nothing stored is lost unless `--fresh` asks for that. Refused is only what cannot be compared: a trial that is stored
and would train differently now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from analysis.store import DamagedFileError, SweepSpec, SweepStore
from sweeps.ledger.ledger import Ledger, sharing_group
from workloads.errors import InputError
from workloads.fingerprint import Fingerprint
from workloads.trial import TrialConfig

Fingerprints = Mapping[str, Fingerprint]
"""Trial id -> how it would train now."""

OLDER = "by a version of forksweep that did not record how"
"""Of trials that are stored without a fingerprint."""


class ConflictError(InputError):
    """What is stored cannot be put together with what is asked for."""


def read_library(store: SweepStore, *, fresh: bool = False) -> SweepSpec | None:
    """Returns what is stored, or None where there is nothing.

    Args:
        store: Where it is.
        fresh: Whether to start over: what is stored is about to be deleted, and may be damaged.

    Raises:
        ConflictError: The folder is not a sweep's.
        DamagedFileError: `sweep.json` is not what was written.
    """
    if not store.is_sweep():
        if store.exists():
            raise ConflictError(
                f"{store.location} holds files but no sweep.json, so it is not a sweep's folder; "
                "use another --name or --storage-path"
            )
        return None
    if fresh:
        return None
    try:
        return store.read_spec()
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; use another --name, or start over with --fresh") from None


def changed(stored: SweepSpec | None, now: Fingerprints) -> dict[str, str]:
    """Returns which trials that are listed as stored would train differently now: id -> in which way, as a phrase."""
    listed = {trial.trial_id for trial in stored.trials + stored.library} if stored else set()
    found = {}
    for trial_id in listed & set(now):
        then = stored.fingerprints.get(trial_id) if stored else None
        difference = OLDER if then is None else now[trial_id].difference(then)
        if difference is not None:
            found[trial_id] = difference
    return found


def refuse_changed(ledger: Ledger, differences: Mapping[str, str], trials: Collection[str]) -> None:
    """Refuses to put numbers together that are not comparable.

    Args:
        ledger: What is known.
        differences: `changed`; a trial without a single epoch has no numbers, and is simply trained as it is now.
        trials: Ids of the trials to put together; others that have changed are left alone.

    Raises:
        ConflictError: A trial with numbers would train differently now.
    """
    ways = [way for trial_id, way in differences.items() if trial_id in trials and ledger.had_records(trial_id)]
    if ways:
        whose = "the trial" if len(trials) == 1 else f"{len(ways):,} of these {len(trials):,} trials"
        raise ConflictError(
            f"{ledger.store.location} holds {whose}, trained {max(set(ways), key=ways.count)}. "
            "Use another --name, or --fresh to delete what is stored there"
        )


def near(trials: Iterable[TrialConfig], stored: SweepSpec | None) -> tuple[TrialConfig, ...]:
    """Returns the stored trials, not asked for, that may have epochs in common with some that are."""
    if stored is None:
        return ()
    trials = tuple(trials)
    groups, asked = {sharing_group(trial) for trial in trials}, {trial.trial_id for trial in trials}
    others = (trial for trial in stored.trials + stored.library if trial.trial_id not in asked)
    return tuple(trial for trial in others if sharing_group(trial) in groups)


def merged(asked: SweepSpec, stored: SweepSpec | None, ledger: Ledger, now: Fingerprints) -> SweepSpec:
    """Returns the spec of a question, with all that is stored besides.

    Args:
        asked: The question.
        stored: What `sweep.json` says now.
        ledger: What is known.
        now: How the trials asked for would train.
    """
    ids = {trial.trial_id for trial in asked.trials}
    prints = {trial_id: print_.to_json() for trial_id, print_ in now.items() if trial_id in ids}
    if stored is None:
        return replace(asked, fingerprints=prints)
    # What is not asked for keeps what was recorded, and so does what has numbers; an asked one without is made now.
    before = {i: p for i, p in stored.fingerprints.items() if ledger.holds(i) and (i not in ids or ledger.known.get(i))}
    others = (trial for trial in stored.trials + stored.library if trial.trial_id not in ids)
    library = tuple(trial for trial in others if ledger.holds(trial.trial_id))
    kept = ids | {trial.trial_id for trial in library}
    return replace(
        asked,
        library=library,
        fingerprints={i: p for i, p in (prints | before).items() if i in kept},
        datasets={**stored.datasets, **asked.datasets},
        measures={w: m for w, m in stored.measures.items() if w not in asked.datasets} | dict(asked.measures),
        seed_orders={**asked.seed_orders, **_longest(stored.seed_orders, asked.seed_orders)},
    )


def _longest(stored: Mapping[str, list[int]], asked: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Returns the stored orders of seeds; an asked one where that is longer: a smaller budget forgets no seed."""
    return {name: max(order, asked.get(name, []), key=len) for name, order in stored.items()}


def take_over(ledger: Ledger, now: Fingerprints, complain: Callable[[str], object]) -> dict[str, int]:
    """Gives open trials the records of siblings in which they are completed and comparable.

    Args:
        ledger: Of the sweep; its open trials get what is found.
        now: How they would train.
        complain: Called with a sentence about each sibling that cannot be read.

    Returns:
        Sibling -> how many trials were taken over from it.
    """
    taken: dict[str, int] = {}
    for sibling in ledger.store.siblings():
        wanted = {trial.trial_id for trial in ledger.open if trial.trial_id in now}
        if not wanted:
            break
        try:
            spec = sibling.read_spec()
            shared = [
                trial
                for trial in (spec.trials + spec.library if spec else ())
                if trial.trial_id in wanted
                and now[trial.trial_id].difference((spec.fingerprints if spec else {}).get(trial.trial_id, {})) is None
            ]
            theirs = Ledger(sibling, shared) if shared else None
        except DamagedFileError as error:
            complain(f"{sibling.name} was left out: {error}")
            continue
        for trial in shared if theirs else ():
            assert theirs is not None
            status = theirs.statuses.get(trial.trial_id)
            if status is not None and status.status == "completed":
                ledger.take_over(trial.trial_id, theirs, sibling)
                taken[sibling.name] = taken.get(sibling.name, 0) + 1
    return taken
