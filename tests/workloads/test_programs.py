"""`python -m workloads.evaluate` and `python -m workloads.describe`: what they print, and what they refuse."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from workloads import datasets, describe, evaluate
from workloads.console import parse
from workloads.datasets import SYNTHETIC
from workloads.lenet import LeNet
from workloads.registry import resolve
from workloads.training import Images, State, build_model, train
from workloads.trial import TrialConfig

ROOT = Path(__file__).parents[2]
CONFIG = TrialConfig(
    workload="lenet_synthetic", workload_settings={"batch_norm": True}, lr=0.003, epochs=2, train_limit=300
)


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Images:
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path / "cache"))
    return Images(datasets.load(SYNTHETIC), torch.device("cpu"))


def test_accuracy_of_a_checkpoint(stripes: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pt"
    *_, last = train(CONFIG, images=stripes, save=lambda state: path.write_bytes(state.to_bytes()))
    found = evaluate.check_accuracy(evaluate.load_state(path), stripes)
    assert {split: part.images for split, part in found.items()} == {"train": 800, "val": 200, "test": 200}
    assert (found["val"].loss, found["val"].accuracy) == (last.val_loss, last.val_accuracy)
    assert (found["test"].loss, found["test"].accuracy) == (last.test_loss, last.test_accuracy)
    model = build_model(evaluate.load_state(path).config)
    model.load_state_dict(evaluate.load_state(path).model)
    model.eval()
    with torch.no_grad():
        right = (model(stripes.images[:800]).argmax(1) == stripes.labels[:800]).double().mean().item()
    assert found["train"].accuracy == pytest.approx(right)

    evaluate.main([str(path)])
    printed = capsys.readouterr().out
    assert "lenet_synthetic, adam, lr 0.003: after epoch 2" in printed
    for split, part in found.items():
        (line,) = (line for line in printed.splitlines() if f" {split} " in line)
        assert f"{part.images:,}" in line
        assert f"{part.accuracy:.4f}" in line


def test_evaluation_mode_and_no_gradients(stripes: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []

    def watched(config: TrialConfig) -> nn.Module:
        model = build_model(config)
        model.register_forward_hook(lambda layer, _, logits: seen.append((layer.training, logits.requires_grad)))
        return model

    monkeypatch.setattr(evaluate, "build_model", watched)
    config = resolve(CONFIG)
    evaluate.check_accuracy(
        State(config=config, model=build_model(config).state_dict(), optimizer={}, history=()), stripes
    )
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is damaged or not a forksweep checkpoint"),
        (b"PK\3\4 text", "is damaged or not a forksweep checkpoint (RuntimeError)"),
        (b"text", "is damaged or not a forksweep checkpoint (IndexError)"),
    ],
)
def test_checkpoints_refused(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        evaluate.main([str(path)])
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": LeNet().state_dict()}, path)
    with pytest.raises(ValueError, match=r"is damaged or not a forksweep checkpoint \(KeyError\)$"):
        evaluate.load_state(path)


def test_layers_of_lenet() -> None:
    found = describe.layers(LeNet(), (1, 32, 32))
    assert [layer.shape for layer in found] == [
        *[(6, 28, 28), (6, 14, 14), (6, 14, 14), (16, 10, 10), (16, 5, 5), (16, 5, 5), (400,)],
        *[(120,), (120,), (84,), (84,), (10,)],
    ]
    assert [layer.parameters for layer in found if layer.parameters] == [156, 2_416, 48_120, 10_164, 850]


def test_a_network_that_uses_a_layer_in_another_order() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(2, 3)
            self.first = nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.first(images))
            return out

    assert [(layer.name, layer.shape) for layer in describe.layers(Backwards(), (4,))] == [
        ("first", (2,)),
        ("last", (3,)),
    ]


def test_what_describe_prints(capsys: pytest.CaptureFixture[str]) -> None:
    describe.main(["lenet_cifar10", "batch_norm=true"])
    printed = capsys.readouterr().out
    assert "lenet_cifar10: images 3 x 32 x 32, 10 classes" in printed
    # 3 * 150 weights without bias; one more pair of numbers for each plane.
    assert "450" in printed
    assert f"{61_706 + 300 + 22:,}" in printed
    assert "16 x 5 x 5" in printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_line_that_is_not_understood(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    with pytest.raises(ValueError, match=r"^Unrecognized options: --deep \(--help explains every flag\)$"):
        parse(describe.Arguments, ["lenet", "--deep"])
    with pytest.raises(ValueError, match=r"^Missing from evaluate: CHECKPOINT A file from a sweep's folder"):
        parse(evaluate.Arguments, [], prog="evaluate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "unknown workload 'resnet'; known: lenet_fashion_mnist, lenet_mnist"),
        (["lenet_mnist", "batch_norm=7"], "workload.batch_norm must be true or false, not 7"),
        (["lenet_mnist", "batch_norm"], "settings must be NAME=VALUE (e.g. batch_norm=true), not 'batch_norm'"),
        (["lenet_csv"], "no CSV given"),
        (["lenet", "--deep"], "Unrecognized options: --deep (--help explains every flag)"),
    ],
)
def test_describe_refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        describe.main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "workloads.describe", "lenet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lenet_fashion_mnist: images 1 x 32 x 32, 10 classes" in done.stdout
    assert "61,706" in done.stdout
