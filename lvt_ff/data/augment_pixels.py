"""Random cuts, colours and covered boxes, each drawn once for all frames of a clip."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["draw_cut", "erase_box", "jitter_colors"]

_TRIES = 10  # until a drawn box fits, as in torchvision and timm
_ERASED_AREA = (0.02, 1 / 3)  # timm's
_ERASED_RATIO = (0.3, 1 / 0.3)
_COLOR_CHANGES = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)


def draw_cut(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    shape: float,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random resized crop; of torchvision's distribution.

    Args:
        size: pixels (H, W) of the frame.
        scale: share of the frame's area, from and to.
        ratio: width by height from and to, in units of `shape`.
        shape: width by height of what the cut is resized to.
        rng: of the draws.
    """
    height, width = size
    bounds = [value * shape for value in ratio]
    for _ in range(_TRIES):
        cut = _draw_box(height * width, scale, bounds, rng)
        if cut[0] <= height and cut[1] <= width:
            return *_draw_place(size, cut, rng), *cut
    nearest = min(max(width / height, bounds[0]), bounds[1])
    cut = min(height, round(width / nearest)), min(width, round(height * nearest))
    return (height - cut[0]) // 2, (width - cut[1]) // 2, *cut


def _draw_box(
    area: int, scale: Sequence[float], ratio: Sequence[float], rng: np.random.Generator
) -> tuple[int, int]:
    """Height and width of a box whose share of an area, and log of whose ratio, are uniform."""
    wanted = area * rng.uniform(*scale)
    shape = math.exp(rng.uniform(*np.log(ratio)))
    return max(round(math.sqrt(wanted / shape)), 1), max(round(math.sqrt(wanted * shape)), 1)


def _draw_place(
    size: Sequence[int], box: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Top and left of a box within a frame."""
    return int(rng.integers(size[0] - box[0] + 1)), int(rng.integers(size[1] - box[1] + 1))


def jitter_colors(clip: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation of (T, 3, H, W) uint8 changed, in random order."""
    factors = rng.uniform(max(1 - strength, 0), 1 + strength, len(_COLOR_CHANGES))
    for number in rng.permutation(len(_COLOR_CHANGES)):
        clip = _COLOR_CHANGES[number](clip, float(factors[number]))
    return clip


def erase_box(
    clip: Tensor,
    mode: str,
    mean: Sequence[float],
    std: Sequence[float],
    rng: np.random.Generator,
) -> Tensor:
    """A clip (T, C, H, W) uint8 with a random box covered, the same one in all frames.

    Args:
        clip: stays as it is.
        mode: "pixel" covers it with pixels of the data's mean and deviation, as far as pixels go;
            "rand" with one such colour; "const" with the mean.
        mean, std: per channel or for all, of pixels between 0 and 1.
        rng: of the draws.
    """
    channels, *size = clip.shape[1:]
    for _ in range(_TRIES):
        box = _draw_box(math.prod(size), _ERASED_AREA, _ERASED_RATIO, rng)
        if box[0] < size[0] and box[1] < size[1]:
            top, left = _draw_place(size, box, rng)
            break
    else:
        return clip
    noise = {
        "pixel": lambda: rng.standard_normal((channels, *box)),
        "rand": lambda: rng.standard_normal((channels, 1, 1)),
        "const": lambda: np.zeros((channels, 1, 1)),
    }[mode]()
    mean, std = (np.asarray(values).reshape(-1, 1, 1) for values in (mean, std))
    color = np.rint(255 * (mean + std * noise)).clip(0, 255).astype(np.uint8)
    clip = clip.clone()
    clip[..., top : top + box[0], left : left + box[1]] = torch.from_numpy(color)
    return clip
