"""The benchmark of GPUs in short, on the CPU: it runs, and its tables say what was measured."""

import torch

from tests.benchmarks import gpu


def test_a_step_and_several_trials_on_the_cpu() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        short = gpu.Arguments(device="cpu", steps=3, rounds=1, trials=(2,))
        measured = [gpu.measure_step(name, short) for name in gpu.ON_CPU]
        measured += [{"how": "in turns", "trials": 2, "seconds": gpu.processes(2, short)}]
        measured += [{"how": "streams", "trials": 2, "seconds": gpu.streams(2, short)}]
    finally:
        torch.set_num_threads(threads)
    assert all(0 < row["seconds"] < 10 for row in measured)
    steps, together = gpu.tables(measured)
    assert [row[0] for row in steps.rows] == ["eager", "fused"]
    assert [row[0] for row in together.rows] == ["in turns, 2", "streams, 2"]


def test_what_a_table_says() -> None:
    rows = [
        {"step": "eager", "seconds": 0.001, "kernels": 60.0, "busy": 0.25, "memory": 3 * 2**20},
        {"how": "MPS", "trials": 4, "seconds": 0.002},
    ]
    steps, together = gpu.tables(rows)
    assert steps.rows == [("eager", "1.000", "0.86", "60", "25%", "3")]
    assert together.rows == [("MPS, 4", "1.72", "8,372")], "4 epochs in 1.72 s"
