"""The kernel of the Linear Transformer.

Source: Katharopoulos et al., arXiv 2006.16236.
"""

import torch.nn.functional as F
from torch import Tensor

from lvt_ff.kernels.base import LinearKernel
from lvt_ff.ops import in_float32

__all__ = ["Elu1Kernel"]


class Elu1Kernel(LinearKernel):
    """`elu(x) + 1` on queries and keys, then linear attention."""

    source = "Katharopoulos et al., arXiv 2006.16236"
    fused = "elu1"

    @in_float32()
    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return F.elu(q) + 1, F.elu(k) + 1
