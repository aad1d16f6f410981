"""Functions on tensors, without parameters."""

from lvt_ff.ops.linear import autocast_off, linear_attention, linear_weights, product, upcast

__all__ = ["autocast_off", "linear_attention", "linear_weights", "product", "upcast"]
