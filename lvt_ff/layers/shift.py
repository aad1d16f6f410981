"""Neighbourhood association: channel groups of keys and values read neighbouring tokens or frames.

Source: arXiv 2210.08164, Sec. 4.2; groups, offsets and borders as in the authors' code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.utils.validation import check_at_least

__all__ = [
    "SHIFT_BORDERS",
    "SPATIAL_OFFSETS",
    "SpatialShift",
    "TemporalShift",
    "make_shift",
    "shift_tokens",
]

# Offsets (dy, dx) of the token that each channel group reads, by shift size.
_SIZE_1 = ((1, 0), (-1, 0), (0, 1), (0, -1), (-1, -1), (1, 1), (-1, 1), (1, -1))
_KNIGHTS = ((-2, -1), (-2, 1), (-1, -2), (1, -2), (2, -1), (2, 1), (-1, 2), (1, 2))
SPATIAL_OFFSETS: dict[int, tuple[tuple[int, int], ...]] = {
    0: (),
    1: _SIZE_1,
    2: tuple((2 * dy, 2 * dx) for dy, dx in _SIZE_1) + _KNIGHTS + _SIZE_1,
}
SHIFT_BORDERS = ("authors", "zero")
# The authors' assignment order leaves zeros at the border in the first four groups, own values in
# the rest.
_ZERO_BORDER_GROUPS = 4


def shift_tokens(x: Tensor, grid: tuple[int, int], dy: int, dx: int, zero_border: bool) -> Tensor:
    """Every token takes the value at (y + dy, x + dx).

    Args:
        x: (..., h, w, C).
        grid: (h, w).
        dy, dx: offset in tokens.
        zero_border: where that place is outside the grid: 0, or else the token's own value.

    Returns:
        (..., h, w, C).
    """
    h, w = grid
    top, left = min(max(-dy, 0), h), min(max(-dx, 0), w)
    bottom, right = max(min(h, h - dy), top), max(min(w, w - dx), left)
    inside = x[..., top + dy : bottom + dy, left + dx : right + dx, :]
    if zero_border:
        return F.pad(inside, (0, 0, left, w - right, top, h - bottom))
    rows = x[..., top:bottom, :, :]
    rows = torch.cat([rows[..., :left, :], inside, rows[..., right:, :]], dim=-2)
    return torch.cat([x[..., :top, :, :], rows, x[..., bottom:, :, :]], dim=-3)


class SpatialShift(nn.Module):
    """Half of the channels, in equal groups, read the neighbours of a token within its frame.

    Args:
        size: 1 for the 8 neighbours, 2 for the 24 of a 5×5 window.
        dim: channels.
        grid: token grid (h, w).
        border: what comes from outside the frame: "authors" (zeros in the first four groups, own
            values in the rest) or "zero".

    Raises:
        ValueError: fewer channels than the groups need.
    """

    def __init__(self, size: int, dim: int, grid: tuple[int, int], border: str = "authors"):
        super().__init__()
        self.offsets = SPATIAL_OFFSETS[size]
        self.zero_groups = _ZERO_BORDER_GROUPS if border == "authors" else len(self.offsets)
        self.fold = dim // (2 * len(self.offsets))
        self.grid = grid
        if self.fold == 0:
            raise ValueError(
                f"spatial_shift={size} needs embed_dim >= {2 * len(self.offsets)}, got {dim}: "
                "use a larger embed_dim or spatial_shift=0."
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        tokens, fold = x.unflatten(2, self.grid), self.fold  # (B, T, h, w, D)
        parts = [
            shift_tokens(
                tokens[..., group * fold : (group + 1) * fold],
                self.grid,
                dy,
                dx,
                zero_border=group < self.zero_groups,
            )
            for group, (dy, dx) in enumerate(self.offsets)
        ]
        parts.append(tokens[..., len(self.offsets) * fold :])
        return torch.cat(parts, dim=-1).flatten(2, 3)


class TemporalShift(nn.Module):
    """1/div of the channels reads the next frame, 1/div the previous one, or zero.

    Args:
        div: divisor of the channels.
        dim: channels.
        segment: frames that exchange, in parts of the clip one after the other; 0 is the whole
            clip. The authors' Kinetics models have 8 of 16.

    Raises:
        ValueError: the divisor leaves no channel, or more than all; a negative segment.
    """

    def __init__(self, div: int, dim: int, segment: int = 0):
        super().__init__()
        check_at_least(0, temporal_shift_segment=segment)
        self.segment = segment
        if not 2 <= div <= dim:
            raise ValueError(
                f"temporal_shift_div must be 0 (off) or 2 to embed_dim ({dim}), got {div}."
            )
        self.fold = dim // div

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N, D) to (B, T, N, D)."""
        if not self.segment:
            return self.shifted(x)
        return torch.cat([self.shifted(part) for part in x.split(self.segment, dim=1)], dim=1)

    def shifted(self, x: Tensor) -> Tensor:
        """One segment (B, T, N, D) to the same."""
        fold = self.fold
        after = F.pad(x[:, 1:, :, :fold], (0, 0, 0, 0, 0, 1))
        before = F.pad(x[:, :-1, :, fold : 2 * fold], (0, 0, 0, 0, 1, 0))
        return torch.cat([after, before, x[..., 2 * fold :]], dim=-1)


def make_shift(
    dim: int, grid: tuple[int, int], *, spatial: int, border: str, temporal_div: int, segment: int
) -> nn.Module:
    """The shifts of an attention, one after the other; the identity where both are off.

    Args:
        dim: channels.
        grid: token grid (h, w).
        spatial, border: size and border of `SpatialShift`; size 0 is off.
        temporal_div, segment: of `TemporalShift`; a divisor of 0 is off.
    """
    parts: list[nn.Module] = []
    if spatial:
        parts.append(SpatialShift(spatial, dim, grid, border))
    if temporal_div:
        parts.append(TemporalShift(temporal_div, dim, segment))
    if not parts:
        return nn.Identity()
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
