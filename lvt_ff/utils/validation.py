"""Checks of what users pass in, with errors that name the way out."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `lvt-ff --help` and a misspelt command answer without loading torch
    from torch import Tensor

__all__ = ["check_choice", "check_clip", "check_at_least", "check_odd", "check_rgb", "suggest"]


def check_clip(x: "Tensor", num_frames: int, in_chans: int, img_size: tuple[int, int]) -> "Tensor":
    """The clip batch itself, if the model takes it.

    Raises:
        ValueError: another layout, frame count, channel count, size or kind of numbers.
    """
    got = tuple(x.shape)
    want = (num_frames, in_chans, *img_size)
    if len(got) != 5:
        raise ValueError(
            f"Expected a clip batch (B, T, C, H, W) = (B, {', '.join(map(str, want))}), "
            f"got {len(got)} dimensions {got}: stack frames in dimension 1; one image is T = 1."
        )
    if got[1:] == want:
        if not x.is_floating_point():
            raise ValueError(
                f"Expected normalised floating-point pixels, got {x.dtype}: use the video "
                "processor or lvt_ff.data.EvalTransform."
            )
        return x
    if got[2] != in_chans and got[1] == in_chans:
        raise ValueError(
            f"Expected (B, T, C, H, W) with {in_chans} channels in dimension 2, got {got}, "
            "which looks like (B, C, T, H, W): use clip.transpose(1, 2)."
        )
    if got[2] != in_chans:
        raise ValueError(
            f"Expected {in_chans} channels in dimension 2 of (B, T, C, H, W), got {got}: "
            f"build the model with in_chans={got[2]}."
        )
    raise ValueError(
        f"Expected {num_frames} frames of {img_size[0]}×{img_size[1]} pixels, got {got[1]} of "
        f"{got[3]}×{got[4]}: pass num_frames={got[1]}, img_size=({got[3]}, {got[4]}) to "
        "create_model (embeddings are resampled when weights are loaded)."
    )


def check_choice(name: str, value: object, choices: Iterable) -> None:
    """Raise ValueError, with the choices, for a value that is not one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}.")


def check_at_least(least: int, **values: float) -> None:
    """Raise ValueError for the first value below, with its name."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_odd(**values: int) -> None:
    """Raise ValueError for the first value that is even or below 1, with its name."""
    for name, value in values.items():
        if value < 1 or value % 2 == 0:
            raise ValueError(f"{name} must be odd and at least 1, got {value}.")


def check_rgb(in_chans: int) -> None:
    """Raise ValueError for a model that cannot be given video files."""
    if in_chans != 3:
        raise ValueError(
            f"The model takes clips of {in_chans} channels, and video files are RGB: give clips "
            "to the model itself."
        )


def suggest(name: str, known: Sequence[str]) -> str:
    """What to say behind an unknown name: the most similar known one, and all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known)
    return f"did you mean {close[0]!r}? Known: {listed}" if close else f"choose from {listed}"
