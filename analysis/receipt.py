"""The receipt of a sweep: when it was verified, how, and what came out. `sweeps.verify` writes it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from analysis.commands import is_call, module, shown, words
from analysis.store import SweepSpec, SweepStore
from workloads.console import counted

RECEIPT_FILE = "verified.json"
SAMPLE = 5
"""So many epochs are trained again, if nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What `sweeps.verify` found."""

    when: str
    """Date and time (UTC), to the second."""
    parts: tuple[str, ...]
    """Names of the parts that were there: they say of what it is."""
    records: int
    """Records whose chain of states was checked."""
    checkpoints: int
    """Checkpoints compared with them."""
    epochs: int
    """Epochs that could be trained again."""
    sampled: int
    """Those chosen at random."""
    sample_seed: int
    trained: int
    """Epochs trained again, with those on the way to the chosen ones."""
    exact: bool
    """Whether bits were compared; otherwise it was another type of machine."""
    differences: tuple[str, ...]
    """In sentences."""
    tables: tuple[str, ...] = ()
    """Files that were compared with the records."""
    not_compared: tuple[str, ...] = ()
    """Those that were made from other records, or by another version."""

    @property
    def verified(self) -> bool:
        """Whether all held."""
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as plain values."""
        return {"verified": self.verified, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Receipt:
        """Returns the receipt from the output of `to_json`."""
        own: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name != "verified"
        }
        return cls(**own)

    def said(self) -> str:
        """Returns in a sentence what was checked, and what came out."""
        chain = f"the chain of {counted(self.records, 'record')} and {counted(self.checkpoints, 'checkpoint')}"
        count = len(self.tables)
        tables = f"{counted(count, 'table')} {'matches' if count == 1 else 'match'} the records; " if count else ""
        tables += f"{', '.join(self.not_compared)} not compared; " if self.not_compared else ""
        chosen = (
            f"{self.sampled:,} of {self.epochs:,} chosen at random" if self.sampled < self.epochs else "all there are"
        )
        again = (
            f"{counted(self.trained, 'epoch')} trained again ({chosen})" if self.trained else "no epoch trained again"
        )
        bits = "bit for bit equal" if self.exact else "equal within the tolerance for another type of machine"
        if self.verified:
            return f"verified: {chain} holds; {tables}{again}{f', all numbers {bits}' if self.trained else ''}"
        return f"not verified: {counted(len(self.differences), 'difference')}; {chain} was checked, {again}"


def write_receipt(store: SweepStore, receipt: Receipt) -> None:
    """Stores the receipt of a sweep, in place of an earlier one."""
    store.write(RECEIPT_FILE, json.dumps(receipt.to_json(), indent=1).encode())


def read_receipt(store: SweepStore) -> Receipt | None:
    """Returns the receipt of a sweep; None where there is none, or none of ours."""
    try:
        return Receipt.from_json(json.loads(store.read(RECEIPT_FILE)))
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def about(store: SweepStore, spec: SweepSpec) -> str:
    """Returns whether a sweep was verified, and what came out, or else how to verify it; for people.

    Args:
        store: Its files.
        spec: What was asked.
    """
    receipt = read_receipt(store)
    if receipt is None:
        return f"not verified yet: {command(spec, shown(store.location))}"
    more = tuple(store.files("parts")) != receipt.parts
    since = f"; more has been stored since: {command(spec, shown(store.location))}" if more else ""
    return f"{receipt.said()}; {receipt.when.replace('T', ' ').partition('+')[0]} UTC{since}"


def command(spec: SweepSpec, location: str) -> str:
    """Returns how to verify a sweep.

    Args:
        spec: What was asked.
        location: Its folder or URI, for display.
    """
    own = {trial.workload for trial in spec.trials} & set(spec.provenance.get("added_workloads", ()))
    if own and is_call(spec.command):
        return f"sweeps.verify.verify({location!r}, workload=...)"
    scripts = [word for word in words(spec.command) if word.endswith(".py")] if own else []
    return module("sweeps.verify", location, "--sample", str(SAMPLE), *(["--script", scripts[0]] if scripts else []))
