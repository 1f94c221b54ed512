import numpy as np
import pytest
from handmade import Run, handmade

from analysis.aggregate import summarise
from analysis.plots import accuracy_by_lr, budget, effects, heat_map, parallel_coordinates, seeds
from analysis.statistics.intervals import mean_intervals
from workloads.trial import TrialConfig


def trial(optimizer: str = "adam", lr: float = 0.1, seed: int = 1, **settings: object) -> TrialConfig:
    return TrialConfig(optimizer=optimizer, lr=lr, seed=seed, epochs=1, **settings)


GRID = {
    trial("adam", 0.1): Run([0.80]),
    trial("adam", 0.2): Run([0.90]),
    trial("adam", 0.4): Run([0.85]),
    trial("adam", 0.8): Run([], status="diverged"),
    trial("sgd", 0.1): Run([0.60]),
    trial("sgd", 0.2): Run([0.70]),
    trial("sgd", 0.4): Run([0.75]),
}


def by_rate(runs: dict[TrialConfig, Run]) -> accuracy_by_lr.ByRate:
    sweep = handmade(runs)
    found = accuracy_by_lr.data(sweep, summarise(sweep))
    assert found is not None
    return found


def test_accuracy_by_learning_rate_has_one_series_for_each_optimizer_best_first():
    adam, sgd = by_rate(GRID).series
    assert (adam.label, adam.lrs, adam.mean) == ("adam", (0.1, 0.2, 0.4), (0.80, 0.90, 0.85))
    assert (adam.best_lr, adam.edge, adam.diverged_lrs) == (0.2, None, (0.8,))
    assert (sgd.label, sgd.best_lr, sgd.edge, sgd.diverged_lrs) == ("sgd", 0.4, "highest", ())
    assert sgd.low == (None, None, None)


def test_a_best_rate_at_the_end_of_the_grid_is_told_in_the_caption():
    assert "Rings mark" in by_rate(GRID).note
    assert by_rate({t: run for t, run in GRID.items() if t.optimizer == "adam"}).note == ""


def test_accuracy_by_learning_rate_takes_the_best_of_the_other_settings():
    runs = {
        trial(lr=lr, batch_size=batch): Run([accuracy])
        for lr, batch, accuracy in ((0.1, 32, 0.5), (0.1, 64, 0.6), (0.2, 32, 0.8), (0.2, 64, 0.7))
    }
    found = by_rate(runs)
    assert [(one.lrs, one.mean) for one in found.series] == [((0.1, 0.2), (0.6, 0.8))]
    assert found.note.startswith("Each point uses the best other settings for its learning rate.")


def test_accuracy_by_learning_rate_needs_several_rates():
    sweep = handmade({trial("adam"): Run([0.5]), trial("sgd"): Run([0.6])})
    assert accuracy_by_lr.data(sweep, summarise(sweep)) is None


def test_lr_by_schedule_is_the_mean_over_seeds_and_keeps_the_order_planned():
    runs = {
        trial(lr=0.2, scheduler="step", seed=1): Run([0.80]),
        trial(lr=0.2, scheduler="step", seed=2): Run([0.90]),
        trial(lr=0.1, scheduler="step"): Run([0.70]),
        trial(lr=0.2, scheduler="cosine"): Run([], status="diverged"),
    }
    sweep = handmade(runs)
    found = heat_map.lr_by_schedule(sweep, summarise(sweep))
    assert found is not None
    (grid,) = found.maps
    assert (grid.x, grid.y) == (("0.1", "0.2"), ("step", "cosine"))
    assert grid.values == ((0.70, pytest.approx(0.85)), (None, None))
    assert grid.diverged == ((False, False), (False, True))


