"""What a worker makes of a job, without Ray: what it goes on from, whose fault an error is, and what it is called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from analysis.store import SweepStore
from sweeps.tuning import worker
from sweeps.tuning.errors import StorageError
from sweeps.tuning.job import Job
from sweeps.tuning.watchdog import Watchdog
from sweeps.tuning.worker import _train_job, status_of
from tests.sweeps.runs import made_up_record
from tests.workloads.on_pretended_gpu import made_up
from workloads.fingerprint import probe_machine
from workloads.training import Hardware, State
from workloads.trial import EpochRecord, Status, TrialConfig

TRIAL = TrialConfig(epochs=3)


def state(epoch: int) -> State:
    history = tuple(EpochRecord(**made_up_record(TRIAL, number)) for number in range(1, epoch + 1))
    return State(config=TRIAL, model={}, optimizer={}, history=history)


def a_job(storage: str, known: int = 0) -> Job:
    return Job(
        config=TRIAL,
        known=known,
        ancestors=(),
        test_epochs=(),
        storage_path=storage,
        name="s",
        run="run",
        hardware=Hardware(),
        gpus=None,
        timeout=None,
    )


def stand_in(
    config: TrialConfig, *, start: State | None, save: Callable[[State], None], **_: Any
) -> Iterator[EpochRecord]:
    for epoch in range(start.epoch + 1 if start else 1, config.epochs + 1):
        save(state(epoch))
        yield EpochRecord(**made_up_record(config, epoch))


def train(store: SweepStore, train: Callable[..., Any] = stand_in, known: int = 0) -> list[tuple[int, str | None]]:
    job = a_job(store.storage_path, known)
    found = _train_job(job, store, Watchdog(job, store), {}, train)
    return [(record.epoch, checkpoint) for record, checkpoint in found]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_records_that_a_dead_worker_did_not_report_come_with_their_checkpoints(known: int, storage: str) -> None:
    store = SweepStore(storage, "s")
    before = {epoch: store.save_checkpoint(TRIAL.trial_id, epoch, state(epoch).to_bytes()).path for epoch in (1, 2)}
    *found, last = train(store, known=known)
    assert found == [(epoch, before[epoch]) for epoch in (1, 2) if epoch > known]
    assert last[0] == 3
    assert last[1] in store.files()


@pytest.mark.parametrize("known", [0, 1])
def test_a_training_ends_where_it_is_to_pause(known: int, storage: str) -> None:
    store = SweepStore(storage, "s")
    store.save_checkpoint(TRIAL.trial_id, 1, state(1).to_bytes())
    job = replace(a_job(store.storage_path, known), until=2)
    epochs = [record.epoch for record, _ in _train_job(job, store, Watchdog(job, store), {}, stand_in)]
    assert epochs == list(range(known + 1, 3))
    ahead = replace(job, known=0, until=1)  # its own checkpoint is ahead: another question had trained it further
    assert [record.epoch for record, _ in _train_job(ahead, store, Watchdog(ahead, store), {}, stand_in)] == [1]


@pytest.mark.parametrize("same", [True, False])
def test_a_machine_of_another_type_trains_nothing(
    same: bool, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(storage, "s").mkdir(parents=True)
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "_report", lambda **news: told.append(news))
    monkeypatch.setattr(worker, "_place", lambda job: {})
    machine = probe_machine(Hardware()) if same else "0123456789abcdef"
    job = replace(a_job(storage), machine=machine)
    worker.train_path({"job": job.to_json()}, {}, stand_in)
    if same:
        assert [news["record"]["epoch"] for news in told[1:]] == [1, 2, 3]
    else:
        (end,) = told
        assert end["end"] == "storage", "it ends the run, which can go on elsewhere, and fails no trial"
        assert "of another type than the one this sweep started on" in end["error"]


def test_a_shared_path_stays_on_one_kind_of_device(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "_report", lambda **news: told.append(news))
    job = replace(a_job(storage), device="cpu, 8 threads")
    worker.train_path({"job": job.to_json()}, {}, stand_in)
    (end,) = told
    assert end["end"] == "storage", "it ends the run, and fails no trial"
    assert "trains on cpu, 1 thread, but this sweep started on cpu, 8 threads; use nodes of one type" in end["error"]


def test_a_worker_holds_one_data_set(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = made_up()
    refs = {name: SimpleNamespace(hex=lambda name=name: name) for name in ("fashion_mnist", "synthetic")}
    monkeypatch.setattr(worker.ray, "get", lambda ref: noise)
    monkeypatch.setattr(worker, "_images", {})
    job = a_job(storage)
    other = replace(job, config=TrialConfig(workload="lenet_synthetic"))
    first = worker._images_for(job, refs)
    assert worker._images_for(job, refs) is first, "it stays on the device"
    assert worker._images_for(other, refs) is not first
    assert list(worker._images) == [("synthetic", "cpu")], "what is there goes before another comes"


def test_a_worker_whose_gpu_broke_ends_at_the_latest_before_the_next_training(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(storage, "s").mkdir(parents=True)
    told: list[dict[str, Any]] = []

    def ended() -> None:
        raise SystemExit

    def asserting(*_: Any, **__: Any) -> Iterator[EpochRecord]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(worker, "_report", lambda **news: told.append(news))
    monkeypatch.setattr(worker, "_place", lambda job: {"node": "n", "device": "cuda:0"})
    monkeypatch.setattr(worker, "_end_process", ended)
    monkeypatch.setattr(worker, "_BROKEN", threading.Event())
    job = {"job": a_job(storage).to_json()}
    for what in (asserting, stand_in):
        with pytest.raises(SystemExit):
            worker.train_path(job, {}, what)
    assert [news.get("end") for news in told] == [None, "failed"], "the second trains nothing"
    assert told[1]["broken"] == {"node": "n", "device": "cuda:0"}


def no_answer(*_: Any, **__: Any) -> Any:
    raise OSError("no answer from s3://user:secret@bucket")


@pytest.mark.parametrize("method", ["list_checkpoints", "load_checkpoint", "save_checkpoint"])
def test_storage_that_fails_is_no_trials_fault(method: str, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SweepStore(storage, "s")
    store.save_checkpoint(TRIAL.trial_id, 1, state(1).to_bytes())
    monkeypatch.setattr(store, method, no_answer)
    with pytest.raises(StorageError, match=r"^cannot use .*results/s: no answer from s3://bucket$"):
        train(store)


def test_a_training_that_cannot_read_its_own_file_has_failed(storage: str) -> None:
    store = SweepStore(storage, "s")
    store.write("sweep.json", b"")
    with pytest.raises(OSError, match="no answer"):
        train(store, train=no_answer)


ERRORS: dict[Status, list[Exception]] = {
    "out_of_memory": [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    "failed": [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), OSError("x")],
}


@pytest.mark.parametrize(("status", "error"), [(s, e) for s, errors in ERRORS.items() for e in errors], ids=str)
def test_what_an_error_is_called(status: Status, error: Exception) -> None:
    assert status_of(error) == status


def test_memory_that_a_cpu_does_not_have_is_called_so() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60)
    assert status_of(raised.value) == "out_of_memory"
