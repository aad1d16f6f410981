"""What an attention does between its two linear layers, as the arguments of an operator.

Source: arXiv 2210.08164, Sec. 4.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["AttentionSpec"]


class AttentionSpec(NamedTuple):
    """Shift, feature map, fixation and division of an attention; its gate comes beside it.

    Args:
        sequences: what a sequence is: "time" (a place through all frames), "space" (a frame) or
            "joint" (a clip).
        grid: token grid (h, w); N = h·w.
        num_heads: A.
        feature_map: name in `lvt_ff.ops.FEATURE_MAPS`.
        offset: added to the features.
        eps: added to the denominator.
        clamp: the denominator is at least `eps` instead.
        spatial_offsets: dy, dx, dy, dx, … of the token that each channel group of keys and values
            reads; none is no spatial shift.
        spatial_fold: channels of such a group; groups are the first channels.
        zero_groups: groups that read 0 outside of the frame; the others keep their own value.
        temporal_fold: so many of the first channels read the next frame, as many after them the
            previous one, 0 outside; 0 is no temporal shift.
        segment: frames that exchange channels; 0 is all of a clip.
    """

    sequences: str
    grid: Sequence[int]
    num_heads: int
    feature_map: str
    offset: float = 0.0
    eps: float = 1e-6
    clamp: bool = False
    spatial_offsets: Sequence[int] = ()
    spatial_fold: int = 0
    zero_groups: int = 0
    temporal_fold: int = 0
    segment: int = 0

    # The same fields in the language of operator schemas.
    SCHEMA = (
        "str sequences, int[] grid, int num_heads, str feature_map, float offset, float eps, "
        "bool clamp, int[] spatial_offsets, int spatial_fold, int zero_groups, int temporal_fold, "
        "int segment"
    )

    def length(self, num_frames: int) -> int:
        """Tokens of a sequence, L."""
        h, w = self.grid
        return {"time": num_frames, "space": h * w, "joint": num_frames * h * w}[self.sequences]

    def fold(self, x: Tensor) -> Tensor:
        """A view of tokens (B, T, N, …) as sequences (B, S, L, …)."""
        if self.sequences == "time":
            return x.transpose(1, 2)
        return x if self.sequences == "space" else x.flatten(1, 2).unsqueeze(1)

    def tokens(self, x: Tensor, batch: int, num_frames: int, num_tokens: int) -> Tensor:
        """Sequences of every head (B·S, A, L, E) as tokens (B, T, N, D)."""
        x = x.transpose(1, 2).flatten(2)  # (B·S, L, D)
        if self.sequences == "time":
            return x.unflatten(0, (batch, num_tokens)).transpose(1, 2)
        return x.reshape(batch, num_frames, num_tokens, -1)

    def heads(self, x: Tensor) -> Tensor:
        """A view of tokens (B, T, N, D) as sequences of every head (B, S, A, L, E)."""
        return self.fold(x).unflatten(-1, (self.num_heads, -1)).transpose(2, 3)
