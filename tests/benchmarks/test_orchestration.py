"""The benchmarks of orchestration and growth in short: wide margins, as machines are shared."""

from pathlib import Path

import pytest

from analysis.store import SweepStore
from tests.benchmarks import growth, orchestration, stand_ins


@pytest.mark.usefixtures("ray_cluster")
def test_trials_cost_little_more_than_they_sleep() -> None:
    few = orchestration.measure(10, epochs=1, seconds=0.1)
    assert few.at_once == 2
    assert few.ideal_seconds == 0.5
    assert few.wall_seconds > few.ideal_seconds
    assert few.per_trial < 2.0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_takes_no_longer_among_many() -> None:
    few, many = growth.measure(20), growth.measure(100)
    assert many.wall_seconds / many.trials < 3 * few.wall_seconds / few.trials + 0.05
    assert many.kilobytes / many.trials < few.kilobytes / few.trials, "what a file costs is shared by more"


@pytest.mark.usefixtures("ray_cluster")
def test_stand_ins_leave_checkpoints_of_real_size(tmp_path: Path) -> None:
    (trial,) = stand_ins.trials_without_sharing(1, epochs=2)
    store = SweepStore(str(tmp_path), "one")
    times = stand_ins.run([trial], store, stand_ins.sleeping(0.0, saves=True))
    assert len(times.records) == 2
    assert times.records == tuple(sorted(times.records))
    (checkpoint,) = store.list_checkpoints()
    assert (tmp_path / "one" / checkpoint.path).stat().st_size > 4 * 61_706, "the weights of LeNet, at least"


def test_tables() -> None:
    overhead = {
        "what": "trials",
        "epochs": 1,
        "seconds_per_epoch": 0.1,
        "trials": 200,
        "at_once": 2,
        "wall_seconds": 12.0,
        "ideal_seconds": 10.0,
        "overhead_per_trial_seconds": 0.02,
    }
    measured = [
        overhead,
        {"what": "share", "epoch_seconds": 5.7, "share": 0.0123},
        {"what": "start-up", "seconds": [7.0, 9.0, 8.0]},
        {"what": "Ctrl-C", "seconds": [1.0]},
    ]
    table = orchestration.table(measured)
    assert table.rows == [("200", "1", "0.1 s", "2", "12.0 s", "10.0 s", "0.020 s")]
    assert "the last is 1.23%" in table.notes[0]
    assert "first epoch 8.0 s; from Ctrl-C in mid-epoch to the prompt 1.0 s (medians of 3)" in table.notes[1]
