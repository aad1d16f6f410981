"""Layers in float32 whatever the dtype of their parameters.

They are layers, not functions on another's weights, so that LoRA and the hooks of accelerate and
FSDP, which act when a layer is called, reach them.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.ops import autocast_off, upcast

__all__ = ["Float32LayerNorm", "Float32Linear"]


class Float32Linear(nn.Linear):
    """`nn.Linear` in float32 (or float64)."""

    def forward(self, x: Tensor) -> Tensor:
        with autocast_off(x.device.type):
            (x,) = upcast(x)
            return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Float32LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in float32 (or float64)."""

    def forward(self, x: Tensor) -> Tensor:
        (x,) = upcast(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
