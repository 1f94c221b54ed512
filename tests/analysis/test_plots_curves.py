import numpy as np
import pytest
from handmade import Run, handmade
from matplotlib.figure import Figure

from analysis.aggregate import summarise
from analysis.loading import SweepData
from analysis.plots import applied_rates, learning_curves, targets
from analysis.plots.learning_curves import Curves
from analysis.plots.selection import best_and_worst, describe
from analysis.plots.style import MAX_LINES
from analysis.statistics.intervals import mean_intervals
from workloads.trial import TrialConfig


def trial(optimizer: str = "adam", lr: float = 0.1, seed: int = 1, epochs: int = 2, **settings: object) -> TrialConfig:
    return TrialConfig(optimizer=optimizer, lr=lr, seed=seed, epochs=epochs, **settings)


def curves(sweep: SweepData, metric: str = "val_accuracy") -> Curves:
    found = learning_curves.data(metric)(sweep, summarise(sweep))
    assert found is not None
    return found


def test_a_curve_is_the_mean_over_seeds_with_the_interval_of_each_epoch():
    sweep = handmade({trial(seed=1): Run([0.5, 0.7]), trial(seed=2): Run([0.6, 0.9]), trial(seed=3): Run([0.7, 0.8])})
    (curve,) = curves(sweep).curves
    assert curve.mean == pytest.approx((0.6, 0.8))
    low, high = mean_intervals(np.array([(0.5, 0.6, 0.7), (0.7, 0.9, 0.8)]), 0, 1)
    assert curve.low == pytest.approx(tuple(low))
    assert curve.high == pytest.approx(tuple(high))
    assert not curve.diverged


def test_one_seed_has_no_band():
    (curve,) = curves(handmade({trial(): Run([0.5, 0.7])})).curves
    assert (curve.mean, curve.low, curve.high) == ((0.5, 0.7), None, None)


def test_epochs_on_which_all_seeds_agree_have_a_band_of_no_width():
    (curve,) = curves(handmade({trial(seed=1): Run([0.5, 0.7]), trial(seed=2): Run([0.5, 0.9])})).curves
    assert curve.low is not None
    assert curve.high is not None
    assert curve.low[0] == curve.mean[0] == curve.high[0] == 0.5
    assert curve.low[1] < curve.mean[1] < curve.high[1]


def test_a_curve_ends_where_the_first_seed_diverged():
    sweep = handmade({trial(seed=1): Run([0.5, 0.7]), trial(seed=2): Run([0.4], status="diverged")})
    (curve,) = curves(sweep).curves
    assert curve.mean == pytest.approx((0.45,))
    assert curve.diverged


def test_a_trial_that_has_not_begun_does_not_shorten_the_curve():
    (curve,) = curves(handmade({trial(seed=1): Run([0.5, 0.7]), trial(seed=2): Run([], status="pending")})).curves
    assert curve.mean == (0.5, 0.7)


def test_several_optimizers_are_shown_each_at_its_best_learning_rate():
    runs = {
        trial("adam", 0.1): Run([0.5, 0.6]),
        trial("adam", 0.2): Run([0.5, 0.8]),
        trial("sgd", 0.1): Run([0.5, 0.9]),
        trial("sgd", 0.2): Run([0.5, 0.7]),
    }
    found = curves(handmade(runs))
    assert [(curve.label, curve.mean[-1]) for curve in found.curves] == [("sgd, lr 0.1", 0.9), ("adam, lr 0.2", 0.8)]
    assert found.note == "Shown: each optimizer at its best settings by validation accuracy."


def test_never_more_lines_than_can_be_told_apart_and_the_caption_says_so():
    runs = {trial(lr=0.01 * k): Run([0.5, 0.5 + 0.01 * k]) for k in range(1, 21)}
    found = curves(handmade(runs))
    shown = [round(100 * (curve.mean[-1] - 0.5)) for curve in found.curves]
    assert shown == [20, 19, 18, 17, 16, 3, 2, 1]
    assert len(shown) == MAX_LINES
    assert found.note == "Shown: the best 5 and the worst 3 of 20."


def test_settings_that_were_the_same_training_share_a_line():
    runs = {trial(lr=0.1 * k): Run([0.5, 0.7]) for k in (1, 2, 3)} | {trial(lr=0.4): Run([0.5, 0.6])}
    found = curves(handmade(runs))
    assert [curve.label for curve in found.curves] == ["lr 0.1 (and 2 identical)", "lr 0.4"]


