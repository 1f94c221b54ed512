"""Which epochs are trained again: the chance to find wrong ones, and no epoch twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.receipts.sample import Stretch, chance, draw, stretches
from sweeps.receipts.stored import Unit


def epochs(trials: int, each: int) -> list[Unit]:
    return [(f"t{trial}", epoch) for trial in range(trials) for epoch in range(1, each + 1)]


def test_the_chance_by_hand() -> None:
    assert chance(0.1, 5) == pytest.approx(1 - 0.9**5)
    assert round(chance(0.1, 5), 2) == 0.41
    assert chance(0.0, 5) == 0
    assert chance(1.0, 1) == 1


@given(trials=st.integers(1, 6), each=st.integers(1, 7), count=st.integers(0, 50), seed=st.integers(0, 1000))
def test_what_is_drawn(trials: int, each: int, count: int, seed: int) -> None:
    there = epochs(trials, each)
    drawn = draw(there, count, seed)
    assert len(drawn) == len(set(drawn)) == min(count, len(there))
    assert set(drawn) <= set(there)
    assert drawn == draw(there, count, seed), "the seed says which"


def test_a_sample_is_spread_over_trials() -> None:
    there = epochs(5, 10)
    for seed in range(50):
        assert {name for name, _ in draw(there, 5, seed)} == {"t0", "t1", "t2", "t3", "t4"}


@pytest.mark.parametrize("wrong", [[0, 1], [0, 13], [3, 4, 5, 6], [6], list(range(0, 14, 3))])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_wrong_epochs_are_found_as_often_as_is_said(wrong: list[int], count: int) -> None:
    """Simulated: wherever they are, also where stretches end within an epoch."""
    there = epochs(2, 7)
    bad, runs = {there[place] for place in wrong}, 4000
    found = sum(not bad.isdisjoint(draw(there, count, seed)) for seed in range(runs)) / runs
    said = chance(len(wrong) / len(there), count)
    assert found > said - 3 * (said * (1 - said) / runs) ** 0.5


WAYS = {
    # a trains 1 to 4; b forks off after 2, c off b after 3.
    **{("a", epoch): [("a", e) for e in range(1, epoch + 1)] for epoch in range(1, 5)},
    **{("b", epoch): [("a", 1), ("a", 2), *(("b", e) for e in range(3, epoch + 1))] for epoch in range(3, 5)},
    ("c", 4): [("a", 1), ("a", 2), ("b", 3), ("c", 4)],
}


def test_stretches_by_hand() -> None:
    everything = stretches(WAYS, WAYS.__getitem__, ())
    assert everything == [
        Stretch(units=(("a", 1), ("a", 2), ("a", 3), ("a", 4)), start=None),
        Stretch(units=(("b", 3), ("b", 4)), start=("a", 2)),
        Stretch(units=(("c", 4),), start=("b", 3)),
    ]
    assert stretches([("c", 4)], WAYS.__getitem__, {("b", 3)}) == [Stretch(units=(("c", 4),), start=("b", 3))]
    assert stretches([("a", 2)], WAYS.__getitem__, {("a", 2)}) == [Stretch(units=(("a", 1), ("a", 2)), start=None)], (
        "an epoch is not checked by the checkpoint after it"
    )
    assert stretches([], WAYS.__getitem__, ()) == []


@given(wanted=st.lists(st.sampled_from(list(WAYS)), unique=True), stored=st.sets(st.sampled_from(list(WAYS))))
def test_all_that_is_wanted_is_trained_once(wanted: list[Unit], stored: set[Unit]) -> None:
    plan = stretches(wanted, WAYS.__getitem__, stored)
    trained = list(itertools.chain.from_iterable(stretch.units for stretch in plan))
    assert len(trained) == len(set(trained))
    assert set(wanted) <= set(trained)
    seen: set[Unit] = set()
    for stretch in plan:
        assert stretch.start is None or stretch.start in stored | seen, "it can begin there"
        way = WAYS[stretch.units[-1]]
        begin = way.index(stretch.units[0])
        assert tuple(way[begin:]) == stretch.units
        assert stretch.start == (way[begin - 1] if begin else None)
        seen |= set(stretch.units)
