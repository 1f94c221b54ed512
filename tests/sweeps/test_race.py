"""A race, for real: seeds where they are needed, killed, resumed, with more budget, and from what is stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepSpec, SweepStore
from sweeps.question.sweep import Sweep, plan
from sweeps.runner import Result, asking, run
from tests.sweeps.faults import Process, kill_driver
from tests.sweeps.runs import made_up_record, measured, run_here, start, table_of, write_script
from workloads.errors import InputError

ARGUMENTS = "name='race', question='Which is best?', optimizers=('adam',), lrs=(0.0001, 0.003, 0.01), epochs=1"
SWEEP: Sweep = eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep})
SMALL = {"train_limit": 640, "preflight": False}
FLAGS = ("--train-limit", "640", "--no-preflight", "--decide", "--max-seeds", "5")


def raced(storage: str, sweep: Sweep = SWEEP, **options: object) -> Result:
    values = SMALL | {"storage_path": storage, "decide": True, "max_seeds": 5} | options
    return run(sweep, replace(sweep.default_options(), **values))  # type: ignore[arg-type]


def decisions(storage: str) -> pl.DataFrame:
    return SweepStore(storage, "race").read_decisions()


@pytest.fixture(scope="module")
def race(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Result]:
    """A race that nothing has happened to."""
    storage = str(tmp_path_factory.mktemp("race"))
    return storage, raced(storage)


def seeds(trials: pl.DataFrame) -> Mapping[str, int]:
    """Returns how many seeds each configuration has."""
    return Counter(f"{row['optimizer']} {row['lr']:g}" for row in trials.iter_rows(named=True))


def test_only_what_could_be_the_best_gets_more_seeds(race: tuple[str, Result]) -> None:
    storage, result = race
    trials = table_of(storage, "race")
    assert set(trials["status"]) == {"completed"}
    count = seeds(trials)
    assert min(count.values()) >= 3
    assert count["adam 0.01"] == max(count.values()) > 3
    assert count["adam 0.0001"] == 3, "it hardly learns"
    assert result.trained == trials.height == result.counts["completed"]
    assert result.decisions[0].reason == "3 seeds for each of 3 configurations to begin with."
    assert len(result.decisions[0].add) == 9
    assert result.decisions[-1].over
    assert not any(decision.over for decision in result.decisions[:-1])


def test_decisions_are_stored_as_they_were_taken(race: tuple[str, Result]) -> None:
    storage, result = race
    stored = decisions(storage)
    assert stored["number"].to_list() == list(range(len(result.decisions)))
    assert stored["reason"].to_list() == [decision.reason for decision in result.decisions]
    added = {trial.trial_id for decision in result.decisions for trial in decision.add}
    assert added == set(table_of(storage, "race")["trial_id"])


def test_it_prints_nothing_and_answers(race: tuple[str, Result], capsys: pytest.CaptureFixture[str]) -> None:
    storage, before = race
    again = raced(storage)
    assert capsys.readouterr() == ("", "")
    assert again.trained == 0
    assert again.decisions == before.decisions
    assert again.report.answer == before.report.answer
    assert again.report.ranking.row(0, named=True)["label"] == "lr 0.01"


def test_what_is_stored_is_taken_in_and_more_budget_goes_on(ray_cluster: None, storage: str) -> None:
    status, _ = run_here(SWEEP, storage, seeds=(101, 7, 103), **SMALL)
    assert status == 0
    few = raced(storage, max_seeds=4)
    assert few.decisions[0].add != ()
    assert {trial.seed for decision in few.decisions for trial in decision.add} == {21}
    assert few.spec.race is not None
    assert few.spec.race["seeds"] == [7, 101, 103, 21]
    assert few.decisions[-1].over
    more = raced(storage)
    assert more.decisions[: len(few.decisions)] == few.decisions
    assert set(table_of(storage, "race")["seed"]) == {7, 101, 103, 21, 1}
    assert run_here(SWEEP, storage, seeds=(1,), **SMALL)[0] == 0, "another question in between"
    again = raced(storage)
    assert (again.trained, again.decisions) == (0, more.decisions)
    assert more.trained == len([trial for trial in more.spec.trials if trial.seed == 1]) > 0


def test_what_would_train_differently_is_refused_before_anything_is_trained(storage: str) -> None:
    """Also what has not ended, and nobody has asked for yet: the race might, after hours."""
    options = replace(SWEEP.default_options(), train_limit=640, storage_path=storage, decide=True, plan=True)
    trial = plan(SWEEP, options).trials[0].replace(seed=9)
    store = SweepStore(storage, "race")
    spec = SweepSpec(
        name="race",
        question="?",
        command="",
        trials=(trial,),
        datasets={trial.workload: "fashion_mnist"},
        fingerprint={},
        fingerprints={trial.trial_id: {"data": "other", "device": "cpu", "machine": "x", "training": "x"}},
    )
    store.write_spec(spec)
    with asking(SWEEP, options):
        pass
    store.append_epochs([made_up_record(trial, 1)])
    with (
        pytest.raises(InputError, match=r"holds the trial, trained on different data\. Use another --name"),
        asking(SWEEP, options),
    ):
        pass


@pytest.mark.slow
def test_a_smaller_care_goes_on_with_the_same_seeds(race: tuple[str, Result], ray_cluster: None, storage: str) -> None:
    first = raced(storage, care=0.5)
    assert first.decisions[-1].over
    assert "practically equal" in first.decisions[-1].reason
    second = raced(storage)
    assert first.spec.race is not None
    assert second.spec.race is not None
    assert second.spec.race["seeds"] == first.spec.race["seeds"]
    assert second.spec.race["policy"] != first.spec.race["policy"]
    assert first.trained + second.trained == race[1].trained
    assert_frame_equal(measured(storage, "race"), measured(race[0], "race"))


@pytest.mark.slow
def test_the_time_given_ends_it(ray_cluster: None, storage: str) -> None:
    result = raced(storage, hours=0.003)
    assert result.decisions[-1].over
    assert "The time given ends here: the next round takes about" in result.decisions[-1].reason
    assert min(seeds(table_of(storage, "race")).values()) >= 3, "the first round is trained to its end"
    assert raced(storage).decisions[-1].reason != result.decisions[-1].reason, "more time, more seeds"


@pytest.mark.parametrize("moments", [(10,), pytest.param((4, 9, 11), marks=pytest.mark.slow)], ids=["once", "thrice"])
def test_killed_and_resumed_it_decides_the_same(
    moments: tuple[int, ...],
    race: tuple[str, Result],
    places: Mapping[str, str],
    storage: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    script = write_script(tmp_path_factory.mktemp("script"), ARGUMENTS)
    for records in moments:  # the first round gives 9
        process = start(script, storage, *FLAGS, **places)
        wait_for(process, storage, records)
        kill_driver(process)
    assert raced(storage).exit_status == 0
    assert_frame_equal(decisions(storage), decisions(race[0]))
    assert_frame_equal(measured(storage, "race"), measured(race[0], "race"))
    summary = table_of(storage, "race", "summary")
    assert_frame_equal(summary, table_of(race[0], "race", "summary"))


def wait_for(process: Process, storage: str, records: int, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if SweepStore(storage, "race").read_epochs().height >= records:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {records} records came in: {process.poll()}")
