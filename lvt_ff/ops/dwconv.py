"""Depthwise 3×3 convolution over the tokens of every frame, its bias and GELU, as an operator."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lvt_ff.ops import dwconv_cpu
from lvt_ff.ops.precision import autocast_off
from lvt_ff.ops.registry import may_overwrite, on_demand, operator

__all__ = ["dwconv_gelu"]

_INPUTS = "Tensor x, Tensor weight, Tensor bias, int[] grid"


_forward = operator(
    f"dwconv_gelu({_INPUTS}) -> Tensor",
    cpu=dwconv_cpu.dwconv_gelu,
    triton=on_demand("dwconv_triton", "dwconv_gelu"),
    fake=lambda x, weight, bias, grid: x.new_empty(x.shape),
)
_backward = operator(
    f"dwconv_gelu_backward(Tensor grad, {_INPUTS}) -> (Tensor, Tensor, Tensor)",
    cpu=dwconv_cpu.dwconv_gelu_backward,
    triton=on_demand("dwconv_triton", "dwconv_gelu_backward"),
    fake=lambda grad, *inputs: tuple(x.new_empty(x.shape) for x in inputs[:3]),
)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.grid = inputs[3]


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    return *_backward(grad.contiguous(), *ctx.saved_tensors, ctx.grid), None


_forward.register_autograd(_gradients, setup_context=_keep)


def dwconv_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int], overwrite: bool = False
) -> Tensor:
    """`GELU(conv(x) + bias)`, the exact GELU.

    Args:
        x: tokens (B, T, N, C).
        weight: filters (C, 1, 3, 3).
        bias: (C,).
        grid: (h, w) with N = h·w.
        overwrite: `x` is not needed again: without gradients its memory may take the result.

    Returns:
        (B, T, N, C) in the dtype of `x`; computed in float32 (or float64).
    """
    if overwrite and x.is_contiguous() and may_overwrite(x, weight, bias):
        with autocast_off("cpu"):
            return dwconv_cpu.dwconv_gelu(x, weight, bias, grid, out=x)
    return _forward(x, weight, bias, grid)


@register_flop_formula(torch.ops.lvt_ff.dwconv_gelu)
def _count(x: tuple, weight: tuple, *rest: Any, **out: Any) -> int:
    return 2 * prod(x) * prod(weight[2:])


@register_flop_formula(torch.ops.lvt_ff.dwconv_gelu_backward)
def _count_backward(grad: tuple, *inputs: Any, **out: Any) -> int:
    return 3 * _count(*inputs)
