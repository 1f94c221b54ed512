"""Spans: how values are spread over them (by scipy's tests), their edges, and what is written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workloads.errors import InputError
from workloads.optimizers import OPTIMIZERS
from workloads.rows import Row
from workloads.schedulers import SCHEDULERS
from workloads.spans import Span, is_range, parse_range

LINEAR, LOG, ONE_MINUS = (
    Span(low=0.5, high=3.0),
    Span(low=1e-4, high=0.1, scale="log"),
    Span(low=0.7, high=0.995, scale="1 - x log"),
)
ROWS = [pytest.param(row, id=row.name) for table in (OPTIMIZERS, SCHEDULERS) for row in table.values()]


@pytest.mark.parametrize(
    ("span", "distribution"),
    [
        (LINEAR, stats.uniform(0.5, 2.5)),
        (LOG, stats.loguniform(1e-4, 0.1)),
    ],
)
def test_values_are_spread_as_the_scale_says(span: Span, distribution: stats.rv_continuous) -> None:
    values = [span.at(place) for place in np.random.default_rng(1).random(2000)]
    assert stats.kstest(values, distribution.cdf).pvalue > 0.01


def test_the_distance_to_1_is_spread_logarithmically() -> None:
    distances = [1 - ONE_MINUS.at(place) for place in np.random.default_rng(2).random(2000)]
    assert stats.kstest(distances, stats.loguniform(0.005, 0.3).cdf).pvalue > 0.01


def test_whole_numbers_are_equally_likely() -> None:
    values = [Span(low=1, high=4, whole=True).at(place) for place in np.random.default_rng(3).random(4000)]
    assert all(isinstance(value, int) for value in values)
    assert set(values) == {1, 2, 3, 4}
    assert stats.chisquare(np.bincount(values)[1:]).pvalue > 0.01


def test_values_by_hand() -> None:
    assert [LINEAR.at(place) for place in (0, 0.5, 1)] == [0.5, 1.75, 3.0]
    assert [LOG.at(place) for place in (0, 1 / 3, 0.5, 1)] == [1e-4, 1e-3, 0.00316, 0.1]
    # 1 - x from 0.3 to 0.005: halfway is sqrt(0.3 * 0.005) = 0.0387
    assert [ONE_MINUS.at(place) for place in (0, 0.5, 1)] == [0.7, 0.9613, 0.995]


@given(st.sampled_from([LINEAR, LOG, ONE_MINUS]), st.floats(0, 1))
def test_place_is_the_inverse(span: Span, place: float) -> None:
    assert span.place(span.at(place)) == pytest.approx(place, abs=0.005)
    assert span.low <= span.at(place) <= span.high


def test_the_outer_tenth_is_the_edge() -> None:
    assert [LOG.edge(value) for value in (1e-4, 1.9e-4, 2.1e-4, 0.01, 0.049, 0.051, 0.1)] == [
        "lowest",
        "lowest",
        None,
        None,
        None,
        "highest",
        "highest",
    ]
    assert Span(low=3, high=3).edge(3) is None
    assert str(LOG.widened("lowest")) == "1e-05..0.1"
    assert str(LOG.widened("highest")) == "0.0001..1"


def test_shares_of_epochs() -> None:
    share = Span(low=0.1, high=0.5, whole=True, of_epochs=True)
    assert [(share.over(n).low, share.over(n).high) for n in (1, 4, 10, 30)] == [(1, 1), (1, 2), (1, 5), (3, 15)]
    from_none = Span(low=0.0, high=0.2, whole=True, of_epochs=True)
    assert [(from_none.over(n).low, from_none.over(n).high) for n in (1, 4, 5, 30)] == [(0, 0), (0, 0), (0, 1), (0, 6)]
    assert LOG.over(7) == LOG


def test_what_is_a_range() -> None:
    assert all(map(is_range, ("0..1", "1e-4..0.1", "log:1e-9..1e-6", "-1..-.5", "1 - x log:0.5..0.9", " 1...5 ")))
    assert not any(map(is_range, ("1", "..", "1..", "../x/list.csv", "a..b", 0.1, None, "1..2..3", "/1..2")))
    assert parse_range("1e-4..0.1", LOG) == LOG
    assert parse_range("log:1e-4..0.1") == LOG
    assert parse_range("linear:0..1", LOG) == Span(low=0, high=1)


@pytest.mark.parametrize(
    ("text", "like", "complaint"),
    [
        ("0.1..0.01", LOG, "0.1..0.01: a range goes from low to high, not from 0.1 down to 0.01"),
        ("1..1", LINEAR, "1..1: there is nothing between 1 and 1; write one value without '..'"),
        ("0..1", LOG, "0..1: on the scale log both ends must be above 0, not 0"),
        ("0.9..1", ONE_MINUS, "0.9..1: on the scale 1 - x log both ends must be below 1, not 1"),
        ("lin:0..1", LOG, "lin:0..1: unknown scale 'lin'; known: linear, log, 1 - x log"),
        ("1.5..3", Span(low=1, high=2, whole=True), "1.5..3: the ends must be whole numbers, as the setting is one"),
    ],
)
def test_refused(text: str, like: Span, complaint: str) -> None:
    with pytest.raises(InputError) as error:
        parse_range(text, like)
    assert str(error.value) == complaint


@pytest.mark.parametrize("row", ROWS)
def test_spaces_of_rows(row: Row) -> None:
    known = row.settings.keys() | ({"lr"} if row.name in OPTIMIZERS else set())
    assert row.space.keys() <= known
    assert not any(span.of_epochs and row.name in OPTIMIZERS for span in row.space.values())
    if row.name in OPTIMIZERS:
        rates, grid = row.space["lr"], OPTIMIZERS[row.name].lrs
        assert rates.scale == "log"
        # half a decade to either side: a factor of about 3
        assert (grid[0] / rates.low, rates.high / grid[-1]) == pytest.approx((3.2, 3.2), abs=0.35)
