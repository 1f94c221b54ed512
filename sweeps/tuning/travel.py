"""How a user's own code gets to the workers: with the rows that name it, not as files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ray import cloudpickle

from workloads import blame
from workloads.registry import added_workloads


@contextlib.contextmanager
def own_code_travels() -> Iterator[None]:
    """Has the modules that lie in the user's own folders pickled with what refers to them, as their script itself is.

    Workers on other nodes do not have these files, and need not.
    """
    modules = _own_modules()
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _own_modules() -> list[ModuleType]:
    folders = _own_folders() if added_workloads() else set()
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # The script itself always travels.
        if name == "__main__" or not isinstance(module, ModuleType) or not file or not blame.is_own(file):
            continue
        if any(Path(file).resolve().is_relative_to(folder) for folder in folders):
            found.append(module)
    return found


def _own_folders() -> set[Path]:
    """Returns the folder of the script (of a notebook: the current one), and those of functions that rows name."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    folders = {Path(script).parent.resolve() if script and blame.is_own(script) else Path.cwd()}
    for row in added_workloads().values():
        place = blame.source_of(getattr(row.model, "network", row.model))
        if place is not None and blame.is_own(place[0]):
            folders.add(Path(place[0]).parent.resolve())
    return folders
