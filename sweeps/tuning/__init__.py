"""Runs the paths of a fork tree on Ray Tune: the only package that imports Ray.

The plan is the tree's, the execution Ray's. A `Searcher` hands Tune one path at a time; a worker trains it under the
name of its leader, stores a checkpoint after every epoch and reports each record; the driver tells the tree, which says
whose record it is and which trials fork off.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping

ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000000",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000000",
}
"""What Ray is told, unless the user's environment says otherwise: no usage statistics, no stack trace for a SIGTERM,
none of Tune's own files, handlers and console output. How many paths wait for a worker is for `Run.next_job` to say:
left alone, Tune would never hold more than one."""


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Tells Ray, which reads it when it is imported and when it starts; afterwards all variables are as before.

    Not to be entered or left while another thread is at work, unless it has been entered before: libraries read the
    environment in C, and it is no place that threads can share.
    """
    if ENVIRONMENT.keys() <= os.environ.keys():
        yield
        return
    before = dict(os.environ)
    widgets = logging.getLogger("ray.widgets.util")
    level = widgets.level
    widgets.setLevel(logging.ERROR)  # in a notebook, Ray asks for widgets that it has no use for here
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        widgets.setLevel(level)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
