"""Attention along one axis of a clip: neighbourhood association, kernel, feature fixation.

Source: arXiv 2210.08164, Sec. 4; attentions differ in how tokens form sequences.
"""

from typing import Any

from torch import Tensor, nn

from lvt_ff.kernels import KernelShape, build_kernel
from lvt_ff.layers.fixation import build_fixation

__all__ = ["Attention", "JointSequences", "SpaceSequences", "TimeSequences"]


class SpaceSequences:
    """One sequence per frame: S = B·T, L = N."""

    @staticmethod
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a sequence's tokens."""
        return grid

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
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a sequence's tokens."""
        return 1, num_frames

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
    def grid(num_frames: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a sequence's tokens: frames below each other.

        Kernels with convolutions or places take them for one tall picture.
        """
        return num_frames * grid[0], grid[1]

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
        size: frames and token grid of a clip, (T, (h, w)).
        sequences: `SpaceSequences`, `TimeSequences` or `JointSequences`.
        shift: module that moves keys and values between places, (B, T, N, D) to the same.
        kernel, kernel_options: name in `KERNELS`, and keywords of its constructor.
        fixation, fixation_shared, fixation_aggregate, fixation_bias: see `build_fixation`.
        fixation_order: "after" the shift (the paper's), or "before" it: then shifted keys are
            already fixed, and what comes from outside is 0 (with "authors", where they have so).
        attn_drop_rate: dropout on the fixed queries and keys.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        size: tuple[int, tuple[int, int]],
        *,
        sequences: type,
        shift: nn.Module,
        kernel: str,
        kernel_options: dict[str, Any] | None,
        fixation: str,
        fixation_shared: bool,
        fixation_aggregate: str,
        fixation_order: str,
        fixation_bias: float,
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
        shape = KernelShape(num_heads, head_dim, sequences.grid(*size))
        self.kernel = build_kernel(kernel, shape, kernel_options or {})
        self.fixation = build_fixation(
            fixation,
            self.kernel.feature_dim,
            head_dim,
            shared=fixation_shared,
            aggregate=fixation_aggregate,
            first_bias=fixation_bias,
        )
        self.fix_first = fixation_order == "before" and fixation != "none"
        if self.fix_first and self.kernel.feature_dim != head_dim:
            raise ValueError(
                f"fixation_order='before' shifts features, which must be as many as a head's "
                f"{head_dim} channels; {kernel!r} has {self.kernel.feature_dim}."
            )
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.proj = nn.Linear(dim, dim)

    def set_size(self, num_frames: int, grid: tuple[int, int]) -> None:
        """Serve clips of another size from now on."""
        self.kernel.set_grid(self.sequences.grid(num_frames, grid))

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, A, L, E)."""
        return self.sequences.fold(x).unflatten(-1, self.head_split).transpose(1, 2)

    def tokens(self, x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, A, L, E) to (B, T, N, D)."""
        return self.sequences.unfold(x.transpose(1, 2).flatten(-2), num_frames, num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        size = x.shape[1], x.shape[2]
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # 3 × (B, T, N, D)
        if not self.fix_first:
            k, v = self.shift(k), self.shift(v)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)  # 3 × (S, A, L, E)
        q, k = self.kernel.feature_map(q, k)
        q, k = self.fixation(q, k, v)
        if self.fix_first:
            k, v = (self.heads(self.shift(self.tokens(part, *size))) for part in (k, v))
        inputs = self.sequences.fold(x) if self.kernel.uses_input else None  # (S, L, D)
        out = self.kernel.aggregate(self.attn_drop(q), self.attn_drop(k), v, inputs)
        return self.proj(self.tokens(out, *size))
