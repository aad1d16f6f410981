"""Vicinity attention: linear attention with weights that fall off along rows and columns.

Source: Sun et al., arXiv 2206.10552, and its public code.
"""

import math

import torch
from torch import Tensor

from lvt_ff.kernels.base import KernelShape, LinearKernel
from lvt_ff.ops import in_float32, upcast

__all__ = ["VicinityKernel"]


class VicinityKernel(LinearKernel):
    """`ReLU(q_i) · ReLU(k_j)` times `cos(π/2 · Δrow/h) + cos(π/2 · Δcolumn/w)`.

    Args:
        shape: what it is built for.
        use_sum: False multiplies the two cosines.
        clip: keep sums over tokens and outputs between 1e-4 and 1e4 in size, as the source does.
        eps: added to the denominator.
    """

    source = "Sun et al., arXiv 2206.10552"

    def __init__(
        self, shape: KernelShape, *, use_sum: bool = True, clip: bool = False, eps: float = 1e-4
    ):
        super().__init__(shape, eps=eps)
        self.use_sum, self.clip = use_sum, clip

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Features near 0 have gradients that float16 cannot hold.
        q, k = upcast(q, k)
        return q.relu(), k.relu()

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        if not self.clip:
            return super().aggregate(q, k, v)
        return _clipped_attention(self.add_position(q), self.add_position(k), v, self.eps)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        if self.clip:
            raise NotImplementedError("vicinity with clip=True is no sum of weighted values.")
        return super().weights(q, k, rows)

    @in_float32()
    def add_position(self, x: Tensor) -> Tensor:
        """(..., L, F) to (..., L, 4F): times sines and cosines of its row and column."""
        (h, w), length = self.shape.grid, x.shape[-2]
        number = torch.arange(length, device=x.device)
        row = (math.pi / 2 / h * (number // w).to(x.dtype))[:, None]
        column = (math.pi / 2 / w * (number % w).to(x.dtype))[:, None]
        if self.use_sum:
            factors = [row.sin(), row.cos(), column.sin(), column.cos()]
        else:
            factors = [a * b for a in (row.sin(), row.cos()) for b in (column.sin(), column.cos())]
        return torch.cat([x * factor for factor in factors], dim=-1)


@in_float32(restore="v")
def _clipped_attention(q: Tensor, k: Tensor, v: Tensor, eps: float) -> Tensor:
    share = _clipped(1 / (q @ k.sum(-2).unsqueeze(-1) + eps))
    return _clipped(_clipped(q @ _clipped(k.transpose(-2, -1) @ v)) * share)


def _clipped(x: Tensor) -> Tensor:
    return x.sign() * x.abs().clamp(1e-4, 1e4)
