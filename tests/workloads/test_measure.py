"""What configurations are ranked by: how its values are written, and what it refuses."""

from __future__ import annotations

import json
import math

import pytest

from workloads.errors import InputError
from workloads.measure import ACCURACY, Measure, rounded

MAE = Measure(name="mean absolute error", higher_is_better=False, least=0.0)
R2 = Measure(name="R2", most=1.0)


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        (ACCURACY, 0.9, "0.9000"),
        (ACCURACY, 0.00004, "0.0000"),
        (MAE, 0.0, "0.000"),
        (MAE, 0.123456, "0.1235"),
        (MAE, 12.3, "12.30"),
        (MAE, 123456.7, "123457"),
        (MAE, 0.00012, "0.0001200"),
        (MAE, 0.0000012, "1.200e-06"),
        (MAE, 1.5e12, "1.500e+12"),
        (R2, -3.25, "-3.250"),
    ],
)
def test_values_have_four_decimals_or_four_significant_digits(measure: Measure, value: float, text: str) -> None:
    assert measure.text(value) == text


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [(ACCURACY, 0.01, "0.0100"), (ACCURACY, 0.00004, "less than 0.0001"), (MAE, 0.01, "0.01"), (MAE, 1234, "1200")],
)
def test_differences(measure: Measure, value: float, text: str) -> None:
    assert measure.difference(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0123, "0.012"), (0.00003, "3e-05"), (120.0, "120"), (98765.0, "99000")]
)
def test_rounded_numbers_are_short(value: float, text: str) -> None:
    assert rounded(value) == text


def test_which_end_is_best() -> None:
    assert (ACCURACY.perfect, ACCURACY.extreme, ACCURACY.sign, ACCURACY.is_share) == (1.0, "highest", 1, True)
    assert (MAE.perfect, MAE.extreme, MAE.sign, MAE.is_share) == (0.0, "lowest", -1, False)
    assert Measure(name="log-likelihood").perfect == math.inf
    assert not Measure(name="error rate", higher_is_better=False, least=0.0, most=1.0).is_share


def test_it_is_stored_as_json() -> None:
    for measure in (ACCURACY, MAE, R2):
        assert Measure.from_json(json.loads(json.dumps(measure.to_json(), allow_nan=False))) == measure


@pytest.mark.parametrize("name", ["loss", "", " ", "two  spaces", "a/b", "line\nbreak"])
def test_columns_can_be_named_after_it(name: str) -> None:
    with pytest.raises(InputError, match="a measure cannot be called") as error:
        Measure(name=name)
    assert "\n" not in str(error.value)


def test_something_lies_between_its_bounds() -> None:
    with pytest.raises(InputError, match="the lowest possible R2 must be below the highest, not 1 and 1"):
        Measure(name="R2", least=1.0, most=1.0)
