"""Attention along one axis of a clip: neighbourhood association, kernel, feature fixation.

Source: arXiv 2210.08164, Sec. 4; attentions differ in how tokens form sequences.
"""

from functools import partial

from torch import Tensor, nn

from lvt_ff.kernels import KernelShape, build_kernel
from lvt_ff.layers.config import BlockConfig
from lvt_ff.layers.fixation import build_fixation
from lvt_ff.layers.fused import attention_spec, gate_parameters, is_plain
from lvt_ff.layers.sequences import JointSequences, SpaceSequences, TimeSequences
from lvt_ff.ops import AttentionSpec, may_fuse

__all__ = ["Attention", "JointSequences", "SpaceSequences", "TimeSequences"]


class Attention(nn.Module):
    """Multi-head attention over sequences of one kind.

    Args:
        dim: channels.
        num_heads: heads; must divide `dim`.
        size: frames and token grid of a clip, (T, (h, w)).
        sequences: `SpaceSequences`, `TimeSequences` or `JointSequences`.
        shift: module that moves keys and values between places, (B, T, N, D) to the same. It acts
            before fixation; with `fixation_order="before"` after it: then keys that it moves are
            fixed already, and what comes from outside is 0 (with "authors", where they have so).
        config: kernel and fixation.
    """

    grid: tuple[int, int] | None = None  # of models that were pickled before there was one

    def __init__(
        self,
        dim: int,
        num_heads: int,
        size: tuple[int, tuple[int, int]],
        sequences: type,
        shift: nn.Module,
        config: BlockConfig,
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
        self.kernel = build_kernel(config.attn_kernel, shape, config.kernel_options or {})
        feature_dim = self.kernel.feature_dim
        self.fixation = build_fixation(
            config.fixation,
            feature_dim,
            head_dim,
            shared=config.fixation_shared,
            aggregate=config.fixation_aggregate,
            first_bias=config.fixation_bias,
        )
        self.fix_first = config.fixation_order == "before" and config.fixation != "none"
        if self.fix_first and feature_dim != head_dim:
            raise ValueError(
                f"fixation_order='before' shifts features, which must be as many as a head's "
                f"{head_dim} channels; {config.attn_kernel!r} has {feature_dim}."
            )
        self.attn_drop = nn.Dropout(config.attn_drop_rate)
        self.proj = nn.Linear(dim, dim)
        self.grid = tuple(size[1])

    def set_size(self, num_frames: int, grid: tuple[int, int]) -> None:
        """Serve clips of another size from now on."""
        self.kernel.set_grid(self.sequences.grid(num_frames, grid))
        self.grid = tuple(grid)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (S, A, L, E)."""
        return self.sequences.fold(x).unflatten(-1, self.head_split).transpose(1, 2)

    def tokens(self, x: Tensor, num_frames: int, num_tokens: int) -> Tensor:
        """(S, A, L, E) to (B, T, N, D)."""
        return self.sequences.unfold(x.transpose(1, 2).flatten(-2), num_frames, num_tokens)

    def fix(
        self, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What acts on features (S, A, L, F) and values (S, A, L, E) before they are aggregated.

        Args:
            q, k, v: features and values.
            size: frames and tokens per frame, (T, N).
        """
        q, k = self.fixation(q, k, v)
        if self.fix_first:
            k, v = (self.heads(self.shift(self.tokens(part, *size))) for part in (k, v))
        return self.attn_drop(q), self.attn_drop(k), v

    def fused_spec(self, qkv: Tensor) -> AttentionSpec | None:
        """What one operator is told to do all between the linear layers; None if modules must."""
        if not self.kernel.use_fused or not may_fuse(qkv):
            return None
        if self.attn_drop.training and self.attn_drop.p:
            return None
        # One that adds or multiplies its parts is of another class, and another fixation has none.
        gate = getattr(self.fixation, "gate", None)
        if gate is not None and not is_plain(gate, nn.Linear):
            return None
        between = (*self.shift.modules(), self.kernel, self.fixation, self.attn_drop)
        return attention_spec(self) if all(is_plain(module) for module in between) else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        qkv = self.qkv(x)  # (B, T, N, 3D)
        spec = self.fused_spec(qkv)
        if spec is not None:
            gate = gate_parameters(self.fixation)
            return self.proj(self.kernel.fused_attention(qkv, *gate, spec))
        size = x.shape[1], x.shape[2]
        q, k, v = qkv.chunk(3, dim=-1)  # 3 × (B, T, N, D)
        if not self.fix_first:
            k, v = self.shift(k), self.shift(v)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)  # 3 × (S, A, L, E)
        inputs = self.sequences.fold(x) if self.kernel.uses_input else None  # (S, L, D)
        out = self.kernel(q, k, v, partial(self.fix, size=size), inputs)
        return self.proj(self.tokens(out, *size))
