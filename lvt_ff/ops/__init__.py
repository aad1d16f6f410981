"""Functions on tensors, without parameters."""

from lvt_ff.ops.linear_attention import (
    full_precision,
    linear_attention,
    linear_weights,
    product,
    single_or_double,
)

__all__ = ["full_precision", "linear_attention", "linear_weights", "product", "single_or_double"]
