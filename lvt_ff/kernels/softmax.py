"""Softmax attention, the quadratic reference every linear kernel is compared with.

Source: Vaswani et al., arXiv 1706.03762.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lvt_ff.kernels.base import Kernel
from lvt_ff.ops import AttentionSpec, gated_heads, in_float32

__all__ = ["SoftmaxKernel"]


class SoftmaxKernel(Kernel):
    """Queries and keys unchanged; weights `softmax(q kᵀ / sqrt(E))` by torch's fused attention."""

    source = "Vaswani et al., arXiv 1706.03762"
    fused = "identity"

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        if not self.use_fused:
            return _softmax_attention(q, k, v)
        return scaled_dot_product_attention(q, k, v, scale=self.shape.head_dim**-0.5)

    def fused_attention(
        self, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
    ) -> Tensor:
        q, k, v = gated_heads(qkv, weight, bias, spec).unbind(3)  # 3 × (B·S, A, L, E), views
        out = scaled_dot_product_attention(q, k, v, scale=self.shape.head_dim**-0.5)
        return spec.tokens(out, *qkv.shape[:3])

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return _softmax_weights(q[..., rows, :], k)


def _softmax_weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)


@in_float32(restore="v")
def _softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _softmax_weights(q, k) @ v
