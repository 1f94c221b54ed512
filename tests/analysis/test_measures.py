"""Sweeps ranked by another measure than accuracy: its direction, and its name wherever something is said."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from races import Played, play, racers
from rich.console import Console
from synthetic import MAE, Synthetic, handmade_sweep, synthetic_plateau, synthetic_sweep

from analysis import export
from analysis.aggregate import compare, summarise, write_summary
from analysis.answer import answer
from analysis.loading import SweepData, combine, labels, load
from analysis.measures import common_measure, internal, published
from analysis.next_steps import next_steps
from analysis.plots import PLOTS, draw_plots, scales, style
from analysis.race import ahead
from analysis.report import print_report, report_of, write_report
from analysis.statistics.budget import best_after
from analysis.statistics.censored import usual_targets
from analysis.tables import publish
from sweeps.policies import Race
from workloads.errors import InputError
from workloads.measure import ACCURACY, Measure
from workloads.trial import TrialConfig

R2 = Measure(name="R2", most=1.0)
LIKELIHOOD = Measure(name="mean log-likelihood")


def of(lr: float, seed: int, **others: object) -> TrialConfig:
    return TrialConfig(optimizer="adam", lr=lr, seed=seed, epochs=2, **others)  # type: ignore[arg-type]


ERRORS = {
    **{of(0.001, seed): (first, last) for seed, first, last in ((1, 1.5, 2.0), (2, 4.0, 2.1), (3, 4.0, 2.2))},
    **{of(0.01, seed): (first, last) for seed, first, last in ((1, 5.0, 3.0), (2, 5.0, 3.3), (3, 5.0, 3.4))},
    **{of(0.1, seed): (first, last) for seed, first, last in ((1, 9.0, 8.0), (2, 9.0, 8.5), (3, 9.0, 8.1))},
}
"""Validation errors of two epochs; lower rates are better."""
BY_HAND = handmade_sweep({trial: ("completed", errors) for trial, errors in ERRORS.items()}, "by_hand")
BY_HAND = BY_HAND.measured(MAE, lambda error: error)


# -- direction ---------------------------------------------------------------------------------------------------------


def test_the_lowest_error_is_the_best_by_hand() -> None:
    data = BY_HAND.data
    summary = summarise(data)
    assert summary.select("label", "position", "lr_edge").rows() == [
        ("lr 0.001", 1, "lowest"),
        ("lr 0.01", 2, None),
        ("lr 0.1", 3, None),
    ]
    assert summary["best_of_group"].to_list() == [True, False, False]
    best = summary.row(0, named=True)
    assert best["final_val_accuracy_mean"] == pytest.approx(2.1)
    assert best["selected_val_accuracy_mean"] == pytest.approx((1.5 + 2.1 + 2.2) / 3)
    assert best["val_accuracy_area_mean"] == pytest.approx((1.75 + 3.05 + 3.1) / 3)
    # On the training examples the error is 0.02 higher: no gap in favour of training.
    assert best["accuracy_gap_mean"] == pytest.approx(-0.02)
    # 4.302653 * 0.1 / sqrt(3) on either side of the mean.
    assert (best["final_val_accuracy_low"], best["final_val_accuracy_high"]) == pytest.approx((1.851586, 2.348414))
    trial = data.trials.row(0, named=True)
    assert (trial["best_val_accuracy"], trial["best_epoch"], trial["final_val_accuracy"]) == (1.5, 1, 2.0)


def test_targets_are_reached_at_or_below_them_by_hand() -> None:
    assert usual_targets(BY_HAND.epochs, MAE) == (2.5, 2.0, 1.5)
    summary = summarise(BY_HAND.data, targets=[2.1])
    # Seed 1 in the first epoch, seed 2 in the second, seed 3 never: the median is 2.
    assert summary.select("epochs_to_2.1", "reached_2.1").rows() == [(2, 2), (None, 0), (None, 0)]


@pytest.mark.parametrize(
    ("measure", "values", "targets"),
    [
        (R2, [-4.0, 0.31], (0.2, 0.25, 0.3)),
        (LIKELIHOOD, [-50.0, -13.0], (-25.0, -20.0, -15.0)),
        (MAE, [700.0, 131.0], (250.0, 200.0, 150.0)),
        (ACCURACY, [0.1, 0.91], (0.85, 0.88, 0.9)),
        (MAE, [], ()),
    ],
)
def test_usual_targets_of_a_measure(measure: Measure, values: list[float], targets: tuple[float, ...]) -> None:
    assert usual_targets(pl.DataFrame({"val_accuracy": pl.Series(values, dtype=pl.Float64)}), measure) == targets


def test_the_answer_by_hand() -> None:
    data = BY_HAND.data
    first, second, *others = answer(data, summarise(data))
    assert first == (
        "lr 0.001 has the lowest final validation mean absolute error, 2.100 (95% interval 1.852 to 2.348, 3 seeds), "
        "1.1 less than lr 0.01; test mean absolute error 2.000."
    )
    assert "accura" not in " ".join([second, *others])
    assert others == [
        "Best learning rate at the edge of its grid, so a better one may lie beyond it: adam 0.001 (lowest)."
    ]


def test_pairs_say_which_is_better() -> None:
    steady = {
        of(lr, seed): ("completed", (9.0, error + 0.01 * seed))
        for lr, error in ((0.001, 5.0), (0.01, 3.0), (0.1, 4.0), (1.0, 7.0))
        for seed in range(1, 11)
    }
    for trial in steady:  # seeds scatter in their own way
        own = 0.05 * np.random.default_rng((trial.seed, int(1000 * trial.lr))).normal()
        steady[trial] = ("completed", (9.0, steady[trial][1][1] + own))
    data = handmade_sweep(steady).measured(MAE, lambda error: error).data
    summary = summarise(data)
    assert summary.select("label", "rank").rows() == [("lr 0.01", 1), ("lr 0.1", 2), ("lr 0.001", 3), ("lr 1", 4)]
    pairs = compare(data, summary)
    assert (pairs["better"] == pairs["first"]).all(), "in order of the summary, the better one first"
    assert (pairs["difference"] > 0).all(), "how much better the first is"


def mirrored(sweep: Synthetic) -> Synthetic:
    """The same results as errors."""
    return sweep.measured(MAE, lambda accuracy: 1 - accuracy)


SWEEPS = {
    "optimizers": synthetic_sweep(seeds=(1, 2, 3), schedulers=("none", "step"), failed=(3,)),
    "plateau": synthetic_plateau(seeds=(1, 2), epochs=12),
    "running": synthetic_sweep(seeds=(1, 2), finished=0.6),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_errors_give_what_accuracies_give(name: str) -> None:
    data, errors = SWEEPS[name].data, mirrored(SWEEPS[name]).data
    summary, of_errors = summarise(data, targets=[0.6]), summarise(errors, targets=[0.4])
    same = ["configuration", "position", "rank", "verdict", "best_of_group", "lr_edge", "same_as", "n", "diverged"]
    assert of_errors.select(same).equals(summary.select(same))
    assert of_errors["reached_0.4"].equals(summary["reached_0.6"])
    for mean in ("final_val_accuracy_mean", "selected_test_accuracy_mean", "val_accuracy_area_mean"):
        assert (1 - of_errors[mean]).to_list() == pytest.approx(summary[mean].to_list(), nan_ok=True)
    assert of_errors["accuracy_gap_mean"].to_list() == pytest.approx(summary["accuracy_gap_mean"].to_list())
    assert errors.trials["best_epoch"].equals(data.trials["best_epoch"])
    assert next_steps(errors, of_errors, "results/x") == next_steps(data, summary, "results/x")
    budget, of_budget = best_after(data, ["optimizer"]), best_after(errors, ["optimizer"])
    for quantile in ("low", "median", "high"):
        assert (1 - of_budget[quantile]).to_list() == pytest.approx(budget[quantile].to_list())


def race_of(measure: Measure, sign: int, *, care: float | None = None) -> Played:
    """A race whose trials have accuracies, or the errors to them; policies look at values where more is better."""
    configurations = racers(("adam", "sgd"), (0.01, 0.1))
    means = dict(zip(configurations, (0.9, 0.88, 0.897, 0.7), strict=True))

    def train(trial: TrialConfig) -> float:
        (mean,) = (mean for one, mean in means.items() if one == trial.replace(seed=0))
        own = np.random.default_rng((trial.seed, int(1e6 * mean))).normal()
        accuracy = round(mean + 0.002 * own, 6)
        return accuracy if sign > 0 else accuracy - 1

    race = Race(configurations=configurations, seeds=tuple(range(1, 20)), care=care, measure=measure)
    played = play(race, train)
    return played if sign > 0 else replace(played, sweep=played.sweep.measured(measure, lambda value: -value))


@pytest.mark.parametrize("care", [None, 0.01])
def test_a_race_goes_the_same_way(care: float | None) -> None:
    played, of_errors = race_of(ACCURACY, 1, care=care), race_of(MAE, -1, care=care)
    assert of_errors.decisions["reason"].equals(played.decisions["reason"])
    race, mirror = played.data.race, of_errors.data.race
    assert race is not None
    assert mirror is not None
    assert mirror.course.leader == race.course.leader
    assert mirror.course.standings == race.course.standings
    assert (mirror.worse, mirror.equal) == (race.worse, race.equal)
    assert ahead(of_errors.data.specs, of_errors.data.trials) == ahead(played.data.specs, played.data.trials)
    summary = summarise(of_errors.data)
    assert summary["rank"].equals(summarise(played.data)["rank"])
    (first, *_) = answer(of_errors.data, summary)
    assert "has the lowest final validation mean absolute error" in first


# -- names -------------------------------------------------------------------------------------------------------------


def test_published_columns_have_the_name_of_the_measure(storage: str) -> None:
    sweep = mirrored(SWEEPS["optimizers"])
    store = sweep.write(storage)
    publish(store, sweep.spec)
    write_summary(store, sweep.data, summarise(sweep.data, targets=[0.4]))
    epochs, trials, summary = (store.read_table(name) for name in ("epochs", "trials", "summary"))
    assert epochs is not None
    assert trials is not None
    assert summary is not None
    assert {"train_mean_absolute_error", "val_mean_absolute_error", "test_mean_absolute_error"} <= set(epochs.columns)
    assert {"final_val_mean_absolute_error", "best_val_mean_absolute_error"} <= set(trials.columns)
    assert {
        "final_val_mean_absolute_error_mean",
        "val_mean_absolute_error_area_mean",
        "mean_absolute_error_gap_mean",
        "epochs_to_0.4",
    } <= set(summary.columns)
    for table in (epochs, trials, summary):
        assert not [name for name in table.columns if "accura" in name]


def test_published_tables_are_enough_to_load_a_sweep(storage: str) -> None:
    sweep = mirrored(SWEEPS["optimizers"])
    store = sweep.write(storage)
    before = load([store.uri])
    publish(store, sweep.spec)
    for part in store.files("parts"):
        store.delete(part)
    after = load([store.uri])
    assert after.measure == MAE
    assert after.trials.equals(before.trials)
    assert after.epochs.equals(before.epochs)


def test_names_return(storage: str) -> None:
    summary = summarise(BY_HAND.data)
    assert internal(published(summary, MAE), MAE).equals(summary.drop(pl.selectors.contains("balanced")))
    assert published(summary, ACCURACY).equals(summary)
    settings = pl.DataFrame({"workload_accuracy": [1.0], "final_val_accuracy": [2.0]})
    assert published(settings, MAE).columns == ["workload_accuracy", "final_val_mean_absolute_error"], (
        "not a user's own"
    )
    balanced = Measure(name="balanced accuracy", least=0.0, most=1.0)
    table = BY_HAND.epochs.select("val_accuracy", "val_balanced_accuracy")
    assert published(table, balanced).columns == ["val_balanced_accuracy"]
    assert internal(published(table, balanced), balanced)["val_accuracy"].equals(table["val_accuracy"])


def test_a_measure_may_be_unknown_on_training_examples(storage: str) -> None:
    sweep = SWEEPS["optimizers"].measured(MAE, lambda accuracy: 1 - accuracy, train=False)
    summary = summarise(sweep.data)
    assert summary["accuracy_gap_mean"].null_count() == summary.height
    assert summary["final_val_accuracy_mean"].null_count() < summary.height
    drawn = {one.name for one in draw_plots(sweep.data, summary)}
    assert "val_accuracy" in drawn
    assert "train_accuracy" not in drawn
    export.to_csv(sweep.data, sweep.write(storage))


def test_exports_have_the_name_of_the_measure(storage: str) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    timed = replace(BY_HAND, epochs=BY_HAND.epochs.with_columns(train_seconds=1.0))
    store = timed.write(storage)
    folder = Path(export.export([store.uri], "csv"))
    for file in folder.iterdir():
        header = file.read_text().partition("\n")[0]
        assert "mean_absolute_error" in header
        assert "accura" not in header
    runs = Path(export.export([store.uri], "tensorboard"))
    (run,) = runs.glob(f"*{of(0.001, 1).trial_id}")
    events = EventAccumulator(str(run)).Reload()
    assert [event.value for event in events.Scalars("mean_absolute_error/validation")] == [1.5, 2.0]
    assert [event.value for event in events.Scalars("final/validation_mean_absolute_error")] == [2.0]
    assert not [tag for tag in events.Tags()["scalars"] if "accura" in tag]


@pytest.mark.parametrize("kind", ["by hand", "race"])
def test_a_report_says_the_measure(kind: str, storage: str) -> None:
    sweep = BY_HAND if kind == "by hand" else race_of(MAE, -1)
    store = sweep.write(storage)
    report = write_report([store.uri])
    assert report.failures == ()
    page = re.sub(
        r"<style>.*?</style>|<script>.*?</script>|data:image[^\"]*|id=\"\w+\"", "", store.read("report.html").decode()
    )
    assert "accura" not in page
    assert "val mean absolute error" in page
    again = report_of(store)  # writes what it was made from
    once_more = report_of(store)
    assert once_more.ranking.drop(pl.selectors.contains("balanced"), strict=False).equals(
        again.ranking.drop(pl.selectors.contains("balanced"))
    )
    assert json.loads(store.read("answer.json"))["answer"] == list(report.answer)
    for one in (report, again, once_more):
        text = io.StringIO()
        print_report(one, Console(file=text, width=200))
        assert "val mean absolute error" in text.getvalue()
        assert "accura" not in text.getvalue()
    if kind == "by hand":
        assert re.search(r"1  lr 0.001 +2\.100  1\.852 – 2\.348", text.getvalue())


# -- pictures ----------------------------------------------------------------------------------------------------------

PICTURED: dict[str, tuple[Measure, Callable[[pl.Expr], pl.Expr]]] = {
    "thousands": (MAE, lambda accuracy: 12_000 * (1 - accuracy)),
    "small": (MAE, lambda accuracy: 0.0004 * (1 - accuracy) ** 3),
    "to one": (R2, lambda accuracy: 1 - 3 * (1 - accuracy) ** 1.5),
    "negative": (LIKELIHOOD, lambda accuracy: -20 * (1 - accuracy)),
}
"""How its values look -> a measure, and those to accuracies."""


@pytest.fixture(
    scope="module", params=[(kind, name) for kind in PICTURED for name in ("optimizers", "plateau")], ids="-".join
)
def figures(request: pytest.FixtureRequest) -> dict[str, Figure]:
    """Every picture of a sweep, by name."""
    kind, name = request.param
    return _figures(SWEEPS[name].measured(*PICTURED[kind]).data)


def _figures(data: SweepData) -> dict[str, Figure]:
    summary, found = summarise(data), {}
    for plot in PLOTS:
        if (numbers := plot.data(data, summary)) is not None:
            with style.styled():
                found[plot.name] = Figure(figsize=(style.WIDTH, style.HEIGHT), layout="constrained")
                canvas = FigureCanvasAgg(found[plot.name])
                plot.draw(numbers, found[plot.name])
                canvas.draw()
    return found


def test_pictures_say_the_measure_and_nothing_is_cut_off(figures: dict[str, Figure]) -> None:
    assert len(figures) > 8
    for name, figure in figures.items():
        texts = [text.get_text() for text in figure.findobj(Text)]
        assert not [text for text in texts if "accura" in text], name
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01, name
        assert box.x1 <= width + 0.01, name
        assert box.y1 <= height + 0.01, name
        for legend in figure.legends:
            title = next(text for text in figure.texts if text.get_text() == figure.get_suptitle())
            assert not legend.get_window_extent().overlaps(title.get_window_extent()), name


def test_a_picture_of_a_race_says_the_measure() -> None:
    figure = _figures(race_of(MAE, -1).data)["race"]
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "mean absolute error" in texts
    assert not [text for text in texts if "accura" in text]


def test_captions_say_the_measure() -> None:
    data = mirrored(SWEEPS["optimizers"]).data
    captions = {one.name: one.caption for one in draw_plots(data, summarise(data), ["seeds", "val_accuracy"])}
    assert captions["val_accuracy"].startswith("Validation mean absolute error after each epoch.")
    assert "accura" not in " ".join(captions.values())


def axes_of(values: list[float], measure: Measure, **others: Any) -> Axes:
    axes = Figure().add_subplot()
    scales.accuracy_axis(axes, values, "final accuracy", measure=measure, **others)
    return axes


@pytest.mark.parametrize(
    ("measure", "values", "ticks"),
    [
        (MAE, [1000.0, 2000.0], [1000, 1200, 1400, 1600, 1800, 2000]),
        (MAE, [0.02, 5.0], [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]),
        (R2, [0.8, 0.9], [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]),
        (R2, [-99.0, 0.9], [-50, -10, 0, 0.9]),
        (LIKELIHOOD, [-30.0, -1.0], [-30, -25, -20, -15, -10, -5]),
    ],
)
def test_an_axis_is_plain_or_logarithmic_in_the_distance_to_a_perfect_value(
    measure: Measure, values: list[float], ticks: list[float]
) -> None:
    axes = axes_of(values, measure)
    assert set(ticks) <= set(axes.get_yticks())
    low, high = axes.get_ylim()
    assert low < min(values) < max(values) < high


def test_an_axis_keeps_to_possible_values() -> None:
    low, high = axes_of([0.0, 1.0], MAE).get_ylim()
    assert -0.05 < low < 0
    assert high > 1
    assert axes_of([-1.0, 1.0], R2).get_ylim()[1] < 1.1


@pytest.mark.parametrize("values", [[1000.0, 2000.0], [1.0, 2000.0]])
def test_the_end_of_the_worst_stays_free(values: list[float]) -> None:
    axes = axes_of(values, MAE, foot=0.25)
    place = axes.transAxes.inverted().transform(axes.transData.transform((0, values[1])))[1]
    assert place < 0.76


def test_colours_are_light_where_it_is_best() -> None:
    accuracy = scales.AccuracyColours([0.9, 0.8, 0.85, None])
    error = scales.AccuracyColours([0.1, 0.2, 0.15, None], measure=MAE)
    assert [error.position(one) for one in (0.1, 0.15, 0.2)] == pytest.approx(
        [accuracy.position(one) for one in (0.9, 0.85, 0.8)]
    )
    assert error.at(1.0) == pytest.approx(0.1)


# -- several measures --------------------------------------------------------------------------------------------------


def test_different_measures_are_not_ranked_together(storage: str) -> None:
    plain = handmade_sweep({of(0.1, 1, workload="classes"): ("completed", (0.5, 0.6))}, "plain")
    both = replace(
        BY_HAND.spec,
        trials=BY_HAND.spec.trials + plain.spec.trials,
        datasets=BY_HAND.spec.datasets | plain.spec.datasets,
    )
    text = (
        r"no ranking over different measures \(mean absolute error, lower is better, of lenet_fashion_mnist; accuracy, "
        r"higher is better, of classes\): ask and report one of them at a time"
    )
    with pytest.raises(InputError, match=text):
        combine([BY_HAND.parts, plain.parts])
    with pytest.raises(InputError, match=text):
        labels(both)
    with pytest.raises(InputError, match=text):
        load([sweep.write(storage).uri for sweep in (BY_HAND, plain)])


def test_a_report_on_everything_is_suggested_only_where_it_has_one_measure() -> None:
    other = handmade_sweep({of(0.1, 1, workload="classes"): ("completed", (0.5, 0.6))}).spec
    for library, suggested in ((BY_HAND.spec.trials[:1], True), (other.trials, False)):
        spec = replace(BY_HAND.spec, library=library, datasets=BY_HAND.spec.datasets | other.datasets)
        data = combine([(spec, *BY_HAND.parts[1:])])
        steps = next_steps(data, summarise(data), "results/by_hand")
        assert any("--all" in step.command for step in steps) == suggested


def test_a_unit_of_the_loss_that_differs_is_none() -> None:
    own = replace(ACCURACY, loss_unit="")
    specs = [replace(BY_HAND.spec, measures={"lenet_fashion_mnist": measure}) for measure in (own, ACCURACY)]
    assert common_measure(specs) == own
    assert common_measure(specs[1:]) == ACCURACY
    assert common_measure([]) == ACCURACY
