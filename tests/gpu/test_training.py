"""What only a GPU can show of a training: `pytest -m gpu`, on a machine with one. Not yet run on a GPU.

Which tensor is where, and what waits for it, `tests/workloads/test_pretended_gpu.py` tests without one.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.workloads.on_pretended_gpu import BASE, SETTINGS, STEPS, cases, made_up
from tests.workloads.test_pretended_gpu import A_STEP, EPOCH, MORE
from workloads import training
from workloads.fingerprint import device, probe_machine
from workloads.training import CONTEXT_BYTES, Hardware, Images, State, train
from workloads.trial import CLOCK_FIELDS, EpochRecord, TrialConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

ON_GPU = Hardware(gpu=True)
NAMED = pytest.mark.parametrize(("name", "config"), list(cases()), ids=[name for name, _ in cases()])


@pytest.fixture(scope="module")
def there() -> Images:
    """Noise, on the GPU."""
    return Images(made_up(), ON_GPU.apply())


@pytest.fixture(scope="module")
def here() -> Images:
    """The same on the CPU."""
    return Images(made_up(), torch.device("cpu"))


def measured(record: EpochRecord) -> dict[str, Any]:
    return {name: value for name, value in record.to_json().items() if name not in (*CLOCK_FIELDS, "trial_id")}


def trained(config: TrialConfig, images: Images, **how: Any) -> tuple[list[dict[str, Any]], list[State]]:
    """Returns what a training measured, with the names of its states, and the states as files hold them."""
    states: list[State] = []
    keep = {"save": lambda state: states.append(State.from_bytes(state.to_bytes()))}
    found = [measured(record) for record in train(config, images=images, hardware=ON_GPU, **keep, **how)]
    return [{name: v for name, v in one.items() if name != "computed_by"} for one in found], states


@NAMED
def test_trained_twice_resumed_and_forked_it_is_bitwise_the_same(name: str, config: TrialConfig, there: Images) -> None:
    whole, states = trained(config, there)
    again, _ = trained(config, there)
    assert whole == again
    resumed, _ = trained(config, there, start=states[0])
    assert resumed == whole[1:]
    longer = config.replace(epochs=3) if config.scheduler in ("none", "plateau") else config
    forked, _ = trained(longer, there, start=states[0])
    alone, _ = trained(longer, there)
    assert forked == alone[1:]


@NAMED
def test_a_first_step_as_on_the_cpu(name: str, config: TrialConfig, there: Images, here: Images) -> None:
    one_step = config.replace(epochs=1, train_limit=config.batch_size, scheduler="none", scheduler_settings={})
    (on_gpu,), _ = trained(one_step, there)
    (on_cpu,) = (measured(record) for record in train(one_step, images=here))
    assert on_gpu["train_loss"] == pytest.approx(on_cpu["train_loss"], rel=1e-5), "the loss before the step"
    assert on_gpu["val_loss"] == pytest.approx(on_cpu["val_loss"], rel=1e-3), "and after it"


@NAMED
def test_nothing_waits_that_is_not_in_the_table(name: str, config: TrialConfig, there: Images) -> None:
    waited: list[int] = []
    function = training._train_epoch

    def watched(*args: Any) -> Any:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return function(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waited.append(sum("synchronizing" in str(one.message) for one in said))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_train_epoch", watched)
        trained(config, there)
    more = MORE.get(name.removeprefix("setting ").partition(",")[0], {})
    most = sum(EPOCH.values()) + sum(more.values()) + STEPS * A_STEP.get(name, 0)
    assert waited[1] <= most


def test_the_gpu_in_words_and_its_probe() -> None:
    assert device(ON_GPU).startswith(f"cuda, {torch.cuda.get_device_name(0)} ")
    before = probe_machine(ON_GPU)
    probe_machine.cache_clear()
    assert probe_machine(ON_GPU) == before


def test_rounding_is_seen_by_the_probe() -> None:
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("the GPU does not round")
    assert probe_machine(Hardware(gpu=True, tf32=True)) != probe_machine(ON_GPU)
    assert device(Hardware(gpu=True, tf32=True)) != device(ON_GPU)


@pytest.mark.parametrize("name", ["shift", "flip", "erasing"])
def test_draws_are_those_of_the_cpu(name: str, there: Images, here: Images) -> None:
    config = BASE.replace(workload_settings=SETTINGS[name], epochs=1, train_limit=BASE.batch_size)
    (on_gpu,), _ = trained(config, there)
    (on_cpu,) = (measured(record) for record in train(config, images=here))
    assert on_gpu["train_loss"] == pytest.approx(on_cpu["train_loss"], rel=1e-5)


def test_times_are_those_of_the_gpu(there: Images) -> None:
    epochs: Iterator[EpochRecord] = train(BASE.replace(epochs=6), images=there, hardware=ON_GPU)
    next(epochs)  # loads kernels
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    records = [next(epochs) for _ in range(4)]
    end.record()
    end.synchronize()
    counted = sum(record.train_seconds + record.eval_seconds for record in records)
    assert counted <= begin.elapsed_time(end) / 1000
    assert counted == pytest.approx(begin.elapsed_time(end) / 1000, rel=0.3), "the rest is naming states"


MEMORY = """
import torch
from tests.workloads.on_pretended_gpu import BASE, made_up
from workloads.training import Hardware, Images, train
hardware = Hardware(gpu=True, gpu_memory_fraction=0.25)
images = Images(made_up(), hardware.apply())
list(train(BASE, images=images, hardware=hardware))
torch.cuda.synchronize()
print(torch.cuda.memory_reserved(), flush=True)
input()
try:
    torch.empty(int(0.25 * torch.cuda.get_device_properties(0).total_memory), dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError:
    print("refused", flush=True)
"""


def test_what_a_process_takes_and_its_cap() -> None:
    free, _ = torch.cuda.mem_get_info()
    with subprocess.Popen(
        [sys.executable, "-c", MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        reserved = int(it.stdout.readline())
        taken = free - torch.cuda.mem_get_info()[0]
        it.stdin.write("\n")
        it.stdin.flush()
        assert it.stdout.readline() == "refused\n"
    assert 0 < taken - reserved <= CONTEXT_BYTES
