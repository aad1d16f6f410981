"""Float32 where half precision is too coarse: sums over tokens overflow, exponentials vanish."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["autocast_off", "in_float32", "in_range", "sum_dtype", "upcast"]

# Fixed: torch before 2.12 cannot compile the question which devices have autocast.
_AUTOCAST_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def autocast_off(device_type: str) -> AbstractContextManager:
    """Context in which autocast does not lower the precision of a matrix product."""
    if device_type in _AUTOCAST_DEVICES:
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over tokens of this dtype are made in: float32, or float64 as it is."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def in_range(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in another dtype; those beyond float16's range become its largest number."""
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        x = x.clamp(-limit, limit)
    return x.to(dtype)


class _FromFloat16(torch.autograd.Function):
    """float16 to float32; gradients beyond float16's range become its largest number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return in_range(gradient, torch.float16)


def upcast(*tensors: Tensor) -> list[Tensor]:
    """Half-precision tensors in float32, others as they are.

    A gradient that float16 cannot hold stays finite: one over a denominator near 0 would make
    infinities, and the NaN of infinity times zero in a gate before it.
    """
    return [_in_full(x) for x in tensors]


@torch.fx.wrap  # a leaf of tracing: it looks at dtypes
def _in_full(x: Tensor) -> Tensor:
    if x.dtype == torch.float16 and x.requires_grad and torch.is_grad_enabled():
        return _FromFloat16.apply(x)
    return x.to(sum_dtype(x.dtype))


def in_float32(restore: str | None = None) -> Callable[[Callable], Callable]:
    """Decorator: tensors come in as float32 (or float64), and autocast is off.

    Args:
        restore: argument whose dtype the result gets; None leaves the result as it is computed.
    """

    def decorate(function: Callable) -> Callable:
        names = list(inspect.signature(function).parameters)
        place = names.index(restore) if restore else None

        @functools.wraps(function)
        def run(*args: Any) -> Any:
            device = next(x.device for x in args if isinstance(x, Tensor))
            with autocast_off(device.type):
                out = function(*(upcast(x)[0] if isinstance(x, Tensor) else x for x in args))
            return out if place is None else out.to(args[place].dtype)

        return run

    return decorate
