"""The paper's linear kernel.

Source: arXiv 2210.08164, Eq. 3, with the offset of the authors' code.
"""

from torch import Tensor

from lvt_ff.kernels.base import Kernel
from lvt_ff.ops import linear_attention, linear_weights

__all__ = ["ReluKernel"]


class ReluKernel(Kernel):
    """`ReLU(x) + head_dim**-0.5` on queries and keys, then linear attention."""

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        # The offset on q and k is the authors' code, not Eq. 3: it keeps every denominator
        # positive.
        offset = self.head_dim**-0.5
        return q.relu() + offset, k.relu() + offset

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return linear_weights(q[..., rows, :], k)
