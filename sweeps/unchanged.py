"""What a run changes in the process it runs in is put back when it ends."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

import torch

_NOISY = ("ray", "ray.rllib", "mlflow", "alembic")
"""Loggers that Ray and MLflow set up when they are imported."""


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Leaves threads and switches of torch, filters of warnings, levels of loggers and hooks as they were.

    What a run changes in the environment, in signal handlers and in matplotlib, it puts back where it does so.
    """
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    switches = cudnn.benchmark, cudnn.deterministic
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    hook = sys.excepthook
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn about among themselves is nothing the user can mend
            yield
    finally:
        sys.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        cudnn.benchmark, cudnn.deterministic = switches
        torch.set_num_threads(threads)
