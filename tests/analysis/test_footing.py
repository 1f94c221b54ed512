"""Adjusted means: plain ones in a full grid, and what an additive model says where seeds are missing."""

import numpy as np
import pytest

from analysis.statistics.footing import adjusted_means

NAN = np.nan


def test_a_full_grid_has_its_plain_means() -> None:
    values = np.random.default_rng(1).normal(0.9, 0.01, (6, 5))
    assert (adjusted_means(values) == values.mean(axis=1)).all()


def test_an_easy_seed_is_no_merit() -> None:
    # seed 3 adds 0.05 to everything; the second configuration has only that one
    found = adjusted_means(np.array([[0.80, 0.80, 0.85, 0.80, 0.80], [NAN, NAN, 0.84, NAN, NAN]]))
    assert found == pytest.approx([0.81, 0.80])


def test_an_additive_table_with_holes_is_recovered() -> None:
    rng = np.random.default_rng(2)
    level, seed = rng.normal(0.9, 0.02, 12), rng.normal(0, 0.01, 7)
    values = level[:, None] + seed
    expected = values.mean(axis=1)
    values[rng.random(values.shape) < 0.3] = NAN
    assert adjusted_means(values) == pytest.approx(expected)


def test_many_with_one_easy_seed_do_not_hide_how_easy_it_is() -> None:
    values = np.full((10, 5), NAN)
    values[0] = [0.8, 0.8, 0.9, 0.8, 0.8]
    values[1:, 2] = 0.88
    assert adjusted_means(values) == pytest.approx([0.82] + [0.80] * 9)


def test_one_that_fails_on_a_seed_does_not_make_that_seed_hard() -> None:
    rng = np.random.default_rng(3)
    good = 0.9 + rng.normal(0, 0.001, (6, 5))
    flaky = np.array([[0.9, 0.9, 0.1, 0.9, 0.9]])
    only_there = np.array([[NAN, NAN, 0.9, NAN, NAN]])
    assert adjusted_means(np.vstack([good, flaky, only_there]))[-1] == pytest.approx(0.9, abs=0.002)


def test_without_a_seed_in_common_means_are_plain() -> None:
    assert adjusted_means(np.array([[0.9, 0.8, NAN], [NAN, NAN, 0.7]])) == pytest.approx([0.85, 0.7])
