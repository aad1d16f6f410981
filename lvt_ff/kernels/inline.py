"""InLine: linear attention whose map is one-to-one, and a convolution made from the input.

Source: Han et al., arXiv 2412.06590, and its public code.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.kernels.local import OwnConv1d
from lvt_ff.ops import full_precision, product, single_or_double

__all__ = ["InlineKernel"]


class InlineKernel(Kernel):
    """Weights `q_i·k_j/(L sqrt(E)) + (1 - q_i·k̄/sqrt(E))/L`, plus a 3×3 convolution of v.

    Rows sum to 1, some weights may be negative. The convolution's weights come from the mean token
    of the attention's input.

    Args:
        shape: what it is built for.
    """

    uses_input = True

    def __init__(self, shape: KernelShape):
        super().__init__(shape)
        dim, heads = shape.dim, shape.num_heads
        self.residual = nn.Sequential(
            OwnConv1d(dim, dim, 1, groups=heads),
            nn.GELU(),
            OwnConv1d(dim, 9 * dim, 1, groups=heads),
        )

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return self.attend(q, k, v) + self.convolve(v, x.mean(1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention alone, (S, A, L, E)."""
        with full_precision(v.device.type):
            dtype = v.dtype
            q, k, v = single_or_double(q, k, v)
            scale = self.shape.head_dim**-0.5
            mean_v = v.mean(-2, keepdim=True)
            share = scale * (q @ k.mean(-2, keepdim=True).transpose(-2, -1))  # (S, A, L, 1)
            out = product(scale / k.shape[-2] * q, k, v) + (1 - share) * mean_v
            return out.to(dtype)

    def convolve(self, v: Tensor, mean: Tensor) -> Tensor:
        """v (S, A, L, E) under weights from the mean token (S, D)."""
        h, w = self.shape.grid
        weight = self.residual(mean.unsqueeze(-1)).unflatten(1, (v.shape[1], 1, -1, 9))
        weight = weight.squeeze(-1).to(v.dtype)  # (S, A, 1, E, 9)
        planes = F.pad(v.unflatten(2, (h, w)), (0, 0, 1, 1, 1, 1))  # (S, A, h + 2, w + 2, E)
        # A sum of products: no convolution takes a batch's own weights in every runtime.
        out = torch.zeros_like(v)
        for dy, dx in itertools.product(range(3), repeat=2):
            moved = planes[:, :, dy : dy + h, dx : dx + w].flatten(2, 3)
            out = out + weight[..., 3 * dy + dx] * moved
        return out

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        with full_precision(q.device.type):
            q, k = single_or_double(q[..., rows, :], k)
            scores = self.shape.head_dim**-0.5 * q @ k.transpose(-2, -1)
            return (1 + scores - scores.mean(-1, keepdim=True)) / k.shape[-2]
