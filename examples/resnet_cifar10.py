"""Which optimizer trains a small ResNet on CIFAR-10 best?

    python examples/resnet_cifar10.py
    python examples/resnet_cifar10.py --gpus-per-trial 0.25

AdamW and SGD with momentum, each at two learning rates with a cosine schedule, on images flipped at random: 4 trials of
10 epochs. About 30 minutes on 2 cores, estimated from the time of a training step. torchvision downloads the images
(170 MB) to the folder `cifar10` beside this file, once.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

from sweeps import Sweep, axis, main
from workloads import Workload

IMAGES = Path(__file__).with_name("cifar10")
PREPARED = Compose([ToTensor(), Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))])


class Block(nn.Module):
    """Two convolutions, and a connection past them (https://arxiv.org/abs/1512.03385)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.past = nn.Identity() if stride == 1 else nn.Conv2d(before, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (n, width, height / stride, width / stride)."""
        inner = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(inner)) + self.past(x))


def network(width: int = 16) -> nn.Module:
    """Three stages of one block each, twice as wide and half as large from one to the next."""
    stages = [Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)]
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), *stages, *head
    )


def data() -> dict[str, CIFAR10]:
    """Images (n, 3, 32, 32) and labels; forksweep holds out validation images."""
    return {
        split: CIFAR10(IMAGES, train=split == "train", transform=PREPARED, download=True) for split in ("train", "test")
    }


SWEEP = Sweep(
    name="resnet-cifar10",
    question="Which optimizer trains a small ResNet on CIFAR-10 best?",
    workload=Workload(name="resnet", network=network, data=data),
    optimizers=("adamw", "sgd_momentum"),
    lrs=(0.003, 0.03),
    schedulers=("cosine",),
    grid=axis("workload.flip", True),
    batch_size=128,
    epochs=10,
)

if __name__ == "__main__":
    main(SWEEP)
