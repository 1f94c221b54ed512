"""What is stored already and what of it holds: for the sweep itself, and from its siblings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis.store import DamagedFileError, SweepSpec, SweepStore
from sweeps.ledger import Ledger
from workloads.errors import InputError
from workloads.trial import SETTINGS_OF, TrialConfig

_SHOWN = 6


class ConflictError(InputError):
    """What is stored was made otherwise than what is asked for."""


def reconcile(store: SweepStore, asked: SweepSpec, *, fresh: bool) -> SweepSpec:
    """Returns the spec of a run: what is asked for, and the trials stored before.

    Args:
        store: Where the sweep is, or will be.
        asked: What the command line asks for.
        fresh: Whether the run starts over.

    Raises:
        ConflictError: The folder is not a sweep's, or what is stored does not go together with what is asked for.
        DamagedFileError: `sweep.json` is not what was written.
    """
    if not store.is_sweep():
        if store.exists():
            raise ConflictError(
                f"{store.location} holds files but no sweep.json: it is not a sweep's folder; "
                "choose another --name or --storage-path"
            )
        return asked
    if fresh:
        return asked
    try:
        stored = store.read_spec()
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; start over with --fresh, or go on under another --name") from None
    assert stored is not None
    differences = _differences(stored, asked)
    if differences:
        raise ConflictError(
            f"the sweep {asked.name!r} is stored but was made otherwise: {'; '.join(differences)}. "
            "Go on under another --name, or start over with --fresh (which deletes its results)"
        )
    known = {trial.trial_id for trial in stored.trials}
    added = tuple(trial for trial in asked.trials if trial.trial_id not in known)
    return replace(asked, trials=stored.trials + added)


def _differences(stored: SweepSpec, asked: SweepSpec) -> list[str]:
    """Returns why the stored results cannot be part of the asked ones, one text each."""
    found = [f"{what} was {old}, is {new}" for what, old, new in _changed(stored.fingerprint, asked.fingerprint)]
    here = {trial.trial_id for trial in asked.trials}
    missing = [trial for trial in stored.trials if trial.trial_id not in here]
    if missing:
        found.append(
            f"{len(missing)} of its {len(stored.trials)} trials are not asked for ({_contrast(missing, asked.trials)})"
        )
    return found


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns name, old and new value of what differs between two fingerprints; data sets may be added."""
    flat_old, flat_new = _flat(old), _flat(new)
    names = [name for name in flat_old if name in flat_new or not name.startswith("data ")]
    return [
        (name, flat_old[name], flat_new.get(name))
        for name in names
        if json.dumps(flat_old[name]) != json.dumps(flat_new.get(name))
    ]


def _flat(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    data = {f"data {name}": value for name, value in fingerprint.get("data", {}).items()}
    return {name: value for name, value in fingerprint.items() if name != "data"} | data


def _contrast(missing: Sequence[TrialConfig], asked: Sequence[TrialConfig]) -> str:
    """Returns in which fields the missing trials have values that no asked one has."""
    parts = []
    settings = {field: kind for kind, field in SETTINGS_OF.items()}
    for name in missing[0].to_json():
        old, new = _texts(missing, name), _texts(asked, name)
        gone = [text for text in old if text not in new]
        # Another optimizer has other settings: that says nothing more.
        if gone and not (
            name in settings and set(_texts(missing, settings[name])) - set(_texts(asked, settings[name]))
        ):
            parts.append(f"{name} was {_few(gone)}, asked for {_few(new)}")
    return ", ".join(parts) or "other combinations"


def _texts(trials: Sequence[TrialConfig], name: str) -> list[str]:
    return list(dict.fromkeys(json.dumps(trial.to_json()[name]).replace('"', "") for trial in trials))


def _few(values: Sequence[str]) -> str:
    return ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")


def take_over(ledger: Ledger, spec: SweepSpec) -> dict[str, int]:
    """Gives open trials the records of siblings in which they are completed, made by the same code from the same data.

    Args:
        ledger: Of the sweep; its open trials get what is found.
        spec: Of the sweep.

    Returns:
        Sibling -> how many trials were taken over from it.
    """
    taken: dict[str, int] = {}
    for sibling in ledger.store.siblings():
        wanted = {trial.trial_id for trial in ledger.open}
        if not wanted:
            break
        try:
            other = sibling.read_spec()
        except DamagedFileError:
            continue
        if other is None or _changed(other.fingerprint, spec.fingerprint):
            continue
        shared = [trial for trial in other.trials if trial.trial_id in wanted]
        if not shared:
            continue
        theirs = Ledger(sibling, shared)
        for trial in shared:
            status = theirs.statuses.get(trial.trial_id)
            if status is not None and status.status == "completed":
                ledger.take_over(trial.trial_id, theirs.known[trial.trial_id], sibling.name)
                taken[sibling.name] = taken.get(sibling.name, 0) + 1
    return taken
