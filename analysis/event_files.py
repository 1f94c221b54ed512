"""TensorBoard event files: scalars by epoch, and hyperparameters with final metrics for the HParams tab.

Needs the optional package `tensorboard`, but not TensorFlow. The time of an event is the seconds trained so far, so
TensorBoard's relative time axis shows training time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from analysis.loading import FINISHED
from analysis.measures import tags
from analysis.schema import SCALARS
from workloads.measure import ACCURACY, Measure

FINAL: dict[str, str] = {
    "final_val_accuracy": "final/validation_accuracy",
    "final_val_loss": "final/validation_loss",
    "test_accuracy": "final/test_accuracy",
    "test_loss": "final/test_loss",
}
"""Column of the trials table -> tag of the final metric in the HParams tab."""

_STATUS = dict.fromkeys(FINISHED, api_pb2.STATUS_SUCCESS) | {"pending": api_pb2.STATUS_RUNNING}


def trial_events(
    trial: Mapping[str, Any],
    epochs: Iterable[Mapping[str, Any]],
    hyperparameters: Sequence[str],
    measure: Measure = ACCURACY,
) -> bytes:
    """Returns one trial's event file.

    Args:
        trial: Its row of the trials table.
        epochs: Its rows of the epochs table, in order.
        hyperparameters: Columns of the trials table that the HParams tab shows.
        measure: What the columns of accuracy hold.
    """
    events = [start_event(trial["label"], {name: trial[name] for name in hyperparameters})]
    seconds = 0.0
    for epoch in epochs:
        seconds += epoch["train_seconds"]
        events.append(scalars_event(epoch, epoch["epoch"], seconds, measure))
    events += end_events(trial, trial["status"], trial["epochs_run"], seconds, measure)
    return encoded(events)


def start_event(label: str, hyperparameters: Mapping[str, Any]) -> Event:
    """Returns the event with a trial's name and hyperparameters; None values are dropped."""
    start = SessionStartInfo(group_name=label, start_time_secs=0.0)
    for name, value in hyperparameters.items():
        if value is not None:
            field = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(start.hparams[name], field, value)
    return _hparams_event(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def scalars_event(
    row: Mapping[str, Any],
    step: int,
    seconds: float,
    measure: Measure = ACCURACY,
    columns: Mapping[str, str] = SCALARS,
) -> Event:
    """Returns the event with one epoch's scalars: those of `columns` that are not None, named after the measure."""
    named = tags(columns, measure).items()
    values = [Summary.Value(tag=tag, simple_value=row[name]) for name, tag in named if row[name] is not None]
    return Event(step=step, wall_time=seconds, summary=Summary(value=values))


def end_events(
    final: Mapping[str, Any], status: str, epochs_run: int, seconds: float, measure: Measure = ACCURACY
) -> list[Event]:
    """Returns the last events of a trial: its final metrics (the columns of `FINAL`) if it finished, and its status."""
    found = [scalars_event(final, epochs_run, seconds, measure, FINAL)] if status in FINISHED else []
    end = SessionEndInfo(status=_STATUS.get(status, api_pb2.STATUS_FAILURE), end_time_secs=seconds)
    content = HParamsPluginData(session_end_info=end)
    return [*found, _hparams_event(metadata.SESSION_END_INFO_TAG, content, seconds)]


def experiment_events(hyperparameters: Mapping[str, Sequence[Any]], measure: Measure = ACCURACY) -> bytes:
    """Returns the event file that defines hyperparameters and metrics for the HParams tab.

    Args:
        hyperparameters: Name -> its values in the sweep.
        measure: What the columns of accuracy hold.
    """
    experiment = api_pb2.Experiment(
        hparam_infos=[_hparam_info(name, values) for name, values in hyperparameters.items()],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags(FINAL, measure).values()],
    )
    return encoded([_hparams_event(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))])


def _hparam_info(name: str, values: Sequence[Any]) -> api_pb2.HParamInfo:
    types = {type(value) for value in values if value is not None}
    kind = "DATA_TYPE_STRING" if types == {str} else "DATA_TYPE_BOOL" if types == {bool} else "DATA_TYPE_FLOAT64"
    info = api_pb2.HParamInfo(name=name, type=api_pb2.DataType.Value(kind))
    info.domain_discrete.extend(value for value in values if value is not None)
    return info


def _hparams_event(tag: str, content: HParamsPluginData, seconds: float = 0.0) -> Event:
    value = Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=metadata.create_summary_metadata(content))
    return Event(wall_time=seconds, summary=Summary(value=[value]))


def encoded(events: Iterable[Event], *, first: bool = True) -> bytes:
    """Encodes events as an event file, or for appending to one (`first=False`)."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (*([Event(file_version="brain.Event:2")] if first else []), *events):
        writer.write(event.SerializeToString())
    return buffer.getvalue()
