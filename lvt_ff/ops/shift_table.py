"""Which rows of the packed queries, keys and values an attention's sequences consist of.

One gather over this table shifts keys and values, cuts heads and puts a sequence's tokens one
behind the other. Source: arXiv 2210.08164, Sec. 4.2; borders as in the authors' code.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lvt_ff.ops.attention_spec import AttentionSpec

__all__ = ["ShiftTable", "shift_table"]


class ShiftTable(NamedTuple):
    """Rows are of `width` channels; a clip's (T, N, 3D) are numbered from 0 on.

    Args:
        width: channels of a row, which divides a head's.
        rows: numbers (S, A, L, 3·E/width) of the rows that make the sequences of a clip.
        zeros: sorted places in the flattened `rows` which are 0 instead.
        readers: for every row of a clip the place in `rows` that reads it.
        unread: rows that nothing reads.
        again: (place, row) of the second reader of rows that have two.
    """

    width: int
    rows: Tensor
    zeros: np.ndarray
    readers: Tensor
    unread: Tensor
    again: tuple[Tensor, Tensor]


def _temporal_source(spec: AttentionSpec, num_frames: int, channels: np.ndarray) -> np.ndarray:
    """Frame that each channel of each frame reads (T, C); -1 for none."""
    frames = np.arange(num_frames)[:, None]
    step = np.zeros_like(channels)
    step[channels < 2 * spec.temporal_fold] = -1
    step[channels < spec.temporal_fold] = 1
    source = frames + step
    segment = spec.segment or num_frames
    outside = (source < 0) | (source >= num_frames) | (source // segment != frames // segment)
    return np.where(outside, -1, source)


def _spatial_source(spec: AttentionSpec, channels: np.ndarray) -> np.ndarray:
    """Token that each channel of each token reads (N, C); -1 for none."""
    h, w = spec.grid
    tokens = np.arange(h * w)[:, None]
    offsets = np.array([*spec.spatial_offsets, 0, 0]).reshape(-1, 2)
    last = len(offsets) - 1
    group = np.minimum(channels // (spec.spatial_fold or 1), last) if last else 0 * channels
    y, x = tokens // w + offsets[group, 0], tokens % w + offsets[group, 1]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    outside = np.where(group < spec.zero_groups, -1, tokens)
    return np.where(inside, y * w + x, outside)


def _sources(spec: AttentionSpec, num_frames: int, dim: int, width: int) -> np.ndarray:
    """Row that each row of shifted (T, N, 3, D/width) reads; -1 for none."""
    channels = np.arange(0, dim, width)
    frames = _temporal_source(spec, num_frames, channels)[:, None, None]  # (T, 1, 1, C)
    tokens = _spatial_source(spec, channels)[None, :, None]  # (1, N, 1, C)
    own_frame = np.arange(num_frames)[:, None, None, None]
    own_token = np.arange(tokens.shape[1])[None, :, None, None]
    part = np.arange(3)[:, None]
    moved = part > 0  # queries stay
    frames, tokens = np.where(moved, frames, own_frame), np.where(moved, tokens, own_token)
    row = ((frames * tokens.shape[1] + tokens) * 3 + part) * len(channels) + channels // width
    return np.where((frames < 0) | (tokens < 0), -1, row)


def _row_width(spec: AttentionSpec, head_dim: int) -> int:
    return math.gcd(head_dim, spec.spatial_fold, spec.temporal_fold)


def _as_index(x: np.ndarray, size: int) -> Tensor:
    small = size < 2**31
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int32 if small else np.int64))


@functools.lru_cache(maxsize=16)
def _table(spec: AttentionSpec, num_frames: int, dim: int) -> ShiftTable:
    heads = spec.num_heads
    width = _row_width(spec, dim // heads)
    sources = torch.from_numpy(_sources(spec, num_frames, dim, width))  # (T, N, 3, D/width)
    folded = spec.fold(sources[None])[0].unflatten(-1, (heads, -1))  # (S, L, 3, A, E/width)
    rows = folded.permute(0, 3, 1, 2, 4).flatten(3).numpy()  # (S, A, L, 3·E/width)
    flat = rows.reshape(-1)
    size = flat.size
    readers = np.full(size, -1, dtype=np.int64)
    places = np.flatnonzero(flat >= 0)
    readers[flat[places]] = places
    # With the authors' border a token may be read by a neighbour and by itself.
    second = places[readers[flat[places]] != places]
    return ShiftTable(
        width=width,
        rows=_as_index(np.maximum(rows, 0), size),
        zeros=np.flatnonzero(flat < 0),
        readers=_as_index(np.maximum(readers, 0), size),
        unread=torch.from_numpy(np.flatnonzero(readers < 0)),
        again=(torch.from_numpy(second), torch.from_numpy(flat[second])),
    )


def shift_table(spec: AttentionSpec, num_frames: int, dim: int) -> ShiftTable:
    """The table of an attention for clips of `num_frames` frames and `dim` channels."""
    # What acts on features has no part in it: attentions that differ there share a table.
    plain = spec._replace(
        grid=tuple(spec.grid),
        spatial_offsets=tuple(spec.spatial_offsets),
        feature_map="identity",
        offset=0.0,
        eps=0.0,
        clamp=False,
    )
    return _table(plain, num_frames, dim)
