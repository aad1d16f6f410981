"""ViTALiTy's low-rank part: the first-order Taylor expansion of softmax around centred keys.

Source: Dass et al., arXiv 2211.05109, from its definition; its public code computes something else.
"""

from torch import Tensor

from lvt_ff.kernels.base import Kernel
from lvt_ff.ops import in_float32, product

__all__ = ["VitalityKernel"]


class VitalityKernel(Kernel):
    """`v̄ + q/(L sqrt(E)) · Σ_j (k_j - k̄)ᵀ v_j`; rows of weights sum to 1, some may be negative."""

    source = "Dass et al., arXiv 2211.05109, from its definition"

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return self.attend(q, k, v)

    @in_float32(restore="v")
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention alone, (S, A, L, E)."""
        centred = k - k.mean(-2, keepdim=True)
        scale = self.shape.head_dim**-0.5 / k.shape[-2]
        return v.mean(-2, keepdim=True) + product(scale * q, centred, v)

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        centred = k - k.mean(-2, keepdim=True)
        scores = self.shape.head_dim**-0.5 * q[..., rows, :] @ centred.transpose(-2, -1)
        return (1 + scores) / k.shape[-2]
