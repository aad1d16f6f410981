"""Frames to tokens, one convolution per frame: ViT weights and channel adaptation fit.

Source: arXiv 2210.08164, Sec. 5.1; stride 14 and padding 8 as in the authors' code.
"""

from torch import Tensor, nn

__all__ = ["FramePatchEmbed"]


class FramePatchEmbed(nn.Module):
    """Convolution over every frame, optionally followed by LayerNorm.

    Args:
        img_size: pixels (H, W).
        in_chans: input channels.
        embed_dim: channels of a token.
        patch: kernel size, stride and padding of the convolution, in pixels.
        norm: with LayerNorm (the authors' model), or without (a plain ViT).

    Raises:
        ValueError: the frame is smaller than one patch.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        in_chans: int,
        embed_dim: int,
        *,
        patch: tuple[int, int, int],
        norm: bool,
    ):
        super().__init__()
        size, stride, padding = patch
        self.proj = nn.Conv2d(in_chans, embed_dim, size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5) if norm else nn.Identity()
        self.set_img_size(img_size)

    @staticmethod
    def token_grid(img_size: tuple[int, int], conv: nn.Conv2d) -> tuple[int, int]:
        """Token grid (h, w) that a convolution makes of frames of (H, W) pixels."""
        h, w = (
            (side + 2 * padding - kernel) // stride + 1
            for side, padding, kernel, stride in zip(
                img_size, conv.padding, conv.kernel_size, conv.stride, strict=True
            )
        )
        return h, w

    def set_img_size(self, img_size: tuple[int, int]) -> None:
        """Take frames of (H, W) pixels from now on; sets `grid`, the token grid (h, w)."""
        grid = self.token_grid(img_size, self.proj)
        if min(grid) < 1:
            raise ValueError(
                f"img_size={img_size} is smaller than one patch of {self.proj.kernel_size} pixels "
                f"(padding {self.proj.padding}): use larger frames or a smaller patch_size."
            )
        self.img_size = tuple(img_size)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) to (B, T, N, D)."""
        num_frames = x.shape[1]
        x = self.proj(x.flatten(0, 1))  # (B·T, D, h, w)
        # Or else the sums of all blocks would have channels apart in memory, as a convolution has.
        x = x.flatten(2).transpose(1, 2).contiguous()
        return self.norm(x.unflatten(0, (-1, num_frames)))
