"""Linformer: softmax over keys and values projected to a fixed number.

Source: Wang et al., arXiv 2006.04768; lucidrains/linformer.
"""

import torch
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape, LengthTable
from lvt_ff.ops import in_float32
from lvt_ff.utils.validation import check_at_least

__all__ = ["LinformerKernel"]


class LinformerKernel(Kernel):
    """`softmax(q (Eᵀ k)ᵀ / sqrt(E)) Fᵀ v` with learned projections of the tokens.

    Tied to the number of tokens: loading a model of another size resamples the projections.

    Args:
        shape: what it is built for.
        rank: projected tokens; 256 is what the paper's cost and parameters tell, over time too.
    """

    source = "Wang et al., arXiv 2006.04768"
    length_tables = {
        "proj_k": LengthTable(axis=0, is_sum=True),
        "proj_v": LengthTable(axis=0, is_sum=True),
    }

    def __init__(self, shape: KernelShape, *, rank: int = 256):
        super().__init__(shape)
        check_at_least(1, rank=rank)
        self.rank = rank
        self.proj_k = nn.Parameter(torch.empty(shape.length, rank))
        self.proj_v = nn.Parameter(torch.empty(shape.length, rank))

    def init_weights(self) -> None:
        for parameter in (self.proj_k, self.proj_v):
            nn.init.uniform_(parameter, -(self.rank**-0.5), self.rank**-0.5)

    @in_float32(restore="v")
    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return self._projected_weights(q, k) @ (self.proj_v.to(v.dtype).T @ v)

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return self._projected_weights(q[..., rows, :], k) @ self.proj_v.to(k.dtype).T

    def _projected_weights(self, q: Tensor, k: Tensor) -> Tensor:
        projected = self.proj_k.to(k.dtype).T @ k  # (S, A, rank, E)
        return (self.shape.head_dim**-0.5 * q @ projected.transpose(-2, -1)).softmax(-1)
