"""The report in a real Chromium: loads without complaint, sorts, shows every picture, cuts nothing off, at any size."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image, ImageStat
from races import noisy, play, racers
from synthetic import PLATEAU_SETTINGS, synthetic_sweep

from analysis.configurations import trainings
from analysis.report import columns_of, write_report
from sweeps.policies import Race

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
VIEWS = {
    "desktop": {"viewport": DESKTOP, "color_scheme": "light"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """A report with long labels, several seeds, diverged and failed trials, and hostile text."""
    sweep = synthetic_sweep(
        "browser",
        optimizers=("adam", "momentum"),
        schedulers={"plateau": PLATEAU_SETTINGS[::24], "none": [{}]},
        lrs=(0.001, 0.01, 1.0),
        seeds=(1, 2),
        epochs=6,
        failed=(2,),
    )
    spec = replace(sweep.spec, question=f"Which one? {HOSTILE}", provenance={"long": "x" * 300, HOSTILE: "y"})
    statuses = sweep.statuses.with_columns(error=pl.lit(HOSTILE), traceback=pl.lit("Traceback " + "z" * 500))
    folder = tmp_path_factory.mktemp("results")
    written = write_report([replace(sweep, spec=spec, statuses=statuses).write(str(folder)).location])
    return folder / "browser" / "report.html", written.ranking


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a race of configurations with long and hostile names."""
    compared = racers(("adam", "sgd"), (0.1, 0.2))
    names = (HOSTILE, "a" * 130, "some setting 0.25, another one 1e-5, lr 0.1", "short")
    policy = Race(configurations=compared, seeds=tuple(range(25)), labels=names)
    means = dict(zip(compared, (0.9, 0.899, 0.901, 0.6), strict=True))
    folder = tmp_path_factory.mktemp("races")
    return Path(write_report([play(policy, noisy(means)).write(str(folder)).location]).files[0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """The report in a tab, with all that the browser complained about or asked for."""

    def __init__(self, browser: Any, path: Path, **view: Any) -> None:
        self.context = browser.new_context(**view)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture(params=VIEWS, scope="module")
def opened(request: pytest.FixtureRequest, browser: Any, report: tuple[Path, pl.DataFrame]) -> Iterator[Opened]:
    tab = Opened(browser, report[0], **VIEWS[request.param])
    yield tab
    tab.context.close()


@pytest.fixture
def desktop(browser: Any, report: tuple[Path, pl.DataFrame]) -> Iterator[Opened]:
    tab = Opened(browser, report[0], **VIEWS["desktop"])
    yield tab
    tab.context.close()


def test_it_opens_without_complaint_and_asks_for_nothing_else(opened: Opened, report: tuple[Path, pl.DataFrame]):
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report[0].as_uri()]


def test_every_picture_is_shown(opened: Opened):
    pictures = opened.page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.clientWidth, i.alt])))"
    )
    assert len(pictures) >= 12
    for natural, shown, description in pictures:
        assert natural > 0
        assert shown > 200
        assert description


OVERFLOWING = """() => [...document.querySelectorAll("body *")]
  .filter(e => !e.matches(".scroll, .scroll img, script") && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
  .map(e => e.tagName + " " + e.textContent.slice(0, 80))"""

UNREACHABLE = """() => [...document.querySelectorAll(".scroll")]
  .filter(e => e.scrollWidth > e.clientWidth && !["auto", "scroll"].includes(getComputedStyle(e).overflowX))
  .map(e => e.textContent.slice(0, 80))"""


def test_no_text_is_cut_off(opened: Opened):
    opened.page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert opened.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert opened.page.evaluate(OVERFLOWING) == []
    assert opened.page.evaluate(UNREACHABLE) == []


@pytest.mark.parametrize("view", VIEWS)
def test_how_a_race_was_decided_can_be_read(browser: Any, race: Path, view: str):
    tab = Opened(browser, race, **VIEWS[view])
    assert tab.complaints == []
    assert tab.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert tab.page.evaluate(OVERFLOWING) == []
    assert tab.page.evaluate(UNREACHABLE) == []
    lines = tab.page.locator(".decisions tbody tr").all_inner_texts()
    assert len(lines) > 3
    assert HOSTILE in " ".join(lines)
    sizes = (
        "[document.querySelector('.decisions').clientHeight, document.querySelector('.decisions td.label').clientWidth]"
    )
    height, width = tab.page.evaluate(sizes)
    assert height < 700, "long tables scroll"
    assert width > 110, "and their sentences have room"
    tab.context.close()


def cells(tab: Opened, column: int) -> list[str]:
    script = "column => [...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[column].innerText)"
    found: list[str] = tab.page.evaluate(script, column)
    return found


def test_the_table_sorts_by_any_column_both_ways_with_missing_values_last(
    desktop: Opened, report: tuple[Path, pl.DataFrame]
):
    ranking = trainings(report[1])
    columns = columns_of(ranking)
    headings = desktop.page.query_selector_all("table.sortable th button")
    sorted_by = "[...document.querySelectorAll('table.sortable th')].map(heading => heading.ariaSort)"
    for place, (heading, column) in enumerate(zip(headings, columns, strict=True)):
        for direction in ("ascending", "descending"):
            heading.click()
            assert desktop.page.evaluate(sorted_by) == [direction if i == place else None for i in range(len(columns))]
            key = pl.col(column.value)
            ordered = ranking.sort(key, descending=direction == "descending", nulls_last=True)
            expected = [column.text(row) for row in ordered.iter_rows(named=True)]
            shown = cells(desktop, place)
            assert shown == expected if column.numeric else sorted(shown) == sorted(expected)
            assert "" not in shown[: len(shown) - expected.count("")]
    labels = cells(desktop, [column.value for column in columns].index("name"))
    assert len(set(labels)) == ranking.height


def test_the_table_sorts_by_keyboard(desktop: Opened):
    before = cells(desktop, 1)
    desktop.page.focus("table.sortable th:first-child button")
    desktop.page.keyboard.press("Enter")
    desktop.page.keyboard.press("Enter")
    assert desktop.page.get_attribute("table.sortable th:first-child", "aria-sort") == "descending"
    assert cells(desktop, 1) != before


def brightness(tab: Opened, selector: str) -> float:
    """Mean of an element as it is seen: 0 is black, 255 white."""
    seen = Image.open(io.BytesIO(tab.page.locator(selector).first.screenshot())).convert("L")
    return ImageStat.Stat(seen).mean[0]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_page_and_pictures_follow_the_colour_scheme(
    browser: Any, report: tuple[Path, pl.DataFrame], scheme: str, dark: bool
):
    tab = Opened(browser, report[0], viewport=DESKTOP, color_scheme=scheme)
    for selector in ("header", "figure img", ".scroll table"):
        assert (brightness(tab, selector) < 80) is dark
        assert (brightness(tab, selector) > 180) is not dark
    tab.context.close()


def test_on_paper_everything_is_light_and_nothing_is_cut_off(browser: Any, report: tuple[Path, pl.DataFrame]):
    tab = Opened(browser, report[0], viewport={"width": 720, "height": 1000}, color_scheme="dark")
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert brightness(tab, "figure img") > 180
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 720
    assert tab.page.pdf(format="A4").startswith(b"%PDF")
    tab.context.close()


def test_a_script_that_slipped_in_would_not_run(desktop: Opened):
    desktop.page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s)"
    )
    assert desktop.page.evaluate("window.ran") is None
    assert "Content Security Policy" in desktop.complaints[0]
