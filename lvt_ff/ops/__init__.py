"""Functions on tensors, without parameters."""

from lvt_ff.ops.linear_attention import full_precision, linear_attention

__all__ = ["full_precision", "linear_attention"]
