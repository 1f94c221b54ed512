"""Which trials run, and where: sweep scripts, their algebra, the fork tree and Ray Tune."""

import sys
from importlib import util
from pathlib import Path


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