def test_a_sweep_without_records_has_no_curves():
    sweep = handmade({trial(): Run([], status="pending")})
    assert learning_curves.data("train_loss")(sweep, summarise(sweep)) is None


def test_describe_names_only_the_axes_that_set_configurations_apart():
    runs = {
        trial(lr=lr, batch_size=batch, workload_settings={"smoothing": smoothing}): Run([0.5])
        for lr in (0.1, 0.2)
        for batch in (32, 64)
        for smoothing in (0.0, 0.1)
    }
    sweep = handmade(runs)
    of = {label: index for index, label in sweep.trials.select("label", "configuration").iter_rows()}
    assert set(of) >= {0, 7}
    with_small_batch = [i for i, label in of.items() if "batch size 32" in label]
    assert describe(sweep, with_small_batch) == "4 settings: batch size 32"
    assert describe(sweep, with_small_batch[:3]) == "3 of 4 settings: batch size 32"
    assert describe(sweep, [0]) == of[0]


def test_describe_leaves_out_what_follows_from_what_it_names():
    plateau = [trial(scheduler="plateau", scheduler_settings={"factor": factor}) for factor in (0.1, 0.5)]
    sweep = handmade({trial(): Run([0.5])} | {one: Run([0.5]) for one in plateau})
    assert describe(sweep, [1, 2]) == "2 settings: plateau"


SCHEDULES = {
    trial(scheduler="step", epochs=3): Run([0.5, 0.6, 0.7], [3.0, 2.0, 1.0], [0.1, 0.1, 0.05]),
    trial(scheduler="none", epochs=3): Run([0.5, 0.6, 0.6], [3.0, 2.5, 2.0]),
}


