import base64
import hashlib
import html
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from handmade import Run, handmade
from races import play, racers
from rich.console import Console
from synthetic import Synthetic, synthetic_sweep

from analysis import commands, plot, report
from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.configurations import trainings
from analysis.loading import SweepData, combine, load
from analysis.origin import of_statistics
from analysis.plots import PLOTS, Drawn, draw_plots
from analysis.plots.style import Picture
from analysis.report import COLUMNS, Report, print_report, report_of, write_report
from analysis.store import parquet_bytes
from sweeps.policies import Race
from workloads.trial import STATUSES, TrialConfig

ROOT = Path(report.__file__).parents[1]
SMALL = synthetic_sweep(
    "small", optimizers=("adam", "sgd"), lrs=(0.001, 0.01, 1.0), seeds=(1, 2), failed=(2,), epochs=3
)


def page_of(sweep: Synthetic) -> str:
    """The page but for its pictures, which take time to draw."""
    summary = summarise(sweep.data)
    return report.render(sweep.data, summary, answer(sweep.data, summary), [], [f"results/{sweep.spec.name}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def written(folder: Path) -> Report:
    return write_report([SMALL.write(str(folder)).location])


@pytest.fixture(scope="module")
def page(written: Report, folder: Path) -> str:
    return (folder / "small" / "report.html").read_text()


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page)))


def test_the_report_names_the_files_it_wrote(written: Report, folder: Path):
    assert written.failures == ()
    assert all(Path(file).is_file() for file in written.files)
    written_there = {
        str(file) for file in (folder / "small").rglob("*") if file.suffix in (".png", ".html", ".parquet")
    }
    assert set(written.files) == {file for file in written_there if "/parts/" not in file}
    for file in written.files:
        if file.endswith(".png"):
            assert Path(file).with_suffix(".svg").is_file()


def test_the_ranking_is_the_content_of_summary_parquet(written: Report, folder: Path):
    assert pl.read_parquet(folder / "small" / "summary.parquet").equals(written.ranking)
    assert written.ranking.equals(summarise(load([str(folder / "small")])))


def test_the_page_says_what_was_asked_and_found(page: str, written: Report):
    text = text_of(page)
    assert SMALL.spec.question in text
    assert len(written.answer) >= 2
    for sentence in written.answer:
        assert sentence in text


def test_every_configuration_is_a_row(page: str, written: Report):
    body = re.search("<tbody>(.*?)</tbody>", page, re.S)
    assert body is not None
    assert body[1].count("<tr>") == written.ranking.height
    best = written.ranking.row(0, named=True)
    assert f"{best['final_val_accuracy_mean']:.4f}" in body[1]


def test_every_picture_is_in_the_page(page: str, written: Report):
    pictures = [Path(file).stem for file in written.files if file.endswith(".png")]
    assert re.findall('<figure id="([a-z_]+)"', page) == pictures
    assert pictures == [one.name for one in PLOTS if one.name in pictures]
    assert page.count('<img src="data:image/svg+xml;base64,') == len(pictures)


def test_the_page_loads_nothing_and_allows_only_its_own_script_and_style(page: str):
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; img-src data:")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "http" not in re.sub("http-equiv", "", page)


def test_the_ledger_adds_up(page: str, written: Report, folder: Path):
    data = load([str(folder / "small")])
    counts = report.ledger(data)
    assert sum(count for _, count in counts) == len(SMALL.spec.trials) == 12
    assert [status for status, _ in counts] == [status for status in STATUSES if status in dict(counts)]
    parts = " + ".join(f"{count} {status}" for status, count in counts)
    assert f"12 trials planned = {parts}." in text_of(page)


def test_what_did_not_complete_is_listed_with_its_reason(page: str, folder: Path):
    found = report.exceptions(load([str(folder / "small")]))
    by_status = {row["status"]: row for row in found.iter_rows(named=True)}
    assert by_status["failed"]["seeds"] == [1]
    assert by_status["diverged"]["seeds"] == [1, 2]
    for row in by_status.values():
        assert row["label"] in text_of(page)
        assert row["error"] in text_of(page)


THREE = racers(("adam",), (0.1, 0.2, 0.3))
# 0.1 and 0.2 take turns, 0.3 is far behind: 3 x 3 trials, then 2 for each of seeds 4 and 5.
TURNS = {0.1: (0.9, 0.8, 0.9, 0.8, 0.9), 0.2: (0.8, 0.9, 0.8, 0.9, 0.8), 0.3: (0.0, 0.0, 0.0, 0.0, 0.0)}


