"""Embeddings of place and time: first values, and fitting them to another clip size."""

import math

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from lvt_ff.kernels import LengthTable
from lvt_ff.layers.attention import Attention
from lvt_ff.layers.sequences import JointSequences, TimeSequences

__all__ = ["init_embeddings", "length_tables", "refit_embeddings", "resample_embeddings"]


def sincos_times(num_positions: int, dim: int) -> Tensor:
    """Sines and cosines of wavelengths from 2π to 200π, (num_positions, dim).

    Short tables need short waves: with the usual 20,000π most channels stay constant over a clip.
    """
    num_waves = (dim + 1) // 2
    frequencies = 100 ** (-torch.arange(num_waves, dtype=torch.float64) / num_waves)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :dim]


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """`sincos_times` of the row in one half of the channels, the column in the rest, (N, dim)."""
    (h, w), half = grid, dim // 2
    rows = sincos_times(h, half)[:, None].expand(h, w, half)
    columns = sincos_times(w, dim - half).expand(h, w, dim - half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


@torch.no_grad()
def init_embeddings(
    temp_embed: nn.Parameter, pos_embed: nn.Parameter | None, grid: tuple[int, int]
) -> None:
    """Fill embeddings (1, T, 1, D) and (1, N, D) with sines and cosines."""
    _, num_frames, _, dim = temp_embed.shape
    _fill(temp_embed, sincos_times(num_frames, dim)[:, None])
    if pos_embed is not None:
        _fill(pos_embed, sincos_positions(grid, dim))


def _fill(parameter: nn.Parameter, values: Tensor) -> None:
    # transformers marks what it has loaded; its own initialisers respect that mark too.
    if not getattr(parameter, "_is_hf_initialized", False):
        parameter.copy_(values)


def resample_embeddings(
    state_dict: dict[str, Tensor], model: nn.Module, old_grid: tuple[int, int] | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Resample what is tied to a clip's size: embeddings, and tables of some kernels.

    `temp_embed` linearly in time, `pos_embed` bicubically in space, kernels' tables likewise.

    Args:
        state_dict: our names; embeddings (1, T, 1, D) and (1, N, D).
        model: with the clip size of the target.
        old_grid: token grid of the source; None or one that does not fit takes a square one.

    Returns:
        A state dict with the embeddings replaced where sizes differ, and a line for each that was.

    Raises:
        ValueError: the source's token grid is not square and not given.
    """
    state_dict, changes = dict(state_dict), []
    num_frames, grid = model.num_frames, model.grid
    temporal, spatial = state_dict.get("temp_embed"), state_dict.get("pos_embed")
    old_frames = num_frames if temporal is None else temporal.shape[1]
    if old_frames != num_frames:
        frames = temporal.float()[:, :, 0].transpose(1, 2)  # (1, D, T)
        frames = F.interpolate(frames, size=num_frames, mode="linear", align_corners=False)
        frames = frames.transpose(1, 2).unsqueeze(2).to(temporal.dtype)
        state_dict["temp_embed"] = frames.contiguous()  # safetensors refuses views
        changes.append(f"temp_embed from {old_frames} to {num_frames} frames (linear)")
    if spatial is not None:
        old_grid = _grid_of(spatial.shape[1], grid, old_grid)
        if old_grid != tuple(grid):
            state_dict["pos_embed"] = resample_abs_pos_embed(
                spatial, new_size=list(grid), old_size=list(old_grid), num_prefix_tokens=0
            )
            changes.append(f"pos_embed from {old_grid} to {grid} tokens (bicubic)")
    for name, (table, sequences) in length_tables(model).items():
        if name in state_dict:
            length, new = state_dict[name].shape[table.axis], sequences.layout(num_frames, grid)
            old = _old_layout(length, sequences, old_frames, grid, old_grid)
            if old != new:
                rows = _resample_table(state_dict[name], table.axis, old, new)
                state_dict[name] = rows * (length / math.prod(new)) if table.is_sum else rows
                changes.append(f"{name} from {old} to {new} tokens (bicubic, linear in time)")
    return state_dict, changes


def refit_embeddings(model: nn.Module, old_grid: tuple[int, int]) -> list[str]:
    """`resample_embeddings` on a model's own parameters; a line for each that changed."""
    state = model.state_dict()
    resampled, changes = resample_embeddings(state, model, old_grid)
    for name, parameter in list(model.named_parameters()):
        if resampled[name] is not state[name]:
            place, _, leaf = name.rpartition(".")
            new = nn.Parameter(resampled[name], requires_grad=parameter.requires_grad)
            model.get_submodule(place).register_parameter(leaf, new)
    return changes


def length_tables(model: nn.Module) -> dict[str, tuple[LengthTable, type]]:
    """Parameters of kernels with a row for every token of a sequence, and the kind of sequence."""
    return {
        f"{place}.kernel.{name}": (table, attention.sequences)
        for place, attention in model.named_modules()
        if isinstance(attention, Attention)
        for name, table in attention.kernel.length_tables.items()
    }


def _old_layout(
    length: int,
    sequences: type,
    old_frames: int,
    grid: tuple[int, int],
    old_grid: tuple[int, int] | None,
) -> tuple[int, int, int]:
    """Frames, rows and columns of a source's sequence of `length` tokens."""
    if sequences is TimeSequences:
        return length, 1, 1
    frames = old_frames if sequences is JointSequences else 1
    return frames, *_grid_of(length // frames, grid, old_grid)


def _grid_of(
    num_tokens: int, grid: tuple[int, int], old_grid: tuple[int, int] | None
) -> tuple[int, int]:
    """The token grid of a source, given or guessed."""
    if old_grid is not None and math.prod(old_grid) == num_tokens:
        return tuple(old_grid)
    side = math.isqrt(num_tokens)
    # An equal count without a grid of its own is taken as the same grid.
    found = tuple(grid) if math.prod(grid) == num_tokens else (side, side)
    if math.prod(found) != num_tokens:
        raise ValueError(
            f"Cannot tell the token grid of weights for {num_tokens} tokens, needed {grid}: load "
            "it with the img_size it was trained with, then call set_input_size."
        )
    return found


def _resample_table(
    table: Tensor, dim: int, old: tuple[int, int, int], new: tuple[int, int, int]
) -> Tensor:
    """Bicubic in space and linear in time, from (T, h, w) tokens along `dim` to others."""
    rows = table.detach().float().movedim(dim, -1)  # (..., L)
    leading = rows.shape[:-1]
    rows = rows.reshape(-1, *old)
    if old[1:] != new[1:]:
        rows = F.interpolate(rows, size=new[1:], mode="bicubic", antialias=True)
    rows = rows.flatten(2).transpose(1, 2)  # (C, h · w, T)
    if old[0] != new[0]:
        rows = F.interpolate(rows, size=new[0], mode="linear")
    rows = rows.transpose(1, 2).reshape(*leading, -1).movedim(-1, dim)
    return rows.to(table.dtype).contiguous()
