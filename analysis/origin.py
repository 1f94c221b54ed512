"""What tables and reports are made from, as digests: where they are equal, so is what is made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from analysis.store import SweepSpec
from workloads.trial import canonical_json, digest

MADE_FROM = "made_from"
"""The name of the digest in the metadata of a table, and in `answer.json`."""


def of_records(spec: SweepSpec, parts: Sequence[str]) -> str:
    """Returns the digest of a question and the records.

    Args:
        spec: What was asked.
        parts: The names of the sweep's parts, which say what is in them.
    """
    return digest(canonical_json([spec.to_json() | {"provenance": {}}, list(parts)]))


def of_statistics(spec: SweepSpec, parts: Sequence[str]) -> str:
    """Returns the digest of a question, the records and our code, which makes statistics and pictures of them."""
    return digest(canonical_json([of_records(spec, parts), _code()]))


@cache
def _code() -> str:
    here = Path(__file__).parent
    files = [f"{path.name} {digest(path.read_bytes())}" for path in sorted(here.rglob("*")) if path.suffix in _CODE]
    return digest(canonical_json(files))


_CODE = (".py", ".j2", ".css", ".js")
