"""What every picture has to be: complete, uncut, with its legend beside the curves; and the scales they share."""

import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from lucky import lucky
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from races import noisy, play, racers
from synthetic import PLATEAU_SETTINGS, synthetic_cuts, synthetic_sweep

from analysis.aggregate import summarise
from analysis.loading import SweepData, combine
from analysis.plots import PLOTS, Plot, scales, style
from analysis.plots.style import DARK, INK, MUTED, PAPER
from sweeps.policies import Race
from workloads.trial import TrialConfig

ROOT = Path(style.__file__).parents[2]
SCHEDULES = {"none": [{}], "step": [{}], "cosine": [{}], "plateau": [{"factor": 0.3, "patience": 2, "threshold": 0.1}]}


def several_sweeps() -> SweepData:
    sweeps = (
        synthetic_sweep("schedulers", optimizers=("momentum",), schedulers=SCHEDULES, lrs=(0.02,), epochs=12),
        synthetic_sweep("plateau", optimizers=("adam",), schedulers={"plateau": PLATEAU_SETTINGS[:20]}, lrs=(0.02,)),
    )
    return combine([(one.spec, one.epochs, one.statuses) for one in sweeps])


def a_race(optimizers: tuple[str, ...], most: int, care: float | None = None) -> SweepData:
    compared = racers(optimizers, (0.001, 0.01))
    means = {one: 0.9 - 0.002 * place**2 for place, one in enumerate(compared)}

    def train(trial: TrialConfig) -> float | None:
        return None if trial.replace(seed=0) == compared[-1] else noisy(means)(trial)

    groups = tuple(one.optimizer for one in compared)
    return play(Race(configurations=compared, seeds=tuple(range(most)), groups=groups, care=care), train).data


ODD = ("a" * 180, "_dollars $x_1$ $", "[old] <b>&amp;</b> -- {0} %s", "日本語 ключ", "sgd")
SWEEPS = {
    "optimizers": synthetic_sweep(seeds=(1, 2, 3), failed=(4,)).data,
    "schedules": synthetic_sweep(
        optimizers=("momentum",), schedulers=SCHEDULES, lrs=(0.01, 0.02, 1.0), seeds=(1, 2), epochs=15
    ).data,
    "one schedule": synthetic_sweep(optimizers=("adam", "sgd"), schedulers=("step",)).data,
    "plateau": synthetic_sweep(
        optimizers=("momentum",), schedulers={"plateau": PLATEAU_SETTINGS}, lrs=(0.02,), seeds=(1, 2), epochs=20
    ).data,
    "cuts": synthetic_cuts(seeds=(1, 2, 3, 4, 5)).data,
    "running": synthetic_sweep(seeds=(1, 2), finished=0.3).data,
    "several": several_sweeps(),
    "many rates": synthetic_sweep(optimizers=("sgd",), lrs=tuple(np.geomspace(1e-4, 1, 23)), schedulers=SCHEDULES).data,
    "odd names": synthetic_sweep(
        optimizers=ODD,
        schedulers=("none", "cosine"),
        lrs=(0.001, 0.01, 5.0),
        seeds=(1, 2),
        epochs=4,
    ).data,
    "all diverged": synthetic_sweep(optimizers=("adam", "sgd"), lrs=(10.0, 20.0), seeds=(1, 2)).data,
    "race": a_race(("adam", "sgd", "momentum"), 12, care=0.01),
    "race of odd names": a_race(ODD, 8),
    "one trial": synthetic_sweep(optimizers=("adam",), lrs=(0.002,), epochs=1).data,
    "luck": lucky(),
    "luck of three": lucky(lrs=(0.001, 0.003, 0.01)),
}
"""Kinds of sweeps that pictures have to cope with."""

SUMMARIES = {name: summarise(sweep) for name, sweep in SWEEPS.items()}
DATA = {(name, plot.name): plot.data(sweep, SUMMARIES[name]) for name, sweep in SWEEPS.items() for plot in PLOTS}
SHOWN = [key for key, numbers in DATA.items() if numbers is not None]
HARDEST = (
    *("odd names", "several", "many rates", "plateau", "schedules", "running", "optimizers", "one schedule"),
    *("race of odd names", "race", "cuts", "luck of three", "luck"),
)
DRAWN = [
    (sweep, plot.name) for plot in PLOTS for sweep in [sweep for sweep in HARDEST if (sweep, plot.name) in SHOWN][:2]
]
"""Every plot of two sweeps: drawing takes time."""
BY_NAME: dict[str, Plot] = {plot.name: plot for plot in PLOTS}


