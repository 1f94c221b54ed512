"""The cluster's description, and what the documentation says to change in it, hold before Ray's own checker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
BLOCKS = [
    yaml.safe_load(block)
    for block in re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "clusters.md").read_text(), re.MULTILINE | re.DOTALL
    )
]
VARIANTS = {"aws": {}} | {block["provider"]["type"]: block for block in BLOCKS if "provider" in block}


def variant(name: str) -> dict[str, Any]:
    """Returns cluster.yaml with a variant's entries in the place of its own."""
    merged = yaml.safe_load((ROOT / "cluster.yaml").read_text()) | VARIANTS[name]
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize("name", VARIANTS)
def test_ray_accepts(name: str) -> None:
    prepared = prepare_config(variant(name))
    validate_config(prepared)
    assert prepared["provider"]["type"] == name
    started = " ".join(prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"])
    assert started.count("RAY_AUTH_MODE=token ray start") == 2
    assert "--dashboard-host=127.0.0.1" in started


def test_all_variants_are_found() -> None:
    assert set(VARIANTS) == {"aws", "gcp", "local"}


def test_ray_refuses_what_is_wrong() -> None:
    with pytest.raises(Exception, match="max_workerz"):
        validate_config(prepare_config(variant("aws") | {"max_workerz": 1}))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_only_the_head_stays(name: str) -> None:
    config = prepare_config(variant(name))
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert [kind["min_workers"] for key, kind in types.items() if key != config["head_node_type"]] == [0]
    assert config["idle_timeout_minutes"] <= 10


def test_the_kubernetes_example_is_a_rayjob() -> None:
    (job,) = [block for block in BLOCKS if block.get("kind") == "RayJob"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert "python /forksweep/sweeps/" in job["spec"]["entrypoint"]
