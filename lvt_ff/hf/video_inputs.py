"""What the video processor is given: lists taken apart into videos, pictures put together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lvt_ff.video.pictures import rgb_picture

__all__ = ["as_videos"]

_PLAIN_MODES = ({"L"}, {"RGB"}, {"RGBA"})


def as_videos(videos: Any, layout_known: bool = False) -> list:
    """A flat list of videos from any nesting of them.

    Each is an array or tensor of frames, (T, H, W, C) or (T, C, H, W), or what else was given: a
    source to read. Lists of pictures alone are one video; arrays of two dimensions are grey
    pictures.

    Args:
        videos: any of those of `LVTFFVideoProcessor.preprocess`.
        layout_known: three dimensions are one frame, whatever their lengths.

    Raises:
        ValueError: no video at all, or frames that are not a video.
    """
    if isinstance(videos, np.ndarray) and videos.dtype.kind in "OSU":  # of paths or objects
        videos = videos.tolist()
    if isinstance(videos, np.ndarray | Tensor):
        return _of_array(videos, layout_known)
    if isinstance(videos, Image.Image):
        return [_stack([videos])]
    if not isinstance(videos, Sequence) or isinstance(videos, str | bytes | bytearray | memoryview):
        return [videos]
    if not videos:
        raise ValueError("There is no video in an empty list.")
    if all(_is_picture(item, layout_known) for item in videos):
        return [_stack(videos)]
    return [video for item in videos for video in as_videos(item, layout_known)]


def _of_array(array: np.ndarray | Tensor, layout_known: bool) -> list[np.ndarray | Tensor]:
    if array.ndim == 5:
        return list(array)
    if array.ndim == 4:
        return [array]
    if array.ndim == 2:
        return [array[None, ..., None]]
    if array.ndim != 3:
        raise ValueError(
            f"Expected frames (T, H, W, C) or (T, C, H, W), grey ones (T, H, W), or a batch of "
            f"videos with one dimension more, got an array of shape {tuple(array.shape)}."
        )
    if not _is_picture(array, layout_known):
        return [array[..., None]]  # grey
    if array.shape[0] == 3 and array.shape[-1] not in (1, 3, 4) and not layout_known:
        raise ValueError(
            f"An array of shape {tuple(array.shape)} is one RGB frame or three grey ones: "
            "give (T, C, H, W) or (T, H, W, C)."
        )
    return [array[None]]


def _is_picture(item: Any, layout_known: bool) -> bool:
    if not isinstance(item, np.ndarray | Tensor):
        return isinstance(item, Image.Image)
    if item.ndim != 3:
        return item.ndim == 2
    return layout_known or item.shape[-1] in (1, 3, 4) or item.shape[0] in (1, 3)


def _stack(pictures: Sequence) -> np.ndarray | Tensor:
    """Pictures of one video, (T, H, W, C) or (T, C, H, W)."""
    images = [picture for picture in pictures if isinstance(picture, Image.Image)]
    # Those stay as they are: models may have one channel, or four.
    plain = len(images) == len(pictures) and {image.mode for image in images} in _PLAIN_MODES
    frames = [
        np.asarray(picture if plain else rgb_picture(picture))
        if isinstance(picture, Image.Image)
        else picture
        for picture in pictures
    ]
    frames = [frame[..., None] if frame.ndim == 2 else frame for frame in frames]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"The frames of a video must have one shape, got {sorted(shapes)}.")
    if all(isinstance(frame, Tensor) for frame in frames):
        return torch.stack(frames)
    return np.stack([np.asarray(frame) for frame in frames])
