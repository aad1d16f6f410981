"""L2ViT's enhanced linear attention: ReLU features, a floor under the sum, a learned temperature.

Source: Zheng et al., arXiv 2501.16182, and its public code.
"""

import torch
from torch import Tensor, nn

from lvt_ff.kernels.base import KernelShape, LinearKernel

__all__ = ["L2vitKernel"]


class L2vitKernel(LinearKernel):
    """`τ · q (kᵀ v) / max(q Σ k, den_min)` with ReLU features and a temperature for each head.

    Args:
        shape: what it is built for.
        den_min: least denominator; below it the output is not normalised. 100 is the source's,
            for sequences of thousands of tokens.
    """

    source = "Zheng et al., arXiv 2501.16182"
    no_weight_decay = ("temperature",)

    def __init__(self, shape: KernelShape, *, den_min: float = 100.0):
        super().__init__(shape, eps=den_min, clamp=True)
        self.temperature = nn.Parameter(torch.empty(shape.num_heads, 1, 1))

    def init_weights(self) -> None:
        nn.init.constant_(self.temperature, self.shape.head_dim**-0.5)

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q.relu(), k.relu()

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return (self.temperature * super().aggregate(q, k, v)).to(v.dtype)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return self.temperature * super().weights(q, k, rows)
