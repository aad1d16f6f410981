"""A residual branch's sum and its LayerNorm on a GPU, in one pass over the tokens."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lvt_ff.ops.launch_triton import NUM_PROGRAMS, norm_launch
from lvt_ff.ops.on_device_triton import on_device
from lvt_ff.ops.precision import in_range as tensor_in_range
from lvt_ff.ops.triton_device import in_range

__all__ = ["add_norm", "add_norm_backward"]


@triton.jit
def _statistics(x, real, eps, D: tl.constexpr):
    """Deviations from the mean (rows, DP), 0 beside the channels, and 1 / deviation (rows, 1)."""
    mean = tl.sum(x, 1)[:, None] / D
    x = tl.where(real, x - mean, 0.0)
    return x, tl.rsqrt(tl.sum(x * x, 1)[:, None] / D + eps)


@triton.jit
def add_and_norm(
    X,
    Y,
    WEIGHT,
    BIAS,
    TOTAL,
    NORMED,
    num_rows,
    eps,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Some rows of the sum and of the norm."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, DP)[None, :]
    real = (row < num_rows) & (c < D)
    at = row.to(tl.int64) * D + c
    x = tl.load(X + at, mask=real, other=0.0).to(tl.float32)
    y = tl.load(Y + at, mask=real, other=0.0).to(tl.float32)
    total = (x + y).to(TOTAL.dtype.element_ty)
    tl.store(TOTAL + at, total, mask=real)
    x, scale = _statistics(total.to(tl.float32), real, eps, D)
    weight = tl.load(WEIGHT + c, mask=c < D, other=0.0).to(tl.float32)
    bias = tl.load(BIAS + c, mask=c < D, other=0.0).to(tl.float32)
    normed = x * scale * weight + bias
    tl.store(NORMED + at, normed.to(NORMED.dtype.element_ty), mask=real)


@triton.jit
def norm_backward(
    GRAD_TOTAL,
    GRAD_NORMED,
    TOTAL,
    WEIGHT,
    D_TOTAL,
    PARTS,
    num_rows,
    SPAN,
    eps,
    D: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A span of rows of the sum's gradient, and what it adds to those of weight and bias."""
    r, c = tl.arange(0, ROWS)[:, None], tl.arange(0, DP)[None, :]
    weight = tl.load(WEIGHT + c, mask=c < D, other=0.0).to(tl.float32)
    d_weight, d_bias = tl.zeros((ROWS, DP), tl.float32), tl.zeros((ROWS, DP), tl.float32)
    start = tl.program_id(0) * SPAN
    stop = tl.minimum(start + SPAN, num_rows)
    for first in range(start, stop, ROWS):
        row = first + r
        real = (row < stop) & (c < D)
        at = row.to(tl.int64) * D + c
        x, scale = _statistics(
            tl.load(TOTAL + at, mask=real, other=0.0).to(tl.float32), real, eps, D
        )
        x *= scale
        grad = tl.load(GRAD_NORMED + at, mask=real, other=0.0).to(tl.float32)
        d_weight += grad * x
        d_bias += grad
        grad *= weight
        mean, along = tl.sum(grad, 1)[:, None] / D, tl.sum(grad * x, 1)[:, None] / D
        d_total = (grad - mean - x * along) * scale
        d_total += tl.load(GRAD_TOTAL + at, mask=real, other=0.0).to(tl.float32)
        tl.store(D_TOTAL + at, in_range(d_total, D_TOTAL.dtype.element_ty), mask=real)
    out = PARTS + tl.program_id(0) * (2 * D) + c
    tl.store(out, tl.sum(d_weight, 0)[None, :], mask=c < D)
    tl.store(out + D, tl.sum(d_bias, 0)[None, :], mask=c < D)


@on_device
def add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See `lvt_ff.ops.add_norm.add_norm`; the norm is in `dtype`."""
    x, y = x.contiguous(), y.contiguous()
    dim = x.shape[-1]
    padded, num_rows = triton.next_power_of_2(dim), x.numel() // dim
    total = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype))
    normed = x.new_empty(x.shape, dtype=dtype)
    if num_rows:
        launch = norm_launch(padded)
        add_and_norm[(triton.cdiv(num_rows, launch.rows),)](
            x,
            y,
            weight.contiguous(),
            bias.contiguous(),
            total,
            normed,
            num_rows,
            eps,
            D=dim,
            DP=padded,
            ROWS=launch.rows,
            **launch.options,
        )
    return total, normed


@on_device
def add_norm_backward(
    grad_total: Tensor, grad_normed: Tensor, total: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum, of weight and of bias; statistics are computed again."""
    total = total.contiguous()
    dim = total.shape[-1]
    padded, num_rows = triton.next_power_of_2(dim), total.numel() // dim
    d_total = torch.empty_like(total)
    if num_rows == 0:
        return d_total, torch.zeros_like(weight), torch.zeros_like(bias)
    launch = norm_launch(padded)
    span = triton.cdiv(triton.cdiv(num_rows, NUM_PROGRAMS), launch.rows) * launch.rows
    count = triton.cdiv(num_rows, span)
    parts = total.new_empty(count, 2, dim, dtype=torch.float32)
    norm_backward[(count,)](
        grad_total.contiguous(),
        grad_normed.contiguous(),
        total,
        weight.contiguous(),
        d_total,
        parts,
        num_rows,
        span,
        eps,
        D=dim,
        DP=padded,
        ROWS=launch.rows,
        **launch.options,
    )
    d_weight = tensor_in_range(parts[:, 0].sum(0), weight.dtype)
    return d_total, d_weight, tensor_in_range(parts[:, 1].sum(0), bias.dtype)
