"""Sweeps from Python and notebooks: the result, what it is made of, and that the process stays as it was."""

from __future__ import annotations

import base64
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image
from polars.testing import assert_frame_equal

from analysis.loading import load
from analysis.plots import PLOTS
from analysis.store import SweepStore
from sweeps import Result, Sweep, run
from sweeps.runner import StoppedError
from tests.sweeps.runs import without_ray
from workloads import datasets
from workloads.datasets import SYNTHETIC
from workloads.errors import InputError
from workloads.training import Images, evaluate

ROOT = Path(__file__).parents[2]
SWEEP = Sweep(name="python", question="Which rate?", optimizers=("adam",), lrs=(0.001, 0.01))
SMALL: dict[str, Any] = {"dataset": "synthetic", "train_limit": 320, "epochs": 1, "preflight": False}


@dataclass
class Place:
    """A folder, and what was trained in it."""

    storage: str
    result: Result


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two configurations with two seeds."""
    storage = str(tmp_path_factory.mktemp("python"))
    return Place(storage, run(SWEEP, seeds=(1, 2), storage_path=storage, **SMALL))


@pytest.fixture(params=["run", "load"])
def result(request: pytest.FixtureRequest, trained: Place) -> Result:
    """The result of that run, and what is stored of it."""
    return trained.result if request.param == "run" else Result.load(f"{trained.storage}/python")


@pytest.fixture
def copied(trained: Place, storage: str) -> str:
    """A storage path with a copy of that run, to change."""
    shutil.copytree(trained.storage, storage)
    return storage


# -- what is in a result ----------------------------------------------------------------------------------------------


def test_progress_is_shown_if_it_is_asked_for(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(SWEEP, storage_path=storage, quiet=False, plan=True, **SMALL)
    assert capsys.readouterr().out.startswith("Which rate?\n  2 trials, 2 trial-epochs\n")


def test_tables_are_those_in_the_folder(result: Result) -> None:
    for name in ("summary", "trials", "epochs"):
        published = result.store.read_table(name)
        assert published is not None
        assert_frame_equal(getattr(result, name), published)
    assert result.trials.height == 4
    assert list(result.trials.to_pandas()["seed"]) == [1, 1, 2, 2]


def test_the_answer_is_that_of_the_report(result: Result) -> None:
    assert result.answer == result.report.answer
    assert "highest final validation accuracy" in result.answer[0]
    assert result.answer[0] in repr(result)


def test_what_is_stored_is_what_came_out(trained: Place) -> None:
    loaded = Result.load(Path(trained.storage) / "python")
    assert loaded.spec.to_json() == trained.result.spec.to_json()
    assert (loaded.counts, loaded.failures) == (trained.result.counts, trained.result.failures)
    assert (loaded.exit_status, loaded.interrupted, loaded.trained) == (0, False, 0)


def test_a_plot_is_a_figure_to_go_on_from(result: Result, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figure = result.plot("accuracy_by_lr")
    assert isinstance(figure, Figure)
    assert dict(mpl.rcParams) == before
    figure.axes[0].set_title("mine")
    figure.savefig(tmp_path / "mine.png")
    assert_is_a_picture((tmp_path / "mine.png").read_bytes())


def test_a_plot_looks_as_in_the_report(result: Result) -> None:
    figure: Any = result.plot("accuracy_by_lr")
    contents = figure._repr_png_(), result.store.read("plots/accuracy_by_lr.png")
    shown, stored = (np.asarray(Image.open(io.BytesIO(content))) for content in contents)
    assert np.array_equal(shown, stored)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy_by_lr", r"^unknown plot 'acuracy_by_lr' \(did you mean 'accuracy_by_lr'\?\); known: seeds, race,"),
        ("race", r"^plot 'race' does not apply to this sweep; those that do: seeds, accuracy_by_lr, "),
    ],
)
def test_plots_that_are_not_there(name: str, message: str, result: Result) -> None:
    with pytest.raises(InputError, match=message):
        result.plot(name)


def test_every_plot_that_applies_is_drawn(trained: Place) -> None:
    drawn = {Path(file).stem for file in trained.result.report.files if file.endswith(".png")}
    for plot in PLOTS:
        if plot.name in drawn:
            assert isinstance(trained.result.plot(plot.name), Figure)


@pytest.mark.parametrize("seed", [1, 2, None])
def test_a_network_does_as_well_as_its_trial(seed: int | None, result: Result) -> None:
    draws = torch.get_rng_state()
    network = result.network("lr 0.01", seed=seed)
    assert torch.equal(torch.get_rng_state(), draws)
    assert not network.training
    images = Images(datasets.load(SYNTHETIC), torch.device("cpu"))
    trial = result.trials.row(by_predicate=(pl.col("lr") == 0.01) & (pl.col("seed") == (seed or 1)), named=True)
    for split, stored in (("val", "final_val_accuracy"), ("test", "test_accuracy")):
        assert evaluate(network, images, split).accuracy == trial[stored]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "seed", "message"),
    [
        (
            "lr 0.1",
            None,
            r"^unknown configuration 'lr 0.1' \(did you mean 'lr 0.01'\?\); known: 'lr 0.0.*', 'lr 0.0.*'$",
        ),
        ("lr 0.01", 3, r"^'lr 0.01' has no seed 3; known: 1, 2$"),
    ],
)
def test_networks_that_are_not_there(label: str, seed: int | None, message: str, result: Result) -> None:
    with pytest.raises(InputError, match=message):
        result.network(label, seed)


def test_weights_that_are_gone_or_damaged(copied: str) -> None:
    result = Result.load(f"{copied}/python")
    gone, damaged = (Path(result.store.root) / path for path in result.trials["checkpoint"][:2])
    gone.unlink()
    damaged.write_bytes(b"damaged")
    messages = set()
    for label in ("lr 0.001", "lr 0.01"):
        with pytest.raises(InputError) as error:
            result.network(label, seed=1)
        messages.add(str(error.value).partition(copied)[0].replace(label, "LABEL"))
    assert messages == {"the weights of 'LABEL' are gone: ", ""}
    assert damaged.exists(), "looking changes nothing"


# -- what is suggested ------------------------------------------------------------------------------------------------


def test_what_is_suggested_works_when_it_is_typed(
    trained: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(trained.storage)
    result = run(SWEEP, seeds=(1, 2), storage_path=".", **SMALL)
    assert result.trained == 0
    again = "run(SWEEP, storage_path='.', epochs=1, seeds=(1, 2), dataset='synthetic', train_limit=320, preflight=False"
    assert result.spec.command == f"{again})"
    steps = [step.command for step in result.report.steps]
    assert steps[:2] == [f"{again}, decide=True)", f"{again}, more_seeds=3)"]
    assert any("more_lrs='adam=" in step for step in steps)
    names = {"run": partial(run, plan=True), "SWEEP": SWEEP, "Result": Result}
    typed = [eval(step, names) for step in steps]
    assert {type(one) for one in typed} == {Result, type(result.network("lr 0.01"))}
    assert all("trials" in one.plan[0] for one in typed if isinstance(one, Result))
    report = Path("python/report.html").read_text()
    assert "python -m pytest" not in report
    assert "more_seeds=3" in report


def test_a_sweep_without_a_name_is_said_in_full(storage: str) -> None:
    planned = run(replace(SWEEP, name="nameless"), storage_path=storage, plan=True, **SMALL)
    sweep = "Sweep(name='nameless', question='Which rate?', optimizers=('adam',), lrs=(0.001, 0.01))"
    assert planned.spec.command.startswith(f"run({sweep}, storage_path=")
    assert repr(planned).startswith("nameless: 2 trials (2 pending), ")
    assert not Path(storage).exists()
    with pytest.raises(InputError, match=r"^there is no report: nothing has been stored at "):
        _ = planned.report


def test_a_result_keeps_to_its_own_question(copied: str) -> None:
    old = Result.load(f"{copied}/python")
    second = run(SWEEP, storage_path=copied, seeds=2, lrs=0.01, **SMALL)
    assert (second.trials.height, second.trained) == (1, 0)
    assert (old.trials.height, old.summary.height) == (4, 2)
    with pytest.raises(InputError, match=r"^there is no report: .* holds another question by now; run this one again$"):
        _ = old.report
    assert list(old._repr_mimebundle_()) == ["text/plain"]
    everything = Result.load(second.store.root, everything=True)
    assert everything.trials.height == 4
    assert "all/" in everything.report.files[0]
    assert "text/html" in everything._repr_mimebundle_()


def test_what_cannot_go_on_says_so_for_python(copied: str) -> None:
    plots = Path(copied, "python", "plots")
    shutil.rmtree(plots)
    plots.write_text("")
    with pytest.raises(StoppedError, match=r"still valid; fix that, then call run again to continue$"):
        run(SWEEP, storage_path=copied, seeds=(1, 2), **SMALL)


# -- places -----------------------------------------------------------------------------------------------------------


PLACES = (".", "..", "../python/../..", "report.html", "sweep.json", "plots", "plots/none", "/")


@pytest.mark.parametrize("place", PLACES)
def test_places_near_a_sweep(place: str, trained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(trained.storage) / "python")
    if place == ".":
        assert Result.load(place).spec.name == load([place]).specs[0].name == "python"
        return
    for open_ in (Result.load, lambda place: load([place])):
        with pytest.raises(
            InputError, match=r"^no sweep found at '.*': it .*; pass the results folder of a sweep"
        ) as error:
            open_(place)
        near = "" if place in ("/", "../python/../..") else " such as ."
        assert str(error.value).endswith(f"of a sweep{near}")


def test_sweeps_below_a_place_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("two", "one"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text("{}")
    for place in ("results", "."):
        with pytest.raises(InputError, match=r"has no sweep.json; .* of a sweep such as results/one, results/two$"):
            Result.load(place)


# -- in a thread, and in a notebook -----------------------------------------------------------------------------------


def test_in_a_thread(ray_cluster: None, storage: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Only the main thread hears of signals, so elsewhere none is touched; and nothing is printed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found: list[Result] = []
    keywords = SMALL | {"storage_path": storage, "keep_checkpoints": "none", "lrs": 0.01}
    thread = threading.Thread(target=lambda: found.append(run(SWEEP, **keywords)))
    thread.start()
    thread.join()
    (result,) = found
    assert result.counts["completed"] == 1
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match=r"^no weights are stored of '.*': they were not kept .* are none$"):
        result.network(result.summary["label"][0])


SNAPSHOT = """
import logging, os, random, signal, sys, warnings
import matplotlib, numpy, polars, psutil, torch
from sweeps import Result, Sweep, run
import analysis.plots, analysis.report  # what libraries do when they are imported is theirs