def a_race(name: str = "race", rounds: int | None = None):
    policy = Race(configurations=THREE, seeds=(1, 2, 3, 4, 5), labels=(HOSTILE, "0.2", "0.3"), start=3)
    return play(policy, lambda trial: TURNS[trial.lr][trial.seed - 1], rounds=rounds, name=name)


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    after = page.partition(heading)[2]
    body = re.search("<tbody>(.*?)</tbody>", after, re.S)
    assert body is not None
    return [[text_of(cell).strip() for cell in row.split("</td>")[:-1]] for row in body[1].split("</tr>")[:-1]]


def test_a_race_tells_how_it_was_decided() -> None:
    race = a_race()
    found = summarise(race.data)
    page = report.render(race.data, found, answer(race.data, found), [], ["results/race"])
    assert "<img src=x" not in page
    rows = rows_of(page, "How it was decided")
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    assert [row[1] for row in rows] == [re.sub(r"\s+", " ", reason) for reason in race.decisions["reason"]]
    assert rows[0][2] == "9"
    assert rows[-1][2] == "0"
    assert sum(int(row[2]) for row in rows) == 13
    assert "looked at 13 trials; 5 seeds for each of the 3 configurations would be 15." in text_of(page)


def test_a_running_race_says_what_it_added() -> None:
    race = a_race(rounds=0)
    found = summarise(race.data)
    page = report.render(race.data, found, answer(race.data, found), [], ["results/race"])
    assert rows_of(page, "How it was decided") == [["1", "3 seeds for each of 3 configurations to begin with.", "9"]]
    assert "looked at" not in page


def test_only_races_tell_how_they_were_decided(page: str) -> None:
    assert "How it was decided" not in page
    race = a_race("a race")
    both = combine([SMALL.parts, race.sweep.parts], decisions=[race.decisions, race.decisions])
    assert [name for name, _ in report.decisions(both)] == ["a race"]


def test_left_out_combinations_are_explained():
    spec = replace(SMALL.spec, name="left_out", left_out={"nesterov needs momentum": 7})
    text = text_of(page_of(replace(SMALL, spec=spec)))
    assert "left_out: 7 combinations of the grid were dropped: nesterov needs momentum." in text


def test_provenance_and_commands_are_there(page: str, folder: Path):
    text = text_of(page)
    assert "git_commit " + "0" * 40 in text
    assert SMALL.spec.command in text
    assert f"{sys.orig_argv[0]} {commands.shown(commands.ROOT / 'analysis/report.py')} {folder / 'small'}" in text


def test_nested_facts_become_lines():
    assert report.flat({"git": {"commit": "abc", "dirty": False}, "torch": "2"}) == [
        ("git.commit", "abc"),
        ("git.dirty", "False"),
        ("torch", "2"),
    ]


HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


def test_whatever_a_sweep_holds_is_shown_as_text():
    spec = replace(
        SMALL.spec,
        name="hostile",
        question=HOSTILE,
        command=HOSTILE,
        provenance={HOSTILE: HOSTILE},
        left_out={HOSTILE: 1},
    )
    statuses = SMALL.statuses.with_columns(error=pl.lit(HOSTILE), traceback=pl.lit(HOSTILE))
    page = page_of(replace(SMALL, spec=spec, statuses=statuses))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("<script>") == 1
    assert page.count(html.escape(HOSTILE, quote=False).replace('"', "&#34;").replace("'", "&#39;")) >= 6


def test_a_large_table_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "MOST_ROWS", 4)
    monkeypatch.setattr(report, "MOST_EXCEPTIONS", 1)
    page = page_of(SMALL)
    body = re.search("<tbody>(.*?)</tbody>", page, re.S)
    assert body is not None
    assert body[1].count("<tr>") == 4
    assert "The best 4 of 6 configurations; all configurations are in summary.parquet." in text_of(page)
    assert "The first 1 of 2 lines; every trial is in trials.parquet." in text_of(page)


@pytest.mark.parametrize("finished", [0.0, 0.4])
def test_a_running_sweep_has_a_report(finished: float):
    text = text_of(page_of(synthetic_sweep("running", finished=finished, epochs=4)))
    assert "pending" in text
    assert ("No trial has finished yet" in text) == (finished == 0)


def test_a_sweep_without_records_has_a_report_without_pictures(tmp_path: Path):
    sweep = replace(SMALL, epochs=SMALL.epochs.clear(), statuses=SMALL.statuses.clear())
    written = write_report([sweep.write(str(tmp_path)).location])
    page = Path(written.files[0]).read_text()
    assert "Nothing has been recorded yet." in page
    assert "<img" not in page


