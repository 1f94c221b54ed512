"""Imports matplotlib without the user's settings, which may be broken.

`MPLBACKEND` may name a missing backend (notebooks set it), `MATPLOTLIBRC` a file that matplotlib cannot
read; either makes the import fail. Both are restored afterwards. If matplotlib was imported before, nothing changes;
`analysis.plots.style` uses its own settings in any case.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path


def import_matplotlib() -> None:
    """Imports matplotlib without its environment variables; does nothing if it is already imported."""
    if "matplotlib" in sys.modules:
        return
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    instead = {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(Path(found.origin).parent / "mpl-data" / "matplotlibrc")}
    before = {name: os.environ.get(name) for name in (*instead, "MPLCONFIGDIR")}  # the last is set on a read-only disk
    log = logging.getLogger("matplotlib")
    level = log.level
    os.environ.update(instead)
    log.setLevel(logging.ERROR)  # it warns about a read-only settings folder, which is harmless
    try:
        importlib.import_module("matplotlib.figure")
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


import_matplotlib()