def test_every_plot_has_something_to_say_about_some_sweep():
    assert {plot for _, plot in SHOWN} == set(BY_NAME)


def test_plots_have_names_for_files_and_captions():
    assert len(BY_NAME) == len(PLOTS)
    for plot in PLOTS:
        assert re.fullmatch("[a-z_]+", plot.name)
        assert plot.caption.endswith(".")


def test_notes_are_sentences():
    assert {note[-1] for key in SHOWN if (note := DATA[key].note)} == {"."}


@pytest.mark.parametrize(("sweep", "plot"), DRAWN)
def test_nothing_is_cut_off_and_the_legend_is_clear_of_the_axes(sweep: str, plot: str):
    with style.styled():
        figure = Figure(figsize=(style.WIDTH, style.HEIGHT), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        BY_NAME[plot].draw(DATA[sweep, plot], figure)
        canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    assert width <= 20
    for legend in figure.legends:
        assert 0 < len(figure.get_suptitle()) <= style.LONGEST_TITLE
        title = next(text for text in figure.texts if text.get_text() == figure.get_suptitle())
        assert not legend.get_window_extent().overlaps(title.get_window_extent())
        for axes in figure.axes:
            assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_sweep_without_a_single_record_has_no_pictures(plot: Plot):
    sweep = synthetic_sweep(finished=0)
    empty = combine([(sweep.spec, sweep.epochs.clear(), sweep.statuses.clear())])
    assert plot.data(empty, summarise(empty)) is None


def some_picture() -> style.Picture:
    plot = BY_NAME["accuracy_by_lr"]
    return style.picture(lambda figure: plot.draw(DATA["optimizers", plot.name], figure))


@pytest.mark.parametrize("sweep", ["odd names", "all diverged", "one trial"])
def test_odd_sweeps_have_pictures(sweep: str):
    for plot, numbers in [(plot, DATA[sweep, plot.name]) for plot in PLOTS]:
        if numbers is not None and (sweep, plot.name) not in DRAWN:
            picture = style.picture(lambda figure, plot=plot, numbers=numbers: plot.draw(numbers, figure))
            ET.fromstring(picture.svg)


@pytest.mark.parametrize(
    ("settings", "rc"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline_not_here"}, ""),
        ({"MPLBACKEND": "nonsense"}, "axes.facecolor: red\ntext.usetex: True\nfigure.autolayout: True\n"),
        ({"MPLCONFIGDIR": "/proc/no/such/place"}, "font.size: 40\nno.such.key: 1\nsavefig.dpi: 7\n"),
        ({}, b"\xff\xfe: broken"),
    ],
    ids=["notebook", "no such backend", "settings folder", "not a text"],
)
def test_pictures_do_not_depend_on_the_users_settings(settings: dict[str, str], rc: str | bytes, tmp_path: Path):
    file = tmp_path / "my_matplotlibrc"
    file.write_bytes(rc.encode() if isinstance(rc, str) else rc)
    code = """
import os, sys
def mine():
    return [pair for pair in sorted(os.environ.items()) if pair[0].startswith("M")]
before = mine()
from analysis.plots import style
assert mine() == before
assert "matplotlib.pyplot" not in sys.modules
print(style.picture(lambda figure: figure.add_subplot().set_title("$a")).svg.decode(), end="")
"""
    environment = os.environ | {"MATPLOTLIBRC": str(file), "PYTHONPATH": str(ROOT)} | settings
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == style.picture(lambda figure: figure.add_subplot().set_title("$a")).svg.decode()


def test_pictures_do_not_depend_on_what_was_set_before():
    expected = some_picture()
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 40, "text.parse_math": True, "savefig.dpi": 7}):
        assert some_picture() == expected


