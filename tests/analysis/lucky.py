"""Sweeps about luck with made-up results: crossed initial weights and orders, forks, and which images were right."""

from __future__ import annotations

import numpy as np
from handmade import Run, handmade

from analysis.loading import SweepData
from workloads.trial import TrialConfig


def trained(init: int, seed: int, fork: tuple[int, int] | None = None, **settings: object) -> TrialConfig:
    """Returns a training of initial weights and an order; a fork is its first epoch and its order."""
    later = {} if fork is None else {"reorder_from": fork[0], "order_seed": fork[1]}
    return TrialConfig(init_seed=init, seed=seed, epochs=4, **later, **settings)  # type: ignore[arg-type]


def lucky(lrs: tuple[float, ...] = (0.001,), seeds: int = 4, images: int = 1000, forks: bool = True) -> SweepData:
    """Returns a sweep of trainings whose accuracy at epoch e has noise of deviation 0.02 / e besides their own luck."""
    random = np.random.default_rng(0)
    runs = {}
    for lr in lrs:
        trials = [trained(i, s, lr=lr, per_image=True) for i in range(1, seeds + 1) for s in range(1, seeds + 1)]
        if forks:
            orders = [(epoch, order) for epoch in (2, 4) for order in (11, 12)]
            trials += [trained(i, i, fork, lr=lr, per_image=True) for i in range(1, seeds + 1) for fork in orders]
        luck = random.normal(0, 0.01, seeds + 1)
        for trial in trials:
            chances = np.clip(np.linspace(0.6, 1.1, images) + luck[trial.weights_seed], 0, 1)
            right = [random.random(images) < chances - random.normal(0, 0.02 / e) for e in (1, 2, 3, 4)]
            runs[trial] = Run([float(one.mean()) for one in right], right=[one.tolist() for one in right])
    return handmade(runs)
