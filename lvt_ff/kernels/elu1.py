"""The kernel of the Linear Transformer.

Source: Katharopoulos et al., arXiv 2006.16236.
"""

import torch.nn.functional as F
from torch import Tensor

from lvt_ff.kernels.base import LinearKernel
from lvt_ff.ops import upcast

__all__ = ["Elu1Kernel"]


class Elu1Kernel(LinearKernel):
    """`elu(x) + 1` on queries and keys, then linear attention."""

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = upcast(q, k)
        return F.elu(q) + 1, F.elu(k) + 1