def test_text_is_never_a_formula():
    picture = style.picture(lambda figure: figure.add_subplot().set_title("d$/set_1_2/e$ \\frac"))
    assert b"d$/set_1_2/e$" in picture.svg


def test_a_picture_is_a_png_and_an_svg_and_the_same_every_time():
    first = some_picture()
    assert Image.open(io.BytesIO(first.png)).width == style.WIDTH * 150
    assert ET.fromstring(first.svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert some_picture() == first


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(mpl.rcParams)
    some_picture()
    assert dict(mpl.rcParams) == before


def test_an_adaptive_svg_has_a_dark_colour_for_each_that_needs_one():
    svg = some_picture().svg.decode()
    adaptive = style.adaptive(svg)
    ET.fromstring(adaptive)
    drawing = re.sub("<style>.*?</style>", "", adaptive, flags=re.S)
    assert INK in svg
    assert not any(colour in drawing for colour in DARK)
    assert all(colour in adaptive for colour in DARK.values())
    assert set(re.findall(r"var\((--\w+)\)", drawing)) <= set(re.findall(r"(--\w+):", adaptive))
    assert not re.findall(r'(?:href|src)="(?!#)|url\((?!#)|@import', drawing)


def contrast(one: str, other: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ink", [INK, MUTED])
def test_text_can_be_read_on_light_and_dark_pages(ink: str):
    assert contrast(ink, PAPER) >= 4.5
    assert contrast(DARK[ink], DARK[PAPER]) >= 4.5


def test_lines_can_be_seen_on_light_and_dark_pages():
    assert min(contrast(colour, PAPER) for colour in style.COLOURS) >= 2
    assert min(contrast(DARK.get(colour, colour), DARK[PAPER]) for colour in style.COLOURS) >= 3


def test_no_two_lines_look_alike():
    looks = [style.line(index) for index in range(style.MAX_LINES)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == style.MAX_LINES


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001, "0.001"), (3e-5, "3e-5"), (1e-10, "1e-10"), (2.0, "2"), (0.92, "0.92"), (1e6, "1e6"), (0.0, "0")],
)
def test_numbers_are_short(value: float, text: str):
    assert scales.number(value) == text


def test_spaced_keeps_the_most_wanted_and_their_distance():
    assert scales.spaced([5, 0, 10, 4, 7], float, gap=3) == [0, 5, 10]


def axes_of(setup: str, *args: object) -> tuple[list[float], list[str]]:
    axes = Figure().add_subplot()
    if setup == "loss_axis":
        axes.plot([0, 1], args[0])
    getattr(scales, setup)(axes, *args, *(["accuracy"] if setup == "accuracy_axis" else []))
    axis = axes.yaxis if setup in ("loss_axis", "accuracy_axis") else axes.xaxis
    low, high = axes.get_ylim() if axis is axes.yaxis else axes.get_xlim()
    ticks = [float(tick) for tick in axis.get_majorticklocs() if low <= tick <= high]
    return ticks, axis.get_major_formatter().format_ticks(ticks)


@pytest.mark.parametrize(
    ("setup", "values", "labels"),
    [
        ("rate_axis", [0.0001, 0.001, 0.01, 0.1, 1.0], ["0.0001", "0.001", "0.01", "0.1", "1"]),
        ("rate_axis", [0.02], ["0.02"]),
        ("rate_axis", [0.0123, 0.1234, 1.2345], ["0.01", "0.03", "0.1", "0.3", "1"]),
        ("loss_axis", [0.15, 2.3], ["0.2", "0.3", "0.5", "1", "2"]),
        ("loss_axis", [0.3, 0.5], ["0.3", "0.35", "0.4", "0.45", "0.5"]),
        ("accuracy_axis", [0.1, 0.92], ["0", "0.3", "0.5", "0.7", "0.8", "0.9"]),
        ("accuracy_axis", [0.7, 0.93], ["0.7", "0.8", "0.85", "0.9", "0.92"]),
        ("accuracy_axis", [0.901, 0.912], ["0.902", "0.904", "0.906", "0.908", "0.91", "0.912"]),
        ("count_axis", 24, ["1", "2", "3", "5", "10", "20"]),
    ],
)
def test_ticks_are_round_and_few(setup: str, values: object, labels: list[str]):
    assert axes_of(setup, values)[1] == labels


