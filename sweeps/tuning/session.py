"""The Ray to run on: started here or joined, and whether the trials fit on it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray

from sweeps.placement import Placement, in_ray_job
from sweeps.tuning.errors import PlacementError


@contextlib.contextmanager
def ray_session(placement: Placement, **init: Any) -> Iterator[None]:
    """Starts a local Ray, or joins the cluster of the address or of the job this is; leaves a Ray already joined alone.

    Raises:
        PlacementError: The address does not answer.
    """
    if ray.is_initialized():
        yield
        return
    address = placement.address or ("auto" if in_ray_job() else "local")
    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        init.setdefault("include_dashboard", False)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **init)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PlacementError(f"no Ray cluster answers at {address!r}: {str(error).partition(chr(10))[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_placement(placement: Placement) -> None:
    """Refuses what Ray would wait for for ever.

    Raises:
        PlacementError: No node has what a trial asks for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for resource, wanted in (("CPU", placement.cpus_per_trial), ("GPU", placement.gpus_per_trial)):
        most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            flag = f"--{resource.lower()}s-per-trial"
            raise PlacementError(f"{flag} {wanted:g} asks for more than any node has ({most:g} {resource}s)")


def slots(placement: Placement) -> int:
    """Returns how many trials fit at once."""
    total = ray.cluster_resources()
    fits = [
        int(total.get(resource, 0.0) / wanted)
        for resource, wanted in (("CPU", placement.cpus_per_trial), ("GPU", placement.gpus_per_trial))
        if wanted > 0
    ]
    limit = placement.max_concurrent
    return max(1, min(fits + ([limit] if limit is not None else [])))