def test_there_is_a_map_for_each_pair_of_plateau_settings_that_vary():
    def plateau(factor: float, patience: int, threshold: float) -> TrialConfig:
        settings = {"factor": factor, "patience": patience, "threshold": threshold, "cooldown": 0}
        return trial(scheduler="plateau", scheduler_settings=settings)

    accuracies = {(0.1, 1, 0.01): 0.5, (0.1, 2, 0.01): 0.6, (0.5, 1, 0.01): 0.7, (0.5, 1, 0.1): 0.9}
    sweep = handmade({plateau(*settings): Run([accuracy]) for settings, accuracy in accuracies.items()})
    found = heat_map.plateau_pairs(sweep, summarise(sweep))
    assert found is not None
    assert [(one.x_name, one.y_name) for one in found.maps] == [
        ("factor", "patience"),
        ("factor", "threshold"),
        ("patience", "threshold"),
    ]
    factor_patience = found.maps[0]
    assert (factor_patience.x, factor_patience.y) == (("0.1", "0.5"), ("1", "2"))
    assert factor_patience.values == ((0.5, pytest.approx(0.8)), (0.6, None))


@pytest.mark.parametrize(("step", "noisy"), [(0.0005, True), (0.05, False)])
def test_cells_within_noise_are_said_to_be(step: float, noisy: bool):
    seeds_ = {1: -0.002, 2: 0.0, 3: 0.002}
    runs = {
        trial(lr=lr, scheduler=scheduler, seed=seed): Run([0.9 + i * step + luck])
        for i, (lr, scheduler) in enumerate([(0.1, "step"), (0.2, "step"), (0.1, "cosine"), (0.2, "cosine")])
        for seed, luck in seeds_.items()
    }
    sweep = handmade(runs)
    found = heat_map.lr_by_schedule(sweep, summarise(sweep))
    assert found is not None
    assert found.noise == pytest.approx(0.002 / 3**0.5)
    assert ("no more than seed noise" in found.note) == noisy


def test_seeds_show_equal_trainings_once():
    runs = {trial(lr=0.1 * k, seed=s): Run([0.9 + 0.01 * s]) for k in (1, 2, 3) for s in (1, 2)}
    runs |= {trial(lr=0.9, seed=s): Run([0.8 + 0.01 * s]) for s in (1, 2)}
    sweep = handmade(runs)
    found = seeds.data(sweep, summarise(sweep))
    assert found is not None
    assert [row.label for row in found.rows] == ["lr 0.1 (and 2 identical)", "lr 0.9"]


def test_rates_need_a_trial_that_finished():
    sweep = handmade({trial(lr=lr): Run([], status="diverged") for lr in (0.1, 0.2)})
    assert accuracy_by_lr.data(sweep, summarise(sweep)) is None


def test_maps_need_two_axes():
    sweep = handmade(GRID)
    assert heat_map.lr_by_schedule(sweep, summarise(sweep)) is None
    assert heat_map.plateau_pairs(sweep, summarise(sweep)) is None


