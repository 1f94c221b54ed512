"""A short version of the racing benchmark, with wide margins: what races cost, and how often they are wrong."""

import numpy as np
import pytest

from tests.benchmarks import racing


@pytest.mark.parametrize("grouped", [False, True], ids=["configurations", "optimizers"])
def test_races_like_the_recorded_one_cost_less_than_equally_many_seeds(grouped: bool) -> None:
    world, generator, tally = racing.fitted(grouped), np.random.default_rng(0), racing.Tally()
    for _ in range(25):
        tally.add(racing.race(world, generator, 60, None), world, None)
    assert tally.uniform / tally.trials > 2.5  # 3.0 or more in the benchmark
    assert tally.undecided <= 3
    assert tally.wrong == 0


@pytest.mark.parametrize("kind", racing.KINDS)
def test_races_are_seldom_wrong(kind: racing.Noise) -> None:
    generator, tally = np.random.default_rng(1), racing.Tally()
    for shape in racing.SHAPES:
        for size in (2, 4, 16):
            for _ in range(6):
                world = racing.made_up(shape, size, kind, generator)
                tally.add(racing.race(world, generator, 40, racing.CARE), world, racing.CARE)
    assert tally.wrong / tally.races < 0.05  # 1% or less in the benchmark
    assert tally.wrong_equal / tally.races < 0.05


@pytest.mark.parametrize("name", racing.PAIRS)
def test_differences_have_mean_0_and_deviation_1(name: str) -> None:
    drawn = racing.differences(name, np.random.default_rng(0), (1000, 100))
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, rel=0.05)


def test_a_large_race_is_decided_at_once() -> None:
    seconds = [row["value"] for row in racing.large(2000) if "decide" in row["what"]]
    assert max(seconds) < 1  # 0.03 in the benchmark
