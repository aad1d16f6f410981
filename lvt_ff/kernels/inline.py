"""InLine: linear attention whose map is one-to-one, and a convolution made from the input.

Source: Han et al., arXiv 2412.06590, and its public code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import KernelShape
from lvt_ff.kernels.conv import TorchInitConv1d
from lvt_ff.kernels.vitality import VitalityKernel

__all__ = ["InlineKernel"]


class InlineKernel(VitalityKernel):
    """Weights `q_i·k_j/(L sqrt(E)) + (1 - q_i·k̄/sqrt(E))/L`, plus a 3×3 convolution of v.

    The weights are ViTALiTy's. Those of the convolution come from the mean token of the attention's
    input.

    Args:
        shape: what it is built for.
    """

    source = "Han et al., arXiv 2412.06590"
    uses_input = True
    image_start = {"residual.2.weight": 0.0, "residual.2.bias": 0.0}

    def __init__(self, shape: KernelShape):
        super().__init__(shape)
        dim, heads = shape.dim, shape.num_heads
        self.residual = nn.Sequential(
            TorchInitConv1d(dim, dim, 1, groups=heads),
            nn.GELU(),
            TorchInitConv1d(dim, 9 * dim, 1, groups=heads),
        )

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return self.attend(q, k, v) + self.convolve(v, x.mean(1))

    def convolve(self, v: Tensor, mean: Tensor) -> Tensor:
        """v (S, A, L, E) under weights from the mean token (S, D)."""
        h, w = self.shape.grid
        weight = self.residual(mean.unsqueeze(-1)).unflatten(1, (v.shape[1], 1, -1, 9))
        weight = weight.squeeze(-1).to(v.dtype)  # (S, A, 1, E, 9)
        planes = F.pad(v.unflatten(2, (h, w)), (0, 0, 1, 1, 1, 1))  # (S, A, h + 2, w + 2, E)
        # A sum of products: no convolution takes a batch's own weights in every runtime.
        out = torch.zeros_like(v)
        for number in range(9):
            dy, dx = divmod(number, 3)
            moved = planes[:, :, dy : dy + h, dx : dx + w].flatten(2, 3)
            out = out + weight[..., number] * moved
        return out
