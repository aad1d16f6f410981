"""The MLP of a block, with a depthwise convolution that tells tokens their place."""

from timm.layers import use_fused_attn
from torch import Tensor, nn

from lvt_ff.layers.fused import is_plain
from lvt_ff.ops import dwconv_gelu, may_fuse

__all__ = ["DepthwiseConv", "VideoMlp"]


class DepthwiseConv(nn.Conv2d):
    """Depthwise convolution over the token grid of every frame.

    Args:
        dim: channels.
        grid: token grid (h, w).
        kernel_size: tokens, odd.
    """

    def __init__(self, dim: int, grid: tuple[int, int], kernel_size: int = 3):
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.grid = grid

    @property
    def is_usual(self) -> bool:
        """Whether it is the 3×3 convolution that keeps the grid and has zeros around it."""
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        return sizes == ((3, 3), (1, 1), (1, 1), (1, 1)) and self.padding_mode == "zeros"

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, C) to (B, T, N, C)."""
        num_frames = x.shape[1]
        frames = x.flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)  # (B·T, C, h, w)
        return super().forward(frames).flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames))


class VideoMlp(nn.Module):
    """Linear, depthwise convolution, GELU, Linear.

    Args:
        dim: channels in and out.
        hidden_dim: channels between.
        grid: token grid (h, w).
        dwconv: with the convolution, or without (a plain ViT's MLP).
    """

    use_fused = False  # of models that were pickled before there was a choice

    def __init__(self, dim: int, hidden_dim: int, grid: tuple[int, int], dwconv: bool):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim, grid) if dwconv else nn.Identity()
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.use_fused = bool(use_fused_attn())

    def may_fuse(self, x: Tensor) -> bool:
        """Whether one operator does what the modules between the linear layers would."""
        if not self.use_fused or not may_fuse(x):
            return False
        exact = is_plain(self.act) and type(self.act) is nn.GELU and self.act.approximate == "none"
        return exact and is_plain(self.dwconv, DepthwiseConv) and self.dwconv.is_usual

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        if not self.may_fuse(x):
            return self.fc2(self.act(self.dwconv(self.fc1(x))))
        conv, only_here = self.dwconv, is_plain(self.fc1, nn.Linear)
        x = dwconv_gelu(self.fc1(x), conv.weight, conv.bias, conv.grid, overwrite=only_here)
        return self.fc2(x)
