"""The paper's linear kernel.

Source: arXiv 2210.08164, Eq. 3, with the offset of the authors' code.
"""

from torch import Tensor

from lvt_ff.kernels.base import KernelShape, LinearKernel

__all__ = ["ReluKernel"]


class ReluKernel(LinearKernel):
    """`ReLU(x) + offset` on queries and keys, then linear attention.

    Args:
        shape: what it is built for.
        offset: keeps every denominator positive; None takes `head_dim**-0.5`.
        eps, clamp: see `LinearKernel`.
    """

    source = "arXiv 2210.08164, Eq. 3, with the offset of the authors' code"
    fused = "relu"

    def __init__(
        self,
        shape: KernelShape,
        *,
        offset: float | None = None,
        eps: float = 1e-6,
        clamp: bool = False,
    ):
        super().__init__(shape, eps=eps, clamp=clamp)
        # The authors' code has the offset, Eq. 3 does not.
        self.offset = shape.head_dim**-0.5 if offset is None else offset

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q.relu() + self.offset, k.relu() + self.offset