def test_parallel_coordinates_spread_the_values_of_each_axis():
    sweep = handmade(GRID)
    found = parallel_coordinates.data(sweep, summarise(sweep))
    assert found is not None
    optimizer, lr = found.axes
    assert (optimizer.name, optimizer.ticks) == ("optimizer", ((0.0, "adam"), (1.0, "sgd")))
    assert (lr.name, lr.ticks[0], lr.ticks[-1]) == ("learning rate", (0.0, "0.1"), (1.0, "0.8"))
    assert found.accuracies == (None, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
    assert found.lines[0] == (0.0, 1.0)
    assert found.lines[-1] == (0.0, pytest.approx(1 / 3))


def test_parallel_coordinates_keep_the_distances_of_many_numbers():
    lrs = [10 ** (-4 + k / 10) for k in range(31)]
    sweep = handmade({trial(optimizer, lr): Run([0.5 + lr]) for lr in lrs for optimizer in ("adam", "sgd")})
    found = parallel_coordinates.data(sweep, summarise(sweep))
    assert found is not None
    assert sorted({line[1] for line in found.lines}) == pytest.approx([k / 30 for k in range(31)])


def test_parallel_coordinates_put_zeros_below_a_logarithmic_axis():
    decays = [0.0, *(10 ** (-5 + k / 10) for k in range(21))]
    made = [
        TrialConfig(optimizer="sgd", optimizer_settings={"weight_decay": one}, lr=lr) for one in decays for lr in (1, 2)
    ]
    found = parallel_coordinates.data(sweep := handmade({one: Run([0.5]) for one in made}), summarise(sweep))
    assert found is not None
    (axis, ticks), *_ = [(place, axis.ticks) for place, axis in enumerate(found.axes) if axis.name == "weight decay"]
    assert sorted({line[axis] for line in found.lines}) == pytest.approx(
        [0, *(0.12 + 0.88 * k / 20 for k in range(21))]
    )
    assert ticks[0] == (0.0, "0")


def test_parallel_coordinates_need_two_axes():
    sweep = handmade({trial(lr=0.1): Run([0.5]), trial(lr=0.2): Run([0.6])})
    assert parallel_coordinates.data(sweep, summarise(sweep)) is None


def test_seeds_are_points_with_the_interval_and_rank_of_their_configuration():
    good, bad = [0.90, 0.91, 0.92, 0.905], [0.70, 0.715, 0.71, 0.702]
    runs = {
        trial(name, seed=seed): Run([accuracy])
        for name, accuracies in (("sgd", bad), ("adam", good))
        for seed, accuracy in enumerate(accuracies)
    } | {trial("adam", seed=9): Run([], status="pending")}
    sweep = handmade(runs)
    found = seeds.data(sweep, summarise(sweep))
    assert found is not None
    adam, sgd = found.rows
    low, high = mean_intervals(np.array([good]))
    assert (adam.label, adam.accuracies) == ("adam", tuple(good))
    assert (adam.mean, adam.low, adam.high) == pytest.approx((np.mean(good), low[0], high[0]))
    assert (adam.rank, sgd.rank) == (1, 2)
    assert found.note == "Rank 1: not shown to be worse than any other. The intervals are not for comparing."


def test_one_seed_is_said_to_have_no_interval():
    sweep = handmade(GRID)
    found = seeds.data(sweep, summarise(sweep))
    assert found is not None
    assert [row.mean for row in found.rows] == [0.90, 0.85, 0.80, 0.75, 0.70, 0.60]
    assert found.note == "With one seed there is no interval."


def test_a_single_configuration_has_no_picture_of_seeds():
    sweep = handmade({trial(): Run([0.5])})
    assert seeds.data(sweep, summarise(sweep)) is None


def test_budget_is_the_median_best_of_k_trials():
    sweep = handmade(GRID)
    found = budget.data(sweep, summarise(sweep))
    assert found is not None
    adam, sgd = found.groups
    # adam's outcomes are 0.9, 0.85, 0.8 and nothing: half of the pairs of them hold the best
    assert (adam.label, adam.budgets) == ("adam", (1, 2, 3, 4))
    assert adam.median == (0.80, 0.85, 0.90, 0.90)
    assert adam.low[0] is None
    assert adam.high[-1] == 0.90
    assert (sgd.label, sgd.budgets, sgd.median[-1]) == ("sgd", (1, 2, 3), 0.75)


def test_budget_needs_three_trials():
    sweep = handmade({trial(lr=0.1): Run([0.5]), trial(lr=0.2): Run([0.6])})
    assert budget.data(sweep, summarise(sweep)) is None


def test_effects_are_shares_of_the_variance_the_largest_first():
    runs = {
        trial(optimizer, lr): Run([0.5 + 0.3 * (optimizer == "adam") + 0.1 * (lr == 0.2)])
        for optimizer in ("adam", "sgd")
        for lr in (0.1, 0.2)
    }
    sweep = handmade(runs)
    found = effects.data(sweep, summarise(sweep))
    assert found is not None
    assert found.terms == ("optimizer", "learning rate")
    assert found.shares == pytest.approx((0.9, 0.1))  # 0.3 ** 2 : 0.1 ** 2
    assert found.note == "Smaller terms not shown: 2."


def test_effects_need_two_things_that_vary():
    sweep = handmade({trial(lr=0.1): Run([0.5]), trial(lr=0.2): Run([0.6])})
    assert effects.data(sweep, summarise(sweep)) is None
