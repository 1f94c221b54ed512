"""LeNet: its layers, its size and its initial weights."""

import torch
from torch import nn

from workloads.lenet import LeNet, initialise


def test_layers() -> None:
    kinds = [type(layer).__name__ for layer in LeNet().layers]
    block = ["Conv2d", "MaxPool2x2", "ReLU"]
    assert kinds == [*block, *block, "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    weights = [tuple(layer.weight.shape) for layer in LeNet().layers if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert weights == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_parameters() -> None:
    # (25 + 1) * 6 + (150 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert sum(parameter.numel() for parameter in LeNet().parameters()) == 61_706


def test_shapes() -> None:
    with torch.no_grad():
        assert LeNet()(torch.zeros(3, 1, 32, 32)).shape == (3, 10)
        assert LeNet(channels=3, classes=47)(torch.zeros(2, 3, 32, 32)).shape == (2, 47)


def test_initial_weights_are_those_of_torch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torchs = LeNet()
        torch.manual_seed(6)
        ours = LeNet()
    initialise(ours, torch.Generator().manual_seed(5))
    # Not bit by bit: torch comes to the same bounds by another formula.
    for name, parameter in torchs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=1e-6, atol=0, msg=name)


def test_initial_weights_are_a_function_of_the_generator() -> None:
    def weights(seed: int, disturbance: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(disturbance)
            model = LeNet()
            initialise(model, torch.Generator().manual_seed(seed))
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(1, disturbance=0), weights(1, disturbance=7))
    assert not torch.equal(weights(1, disturbance=0), weights(2, disturbance=0))


def test_initialise_leaves_other_layers_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    initialise(model, torch.Generator().manual_seed(0))
    assert model[0].bias is None
    assert torch.equal(model[1].weight, torch.ones(2))
    assert torch.equal(model[1].bias, torch.zeros(2))
