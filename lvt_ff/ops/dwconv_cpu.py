"""Depthwise convolution and GELU on a processor, some frames at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lvt_ff.ops.chunks import spans
from lvt_ff.ops.precision import in_range, sum_dtype

__all__ = ["dwconv_gelu", "dwconv_gelu_backward"]


def _frames(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """A view of tokens (B, T, N, C) as pictures (B·T, C, h, w), channels last in memory."""
    return x.flatten(0, 1).unflatten(1, tuple(grid)).permute(0, 3, 1, 2)


def _filters(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype, memory_format=torch.channels_last)


def _convolve(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, filters, bias, padding=filters.shape[-1] // 2, groups=len(filters))


def dwconv_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int], out: Tensor | None = None
) -> Tensor:
    """See `lvt_ff.ops.dwconv.dwconv_gelu`; `out` may be `x`."""
    dtype = sum_dtype(x.dtype)
    filters, bias = _filters(weight, dtype), bias.to(dtype)
    x = x.contiguous()
    out = torch.empty_like(x) if out is None else out
    pictures, results = _frames(x, grid), _frames(out, grid)
    for some in spans(len(pictures), 4 * x.shape[-2] * x.shape[-1]):
        hidden = _convolve(pictures[some].to(dtype), filters, bias)
        if out.dtype == dtype:
            torch.ops.aten.gelu.out(hidden, out=results[some])
        else:
            results[some] = F.gelu(hidden)
    return out


def dwconv_gelu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the convolution is computed again."""
    dtype = sum_dtype(x.dtype)
    filters, bias_in = _filters(weight, dtype), bias.to(dtype)
    turned = _filters(filters.flip(2, 3), dtype)
    x = x.contiguous()
    d_x = torch.empty_like(x)
    d_filters, d_bias = torch.zeros_like(filters), torch.zeros_like(bias_in)
    pictures, grads, d_pictures = (_frames(t, grid) for t in (x, grad, d_x))
    padding = [filters.shape[-1] // 2] * 2
    for some in spans(len(pictures), 4 * x.shape[-2] * x.shape[-1]):
        picture = pictures[some].to(dtype)
        hidden = _convolve(picture, filters, bias_in)
        d_hidden = torch.ops.aten.gelu_backward(grads[some].to(dtype), hidden)
        # The transposed convolution by the forward one, which torch has a faster path for.
        d_pictures[some] = in_range(_convolve(d_hidden, turned, None), x.dtype)
        _, of_filters, of_bias = torch.ops.aten.convolution_backward(
            d_hidden,
            picture,
            filters,
            [len(bias_in)],
            [1, 1],
            padding,
            [1, 1],
            False,
            [0, 0],
            len(filters),
            [False, True, True],
        )
        d_filters += of_filters
        d_bias += of_bias
    return d_x, d_filters.to(weight.dtype), d_bias.to(bias.dtype)