torch.set_num_threads(2)

def snapshot():
    found = {f"env {name}": value for name, value in os.environ.items()}
    found |= {f"rcParams {name}": str(value) for name, value in matplotlib.rcParams.items()}
    found |= {f"signal {number}": str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    found |= {"random": str(random.getstate()), "numpy": str(numpy.random.get_state())}
    found |= {"torch": str(torch.get_rng_state().tolist()), "threads": torch.get_num_threads()}
    found |= {"cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)}
    found |= {"warnings": str(warnings.filters), "hook": str(sys.excepthook), "argv": str(sys.argv)}
    found |= {"log level": logging.root.level, "log handlers": str(logging.root.handlers), "folder": os.getcwd()}
    found |= {"ray log level": logging.getLogger("ray").level}
    children = psutil.Process().children(recursive=True)
    found |= {"processes": [child.pid for child in psutil.wait_procs(children, timeout=10)[1]]}
    return found

before = snapshot()
"""
CHANGES = """
after = snapshot()
changed = [name for name in before | after if before.get(name) != after.get(name)]
{name: (str(before.get(name))[:99], str(after.get(name))[:99]) for name in changed}
"""
LONG = 'run(SWEEP, name="long", seeds=(1, 2, 3), **SMALL | {"epochs": 12})'
INTERRUPTED = f"""
result = {LONG}
result.interrupted, result.trained > 0, result.counts["pending"] > 0
"""
IN_A_THREAD = f"""
import threading
found = []
thread = threading.Thread(target=lambda: found.append({LONG}))
thread.start()
thread.join()
found[0].counts["completed"], found[0].trained < 216, found[0].interrupted
"""


class Watched(NotebookClient):  # type: ignore[misc]
    """Executes a notebook, and notes what its cells show while they run."""

    def __init__(self, notebook: Any, folder: Path) -> None:
        super().__init__(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
        self.shown: list[tuple[int, str]] = []

    def process_message(self, msg: Mapping[str, Any], cell: Any, cell_index: int) -> Any:
        """Takes in a message of the kernel."""
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.shown.append((cell_index, msg["content"]["data"].get("text/plain", "")))
        return super().process_message(msg, cell, cell_index)

    def interrupt_in(self, store: SweepStore) -> None:
        """Interrupts the kernel as Jupyter does, once a sweep has records."""
        while store.read_epochs().is_empty():
            time.sleep(0.1)
        os.killpg(self.km.provisioner.pgid, signal.SIGINT)


@dataclass
class Executed:
    """A notebook that has been executed."""

    folder: Path
    notebook: Any
    shown: Sequence[tuple[int, str]]
    """Cell and text of everything that was shown, also what was replaced later."""
    more: Mapping[str, int]
    """Name of a cell of the test's own -> its number."""

    def cell(self, start: str) -> int:
        """Returns the number of the first cell whose code has a line that begins like this."""
        return next(i for i, cell in enumerate(self.notebook.cells) if f"\n{start}" in f"\n{cell.source}")

    def value(self, number: int, kind: str = "text/plain") -> str:
        """Returns the value of a cell."""
        (found,) = [o for o in self.notebook.cells[number].outputs if o.output_type == "execute_result"]
        return str(found.data[kind])


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook of the documentation in a real kernel, then an interrupted run, and one that goes on in a thread."""
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", 4)
    first = {"before": SNAPSHOT}
    last = {"interrupted": INTERRUPTED, "goes on": IN_A_THREAD, "changes": CHANGES}
    new = {name: nbformat.v4.new_code_cell(code) for name, code in (first | last).items()}
    notebook.cells = [new["before"], *notebook.cells, *(new[name] for name in last)]
    folder = tmp_path_factory.mktemp("notebook")
    client = Watched(notebook, folder)
    store = SweepStore(str(folder / "results"), "long")
    threading.Thread(target=client.interrupt_in, args=(store,), daemon=True).start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT))
        for name in without_ray_names():
            environment.delenv(name)
        client.execute()
    return Executed(folder, notebook, client.shown, {name: notebook.cells.index(cell) for name, cell in new.items()})


def without_ray_names() -> list[str]:
    """Returns the environment variables of the Ray of this process, of which a kernel must not know."""
    return [name for name in os.environ if name not in without_ray()]


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in nbformat.read(ROOT / "docs" / "notebook.ipynb", 4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


def test_the_notebook_runs_without_complaints(executed: Executed) -> None:
    for cell in executed.notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "stream", output.text
    assert float(executed.value(executed.cell("evaluate("))) > 0.9
    assert executed.value(executed.cell("more.trained")) == "(12, 24)"
    assert "highest final validation accuracy" in executed.value(executed.cell("result.answer"))
    assert (executed.folder / "results" / "notebook" / "report.html").exists()


def test_progress_is_shown_live_and_taken_away(executed: Executed) -> None:
    number = executed.cell("result = run(")
    live = [text for cell, text in executed.shown if cell == number and "training now" in text]
    assert len(live) >= 3
    assert "36 epochs" in " ".join(live)
    left = [output.data["text/plain"] for output in executed.notebook.cells[number].outputs]
    assert not any("training now" in text for text in left)
    assert [text.strip() for text in left if "epochs" in text] == [
        "18 trials, 36 trial-epochs",
        next(text.strip() for text in left if "epochs to train: 36" in text),
        "36 trial-epochs delivered, 36 epochs trained",
    ]


def test_a_plot_is_shown_as_a_picture(executed: Executed) -> None:
    picture = base64.b64decode(executed.value(executed.cell('result.plot("accuracy_by_lr")'), "image/png"))
    assert_is_a_picture(picture)


def assert_is_a_picture(content: bytes) -> None:
    """Refuses what is blank."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert min(pixels.shape[:2]) >= 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (pixels < 250).any(axis=2).mean() > 0.01


def test_an_interrupt_ends_a_run_in_good_order(executed: Executed) -> None:
    assert executed.value(executed.more["interrupted"]) == "(True, True, True)"
    said = [text for cell, text in executed.shown if cell == executed.more["interrupted"]]
    assert any(text.startswith("interrupted: ") and "run it again to go on" in text for text in said)


def test_the_next_run_in_the_kernel_goes_on(executed: Executed) -> None:
    assert executed.value(executed.more["goes on"]) == "(18, True, False)"


def test_nothing_is_left_behind(executed: Executed) -> None:
    assert executed.value(executed.more["changes"]) == "{}"


def test_a_result_is_shown_as_its_report(executed: Executed, tmp_path: Path) -> None:
    """In a page of its own within the notebook's, in a real browser."""
    shown = executed.value(executed.cell("result = run("), "text/html")
    assert shown.startswith("<iframe srcdoc=")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    page = tmp_path / "notebook.html"
    page.write_text(f"<!DOCTYPE html><meta charset='utf-8'><h1>Mine</h1>{shown}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 900})
        complaints: list[str] = []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(page.as_uri())
        (frame,) = tab.frames[1:]
        frame.wait_for_selector("figure img")
        assert frame.inner_text("h1") == "Which optimizer learns the patterns best, and at which learning rate?"
        assert frame.eval_on_selector_all("figure img", "all => all.every(one => one.naturalWidth > 100)")
        first = "table.sortable tbody tr:first-child td.label"
        best = frame.inner_text(first)
        frame.click("table.sortable th:nth-child(3) button")  # its scripts run: sorted by accuracy, the worst first
        assert frame.inner_text(first) != best
        tab.screenshot(path=str(tmp_path / "notebook.png"))
        # Neither's style touches the other.
        mine = tab.eval_on_selector("h1", "one => getComputedStyle(one).fontFamily")
        theirs = frame.eval_on_selector("h1", "one => getComputedStyle(one).fontFamily")
        browser.close()
    assert complaints == []
    assert mine != theirs
    assert_is_a_picture((tmp_path / "notebook.png").read_bytes())
