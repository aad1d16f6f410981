"""RALA: linear attention with weighted keys, rotated features and a gate, for a full rank.

Source: Fan et al., arXiv 2411.07635, and its public code. (The paper's tables call LARA "RALA".)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.kernels.conv import SmallInit, depthwise
from lvt_ff.ops import in_float32, product

__all__ = ["RankAugmentedKernel"]


class _Lepe(SmallInit, nn.Conv2d):
    """The convolution of the values."""


class RankAugmentedKernel(Kernel):
    """ELU features, keys weighted by their likeness to the mean query, rotary positions in the
    numerator, a 5×5 convolution of v, and the whole times a projection of the input.

    Args:
        shape: what it is built for; 4 must divide the channels of a head.
    """

    source = "Fan et al., arXiv 2411.07635"
    uses_input = True
    image_start = {
        "lepe.weight": 0.0,
        "lepe.bias": 0.0,
        "output_gate.weight": 0.0,
        "output_gate.bias": 1.0,
    }

    def __init__(self, shape: KernelShape):
        super().__init__(shape)
        if shape.head_dim % 4:
            raise ValueError(
                f"rank_augmented needs heads of a multiple of 4 channels, got {shape.head_dim}."
            )
        self.lepe = _Lepe(shape.dim, shape.dim, 5, padding=2, groups=shape.dim)
        self.output_gate = nn.Linear(shape.dim, shape.dim)

    @in_float32()
    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return F.elu(q) + 1, F.elu(k) + 1

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        gate = self.output_gate(x).unflatten(-1, (v.shape[1], -1)).transpose(1, 2)
        return (self.attend(q, k, v) + depthwise(self.lepe, v, self.shape.grid)) * gate

    @in_float32(restore="v")
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention alone, (S, A, L, E)."""
        k = self._weighted_keys(q, k)
        norm = q @ k.mean(-2).unsqueeze(-1) + 1e-6
        return product(self.rotate(q), self.rotate(k), v) / v.shape[-2] / norm

    def _weighted_keys(self, q: Tensor, k: Tensor) -> Tensor:
        likeness = self.shape.head_dim**-0.5 * (k @ q.mean(-2).unsqueeze(-1))  # (S, A, L, 1)
        return k * k.shape[-2] * likeness.softmax(-2)

    def rotate(self, x: Tensor) -> Tensor:
        """Pairs of channels turned by angles of the row (first half) and the column."""
        (h, w), dim = self.shape.grid, x.shape[-1]
        number = torch.arange(h * w, device=x.device)
        waves = 10000 ** -torch.linspace(0, 1, dim // 4, device=x.device, dtype=x.dtype)
        angles = [position.to(x.dtype)[:, None] * waves for position in (number // w, number % w)]
        angle = torch.cat(angles, dim=-1)  # (L, E/2)
        even, odd = x[..., ::2], x[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin())
        return torch.stack(turned, dim=-1).flatten(-2)

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        k = self._weighted_keys(q, k)
        norm = q @ k.mean(-2).unsqueeze(-1) + 1e-6
        scores = self.rotate(q)[..., rows, :] @ self.rotate(k).transpose(-2, -1)
        return scores / k.shape[-2] / norm[..., rows, :]