@pytest.mark.parametrize("meanwhile", [False, True])
def test_it_is_made_anew_unless_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool):
    """Something that came in while a sweep was read may be in its summary or not: it is not said to be in it."""
    half = replace(SMALL, epochs=SMALL.epochs[:9])
    store = half.write(str(tmp_path))
    monkeypatch.setattr("analysis.plots.draw_plots", lambda *_, **__: [])

    def read(places: list[str]) -> SweepData:
        found = load(places)
        if meanwhile:
            store._append("epochs", SMALL.epochs[9:])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(report, "load", read)
        report_of(store)
    made = store.read_table_and_metadata("summary")[1]["made_from"]
    assert (made == of_statistics(half.spec, store.files("parts"))) == (not meanwhile)

    written: list[object] = []
    monkeypatch.setattr(report, "write_summary", lambda *them: written.append(them))
    report_of(store)
    assert len(written) == meanwhile
    content = store.read("summary.parquet")
    for theirs in (b"", content[:-1], parquet_bytes(pl.read_parquet(io.BytesIO(content)), {})):
        store.write("summary.parquet", theirs)
        written.clear()
        report_of(store)
        assert len(written) == 1, "what lies there is not what was written"


def test_several_sweeps_are_one_report_in_a_folder_beside_the_first(tmp_path: Path):
    other = synthetic_sweep("other", optimizers=("momentum",), lrs=(0.02,), seeds=(1, 2), epochs=3)
    first, second = SMALL.write(f"{tmp_path}/a").location, other.write(f"{tmp_path}/b").location
    found = write_report([first, f"file://{second}"])
    assert found.ranking.height == 6 + 1
    assert [path.parent for path in tmp_path.rglob("report.html")] == [tmp_path / "a" / "small-and-other"]
    text = text_of((tmp_path / "a" / "small-and-other" / "report.html").read_text())
    assert "small, other" in text
    assert text.count("Which made-up trial is best?") == 1
    assert "python sweeps/other.py" in text


def test_the_sweeps_own_pictures_come_first():
    pictures = [
        Drawn(name, "", Picture(b"", b"", wide=False)) for name in ("seeds", "budget", "train_loss", "fork_tree")
    ]
    specs = [replace(SMALL.spec, plots=("train_loss", "no_such_plot")), replace(SMALL.spec, plots=("budget",))]
    ordered = report.in_order_of_answer(pictures, specs)
    assert [one.name for one in ordered] == ["train_loss", "budget", "seeds", "fork_tree"]


def test_columns_without_anything_to_say_are_left_out(written: Report):
    titles = [column.title for column in report.columns_of(trainings(written.ranking))]
    assert titles == [column.title for column in COLUMNS if column.title in titles]
    assert {"95% interval", "diverged"} <= set(titles)
    one_seed = summarise(synthetic_sweep(optimizers=("adam",), lrs=(0.001, 0.002, 0.003)).data)
    assert {"95% interval", "diverged", "rank"}.isdisjoint(c.title for c in report.columns_of(trainings(one_seed)))


def test_balanced_accuracy_is_shown_where_it_was_measured() -> None:
    trials = [TrialConfig(lr=0.01, epochs=2, seed=seed) for seed in (1, 2)]
    plain = handmade({trial: Run((0.5, 0.9)) for trial in trials})
    assert "balanced" not in [column.title for column in report.columns_of(trainings(summarise(plain)))]
    balanced = handmade({trial: Run((0.5, 0.9), balanced_accuracy=(0.1, 0.2 * trial.seed)) for trial in trials})
    summary = trainings(summarise(balanced))
    (column,) = (column for column in report.columns_of(summary) if column.title == "balanced")
    assert column.text(summary.row(0, named=True)) == "0.3000", "the mean over seeds of the last epoch's"


def test_a_missing_value_is_an_empty_cell(written: Report):
    diverged = trainings(written.ranking).filter(pl.col("n") == 0).row(0, named=True)
    texts = {column.title: column.text(diverged) for column in COLUMNS}
    assert texts["val accuracy"] == texts["95% interval"] == ""
    assert texts["diverged"] == "2"


def test_the_report_is_printed(written: Report):
    output = io.StringIO()
    print_report(written, Console(file=output, width=100))
    text = output.getvalue()
    assert "95% interval" in text
    assert text.index(written.ranking["label"][0]) < text.index(written.ranking["label"][-1])
    assert re.sub(r"\s+", " ", " ".join(written.answer)) in re.sub(r"\s+", " ", text)
    assert written.files[0] in text
    assert f"({sum(file.endswith('.png') for file in written.files)} plots)" in text


def printed(written: Report, encoding: str = "utf-8") -> str:
    output = io.BytesIO()
    file = io.TextIOWrapper(output, encoding=encoding, write_through=True)
    print_report(written, Console(file=file, width=40))
    return output.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_the_report_is_printed_in_any_encoding(written: Report, encoding: str):
    text = printed(replace(written, answer=("Größer als Ω – gut.",)), encoding)
    assert re.search(r"0\.\d{4} - [01]\.\d{4}", text), "the dash of the intervals"
    assert text.count("-") > 1
    assert ("Größer als" in text) == (encoding == "latin-1")
    assert "\\u03a9 - gut." in text


