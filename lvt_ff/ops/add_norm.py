"""A residual branch's sum and its LayerNorm as one operator."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lvt_ff.ops.registry import may_overwrite, on_demand, operator

__all__ = ["add", "add_norm"]

_LAYER = "Tensor weight, Tensor bias, float eps"


def _on_cpu(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    total = x.contiguous() + y.contiguous()  # sums of other layouts have another layout
    like = total.dtype
    normed = torch.native_layer_norm(total, weight.shape, weight.to(like), bias.to(like), eps)[0]
    return total, normed.to(dtype)


def _on_cpu_backward(
    grad_total: Tensor, grad_normed: Tensor, total: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    like, shape = total.dtype, weight.shape
    w, b = weight.to(like), bias.to(like)
    _, mean, rstd = torch.native_layer_norm(total, shape, w, b, eps)
    d_x, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
        grad_normed.to(like), total, shape, mean, rstd, w, b, [True, True, True]
    )
    return d_x.add_(grad_total), d_weight.to(weight.dtype), d_bias.to(bias.dtype)


def _empty(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    total = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype))
    return total, total.new_empty(x.shape, dtype=dtype)


_forward = operator(
    f"add_norm(Tensor x, Tensor y, {_LAYER}, ScalarType dtype) -> (Tensor, Tensor)",
    cpu=_on_cpu,
    triton=on_demand("add_norm_triton", "add_norm"),
    fake=_empty,
)
_backward = operator(
    "add_norm_backward(Tensor grad_total, Tensor grad_normed, Tensor total, "
    f"{_LAYER}) -> (Tensor, Tensor, Tensor)",
    cpu=_on_cpu_backward,
    triton=on_demand("add_norm_triton", "add_norm_backward"),
    fake=lambda a, b, *inputs: tuple(t.new_empty(t.shape) for t in inputs[:3]),
)


def _keep(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, y, weight, bias, eps, _ = inputs
    ctx.save_for_backward(output[0], weight, bias)
    ctx.eps, ctx.dtypes = eps, (x.dtype, y.dtype)


def _gradients(ctx: Any, grad_total: Tensor, grad_normed: Tensor) -> tuple:
    total, weight, bias = ctx.saved_tensors
    d_total, d_weight, d_bias = _backward(
        grad_total.contiguous(), grad_normed.contiguous(), total, weight, bias, ctx.eps
    )
    return *(d_total.to(dtype) for dtype in ctx.dtypes), d_weight, d_bias, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def add_norm(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    overwrite: bool = False,
    for_linear: bool = True,
) -> tuple[Tensor, Tensor]:
    """`x + y` and its LayerNorm over the last axis.

    Args:
        x: (..., D).
        y: (..., D).
        weight: (D,).
        bias: (D,).
        eps: added to the variance.
        overwrite: `y` is not needed again: without gradients its memory may take the sum.
        for_linear: what is normed goes into linear layers only, which would cast it to autocast's
            dtype: it is in that dtype at once.

    Returns:
        The sum, and it normed.
    """
    if overwrite and may_overwrite(x, y, weight, bias):
        total = add(x, y, overwrite)
        return total, F.layer_norm(total, weight.shape, weight, bias, eps)
    dtype = torch.promote_types(x.dtype, y.dtype)
    lowers = for_linear and dtype != torch.float64  # which autocast leaves alone
    if lowers and torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return _forward(x, y, weight, bias, eps, dtype)


def add(x: Tensor, y: Tensor, overwrite: bool = False) -> Tensor:
    """`x + y`, in the memory of `y` where that is not needed again and there are no gradients."""
    if overwrite and x.dtype == y.dtype and may_overwrite(x, y):
        return y.add_(x)
    return x + y