def test_a_stretched_accuracy_axis_gives_room_to_the_best():
    axes = Figure().add_subplot()
    scales.accuracy_axis(axes, [0.1, 0.92], "accuracy")
    to_display = axes.transData.transform
    height = {accuracy: to_display((0, accuracy))[1] for accuracy in (0.1, 0.2, 0.8, 0.9)}
    assert height[0.9] - height[0.8] > 3 * (height[0.2] - height[0.1])


@pytest.mark.parametrize(("values", "says"), [([0.1, 0.92], True), ([0.90, 0.92], False)])
@pytest.mark.parametrize("which", ["x", "y"])
def test_an_axis_says_that_it_is_logarithmic(which: str, values: list[float], says: bool):
    axes = Figure().add_subplot()
    scales.accuracy_axis(axes, values, "accuracy", which)
    label = axes.get_xlabel() if which == "x" else axes.get_ylabel()
    assert label == ("accuracy (logarithmic in the error)" if says else "accuracy")


@pytest.mark.parametrize("setup", [scales.loss_axis, lambda *a, **k: scales.accuracy_axis(*a[:2], "", **k)])
def test_intervals_are_inside_the_axes(setup: Callable[..., None]):
    axes = Figure().add_subplot()
    setup(axes, [0.5, 0.6], ends=[0.35, 0.75])
    low, high = axes.get_ylim()
    assert low < 0.35
    assert high > 0.75


def test_an_interval_that_reaches_zero_does_not_fill_a_logarithmic_axis():
    axes = Figure().add_subplot()
    scales.loss_axis(axes, [0.1, 2.0], ends=[0.0, 2.5])
    low, high = axes.get_ylim()
    assert 0.01 < low < 0.1
    assert 2.5 < high < 5
    scales.accuracy_axis(axes, [0.5, 0.9], "", ends=[0.2, 1.0])
    low, high = axes.get_ylim()
    assert low < 0.2
    assert 0.95 < high < 0.99


def test_one_epoch_has_one_tick():
    axes = Figure().add_subplot()
    scales.epoch_axis(axes, 1)
    assert all(float(tick).is_integer() for tick in axes.xaxis.get_majorticklocs())


def test_very_long_labels_keep_their_ends():
    assert style.shortened("a" * 130) == "a" * 130
    assert style.shortened("begin" + "x" * 300 + "end").startswith("begin")
    assert style.shortened("begin" + "x" * 300 + "end").endswith("end")
    assert len(style.shortened("x" * 300)) < 140


def test_the_foot_of_an_accuracy_axis_stays_free():
    axes = Figure().add_subplot()
    scales.accuracy_axis(axes, [0.1, 0.92], "accuracy", foot=0.25)
    lowest = axes.transAxes.inverted().transform(axes.transData.transform((0, 0.1)))[1]
    assert 0.25 < lowest < 0.32


def test_a_single_failure_does_not_make_all_colours_alike():
    colours = scales.AccuracyColours([0.1, 0.90, 0.91, 0.92, None])
    assert colours.position(0.1) == 0
    assert colours.position(0.92) == 1
    assert 0.1 < colours.position(0.90) < colours.position(0.91) < 0.9
    assert colours(0.90) != colours(0.91)


def test_noise_is_not_coloured():
    values = [0.900, 0.902, 0.905]
    alike, apart = (scales.AccuracyColours(values, noise) for noise in (0.002, 0.0001))
    assert [round(apart.position(value), 2) for value in (0.900, 0.905)] == [0, 1]
    positions = [alike.position(value) for value in values]
    assert max(positions) - min(positions) <= scales.NOISE_RANGE / 10
    assert 0.3 < min(positions) < max(positions) < 0.7


def test_colours_of_equal_accuracies_exist():
    assert re.fullmatch("#[0-9a-f]{6}", scales.AccuracyColours([0.5, 0.5])(0.5))


def test_round_accuracies_stay_in_their_range():
    found = scales.round_accuracies(0.713, 0.93, 14)
    assert found == sorted(found)
    assert found[0] >= 0.713
    assert found[-1] <= 0.93
    assert {0.8, 0.85, 0.9, 0.92} <= set(found)
