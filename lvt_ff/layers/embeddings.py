"""Embeddings of place and time: first values, and fitting them to another clip size."""

import math

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

__all__ = ["init_embeddings", "resample_embeddings"]


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
    state_dict: dict[str, Tensor],
    num_frames: int,
    grid: tuple[int, int],
    old_grid: tuple[int, int] | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Resample `temp_embed` (linear in time) and `pos_embed` (bicubic in space).

    Args:
        state_dict: our names; embeddings (1, T, 1, D) and (1, N, D).
        num_frames: frames of the target.
        grid: token grid (h, w) of the target.
        old_grid: token grid of the source; None or one that does not fit takes a square one.

    Returns:
        A state dict with the embeddings replaced where sizes differ, and a line for each that was.

    Raises:
        ValueError: the source's token grid is not square and not given.
    """
    state_dict, changes = dict(state_dict), []
    temporal = state_dict.get("temp_embed")
    if temporal is not None and temporal.shape[1] != num_frames:
        frames = temporal.float()[:, :, 0].transpose(1, 2)  # (1, D, T)
        frames = F.interpolate(frames, size=num_frames, mode="linear", align_corners=False)
        frames = frames.transpose(1, 2).unsqueeze(2).to(temporal.dtype)
        state_dict["temp_embed"] = frames.contiguous()  # safetensors refuses views
        changes.append(f"temp_embed from {temporal.shape[1]} to {num_frames} frames (linear)")
    spatial = state_dict.get("pos_embed")
    if spatial is None:
        return state_dict, changes
    num_tokens = spatial.shape[1]
    if old_grid is None or math.prod(old_grid) != num_tokens:
        side = math.isqrt(num_tokens)
        # An equal count without a grid of its own is taken as the same grid.
        old_grid = tuple(grid) if math.prod(grid) == num_tokens else (side, side)
        if math.prod(old_grid) != num_tokens:
            raise ValueError(
                f"Cannot tell the token grid of a pos_embed of {num_tokens} tokens, needed {grid}: "
                "load it with the img_size it was trained with, then call set_input_size."
            )
    if tuple(old_grid) != tuple(grid):
        state_dict["pos_embed"] = resample_abs_pos_embed(
            spatial, new_size=list(grid), old_size=list(old_grid), num_prefix_tokens=0
        )
        changes.append(f"pos_embed from {old_grid} to {grid} tokens (bicubic)")
    return state_dict, changes
