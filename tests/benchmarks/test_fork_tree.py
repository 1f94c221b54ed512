"""The short version of the fork tree's benchmark: wide margins, as machines are shared."""

from tests.benchmarks.fork_tree import grow, plateau_trials


def test_the_tree_takes_less_than_a_millisecond_a_record_whatever_its_size() -> None:
    for count in (50, 1_000):
        growth = grow(plateau_trials(count, epochs=10))
        assert growth.records == 10 * count
        assert growth.trained < growth.records / 2, "the trials really shared"
        assert growth.microseconds_per_record < 1000
