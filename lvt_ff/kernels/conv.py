"""Convolutions beside an attention: their first values, and depthwise ones over a token grid."""

from torch import Tensor, nn

__all__ = ["TorchInitConv1d", "TorchInitConv2d", "TorchInit", "SmallInit", "depthwise"]


class TorchInit:
    """A layer whose first values are torch's own, as in its source."""

    def init_weights(self) -> None:
        self.reset_parameters()


class SmallInit(TorchInit):
    """A layer with truncated normal weights of deviation 0.02 and no bias, as in its source."""

    def init_weights(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


class TorchInitConv1d(TorchInit, nn.Conv1d):
    """A convolution beside an attention."""


class TorchInitConv2d(TorchInit, nn.Conv2d):
    """A convolution beside an attention."""


def depthwise(conv: nn.Conv2d, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """A convolution of (S, A, L, E) over its grid; one of E channels serves every head alike."""
    num_heads = x.shape[1]
    if conv.in_channels == x.shape[-1]:
        planes = x.flatten(0, 1).transpose(1, 2).unflatten(2, grid)  # (S·A, E, h, w)
        return conv(planes).flatten(2).transpose(1, 2).unflatten(0, (-1, num_heads))
    planes = x.transpose(2, 3).flatten(1, 2).unflatten(2, grid)  # (S, D, h, w)
    return conv(planes).flatten(2).unflatten(1, (num_heads, -1)).transpose(2, 3)
