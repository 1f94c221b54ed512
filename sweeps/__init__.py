"""Which trials run, and where: questions, policies, the fork tree, the ledger and Ray Tune.

What a script of one's own imports is here:

    from sweeps import Sweep, axis, chain, main, product

and for Python and notebooks:

    from sweeps import Result, run
"""

import importlib
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.cli import main
    from sweeps.question.grid import axis, chain, product, zipped
    from sweeps.question.sweep import Sweep
    from sweeps.result import Result
    from sweeps.runner import run

__all__ = ["Result", "Sweep", "axis", "chain", "main", "product", "run", "zipped"]

_HOME = {
    "Result": "sweeps.result",
    "Sweep": "sweeps.question.sweep",
    "axis": "sweeps.question.grid",
    "chain": "sweeps.question.grid",
    "main": "sweeps.cli",
    "product": "sweeps.question.grid",
    "run": "sweeps.runner",
    "zipped": "sweeps.question.grid",
}
"""Name -> its module, imported when the name is asked for: a worker needs none of them."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def _take_the_packages_beside() -> None:
    """Imports `analysis` and `workloads` from beside this package, whatever lies beside the script that runs.

    Python looks for modules beside the script first: an `analysis.py` of one's own there would be taken for ours.
    """
    for name in ("analysis", "workloads"):
        path = Path(__file__).parents[1] / name / "__init__.py"
        if name not in sys.modules:
            spec = util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        elif (found := getattr(sys.modules[name], "__file__", None)) and Path(found).resolve() != path.resolve():
            raise ImportError(f"forksweep needs the module name {name!r}, which {found} has: import sweeps before it")


_take_the_packages_beside()
