"""The benchmark of a user's own network in short, with a wide bound."""

from __future__ import annotations

import statistics

from tests.benchmarks import own_network
from workloads.registry import WORKLOADS


def test_as_fast_as_a_bare_loop() -> None:
    before = dict(WORKLOADS)
    try:
        measured = own_network.measure(rounds=5, images=1_280)
    finally:
        own_network.workload.cache_clear()
        WORKLOADS.clear()
        WORKLOADS.update(before)
    assert statistics.median(row["bare loop"] / row["ours"] for row in measured) >= 0.8
    assert own_network.table(measured).rows[0][0] == "ours"
