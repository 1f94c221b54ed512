"""Imports point one way: sweeps -> workloads, sweeps -> parts of analysis, analysis -> a few modules of workloads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("workloads", "sweeps", "analysis")

ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "workloads": {"workloads": ("workloads",), "analysis": (), "sweeps": ()},
    "analysis": {
        "workloads": (
            "workloads.trial",
            "workloads.console",
            "workloads.errors",
            "workloads.measure",
            "workloads.spans",
        ),
        "analysis": ("analysis",),
        "sweeps": (),
    },
    "sweeps": {
        "workloads": ("workloads",),
        "sweeps": ("sweeps",),
        "analysis": tuple(
            f"analysis.{name}"
            for name in (
                *("store", "tables", "loading", "report", "schema", "measures", "event_files", "statistics", "race"),
                *("aggregate", "answer", "configurations", "origin", "plots", "receipt"),
            )
        ),
    },
}
"""Package -> each of our packages -> what it may import of it (these modules and what is below them)."""

RAY_PACKAGE = "sweeps.tuning"
"""The only one that imports Ray."""

HEAVY = {"analysis": ("torch", "torchvision", "ray", "sweeps"), "workloads": ("ray", "analysis", "sweeps")}
"""What must not be loaded by importing all of a package."""


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))}


def imported(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Returns the full names of all that a source imports, anywhere in it; `from a import b` is `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(name: str, allowed: str) -> bool:
    """Whether a name is a module's, or of something below it."""
    return name == allowed or name.startswith(f"{allowed}.")


def _imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return imported(path.read_text(), module, is_package=path.name == "__init__.py")


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    rules = ALLOWED[module.partition(".")[0]]
    wrong = {
        name
        for name in _imports_of(module)
        for package, allowed in rules.items()
        if within(name, package) and not any(within(name, module) for module in allowed)
    }
    assert not wrong, f"{module} must not import {sorted(wrong)}; allowed: {rules}"


def test_only_one_package_imports_ray() -> None:
    users = {module for module in MODULES if any(within(name, "ray") for name in _imports_of(module))}
    assert users
    assert {module for module in users if not within(module, RAY_PACKAGE)} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, "analysis")])
def test_analysis_needs_no_torch(module: str) -> None:
    assert not {name for name in _imports_of(module) if within(name, "torch") or within(name, "torchvision")}


def test_trials_need_the_standard_library_only() -> None:
    ours = {"workloads.errors.InputError"}
    tops = {
        name.partition(".")[0] for name in (_imports_of("workloads.trial") - ours) | _imports_of("workloads.errors")
    }
    assert tops <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", HEAVY)
def test_what_is_loaded(package: str) -> None:
    """What the source does not say: a module that another one pulls in."""
    modules = [name for name in MODULES if within(name, package) and not name.endswith("__main__")]
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
print(*sorted(set({HEAVY[package]}) & set(sys.modules)))
"""
    assert _python(code) == ""


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    """No files, no random numbers drawn, no threads or plot settings changed, nothing printed."""
    code = f"""
import importlib, random, sys, threading
import matplotlib, numpy as np, rich.console, torch  # rich draws a random number at import
def state():
    return (
        random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), torch.get_num_threads(),
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, dict(matplotlib.rcParams),
    )
before = state()
for module in {[name for name in MODULES if not within(name, RAY_PACKAGE)]}:
    importlib.import_module(module)
names = "random numpy torch threads benchmark deterministic matplotlib".split()
print(*[name for name, one, other in zip(names, before, state(), strict=True) if one != other])
print(*[thread.name for thread in threading.enumerate() if thread is not threading.main_thread()])
"""
    assert _python(code, folder=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def _python(code: str, folder: Path = ROOT) -> str:
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run([sys.executable, "-c", path + code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- the checks themselves ------------------------------------------------------------------------------------------


def test_imports_are_found_wherever_they_are() -> None:
    source = """
import a.b as c, d
from e import f as g
def later():
    from . import h
    from .i import j
    from ..k import l
"""
    assert imported(source, "x.y.z") == {"a.b", "d", "e.f", "x.y.h", "x.y.i.j", "x.k.l"}
    assert imported("from .i import j", "x.y", is_package=True) == {"x.y.i.j"}


def test_all_packages_are_there() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(OURS) == set(ALLOWED)
