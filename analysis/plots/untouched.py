"""Imports matplotlib without the user's settings: those are for the user's own pictures, and may be broken.

`MPLBACKEND` may name a backend that is not installed here (a notebook sets one), `MATPLOTLIBRC` a file that matplotlib
cannot read; either ends the import. They are put back afterwards. Whoever has imported matplotlib before keeps what
they have; `analysis.plots.style` draws with settings of its own in either case.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path


def import_matplotlib() -> None:
    """Imports matplotlib, with what concerns it in the environment out of the way; does nothing if that is done."""
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
    log.setLevel(logging.ERROR)  # it warns of a settings folder that it cannot write to, and gets along without
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
