"""Softmax attention, the quadratic reference every linear kernel is compared with.

Source: Vaswani et al., arXiv 1706.03762.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lvt_ff.kernels.base import Kernel
from lvt_ff.ops import autocast_off, upcast

__all__ = ["SoftmaxKernel"]


class SoftmaxKernel(Kernel):
    """Queries and keys unchanged; weights `softmax(q kᵀ / sqrt(E))` by torch's fused attention."""

    fused = "torch SDPA"

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return scaled_dot_product_attention(q, k, v, scale=self.shape.head_dim**-0.5)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        with autocast_off(q.device.type):
            q, k = upcast(q[..., rows, :], k)
            return (q @ k.transpose(-2, -1) * self.shape.head_dim**-0.5).softmax(dim=-1)
