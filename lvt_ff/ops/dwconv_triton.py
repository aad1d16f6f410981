"""Depthwise 3×3 convolution and GELU on a GPU.

A program takes some places of the rows of all frames, in channels side by side, and walks down the
frame: each row of tokens is loaded once, with its neighbours left and right, and adds to the three
rows of results that it touches. Sums are made in a fixed order, without atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lvt_ff.ops.launch_triton import NUM_PROGRAMS, conv_launch
from lvt_ff.ops.on_device_triton import on_device
from lvt_ff.ops.precision import in_range as tensor_in_range
from lvt_ff.ops.triton_device import gelu, gelu_slope, in_range

__all__ = ["dwconv_gelu", "dwconv_gelu_backward"]


@triton.jit
def _taps(X, at, y, x, H, W, real, C: tl.constexpr):
    """A row of tokens (places, channels) in float32, and its neighbours left and right."""
    real = real & (y >= 0) & (y < H)
    pointers = X + at
    left = tl.load(pointers - C, mask=real & (x > 0), other=0.0)
    here = tl.load(pointers, mask=real, other=0.0)
    right = tl.load(pointers + C, mask=real & (x + 1 < W), other=0.0)
    return left.to(tl.float32), here.to(tl.float32), right.to(tl.float32)


@triton.jit
def _filter_row(FILTERS, row, c, real, C: tl.constexpr):
    """Weights (1, channels) of a row of the filters, from left to right."""
    pointers = FILTERS + row * (3 * C) + c
    left = tl.load(pointers, mask=real, other=0.0).to(tl.float32)
    here = tl.load(pointers + C, mask=real, other=0.0).to(tl.float32)
    right = tl.load(pointers + 2 * C, mask=real, other=0.0).to(tl.float32)
    return left, here, right


@triton.jit
def _dot3(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def _places(num_places, HEIGHT, H, W, C: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """A program's channels (1, COLS), columns of the grid (ROWS, 1), tokens in memory and rows.

    Its number is, from the fastest on: channels, places (a column of a frame), strips of rows.
    """
    blocks: tl.constexpr = (C + COLS - 1) // COLS
    pid = tl.program_id(0)
    c, pid = (pid % blocks) * COLS + tl.arange(0, COLS)[None, :], pid // blocks
    num_blocks = tl.cdiv(num_places, ROWS)
    place = (pid % num_blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    strip = pid // num_blocks
    start = strip * HEIGHT
    frame, x = place // W, place % W
    at = ((frame.to(tl.int64) * H + start) * W + x) * C + c
    return c, x, at, (place < num_places) & (c < C), start, tl.minimum(start + HEIGHT, H)


@triton.jit
def convolve(
    X,
    FILTERS,
    BIAS,
    GRAD,
    OUT,
    num_places,
    HEIGHT,
    H,
    W,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """A strip of GELU(conv(x) + bias), or the gradient before GELU from the one behind it."""
    c, x, at, real, start, stop = _places(num_places, HEIGHT, H, W, C, ROWS, COLS)
    above = _filter_row(FILTERS, 0, c, c < C, C)
    middle = _filter_row(FILTERS, 1, c, c < C, C)
    below = _filter_row(FILTERS, 2, c, c < C, C)
    bias = tl.load(BIAS + c, mask=c < C, other=0.0).to(tl.float32)
    dtype = OUT.dtype.element_ty
    # Results of row y get their last part from row y + 1.
    row = _taps(X, at - W * C, start - 1, x, H, W, real, C)
    next_part = bias + _dot3(row, above)
    row = _taps(X, at, start, x, H, W, real, C)
    part, next_part = next_part + _dot3(row, middle), bias + _dot3(row, above)
    for y in range(start, stop):
        row = _taps(X, at + W * C, y + 1, x, H, W, real, C)
        hidden = part + _dot3(row, below)
        part, next_part = next_part + _dot3(row, middle), bias + _dot3(row, above)
        if BACKWARD:
            grad = tl.load(GRAD + at, mask=real, other=0.0).to(tl.float32)
            tl.store(OUT + at, in_range(grad * gelu_slope(hidden), dtype), mask=real)
        else:
            tl.store(OUT + at, gelu(hidden).to(dtype), mask=real)
        at += W * C


@triton.jit
def convolve_backward(
    X,
    FILTERS,
    D_HIDDEN,
    D_X,
    PARTS,
    num_places,
    HEIGHT,
    H,
    W,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """A strip of the convolution's gradient, and what it adds to those of filters and bias.

    The rows of gradients that are walked down meet the rows of tokens above, at and below them.
    """
    c, x, at, real, start, stop = _places(num_places, HEIGHT, H, W, C, ROWS, COLS)
    # Turned: the gradient of a token comes from where it went to.
    above = _filter_row(FILTERS, 2, c, c < C, C)
    middle = _filter_row(FILTERS, 1, c, c < C, C)
    below = _filter_row(FILTERS, 0, c, c < C, C)
    above = above[2], above[1], above[0]
    middle = middle[2], middle[1], middle[0]
    below = below[2], below[1], below[0]
    zeros = tl.zeros((ROWS, COLS), tl.float32)
    d_bias = zeros
    d_up_left, d_up, d_up_right = zeros, zeros, zeros
    d_left, d_here, d_right = zeros, zeros, zeros
    d_down_left, d_down, d_down_right = zeros, zeros, zeros
    left, here, right = _taps(D_HIDDEN, at - W * C, start - 1, x, H, W, real, C)
    next_part = _dot3((left, here, right), above)
    own = tl.load(X + at, mask=real, other=0.0).to(tl.float32)
    # A token reaches the results left of it by the filters' right column, above it by the last row.
    d_down_right += own * left
    d_down += own * here
    d_down_left += own * right
    left, here, right = _taps(D_HIDDEN, at, start, x, H, W, real, C)
    part = next_part + _dot3((left, here, right), middle)
    next_part = _dot3((left, here, right), above)
    for y in range(start, stop):
        d_right += own * left
        d_here += own * here
        d_left += own * right
        d_bias += here
        # The row of gradients at y meets the tokens of y + 1, if they are this program's.
        after = tl.load(X + at + W * C, mask=real & (y + 1 < stop), other=0.0).to(tl.float32)
        d_down_right += after * left
        d_down += after * here
        d_down_left += after * right
        left, here, right = _taps(D_HIDDEN, at + W * C, y + 1, x, H, W, real, C)
        d_up_right += own * left
        d_up += own * here
        d_up_left += own * right
        total = part + _dot3((left, here, right), below)
        part = next_part + _dot3((left, here, right), middle)
        next_part = _dot3((left, here, right), above)
        own = after
        tl.store(D_X + at, in_range(total, D_X.dtype.element_ty), mask=real)
        at += W * C
    blocks: tl.constexpr = (C + COLS - 1) // COLS
    out = PARTS + (tl.program_id(0) // blocks).to(tl.int64) * (10 * C) + c
    tl.store(out, tl.sum(d_up_left, 0)[None, :], mask=c < C)
    tl.store(out + C, tl.sum(d_up, 0)[None, :], mask=c < C)
    tl.store(out + 2 * C, tl.sum(d_up_right, 0)[None, :], mask=c < C)
    tl.store(out + 3 * C, tl.sum(d_left, 0)[None, :], mask=c < C)
    tl.store(out + 4 * C, tl.sum(d_here, 0)[None, :], mask=c < C)
    tl.store(out + 5 * C, tl.sum(d_right, 0)[None, :], mask=c < C)
    tl.store(out + 6 * C, tl.sum(d_down_left, 0)[None, :], mask=c < C)
    tl.store(out + 7 * C, tl.sum(d_down, 0)[None, :], mask=c < C)
    tl.store(out + 8 * C, tl.sum(d_down_right, 0)[None, :], mask=c < C)
    tl.store(out + 9 * C, tl.sum(d_bias, 0)[None, :], mask=c < C)


class _Strips:
    """How programs share the tokens of a convolution.

    Args:
        x: (B, T, N, C), contiguous.
        grid: (h, w).
        backward: of the gradients of filters too.
    """

    def __init__(self, x: Tensor, grid: tuple[int, int], backward: bool = False):
        (h, w), num_channels = grid, x.shape[-1]
        launch, cols = conv_launch(backward)
        num_places = x.shape[0] * x.shape[1] * w
        columns = triton.cdiv(num_places, launch.rows)
        channels = triton.cdiv(num_channels, cols)
        # All rows of a frame at once, unless few programs would have work.
        strips = min(h, triton.cdiv(NUM_PROGRAMS, max(columns * channels, 1)))
        height = triton.cdiv(h, strips)
        strips = triton.cdiv(h, height)
        self.count = columns * strips  # times channels
        self.programs = (self.count * channels,)
        self.sizes = num_places, height, h, w
        self.options = {
            "C": num_channels,
            "ROWS": launch.rows,
            "COLS": cols,
            **launch.options,
        }


def _filters(weight: Tensor) -> Tensor:
    """Filters (C, 1, 3, 3) with channels last, (9, C)."""
    return weight.flatten(1).t().contiguous()


@on_device
def dwconv_gelu(x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> Tensor:
    """See `lvt_ff.ops.dwconv.dwconv_gelu`."""
    x, filters, bias = x.contiguous(), _filters(weight), bias.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        strips = _Strips(x, grid)
        convolve[strips.programs](
            x, filters, bias, x, out, *strips.sizes, BACKWARD=False, **strips.options
        )
    return out


def _hidden_gradient(
    grad: Tensor, x: Tensor, filters: Tensor, bias: Tensor, grid: tuple[int, int]
) -> Tensor:
    """The gradient before GELU; the convolution is computed again."""
    d_hidden, strips = torch.empty_like(x), _Strips(x, grid)
    convolve[strips.programs](
        x, filters, bias, grad, d_hidden, *strips.sizes, BACKWARD=True, **strips.options
    )
    return d_hidden


@on_device
def dwconv_gelu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    grad, x, filters, bias = grad.contiguous(), x.contiguous(), _filters(weight), bias.contiguous()
    d_x = torch.empty_like(x)
    if x.numel() == 0:
        return d_x, torch.zeros_like(weight), torch.zeros_like(bias)
    d_hidden = _hidden_gradient(grad, x, filters, bias, grid)
    strips = _Strips(x, grid, backward=True)
    parts = x.new_empty(strips.count, 10, x.shape[-1], dtype=torch.float32)
    convolve_backward[strips.programs](
        x, filters, d_hidden, d_x, parts, *strips.sizes, **strips.options
    )
    # Nine weights of every filter and its bias.
    d_weight = parts[:, :9].sum(0).t().reshape(weight.shape)
    d_bias = parts[:, 9].sum(0)
    return d_x, tensor_in_range(d_weight, weight.dtype), tensor_in_range(d_bias, bias.dtype)
