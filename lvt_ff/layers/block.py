"""One transformer block: residual branches in time, in space, and per token.

Source: arXiv 2210.08164, Sec. 4; time before space is the authors' code, not the text.
"""

from collections.abc import Callable

from timm.layers import DropPath
from torch import Tensor, nn

from lvt_ff.layers.attention import Attention, JointSequences, SpaceSequences, TimeSequences
from lvt_ff.layers.mlp import VideoMlp
from lvt_ff.layers.shift import SpatialShift, TemporalShift

__all__ = ["ATTN_PATTERNS", "VideoBlock"]

# Which attentions a block has: (sequences, with spatial shift, with temporal shift) by attribute
# name.
ATTN_PATTERNS: dict[str, dict[str, tuple[type, bool, bool]]] = {
    "factorized": {
        "temporal_attn": (TimeSequences, True, False),
        "attn": (SpaceSequences, False, True),
    },
    "joint": {"attn": (JointSequences, True, True)},
    "windowed": {"attn": (SpaceSequences, False, True)},
}


class VideoBlock(nn.Module):
    """`x + temporal(x)`, `x + spatial(x)`, `x + mlp(x)`, each pre-normed, with drop path.

    Args:
        dim: channels.
        num_heads: heads.
        grid: token grid (h, w).
        mlp_ratio: hidden channels of the MLP over `dim`.
        mlp_dwconv: depthwise convolution in the MLP.
        attn_pattern: name in `ATTN_PATTERNS`.
        spatial_shift: size of the spatial shift; 0 is off.
        temporal_shift_div: divisor of the temporal shift; 0 is off.
        drop_path_rate: of each branch.
        attn_kernel, fixation, fixation_shared, attn_drop_rate: see `Attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: tuple[int, int],
        *,
        mlp_ratio: float,
        mlp_dwconv: bool,
        attn_pattern: str,
        spatial_shift: int,
        temporal_shift_div: int,
        drop_path_rate: float,
        attn_kernel: str,
        fixation: str,
        fixation_shared: bool,
        attn_drop_rate: float,
    ):
        super().__init__()
        shifts: tuple[Callable[[], nn.Module], Callable[[], nn.Module]] = (
            lambda: SpatialShift(spatial_shift, dim, grid) if spatial_shift else nn.Identity(),
            lambda: TemporalShift(temporal_shift_div, dim) if temporal_shift_div else nn.Identity(),
        )

        def attention(sequences: type, *with_shifts: bool) -> Attention:
            parts = [make() for make, wanted in zip(shifts, with_shifts, strict=True) if wanted]
            return Attention(
                dim,
                num_heads,
                sequences=sequences,
                shift=parts[0] if len(parts) == 1 else nn.Sequential(*parts),
                kernel=attn_kernel,
                fixation=fixation,
                fixation_shared=fixation_shared,
                attn_drop_rate=attn_drop_rate,
            )

        pattern = ATTN_PATTERNS[attn_pattern]
        has_temporal = "temporal_attn" in pattern
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6) if has_temporal else None
        self.temporal_attn = attention(*pattern["temporal_attn"]) if has_temporal else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention(*pattern["attn"])
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = VideoMlp(dim, int(dim * mlp_ratio), grid, mlp_dwconv)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        if self.temporal_attn is not None:
            x = x + self.drop_path(self.temporal_attn(self.temporal_norm1(x)))
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
