"""Functions on tensors, without parameters."""

from lvt_ff.ops.linear import linear_attention, linear_weights, product
from lvt_ff.ops.precision import autocast_off, in_float32, upcast

__all__ = [
    "autocast_off",
    "in_float32",
    "linear_attention",
    "linear_weights",
    "product",
    "upcast",
]
