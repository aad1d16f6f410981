"""Arithmetic that the Triton kernels share: numbers in a tile, whatever the tile is of."""

import triton
import triton.language as tl

__all__ = ["gelu", "gelu_slope", "in_range", "narrow", "product", "sigmoid"]

_FLOAT16_MAX = tl.constexpr(65504.0)
# A tile's largest number in float16: sums of products do not overflow, and numbers down to 2^-28
# of it keep their digits.
_FLOAT16_TOP = tl.constexpr(16384.0)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_INV_SQRT_TWO_PI = tl.constexpr(0.3989422804014327)


@triton.jit
def product(a, b):
    """Matrix product, summed in float32; float32 inputs are not rounded to tf32."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def in_range(x, dtype: tl.constexpr):
    """Numbers in another dtype; those beyond float16's range become its largest number."""
    if dtype == tl.float16:
        x = tl.where(x > _FLOAT16_MAX, _FLOAT16_MAX, x)  # not minimum, which loses NaN
        x = tl.where(x < -_FLOAT16_MAX, -_FLOAT16_MAX, x)
    return x.to(dtype)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """A tile in the dtype of products, and the factor it was divided by to be in range there."""
    if dtype == tl.float16:
        factor = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), 1e-30) / _FLOAT16_TOP
        return (x / factor).to(dtype), factor
    else:
        return x.to(dtype), 1.0


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def gelu(x):
    """The exact GELU."""
    return 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))


@triton.jit
def gelu_slope(x):
    """Derivative of the exact GELU."""
    below = 0.5 * (1.0 + tl.erf(x * _SQRT_HALF))
    return below + x * tl.exp(-0.5 * x * x) * _INV_SQRT_TWO_PI