def test_away_from_a_terminal_the_table_is_never_wrapped_or_cut(written: Report):
    label = "[old] " + "a very long label $x_1$ " * 10
    ranking = written.ranking.with_columns(label=pl.lit(label) + pl.col("label"))
    lines = printed(replace(written, ranking=ranking)).splitlines()
    rows = [line for line in lines if label in line]
    assert len(rows) == ranking.height
    assert len({line.index(label) for line in rows}) == 1
    assert "…" not in "".join(rows)


def test_on_a_narrow_terminal_labels_are_broken_not_cut(written: Report, monkeypatch: pytest.MonkeyPatch):
    output = io.StringIO()
    monkeypatch.setattr(output, "isatty", lambda: True)
    ranking = written.ranking.with_columns(label=pl.lit("Þ" * 90))  # no path that is printed has such a letter
    print_report(replace(written, ranking=ranking), Console(file=output, width=80))
    assert "…" not in output.getvalue()
    assert output.getvalue().count("Þ") == 90 * ranking.height


def test_a_picture_that_cannot_be_drawn_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no picture today")

    plots = [replace(one, draw=broken) if one.name == "seeds" else one for one in PLOTS if one.name in KEPT]
    monkeypatch.setattr("analysis.plots.PLOTS", tuple(plots))
    found = write_report([SMALL.write(str(tmp_path)).location])
    assert [Path(file).stem for file in found.files if file.endswith(".png")] == ["accuracy_by_lr"]
    assert [(one.name, one.error) for one in found.failures] == [("seeds", "ZeroDivisionError: no picture today")]
    page = text_of((tmp_path / "small" / "report.html").read_text())
    assert "Plot seeds could not be drawn: ZeroDivisionError: no picture today traceback Traceback" in page
    assert "Plot seeds could not be drawn" in printed(found)
    with pytest.raises(ZeroDivisionError):
        draw_plots(SMALL.data, summarise(SMALL.data))


KEPT = ("seeds", "accuracy_by_lr")


def test_equal_trainings_are_one_row():
    settings = [{"factor": 0.1, "patience": patience, "threshold": 0.1} for patience in (50, 60, 70)]
    sweep = synthetic_sweep("plateau", optimizers=("adam",), schedulers={"plateau": settings}, lrs=(0.002,), epochs=3)
    page = page_of(sweep)
    assert "patience 50 (and 2 identical: the rate was never reduced)" in page
    assert "All 3 configurations had bitwise identical training and share a row." in text_of(page)


def test_the_script_runs_as_the_readme_says(folder: Path, written: Report):
    command = [sys.executable, "analysis/report.py", str(folder / "small")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert written.answer[0].split(",")[0] in done.stdout
    assert "report.html" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (report, ["nowhere/small"], "no sweep found at 'nowhere/small'"),
        (report, [], "no sweep given"),
        (report, ["ftp://x/small"], "storage path 'ftp://x' is not usable"),
        (plot, ["SMALL", "--plot", "pie"], "unknown plot 'pie'; known: seeds, race, accuracy_by_lr"),
        (plot, ["SMALL", "--plot", "seeds", "plateau_pairs"], "plot 'plateau_pairs' does not apply to this sweep"),
    ],
)
def test_a_users_error_is_one_line(
    script: object, arguments: list[str], message: str, folder: Path, written: Report,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    given = [str(folder / "small") if argument == "SMALL" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["script", *given])
    with pytest.raises(SystemExit) as exit_:
        script.main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_single_pictures_are_drawn_on_request(folder: Path, written: Report):
    (file,) = plot.write_plots([str(folder / "small")], ["seeds"])
    assert file == f"{folder}/small/plots/seeds.png"
    assert Path(file).read_bytes().startswith(b"\x89PNG")


def test_the_report_says_how_configurations_were_compared() -> None:
    runs = {
        TrialConfig(optimizer=name, epochs=1, seed=seed): Run((mean + 0.001 * seed * len(name),))
        for name, mean in {"adam": 0.9, "sgd": 0.5}.items()
        for seed in range(8)
    }
    data = handmade(runs)
    careful = replace(data, specs=tuple(replace(spec, care=0.005) for spec in data.specs))
    for sweep, ending in ((data, ""), (careful, " Differences below 0.005 do not matter (--care).")):
        summary = summarise(sweep)
        text = text_of(report.render(sweep, summary, answer(sweep, summary), [], ["results/x"]))
        assert f"{report.METHOD}{ending} " in text
        assert re.search(r"against #1 .* 1 adam .* 2 sgd .* 2 differ ", text)
    assert "confidence sequences" not in text_of(page_of(SMALL)), "two seeds have no verdict"
