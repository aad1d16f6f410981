"""cosFormer: linear attention with weights that fall off along the sequence.

Source: Qin et al., arXiv 2202.08791, and its public code.
"""

import math

import torch
from torch import Tensor

from lvt_ff.kernels.base import KernelShape, LinearKernel
from lvt_ff.ops import in_float32, upcast

__all__ = ["CosformerKernel"]


class CosformerKernel(LinearKernel):
    """`ReLU(q_i) · ReLU(k_j) · cos(π/2 · (i - j) / L)`, along the tokens row by row.

    Args:
        shape: what it is built for.
        offset: added to the features.
        eps, clamp: see `LinearKernel`.
    """

    source = "Qin et al., arXiv 2202.08791"

    def __init__(
        self, shape: KernelShape, *, offset: float = 0.0, eps: float = 1e-6, clamp: bool = True
    ):
        super().__init__(shape, eps=eps, clamp=clamp)
        self.offset = offset

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Features near 0 have gradients that float16 cannot hold.
        q, k = upcast(q, k)
        return q.relu() + self.offset, k.relu() + self.offset

    @in_float32()
    def add_position(self, x: Tensor) -> Tensor:
        """(..., L, F) to (..., L, 2F): times sine and cosine of its position."""
        length = x.shape[-2]
        position = torch.arange(1, length + 1, device=x.device, dtype=x.dtype)[:, None]
        angle = math.pi / 2 / length * position
        return torch.cat([x * angle.sin(), x * angle.cos()], dim=-1)
