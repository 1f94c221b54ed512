"""Runs the paths of a fork tree on Ray Tune: the only package that imports Ray.

The plan is the tree's, the execution Ray's. A `Searcher` hands Tune one path at a time; a worker trains it under the
name of its leader, stores a checkpoint after every epoch and reports each record; the driver tells the tree, which says
whose record it is and which trials fork off.
"""

import os

# Read by Ray when it is imported: no usage statistics, none of Tune's own files, handlers and console output. How many
# paths wait for a worker is for `Run.next_job` to say: left alone, Tune would never hold more than one.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000000",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_THRESHOLD_S": "1000000000",
}.items():
    os.environ.setdefault(_name, _value)
