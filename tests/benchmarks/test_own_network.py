"""The benchmark of a user's own network in short, with a wide bound."""

from __future__ import annotations

import statistics

import pytest

from tests.benchmarks import own_network


@pytest.mark.usefixtures("workloads_as_before")
def test_as_fast_as_a_bare_loop() -> None:
    measured = own_network.measure(rounds=5, images=1_280)
    own_network.workload.cache_clear()
    assert statistics.median(row["bare loop"] / row["ours"] for row in measured) >= 0.8
    assert own_network.table(measured).rows[0][0] == "ours"
