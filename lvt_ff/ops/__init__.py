"""Functions on tensors, without parameters."""

from lvt_ff.ops.add_norm import add, add_norm
from lvt_ff.ops.attention import attention, gated_heads
from lvt_ff.ops.attention_cpu import FEATURE_MAPS
from lvt_ff.ops.attention_spec import AttentionSpec
from lvt_ff.ops.dwconv import dwconv_gelu
from lvt_ff.ops.linear import linear_attention, linear_weights, product
from lvt_ff.ops.precision import autocast_off, in_float32, upcast
from lvt_ff.ops.registry import may_fuse

__all__ = [
    "FEATURE_MAPS",
    "AttentionSpec",
    "add",
    "add_norm",
    "attention",
    "autocast_off",
    "dwconv_gelu",
    "gated_heads",
    "in_float32",
    "linear_attention",
    "linear_weights",
    "may_fuse",
    "product",
    "upcast",
]
