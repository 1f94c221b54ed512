"""What a GPU makes of LeNet: a step in several ways, and several trials at once. Not yet run on a GPU.

    python -m tests.benchmarks.gpu [--trials 1 2 4 8 16] [--steps 430] [--rounds 3]

Prints two tables and writes `tests/benchmarks/results/gpu.json`. About 8 minutes, mostly processes that start.

A step is trained eagerly, as sweeps do; with torch's fused optimizer; and as a CUDA graph that holds all of it. Trials
at once are processes that the GPU takes in turns, as sweeps have them; processes that share it by MPS, if its program
is there; and threads of one process, each with a stream of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks import figures
from workloads.lenet import LeNet

BATCH, EPOCH = 64, 860
"""Images of a step, and steps of an epoch of 55,000 images."""
WARM_UP = 11
"""Steps before anything is measured; torch asks for 11 before a graph is captured."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a GPU makes of LeNet."""

    trials: tuple[int, ...] = (1, 2, 4, 8, 16)
    """How many at once."""
    steps: int = EPOCH // 2
    """Training steps of each measurement."""
    rounds: int = 3
    """Measurements of each kind of step."""
    device: str = "cuda"
    """Where; "cpu" only shows that it runs, without what CUDA alone has."""


Step = Callable[[], object]


def _parts(device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(BATCH, 1, 32, 32, device=device)
    return LeNet(1, 10, batch_norm=False).to(device), images, torch.arange(BATCH, device=device) % 10


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def eager(device: torch.device) -> Step:
    """Returns a step as sweeps train it."""
    model, *batch = _parts(device)
    adam = torch.optim.Adam(model.parameters(), lr=0.001, capturable=device.type == "cuda")
    return _step(model, adam, *batch)


def fused(device: torch.device) -> Step:
    """Returns a step whose optimizer is a single kernel."""
    model, *batch = _parts(device)
    return _step(model, torch.optim.Adam(model.parameters(), lr=0.001, fused=True), *batch)


def graph(device: torch.device) -> Step:
    """Returns a step that is replayed as a whole."""
    step, stream = eager(device), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()
    return captured.replay


STEPS: Mapping[str, Callable[[torch.device], Step]] = {"eager": eager, "fused": fused, "CUDA graph": graph}
ON_CPU = ("eager", "fused")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(step: Step, steps: int, device: torch.device) -> float:
    """Returns what a step takes."""
    for _ in range(WARM_UP):
        step()
    _finish(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _finish(device)
    return (time.perf_counter() - started) / steps


def kernels(step: Step, device: torch.device, steps: int = 20) -> tuple[float, float]:
    """Returns how many kernels a step has, and which part of the time the GPU is busy with them."""
    if device.type != "cuda":
        return float("nan"), float("nan")
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        _finish(device)
        took = time.perf_counter() - started
    found = [event for event in seen.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len(found) / steps, sum(event.device_time for event in found) / 1e6 / took


def measure_step(name: str, arguments: Arguments) -> dict[str, Any]:
    """Returns the figures of one kind of step."""
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.cuda.reset_peak_memory_stats()
    step = STEPS[name](device)
    took = statistics.median(seconds(step, arguments.steps, device) for _ in range(arguments.rounds))
    number, busy = kernels(step, device)
    memory = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
    return {"step": name, "seconds": took, "kernels": number, "busy": busy, "memory": memory}


# -- several at once ------------------------------------------------------------------------------------------------

CHILD = """
import sys, torch
from tests.benchmarks.gpu import EPOCH, WARM_UP, eager, seconds
device, steps = torch.device(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
step = eager(device)
for _ in range(WARM_UP): step()
print("ready", flush=True)
input()
print(seconds(step, steps, device), flush=True)
"""


def processes(count: int, arguments: Arguments, env: Mapping[str, str] | None = None) -> float:
    """Returns what a step takes in each of several processes that begin together: the slowest's."""
    command = [sys.executable, "-c", CHILD, arguments.device, str(arguments.steps)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **(env or {})})
        for _ in range(count)
    ]
    try:
        for child in started:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in started:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        return max(float(child.communicate()[0]) for child in started)
    finally:
        for child in started:
            child.kill()


def streams(count: int, arguments: Arguments) -> float:
    """Returns what a step takes in each of several threads, each with a stream: the slowest's."""
    device = torch.device(arguments.device)
    found: list[float] = []
    together = threading.Barrier(count)

    def train() -> None:
        own = torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else contextlib.nullcontext()
        with own:
            step = eager(device)
            step()
            together.wait()
            found.append(seconds(step, arguments.steps, device))

    threads = [threading.Thread(target=train) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(found)


@contextlib.contextmanager
def mps() -> Iterator[Mapping[str, str]]:
    """Starts NVIDIA's Multi-Process Service, for processes with the variables that it yields."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env={**os.environ, **env}, check=True)
        try:
            yield env
        finally:
            quit_ = ["nvidia-cuda-mps-control"]
            subprocess.run(quit_, input="quit\n", text=True, env={**os.environ, **env}, check=False)


def measure_together(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Yields the figures of several trials at once."""
    for count in arguments.trials:
        yield {"how": "in turns", "trials": count, "seconds": processes(count, arguments)}
        yield {"how": "streams", "trials": count, "seconds": streams(count, arguments)}
    if shutil.which("nvidia-cuda-mps-control"):
        with mps() as env:
            for count in arguments.trials:
                yield {"how": "MPS", "trials": count, "seconds": processes(count, arguments, env)}


def tables(measured: figures.Rows) -> Sequence[figures.Table]:
    """Returns the tables of what was measured."""
    steps = [
        (
            str(row["step"]),
            *(f"{1000 * row['seconds']:.3f}", f"{row['seconds'] * EPOCH:.2f}", f"{row['kernels']:.0f}"),
            *(f"{row['busy']:.0%}", f"{row['memory'] / 2**20:.0f}"),
        )
        for row in measured
        if "step" in row
    ]
    together = [
        (
            f"{row['how']}, {row['trials']}",
            f"{row['seconds'] * EPOCH:.2f}",
            f"{3600 * row['trials'] / (row['seconds'] * EPOCH):,.0f}",
        )
        for row in measured
        if "how" in row
    ]
    return (
        figures.Table(("step", "ms", "s an epoch", "kernels", "GPU busy", "MiB"), steps),
        figures.Table(("trials at once", "s an epoch", "epochs an hour, all together"), together),
    )


def main(arguments: Arguments) -> None:
    """Measures, prints, and writes what was measured on a GPU."""
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("error: torch finds no GPU; --device cpu only shows that this runs")
    measured = [measure_step(name, arguments) for name in (STEPS if on_gpu else ON_CPU)]
    measured += measure_together(arguments)
    if on_gpu:
        figures.write("gpu", asdict(arguments), measured)
    for table in tables(measured):
        table.show()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
