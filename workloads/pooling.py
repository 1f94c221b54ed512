"""Max-pooling with torch's results, faster on a CPU.

torch has two kernels: one for contiguous images, which processes one window at a time, and one for channels-last
images, which processes the same window of all channels at once. LeNet has few channels but many images. Treating all
planes as the channels of a single image fills the second kernel's vectors. Values and gradients equal those of
`torch.nn.MaxPool2d` bit for bit, including which of several equal maxima is chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class MaxPool2x2(nn.Module):
    """The largest of each 2x2 window: `torch.nn.MaxPool2d(2)`."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns images (n, channels, h // 2, w // 2) for images (n, channels, h, w)."""
        if images.device.type != "cpu":
            return functional.max_pool2d(images, 2)
        pooled: Tensor = _PlanesAsChannels.apply(images)
        return pooled


class _PlanesAsChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        planes = images.reshape(1, count * channels, height, width).contiguous(memory_format=torch.channels_last)
        shape = (count, channels, height // 2, width // 2)
        if not ctx.needs_input_grad[0]:
            return functional.max_pool2d(planes, 2).reshape(shape).contiguous()
        pooled, indices = functional.max_pool2d(planes, 2, return_indices=True)
        ctx.save_for_backward(images, indices.reshape(shape).contiguous())
        return pooled.reshape(shape).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        images, indices = ctx.saved_tensors
        # What autograd calls for MaxPool2d: kernel, stride, padding, dilation, ceil mode.
        passed_back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient.contiguous(), images, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
        )
        return passed_back
