"""Confidence sequences: by hand, against their definition, and how often they are wrong by simulation."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from analysis.statistics import sequences
from analysis.statistics.sequences import (
    DIFFER,
    EQUAL,
    UNKNOWN,
    Spread,
    half_width,
    intervals,
    reach,
    seeds_to_decide,
    spread,
    verdicts,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def bayes_factor(values: np.ndarray, g: float) -> float:
    """Two marginal likelihoods, the deviation integrated numerically over its right Haar prior 1 / sigma."""
    n, mean, squares = len(values), values.mean(), (values**2).sum()
    around = ((values - mean) ** 2).sum() + n * mean**2 / (1 + n * g)

    def marginal(total: float) -> float:
        return scipy.integrate.quad(lambda s: s ** (-n - 1) * math.exp(-total / 2 / s**2), 0, np.inf)[0]

    return marginal(around) / math.sqrt(1 + n * g) / marginal(squares)


@pytest.mark.parametrize("n", [3, 6])
def test_an_interval_ends_where_the_bayes_factor_reaches_the_level(n: int) -> None:
    values, level = normal(1, n), 0.2
    low, high = intervals(values, level)
    for end in (low[0], high[0]):
        factor = sum(weight * bayes_factor(values[0] - end, g) for g, weight in sequences.ALONE)
        assert factor == pytest.approx(1 / level, rel=1e-4)


@pytest.mark.parametrize("g", [0.1, 1.0, 10.0])
def test_with_one_effect_it_is_the_interval_of_anytime_valid_linear_models(
    g: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lindon et al. 2022, as the R package avlm has it: in units of the mean's standard error, g being a precision."""
    monkeypatch.setattr(sequences, "ALONE", ((1 / g, 1.0),))
    reach.cache_clear()
    for n in (2, 3, 5, 20, 200):
        for level in (0.05, 0.001):
            shrunk = g / (g + n)
            power = (shrunk * level**2) ** (1 / n)
            known = math.sqrt((n - 1) * (1 - power) / (power - shrunk) / n) if power > shrunk else math.inf
            assert half_width(n, 1.0, level) == pytest.approx(known, rel=1e-8)
    reach.cache_clear()


def test_with_a_known_deviation_it_is_the_normal_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Robbins 1970, as the Python package ville has it: `GaussianMixtureCS`, rho being a precision."""
    rho, known = 6.0, Spread(1e9, 2.0)
    monkeypatch.setattr(sequences, "EFFECTS", ((1 / rho, 1.0),))
    reach.cache_clear()
    for n in (2, 10, 200):
        half = 2.0 * math.sqrt((n + rho) * math.log((n + rho) / (rho * 0.05**2))) / n
        assert half_width(n, 2.0, prior=known) == pytest.approx(half, rel=1e-6)
    reach.cache_clear()


def test_adding_a_constant_moves_the_interval_and_units_scale_it() -> None:
    values = normal(3, 8)
    low, high = intervals(values)
    moved_low, moved_high = intervals(2 * values + 5)
    assert moved_low == pytest.approx(2 * low + 5)
    assert moved_high == pytest.approx(2 * high + 5)


def test_what_differs_and_what_is_equal() -> None:
    low, high = np.array([0.1, -0.3, -0.1, -np.inf, np.nan, 0.001]), np.array([0.2, -0.1, 0.1, np.inf, np.nan, 0.002])
    assert verdicts(low, high).tolist() == [DIFFER, DIFFER, UNKNOWN, UNKNOWN, UNKNOWN, DIFFER]
    assert verdicts(low, high, 0.15).tolist() == [DIFFER, DIFFER, EQUAL, UNKNOWN, UNKNOWN, EQUAL]


@pytest.mark.parametrize(
    "differences",
    [[0.1], [np.nan, 0.1], [np.nan, np.nan], [0.1, 0.1, 0.1]],
    ids=["one", "one left", "none", "no spread"],
)
def test_there_is_no_interval_without_spread(differences: list[float]) -> None:
    assert np.isnan(intervals(np.array([differences]))).all()


def test_missing_seeds_are_left_out() -> None:
    values = normal(1, 6)
    with_holes = np.insert(values, [0, 3], np.nan, axis=1)
    assert intervals(with_holes) == (pytest.approx(intervals(values)[0]), pytest.approx(intervals(values)[1]))
    prior = Spread(4, 1)
    assert intervals(with_holes, prior=prior)[0] == pytest.approx(intervals(values, prior=prior)[0])


@pytest.mark.parametrize("looks", [range(2, 61), (3, 5, 10)], ids=["every n", "3, 5, 10"])
def test_looking_again_and_again_finds_nothing_that_is_not_there(looks: range | tuple[int, ...]) -> None:
    values = normal(2000, 60)
    found = np.zeros(2000, dtype=bool)
    for n in looks:
        low, high = intervals(values[:, :n])
        found |= (low > 0) | (high < 0)
    assert found.mean() < 0.035  # 2.5% in the benchmark; three standard errors


def test_the_most_skewed_differences_are_found_no_more_often_than_promised() -> None:
    values = 1 - np.random.default_rng(0).exponential(size=(8000, 10))  # of a skewed configuration and a constant one
    found = np.zeros(len(values), dtype=bool)
    for n in (3, 5, 10):
        found |= verdicts(*intervals(values[:, :n])) == DIFFER
    assert found.mean() < 0.05  # 4.2% in the benchmark; 5.4% if large effects weighed as much as small ones


def test_others_tell_how_much_differences_scatter() -> None:
    deviations = [spread(normal(12, 8, seed=seed)).deviation for seed in range(50)]
    assert np.mean(deviations) == pytest.approx(math.sqrt(2), rel=0.1)
    assert spread(normal(12, 8)).degrees == sequences.MOST_DEGREES
    assert spread(normal(2, 9)) == Spread()
    assert spread(np.full((5, 3), 0.5)) == Spread()
    wild = normal(12, 8) * np.exp(2 * normal(12, 1, seed=1))
    assert spread(wild).degrees < sequences.MOST_DEGREES


def test_with_what_others_tell_three_seeds_show_what_is_plain() -> None:
    differences, prior = 0.1 + 0.01 * normal(1, 3), Spread(4, 0.01)
    level = sequences.LEVEL / 120
    assert intervals(differences, level)[0][0] == -np.inf
    assert intervals(differences, level, prior)[0][0] > 0


def test_a_failed_seed_widens_the_interval_to_its_own_side_only() -> None:
    prior = Spread(4, 0.01)
    steady, failed = np.array([[0.05, 0.06, 0.055]]), np.array([[0.05, 0.75, 0.055]])
    low, high = intervals(failed, 0.01, prior)
    assert low[0] > intervals(steady, 0.01, prior)[0][0] - 0.02
    assert high[0] > 0.5


@pytest.mark.parametrize("effect", [0.6, 2.0])
def test_seeds_to_decide_is_the_first_number_that_does(effect: float) -> None:
    needed = seeds_to_decide(effect, 1.0)
    assert needed is not None
    assert half_width(needed, 1.0) <= effect < half_width(needed - 1, 1.0)


def test_equals_are_decided_only_with_care() -> None:
    assert seeds_to_decide(0.0, 1.0) is None
    assert seeds_to_decide(0.0, 0.0, care=0.1) is None
    needed = seeds_to_decide(0.0, 1.0, care=0.5)
    assert needed is not None
    assert half_width(needed, 1.0) <= 0.5


def test_nothing_is_excluded_with_too_few_seeds() -> None:
    assert reach(2, 2, 1e-6) == math.inf
    assert half_width(1, 1.0) == math.inf