def test_schedules_show_losses_and_the_rates_really_applied_on_the_same_epochs():
    sweep = handmade(SCHEDULES)
    found = applied_rates.schedules(sweep, summarise(sweep))
    assert found is not None
    assert [curve.label for curve in found.losses.curves] == ["step", "none"]
    assert [curve.mean for curve in found.losses.curves] == [(3.0, 2.0, 1.0), (3.0, 2.5, 2.0)]
    step, none = found.rates
    assert step.epochs == (0, 1, 1, 2, 2, 3)
    assert step.rates == (0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
    assert set(none.rates) == {0.1}


def test_each_picture_of_rates_leaves_the_others_their_sweeps():
    one_schedule = handmade({t.replace(lr=lr): run for lr in (0.1, 0.2) for t, run in list(SCHEDULES.items())[:1]})
    constant = handmade({trial(lr=0.1): Run([0.5, 0.6]), trial(lr=0.2): Run([0.5, 0.7])})
    plateau = handmade(
        {
            trial(scheduler="plateau", scheduler_settings={"patience": patience}): Run([0.5, 5 * lr], lr=[0.1, lr])
            for patience, lr in ((1, 0.1), (2, 0.05))
        }
    )
    sweeps = {"schedules": handmade(SCHEDULES), "one": one_schedule, "constant": constant, "plateau": plateau}
    pictures = (applied_rates.schedules, applied_rates.learning_rates, applied_rates.plateau_extremes)
    shown = {
        name: [picture.__name__ for picture in pictures if picture(sweep, summarise(sweep)) is not None]
        for name, sweep in sweeps.items()
    }
    assert shown == {
        "schedules": ["schedules"],
        "one": ["learning_rates"],
        "constant": [],
        "plateau": ["plateau_extremes"],
    }


def test_plateau_extremes_are_the_three_best_and_the_three_worst():
    runs = {
        trial(scheduler="plateau", scheduler_settings={"patience": patience}): Run([0.5, 0.5 + 0.01 * patience])
        for patience in range(1, 11)
    }
    sweep = handmade(runs)
    found = applied_rates.plateau_extremes(sweep, summarise(sweep))
    assert found is not None
    assert [curve.label for curve in found.losses.curves] == [f"patience {k}" for k in (10, 9, 8, 3, 2, 1)]
    assert len(found.rates) == 6


def test_epochs_to_target_are_medians_and_unreached_targets_are_marked():
    runs = {
        trial("adam", seed=1, epochs=4): Run([0.70, 0.80, 0.85, 0.90]),
        trial("adam", seed=2, epochs=4): Run([0.70, 0.75, 0.80, 0.90]),
        trial("adam", seed=3, epochs=4): Run([0.70, 0.75, 0.80, 0.85]),
        trial("sgd", seed=1, epochs=4): Run([0.70, 0.80, 0.80, 0.80]),
    }
    sweep = handmade(runs)
    found = targets.data(sweep, summarise(sweep))
    assert found is not None
    adam, sgd = found.configurations
    reached = dict(zip(adam.targets, adam.epochs, strict=True))
    assert (reached[0.7], reached[0.8], reached[0.85], reached[0.9]) == (1, 3, 4, 4)
    assert (adam.missed, adam.watched) == (None, 4)
    assert dict(zip(sgd.targets, sgd.epochs, strict=True))[0.8] == 2
    assert sgd.missed == min(target for target in adam.targets if target > 0.8)
    assert "Open triangles" in found.note


def test_a_diverged_trial_is_watched_to_the_end():
    runs = {
        trial("adam", epochs=4): Run([0.70, 0.80, 0.85, 0.90]),
        trial("sgd", epochs=4): Run([0.70], status="diverged"),
    }
    sweep = handmade(runs)
    found = targets.data(sweep, summarise(sweep))
    assert found is not None
    assert [one.watched for one in found.configurations] == [4, 4]


def test_losses_on_the_way_to_infinity_leave_room_for_the_others():
    sweep = handmade(
        {
            trial("adam"): Run([0.5, 0.6], [2.0, 1.0]),
            trial("sgd"): Run([0.5], [1e9], status="diverged"),
        }
    )
    axes = Figure().add_subplot()
    learning_curves.lines(axes, curves(sweep, "train_loss"))
    low, high = axes.get_ylim()
    assert 0 < low < 1.0
    assert 2.0 < high < 3.0


def test_bands_are_inside_the_axes():
    losses = {"adam": ([2.0, 1.0], [1.6, 1.5], [2.4, 0.8]), "sgd": ([2.2, 1.2], [2.1, 1.3], [2.6, 0.9])}
    runs = {
        trial(name, seed=seed): Run([0.5, 0.6], loss)
        for name, several in losses.items()
        for seed, loss in enumerate(several)
    }
    axes = Figure().add_subplot()
    learning_curves.lines(axes, curves(handmade(runs), "train_loss"))
    low, high = axes.get_ylim()
    ends = [y for band in axes.collections for path in band.get_paths() for y in path.vertices[:, 1]]
    assert low < min(ends) < max(ends) < high


def test_a_curve_that_explodes_without_diverging_leaves_room_for_the_others():
    runs = {trial("adam"): Run([0.5, 0.6], [2.0, 1.0]), trial("sgd"): Run([0.1, 0.1], [1e6, 1e7])}
    axes = Figure().add_subplot()
    learning_curves.lines(axes, curves(handmade(runs), "train_loss"))
    low, high = axes.get_ylim()
    assert 0 < low < 1.0
    assert 2.0 < high < 3.0


def test_losses_have_no_band_below_zero():
    sweep = handmade({trial(seed=s): Run([0.5, 0.6], [0.5, loss]) for s, loss in enumerate((0.1, 0.5))})
    (curve,) = curves(sweep, "train_loss").curves
    assert curve.low is not None
    assert curve.low[1] == 0


def test_plateau_settings_that_never_acted_are_one_curve_that_says_so():
    runs = {
        trial(scheduler="plateau", scheduler_settings={"patience": patience}): Run([0.5, 0.7], lr=[0.1, 0.1])
        for patience in (5, 6, 7)
    }
    sweep = handmade(runs)
    assert [curve.label for curve in curves(sweep).curves] == [
        "patience 5 (and 2 identical: the rate was never reduced)"
    ]
    assert applied_rates.plateau_extremes(sweep, summarise(sweep)) is None


def test_targets_need_learning():
    sweep = handmade({trial(): Run([0.5, 0.5])})
    assert targets.data(sweep, summarise(sweep)) is None


def test_selection_keeps_the_order_of_the_ranking():
    sweep = handmade({trial(lr=lr): Run([accuracy]) for lr, accuracy in ((0.1, 0.5), (0.2, 0.9), (0.3, 0.7))})
    assert best_and_worst(sweep, summarise(sweep)).configurations == (1, 2, 0)
