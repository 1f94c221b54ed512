"""Intervals about luck hold about as often as they should, in short and with wide margins."""

import pytest

from tests.benchmarks.luck import QUANTITIES, SCENARIOS, Arguments, measured_by, table


def test_known_components_are_recovered_and_intervals_cover_them() -> None:
    rows = measured_by(Arguments(experiments=300, images=500))
    assert len(rows) == len(SCENARIOS) * len(QUANTITIES)
    for row in rows:
        coverage, bias = float(str(row["coverage"])), float(str(row["bias of the variance"]))
        assert coverage >= 0.88, row  # 2.5 standard errors below the lowest of the long version, 5.6 below 95%
        assert abs(bias) < 0.2, row
    # Not because they were endlessly wide: of what is neither nothing nor everything they miss some.
    missed = [row for row in rows if row["quantity"] == "deviation" and float(str(row["coverage"])) < 1]
    assert len(missed) == len(SCENARIOS)
    mean = {(row["scenario"], row["quantity"]): float(str(row["mean"])) for row in rows}
    true = {(row["scenario"], row["quantity"]): float(str(row["true"])) for row in rows}
    for key in (("weights matter", "initial weights"), ("order matters", "order"), ("settled early", "still open")):
        assert mean[key] == pytest.approx(true[key], abs=0.12)
    assert len(table(rows).rows) == len(SCENARIOS)
