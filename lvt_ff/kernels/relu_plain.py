"""The paper's Eq. 3 to the letter.

Source: arXiv 2210.08164, Eq. 3; idiap/fast-transformers with a ReLU.
"""

from torch import Tensor

from lvt_ff.kernels.base import LinearKernel
from lvt_ff.ops import upcast

__all__ = ["ReluPlainKernel"]


class ReluPlainKernel(LinearKernel):
    """`ReLU(x)` on queries and keys; a query or keys without positive parts give 0."""

    source = "arXiv 2210.08164, Eq. 3"
    fused = "relu"

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # Features near 0 have gradients that float16 cannot hold.
        q, k = upcast(q, k)
        return q.relu(), k.relu()
