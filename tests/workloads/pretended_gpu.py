"""A pretended GPU: a device of torch's whose tensors hold real numbers, on the CPU. For machines without a GPU.

torch lets a program define a device of its own ("PrivateUse1"). Its tensors are wrappers around tensors on the CPU, and
every operation on them passes through `_Calls`, which refuses operands on two devices as CUDA does, and counts what
makes a program wait for a GPU: copies to it (`to_gpu`) and from it (`to_cpu`), and results that the CPU has to know
before it goes on (`syncs`).

Seen is where every tensor is, and what waits for it: of training, evaluation, checkpoints. Not seen are CUDA's kernels
and their numbers, streams, memory, and whatever is called below `torch.cuda`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "gpu"
COUNTS: Counter[str] = Counter()
"""What has happened so far: `to_gpu`, `to_cpu`, `syncs`."""

_aten = torch.ops.aten
_COPIES = (_aten.copy_.default, _aten._to_copy.default, _aten._foreach_copy_.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put_.default)
"""Take indices on the CPU too, and copy them."""
_SYNCS = {_aten._local_scalar_dense.default: 1, _aten.nonzero.default: 1, _aten.equal.default: 1}
_SYNCS |= {_aten.bincount.default: 2, _aten.masked_select.default: 1}
"""Operation -> how often the CPU waits in it."""


class DeviceMismatchError(RuntimeError):
    """Operands on two devices."""


class OnGPU(torch.Tensor):
    """A tensor that is on the pretended GPU."""

    numbers: Tensor
    """On the CPU."""

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnGPU:
        made: OnGPU = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(NAME, 0),
        )
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.numbers})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        COUNTS["to_cpu"] += 1
        return self.numbers.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        COUNTS["to_cpu"] += 1
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, dict(kwargs or {}))


class _Calls(TorchDispatchMode):
    """Sees the calls that have no operand on the GPU, too: some make the first."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, dict(kwargs or {}))


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    device = kwargs.pop("device", None)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    here = [tensor for tensor in tensors if not isinstance(tensor, OnGPU)]
    on_gpu = bool(there) if device is None else device.type == NAME
    if there and here and not _allowed(func, args, here):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in here)
        raise DeviceMismatchError(f"{func}: expected all tensors on {NAME}:0, but found some on the CPU: {shapes}")
    _count(func, args, there=there, here=here, on_gpu=on_gpu)

    wrappers: dict[int, Tensor] = {id(tensor.numbers): tensor for tensor in there}
    args, kwargs = tree_map_only(OnGPU, lambda tensor: tensor.numbers, (args, kwargs))
    found = func(*args, **kwargs)
    if not on_gpu or func is _aten._local_scalar_dense.default:
        return found
    known = {id(tensor): tensor for tensor in here} | wrappers
    return tree_map_only(Tensor, lambda one: known[id(one)] if id(one) in known else OnGPU(one), found)


def _allowed(func: Any, args: Any, here: list[Tensor]) -> bool:
    """Whether CUDA allows these operands on the CPU beside some on the GPU."""
    if func in _COPIES or (func in _INDEXED and isinstance(args[0], OnGPU)):
        return True
    changed = func._schema.is_mutable and isinstance(args[0], Tensor) and not isinstance(args[0], OnGPU)
    return not changed and not any(tensor.ndim for tensor in here)


def _count(func: Any, args: Any, *, there: list[OnGPU], here: list[Tensor], on_gpu: bool) -> None:
    if func is _aten._to_copy.default:
        if bool(there) != on_gpu:
            COUNTS["to_gpu" if on_gpu else "to_cpu"] += 1
    elif func in _COPIES:
        if there and here:
            destination = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            COUNTS["to_gpu" if isinstance(destination[0], OnGPU) else "to_cpu"] += len(destination)
    elif there and func in _INDEXED:
        indices = [index for index in args[1] if index is not None]
        COUNTS["to_gpu"] += sum(not isinstance(index, OnGPU) for index in indices)
        # A single value that is put where a mask says is a `masked_fill_` on CUDA, for which nobody waits.
        filled = func is _aten.index_put_.default and args[2].numel() == 1
        COUNTS["syncs"] += not filled and any(index.dtype == torch.bool for index in indices)
    elif there:
        COUNTS["syncs"] += _SYNCS.get(func, 0)


def set_up() -> None:
    """Defines the device in this process, which cannot be undone.

    Raises:
        ImportError: This version of torch has no way to.
    """
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within it, tensors can be on the device; it is set up."""
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    lists = (optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types)
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) becomes a copy that is seen
    for types in lists:  # optimizers take the implementation that they have for CUDA
        types.append(OnGPU)
    try:
        # Wrappers and inference mode do not go together; without gradients they do.
        with _Calls(), mock.patch.object(torch, "inference_mode", torch.no_grad):
            yield torch.device(NAME, 0)
    finally:
        for types in lists:
            types.remove(OnGPU)
        torch._C._set_only_lift_cpu_tensors(lifts)
