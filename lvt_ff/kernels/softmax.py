"""Softmax attention, the quadratic reference every linear kernel is compared with."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lvt_ff.kernels.base import Kernel

__all__ = ["SoftmaxKernel"]


class SoftmaxKernel(Kernel):
    """Queries and keys unchanged; weights `softmax(q kᵀ / sqrt(E))` by torch's fused attention."""

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5)
