"""Attention along one axis of a clip: neighbourhood association, kernel, feature fixation.

Source: arXiv 2210.08164, Sec. 4; attentions differ in how tokens form sequences.
"""

from torch import Tensor, nn

from lvt_ff.kernels import KERNELS
from lvt_ff.layers.fixation import FIXATIONS

__all__ = ["Attention", "JointSequences", "SpaceSequences", "TimeSequences"]


class SpaceSequences:
    """One sequence per frame: S = B·T, L = N."""

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.flatten(0, 1)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(0, (-1, num_frames))


class TimeSequences:
    """One sequence per place in the frame: S = B·N, L = T."""

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.transpose(1, 2).flatten(0, 1)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(0, (-1, num_tokens)).transpose(1, 2)


class JointSequences:
    """One sequence per clip: S = B, L = T·N."""

    @staticmethod
    def fold(x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, L, D)."""
        return x.flatten(1, 2)

    @staticmethod
    def unfold(x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, L, D) to (B, T, N, D)."""
        return x.unflatten(1, (num_frames, num_tokens))


class Attention(nn.Module):
    """Multi-head attention over sequences of one kind.

    Args:
        dim: channels.
        num_heads: heads; must divide `dim`.
        sequences: `SpaceSequences`, `TimeSequences` or `JointSequences`.
        shift: module that moves keys and values between places, (B, T, N, D) to the same.
        kernel: name in `KERNELS`.
        fixation: name in `FIXATIONS`.
        fixation_shared: one ratio for queries and keys.
        attn_drop_rate: dropout on the fixed queries and keys.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        sequences: type,
        shift: nn.Module,
        kernel: str,
        fixation: str,
        fixation_shared: bool,
        attn_drop_rate: float,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim, got {num_heads} heads for {dim}.")
        head_dim = dim // num_heads
        self.head_split = (num_heads, head_dim)
        self.sequences = sequences
        self.qkv = nn.Linear(dim, 3 * dim)
        self.shift = shift
        self.kernel = KERNELS[kernel](head_dim)
        self.fixation = FIXATIONS[fixation](self.kernel.feature_dim, head_dim, fixation_shared)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, A, L, E)."""
        return self.sequences.fold(x).unflatten(-1, self.head_split).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        num_frames, num_tokens = x.shape[1], x.shape[2]
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # 3 × (B, T, N, D)
        k, v = self.shift(k), self.shift(v)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)  # 3 × (S, A, L, E)
        q, k = self.kernel.feature_map(q, k)
        q, k = self.fixation(q, k, v)
        x = self.kernel.aggregate(self.attn_drop(q), self.attn_drop(k), v)
        x = x.transpose(1, 2).flatten(-2)  # (S, L, D)
        return self.proj(self.sequences.unfold(x, num_frames, num_tokens))
