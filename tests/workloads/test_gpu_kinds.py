"""What is compared of a GPU: its model and how it computes, as torch says; on a machine without one, too."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from workloads.fingerprint import Fingerprint, Probed, device, fingerprints, hardware_of
from workloads.registry import resolve
from workloads.training import Hardware
from workloads.trial import TrialConfig

T4 = SimpleNamespace(name="Tesla T4", major=7, minor=5, multi_processor_count=40)
A10G = SimpleNamespace(name="NVIDIA A10G", major=8, minor=6, multi_processor_count=80)
SLICE = SimpleNamespace(name="NVIDIA A100-SXM4-40GB MIG 1g.5gb", major=8, minor=0, multi_processor_count=14)
ON_GPU = Hardware(gpu=True)


def there(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, cudnn: int = 91002) -> None:
    """Lets torch find a GPU of that kind."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: gpu)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)


def test_a_gpu_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    there(T4, monkeypatch)
    assert device(ON_GPU) == (
        "cuda, Tesla T4 7.5 with 40 multiprocessors, CUDA 13.0, cuDNN 91002, cudnn benchmark off, deterministic on, "
        "TF32 off"
    )
    assert device(Hardware(threads=2)) == "cpu, 2 threads", "stored so since the first version"


@pytest.mark.parametrize(
    "hardware",
    [
        ON_GPU,
        Hardware(gpu=True, tf32=True),
        Hardware(gpu=True, cudnn_benchmark=True, cudnn_deterministic=False),
        Hardware(threads=3),
    ],
    ids=str,
)
def test_the_words_say_how_to_train_again(hardware: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    there(SLICE, monkeypatch)
    assert hardware_of(device(hardware)) == hardware


def test_another_gpu_library_or_rounding_is_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    there(T4, monkeypatch)
    found = [device(ON_GPU), device(Hardware(gpu=True, tf32=True))]
    there(T4, monkeypatch, cudnn=90100)
    found.append(device(ON_GPU))
    for gpu in (A10G, SLICE):
        there(gpu, monkeypatch)
        found.append(device(ON_GPU))
    assert len(set(found)) == len(found)
    assert device(replace(ON_GPU, gpu_memory_fraction=0.5)) == found[-1], "how much of it makes no difference"


def test_what_a_worker_found_is_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = resolve(TrialConfig(workload="lenet_synthetic", epochs=1))
    there(T4, monkeypatch)
    on_t4, on_cpu = device(ON_GPU), device(Hardware())
    there(A10G, monkeypatch)
    on_a10g = device(ON_GPU)

    def now(where: str) -> Fingerprint:  # this process has no GPU: it takes the worker's word
        probed = {trial.trial_id: Probed(device=where, machine="m", training="t")}
        return fingerprints([trial], ON_GPU, probed=probed)[trial.trial_id]

    assert now(on_t4).difference(now(on_t4).to_json()) is None
    assert now(on_a10g).difference(now(on_t4).to_json()) == f"on {on_t4}, now {on_a10g}"
    assert now(on_a10g).difference(now(on_cpu).to_json()) == f"on {on_cpu}, now {on_a10g}"


def test_rounding_is_set_for_convolutions_and_products() -> None:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    try:
        for tf32 in (True, False):
            Hardware(gpu=True, tf32=tf32).apply()
            assert (cudnn.allow_tf32, products.allow_tf32) == (tf32, tf32)
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before
