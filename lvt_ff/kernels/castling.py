"""Castling-ViT: linear attention of angles between queries and keys.

Source: You et al., arXiv 2211.10526, and its public code (the ½ multiplies a token's own value).
"""

import math

import torch
from torch import Tensor

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.kernels.conv import TorchInitConv2d
from lvt_ff.ops import in_float32, product
from lvt_ff.utils.validation import check_odd

__all__ = ["CastlingKernel"]


class CastlingKernel(Kernel):
    """`x/‖x‖` with `x_i = v_i/2 + q̂_i Σ_j k̂_jᵀ v_j / π`, plus a filter of v along the tokens.

    Args:
        shape: what it is built for.
        filter_size: tokens of the filter, odd.
    """

    source = "You et al., arXiv 2211.10526"
    image_start = {"dconv.weight": 0.0}

    def __init__(self, shape: KernelShape, *, filter_size: int = 9):
        super().__init__(shape)
        check_odd(filter_size=filter_size)
        heads = shape.num_heads
        self.dconv = TorchInitConv2d(
            heads, heads, (filter_size, 1), padding=(filter_size // 2, 0), bias=False, groups=heads
        )

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return _angular(q, k, v) + self.dconv(v)


@in_float32(restore="v")
def _angular(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _unit(v / 2 + product(_unit(q) / math.pi, _unit(k), v))


def _unit(x: Tensor) -> Tensor:
    # The source divides by zero for zero vectors.
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6)
