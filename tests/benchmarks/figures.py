"""Where figures go: `results/<name>.json`, with what they were measured on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.provenance import provenance

FOLDER = Path(__file__).parent / "results"


def write(name: str, arguments: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> None:
    """Writes what a benchmark measured, the arguments it had and the machine it ran on."""
    content = {
        "arguments": dict(arguments),
        "load_average_at_end": os.getloadavg(),
        "provenance": provenance(),
        "measured": [dict(row) for row in measured],
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
