"""How many tokens a program of a Triton kernel has, and its warps: one fixed table.

Forward values are the best of a sweep on an H200 in bfloat16 (space: 64 tokens, 4 warps, 3 stages;
time: 64 rows, 4 warps; norm: 2 rows, 2 warps). Those of backward passes and of heads of more than
64 channels follow from registers and shared memory and were not swept. Nothing is tuned when a
kernel first runs: equal shapes have equal sums, on every day.
"""

from typing import NamedTuple

import torch

__all__ = [
    "NUM_PROGRAMS",
    "Launch",
    "attention_launch",
    "conv_launch",
    "norm_launch",
    "is_short",
    "num_spans",
]

# A few for each of the 132 multiprocessors of an H100 or H200.
NUM_PROGRAMS = 528
_MULTIPROCESSORS = 132
# A span of a long sequence: sums of shorter ones cost more than they gain.
_LEAST_SPAN = 256


class Launch(NamedTuple):
    """Settings of a kernel.

    Args:
        rows: of a program's tile.
        num_warps: of 32 threads.
        num_stages: tiles on their way from memory.
    """

    rows: int
    num_warps: int
    num_stages: int = 1

    @property
    def options(self) -> dict[str, int]:
        """What Triton itself is told."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


def _is_wide(head_dim: int, dtype: torch.dtype) -> bool:
    """Whether a head's tiles are too large for the settings of 64 channels in half precision."""
    return head_dim * dtype.itemsize > 64 * 2


# By kernel: settings for usual heads, and for wide ones. Tiles of 64 × 64 have 4 warps: triton 3.3
# cannot compile products of these by 8.
_ATTENTION = {
    "long_forward": (Launch(64, 4, 3), Launch(32, 8)),
    "short_forward": (Launch(64, 4), Launch(32, 8)),
    "heads_forward": (Launch(64, 4), Launch(32, 8)),
    "long_backward": (Launch(64, 4), Launch(32, 8)),
    "short_backward": (Launch(64, 4), Launch(32, 8)),
    "heads_backward": (Launch(64, 4), Launch(32, 8)),
    "gate_gradient": (Launch(64, 4, 2), Launch(32, 8)),
    "unshift": (Launch(16, 4), Launch(16, 4)),
}


def attention_launch(
    kernel: str, head_dim: int, dtype: torch.dtype, length: int | None = None
) -> Launch:
    """Settings of a kernel of the attention.

    Args:
        kernel: its name.
        head_dim: E, padded to a power of two.
        dtype: of its inputs.
        length: of sequences of which a program has to hold whole ones.
    """
    launch = _ATTENTION[kernel][_is_wide(head_dim, dtype)]
    if length is not None and length > launch.rows:
        launch = launch._replace(rows=1 << (length - 1).bit_length(), num_warps=8)
    return launch


def is_short(length: int, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether sequences are worked on by their weights q kᵀ, whole ones in one pass.

    Args:
        length: tokens of a sequence.
        head_dim: E, padded to a power of two.
        dtype: of the inputs.
    """
    return length <= (32 if _is_wide(head_dim, dtype) else 128)


def num_spans(num_units: int, length: int) -> int:
    """Programs that share a long sequence of a head, so that all multiprocessors have work.

    Args:
        num_units: sequences times heads.
        length: tokens of a sequence.
    """
    if num_units >= _MULTIPROCESSORS:
        return 1
    return max(1, min(NUM_PROGRAMS // num_units, length // _LEAST_SPAN))


def conv_launch(backward: bool) -> tuple[Launch, int]:
    """Settings of the depthwise convolution, and channels of a program."""
    return (Launch(16, 8), 64) if backward else (Launch(16, 4), 64)


def norm_launch(dim: int) -> Launch:
    """Settings of the norm over `dim` channels, a power of two."""
    return Launch(2, min(max(2, dim // 256), 16))
