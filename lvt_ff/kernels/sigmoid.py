"""The sigmoid feature map of the paper's Table 5.

Source: arXiv 2210.08164, Table 5; no code of its authors exists, the division is the Linear
Transformer's.
"""

from torch import Tensor

from lvt_ff.kernels.base import KernelShape, LinearKernel
from lvt_ff.ops import in_float32

__all__ = ["SigmoidKernel"]


class SigmoidKernel(LinearKernel):
    """`sigmoid(x) + offset` on queries and keys, then linear attention.

    Args:
        shape: what it is built for.
        offset: added to the features.
        eps, clamp: see `LinearKernel`.
    """

    source = "arXiv 2210.08164, Table 5"
    fused = "sigmoid"

    def __init__(
        self, shape: KernelShape, *, offset: float = 0.0, eps: float = 1e-6, clamp: bool = False
    ):
        super().__init__(shape, eps=eps, clamp=clamp)
        self.offset = offset

    @in_float32()
    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q.sigmoid() + self.offset, k.sigmoid() + self.offset
