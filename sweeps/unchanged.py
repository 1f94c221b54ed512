"""What a run changes in the process it runs in is put back when it ends."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import warnings
from collections.abc import Iterator

import torch

_NOISY = ("ray", "ray.rllib", "mlflow", "alembic")
"""Loggers that Ray and MLflow set up when they are imported."""


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Leaves threads and switches of torch, Python's random numbers, warnings, loggers and hooks as they were.

    What a run changes in the environment, in signal handlers and in matplotlib, it puts back where it does so.
    """
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    switches = cudnn.benchmark, cudnn.deterministic
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    hook, draws = sys.excepthook, random.getstate()  # Ray draws from them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn about among themselves is nothing the user can mend
            yield
    finally:
        random.setstate(draws)
        sys.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        cudnn.benchmark, cudnn.deterministic = switches
        torch.set_num_threads(threads)
