"""One transformer block: residual branches in time, in space, and per token.

Source: arXiv 2210.08164, Sec. 4; time before space is the authors' code, not the text.
"""

from timm.layers import DropPath, use_fused_attn
from torch import Tensor, nn

from lvt_ff.kernels.conv import SmallInit
from lvt_ff.layers.attention import Attention
from lvt_ff.layers.config import BlockConfig
from lvt_ff.layers.fused import is_plain
from lvt_ff.layers.mlp import DepthwiseConv, VideoMlp
from lvt_ff.layers.sequences import ATTN_PATTERNS
from lvt_ff.layers.shift import SpatialShift, make_shift
from lvt_ff.ops import add, add_norm, may_fuse

__all__ = ["VideoBlock"]


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
        config: what all blocks have in common.
        drop_path_rate: of each branch.
    """

    use_fused = False  # of models that were pickled before there was a choice

    def __init__(
        self,
        dim: int,
        num_heads: int,
        size: tuple[int, tuple[int, int]],
        config: BlockConfig,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        grid = size[1]
        attentions = {"temporal_attn": None}
        for name, (sequences, with_spatial, with_temporal) in ATTN_PATTERNS[
            config.attn_pattern
        ].items():
            shift = make_shift(
                dim,
                grid,
                spatial=config.spatial_shift if with_spatial else 0,
                border=config.shift_border,
                temporal_div=config.temporal_shift_div if with_temporal else 0,
                segment=config.temporal_shift_segment,
            )
            attentions[name] = Attention(dim, num_heads, size, sequences, shift, config)
        over_time = attentions["temporal_attn"] is not None
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6) if over_time else None
        self.temporal_attn = attentions["temporal_attn"]
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attentions["attn"]
        self.space_first = config.block_order == "space_first"
        self.local_norm = nn.LayerNorm(dim, eps=1e-6) if config.local_concentration else None
        self.local = LocalConcentration(dim, grid) if config.local_concentration else None
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = VideoMlp(dim, int(dim * config.mlp_ratio), grid, config.mlp_dwconv)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.use_fused = bool(use_fused_attn())

    def branches(self) -> list[tuple[nn.Module, nn.Module, nn.Module | None]]:
        """Norm, body and the body's last layer of the residual branches, in order."""
        branches = [(self.norm1, self.attn, self.attn.proj)]
        if self.temporal_attn is not None:
            over_time = (self.temporal_norm1, self.temporal_attn, self.temporal_attn.proj)
            branches.insert(1 if self.space_first else 0, over_time)
        if self.local is not None:
            branches.append((self.local_norm, self.local, None))
        return [*branches, (self.norm2, self.mlp, self.mlp.fc2)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        y, only_here = None, False
        for norm, branch, last in self.branches():
            for_linear = not (isinstance(branch, Attention) and branch.kernel.uses_input)
            x, normed = self.add_and_norm(x, y, norm, only_here, for_linear)
            y = self.drop_path(branch(normed))
            only_here = self.is_seen_nowhere_else(branch, last)
        return add(x, y, only_here and self.use_fused and may_fuse(x))

    def add_and_norm(
        self, x: Tensor, y: Tensor | None, norm: nn.Module, only_here: bool, for_linear: bool
    ) -> tuple[Tensor, Tensor]:
        """`x + y` and its norm, (B, T, N, D) each; `y` may be overwritten if it is only here."""
        if y is None:
            return x, norm(x)
        if self.use_fused and may_fuse(x) and may_fuse(y) and is_plain(norm, nn.LayerNorm):
            return add_norm(x, y, norm.weight, norm.bias, norm.eps, only_here, for_linear)
        x = x + y
        return x, norm(x)

    def is_seen_nowhere_else(self, branch: nn.Module, last: nn.Module | None) -> bool:
        """Whether no hook can have kept what a branch gave, and it is not the branch's input."""
        return is_plain(last, nn.Linear) and is_plain(branch) and is_plain(self.drop_path)

    def set_size(self, num_frames: int, grid: tuple[int, int]) -> None:
        """Serve clips of another size from now on; the model resamples what is tied to it."""
        for module in self.modules():
            if isinstance(module, SpatialShift | DepthwiseConv):
                module.grid = grid
            elif isinstance(module, Attention):
                module.set_size(num_frames, grid)
