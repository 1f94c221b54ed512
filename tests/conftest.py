"""What tests of several packages share: the real data set, prepared once, and one Ray, started only if asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from workloads import datasets
from workloads.datasets import FASHION_MNIST, Dataset
from workloads.registry import WORKLOADS
from workloads.training import Images

VISIBLE_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that say which GPUs of NVIDIA or AMD a process may use."""


def pytest_configure() -> None:
    """Makes tests independent of how fast the machine is, and of who started them."""
    # How fast a shared machine is says nothing about the code.
    settings.register_profile("forksweep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("forksweep")
    # A suite that a shell started in the background ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files whose tests use Ray first: with quick ones at the end, no process waits long for the other."""
    with_ray = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in with_ray)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Fashion-MNIST, prepared; from the cache where there is one."""
    return datasets.load(FASHION_MNIST)


@pytest.fixture(scope="session")
def images(dataset: Dataset) -> Images:
    """Fashion-MNIST on the CPU."""
    return Images(dataset, torch.device("cpu"))


@pytest.fixture(scope="session")
def few_images(dataset: Dataset) -> Images:
    """The first 320 training, 120 validation and 180 test images: a trial on them needs `train_limit` <= 320."""
    sizes = {"train": 320, "val": 120, "test": 180}
    chosen = np.concatenate([np.arange(count) + dataset.span(split)[0] for split, count in sizes.items()])  # type: ignore[arg-type]
    small = replace(
        dataset,
        images=dataset.images[chosen],
        labels=dataset.labels[chosen],
        train=sizes["train"],
        val=sizes["val"],
    )
    return Images(small, torch.device("cpu"))


@pytest.fixture
def workloads_as_before() -> Iterator[None]:
    """Takes what a test registers out of the table again."""
    before = dict(WORKLOADS)
    yield
    WORKLOADS.clear()
    WORKLOADS.update(before)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A storage path of the test's own; nothing is there yet."""
    return str(tmp_path / "results")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray, the same for all tests of a session; it starts with the first that asks for it.

    It has two CPUs and, for tests of scheduling, says that it has two GPUs. It is a sweep's own: for this machine only,
    and with a token.
    """
    # Sets Ray's environment before it is imported.
    from sweeps.tuning.placement import Placement
    from sweeps.tuning.session import ray_session

    with pytest.MonkeyPatch.context() as environment:
        # What a job server leaves visible of a machine's GPUs contradicts those declared here.
        for name in [name for name in os.environ if name.startswith("RAY_AUTH_") or name in VISIBLE_GPUS]:
            environment.delenv(name)
        with ray_session(Placement(), num_cpus=2, num_gpus=2):
            yield
