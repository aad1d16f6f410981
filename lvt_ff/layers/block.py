"""One transformer block: residual branches in time, in space, and per token.

Source: arXiv 2210.08164, Sec. 4; time before space is the authors' code, not the text.
"""

from collections.abc import Callable
from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from lvt_ff.kernels.conv import SmallInit
from lvt_ff.layers.attention import Attention, JointSequences, SpaceSequences, TimeSequences
from lvt_ff.layers.mlp import DepthwiseConv, VideoMlp
from lvt_ff.layers.shift import SpatialShift, TemporalShift

__all__ = ["ATTN_PATTERNS", "BLOCK_ORDERS", "VideoBlock"]

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


BLOCK_ORDERS = ("time_first", "space_first")


class _LocalConv(SmallInit, DepthwiseConv):
    """A convolution of the branch below."""


class LocalConcentration(nn.Module):
    """Two 7×7 depthwise convolutions over the token grid of every frame, a batch norm between.

    With several processes the norm's running statistics are the first one's, and gradient
    checkpointing counts every batch twice in them. Source: L2ViT, Zheng et al., arXiv 2501.16182,
    and its public code.

    Args:
        dim: channels.
        grid: token grid (h, w).
    """

    def __init__(self, dim: int, grid: tuple[int, int]):
        super().__init__()
        self.conv1 = _LocalConv(dim, grid, kernel_size=7)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm1d(dim)
        self.conv2 = _LocalConv(dim, grid, kernel_size=7)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        x = self.act(self.conv1(x))
        return self.conv2(self.bn(x.flatten(0, 2)).unflatten(0, x.shape[:3]))


class VideoBlock(nn.Module):
    """`x + temporal(x)`, `x + spatial(x)`, `x + mlp(x)`, each pre-normed, with drop path.

    Args:
        dim: channels.
        num_heads: heads.
        size: frames and token grid of a clip, (T, (h, w)).
        drop_path_rate: of each branch.
        mlp_ratio: hidden channels of the MLP over `dim`.
        mlp_dwconv: depthwise convolution in the MLP.
        attn_pattern: name in `ATTN_PATTERNS`.
        spatial_shift: size of the spatial shift; 0 is off; "windowed" has no place for it.
        shift_border: see `SpatialShift`.
        temporal_shift_div, temporal_shift_segment: see `TemporalShift`; a divisor of 0 is off.
        block_order: "time_first" or "space_first", of the two attentions of "factorized".
        local_concentration: a branch `x + LocalConcentration(x)` after attention.
        attn_kernel, kernel_options, fixation, fixation_shared, fixation_aggregate, fixation_order,
            fixation_bias, attn_drop_rate: see `Attention`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        size: tuple[int, tuple[int, int]],
        drop_path_rate: float = 0.0,
        *,
        mlp_ratio: float,
        mlp_dwconv: bool,
        attn_pattern: str,
        block_order: str,
        spatial_shift: int,
        shift_border: str,
        temporal_shift_div: int,
        temporal_shift_segment: int,
        local_concentration: bool,
        attn_kernel: str,
        kernel_options: dict[str, Any] | None,
        fixation: str,
        fixation_shared: bool,
        fixation_aggregate: str,
        fixation_order: str,
        fixation_bias: float,
        attn_drop_rate: float,
    ):
        super().__init__()
        grid = size[1]
        shifts: tuple[Callable[[], nn.Module], Callable[[], nn.Module]] = (
            lambda: (
                SpatialShift(spatial_shift, dim, grid, shift_border)
                if spatial_shift
                else nn.Identity()
            ),
            lambda: (
                TemporalShift(temporal_shift_div, dim, temporal_shift_segment)
                if temporal_shift_div
                else nn.Identity()
            ),
        )

        def attention(sequences: type, *with_shifts: bool) -> Attention:
            parts = [make() for make, wanted in zip(shifts, with_shifts, strict=True) if wanted]
            return Attention(
                dim,
                num_heads,
                size,
                sequences=sequences,
                shift=parts[0] if len(parts) == 1 else nn.Sequential(*parts),
                kernel=attn_kernel,
                kernel_options=kernel_options,
                fixation=fixation,
                fixation_shared=fixation_shared,
                fixation_aggregate=fixation_aggregate,
                fixation_order=fixation_order,
                fixation_bias=fixation_bias,
                attn_drop_rate=attn_drop_rate,
            )

        if block_order == "space_first" and attn_pattern != "factorized":
            raise ValueError(
                f"block_order='space_first' needs attn_pattern='factorized', got {attn_pattern!r}."
            )
        pattern = ATTN_PATTERNS[attn_pattern]
        has_temporal = "temporal_attn" in pattern
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6) if has_temporal else None
        self.temporal_attn = attention(*pattern["temporal_attn"]) if has_temporal else None
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention(*pattern["attn"])
        self.space_first = block_order == "space_first"
        self.local_norm = nn.LayerNorm(dim, eps=1e-6) if local_concentration else None
        self.local = LocalConcentration(dim, grid) if local_concentration else None
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = VideoMlp(dim, int(dim * mlp_ratio), grid, mlp_dwconv)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        if self.space_first:
            x = self.over_time(self.over_space(x))
        else:
            x = self.over_space(self.over_time(x))
        if self.local is not None:
            x = x + self.drop_path(self.local(self.local_norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def set_size(self, num_frames: int, grid: tuple[int, int]) -> None:
        """Serve clips of another size from now on; the model resamples what is tied to it."""
        for module in self.modules():
            if isinstance(module, SpatialShift | DepthwiseConv):
                module.grid = grid
            elif isinstance(module, Attention):
                module.set_size(num_frames, grid)

    def over_time(self, x: Tensor) -> Tensor:
        """The branch of attention over time, where there is one."""
        if self.temporal_attn is None:
            return x
        return x + self.drop_path(self.temporal_attn(self.temporal_norm1(x)))

    def over_space(self, x: Tensor) -> Tensor:
        """The branch of attention over space, or over both."""
        return x + self.drop_path(self.attn(self.norm1(x)))
