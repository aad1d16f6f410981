"""Frames to clips, for training, evaluation, prediction and the processor alike.

Every draw is made once for all frames of a clip, from the generator that the caller passes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lvt_ff.data.augment_pixels import draw_cut, erase_box, jitter_colors
from lvt_ff.data.augment_policies import ClipPolicy
from lvt_ff.data.augmentation import Augmentation

__all__ = [
    "INTERPOLATIONS",
    "OFFERED_FILTERS",
    "EvalTransform",
    "TrainTransform",
    "channel_values",
    "crop_clip",
    "frames_to_clip",
    "interpolation_name",
    "normalize_clip",
    "resize_to_cover",
]

# PIL's filters that torchvision has for tensors in every version and on every device (Lanczos is
# new, and for the CPU only): PIL's number, as transformers' files have it, and timm's name.
INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_RESIZED_BYTES = 2**26  # of the frames that are resized at a time
_CUT_AT_ONCE = 4  # frames that are resized and cut for training
OFFERED_FILTERS = ", ".join(f"{number} ({name})" for number, name in INTERPOLATIONS.items())


def interpolation_name(number: int) -> str:
    """The name of one of PIL's filters, which a member of `PIL.Image.Resampling` or its number is.

    Raises:
        ValueError: a filter that is not offered.
    """
    if number not in INTERPOLATIONS:
        raise ValueError(
            f"resample must be one of PIL's filters {OFFERED_FILTERS}, got {number!r}: torch "
            "resizes frames with no other."
        )
    return INTERPOLATIONS[number]


def channel_values(values: float | Sequence[float]) -> tuple[float, ...]:
    """A mean or standard deviation for each channel, or a single one for all of them."""
    return (float(values),) if isinstance(values, int | float) else tuple(values)


def frames_to_clip(frames: np.ndarray) -> Tensor:
    """(T, H, W, C) uint8 frames to a (T, C, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)


def resize_to_cover(clip: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize (T, C, H, W), keeping its shape, to the smallest frames that cover (height, width)."""
    height, width = clip.shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    new_size = [max(round(height * scale), size[0]), max(round(width * scale), size[1])]
    return _resize(clip, new_size, interpolation)


def _resize(clip: Tensor, size: Sequence[int], interpolation: str) -> Tensor:
    # torch's own "nearest" takes another pixel than PIL's.
    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    # On the way, frames take several times their memory.
    at_once = max(_RESIZED_BYTES // max(clip[:1].nbytes, 1), 1)
    parts = [F.resize(part, list(size), mode, antialias=True) for part in clip.split(at_once)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def crop_clip(clip: Tensor, size: tuple[int, int], position: tuple[float, float]) -> Tensor:
    """Cut (T, C, height, width) out; `position` is 0 to 1 from top left to bottom right."""
    top, left = (
        round(max(side - wanted, 0) * place)
        for side, wanted, place in zip(clip.shape[-2:], size, position, strict=True)
    )
    return F.crop(clip, top, left, *size)


def normalize_clip(
    clip: Tensor,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    rescale_factor: float = 1 / 255,
) -> Tensor:
    """Pixels (…, C, H, W) to float32 with `(pixel * rescale_factor - mean) / std` per channel.

    Raises:
        ValueError: another number of values than the clip has channels, and more than one.
    """
    channels, mean, std = clip.shape[-3], channel_values(mean), channel_values(std)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"Expected a {name} for each of the clip's {channels} channels, or one for all, "
                f"got {len(values)}: {list(values)}."
            )
    return F.normalize(clip.float() * rescale_factor, list(mean), list(std))


class EvalTransform:
    """Resize, crop and normalise one clip without chance.

    Args:
        crop_size: pixels (H, W) of the result.
        resize_to: pixels (H, W) that the resized frame covers before it is cropped.
        mean, std: per channel or for all, for pixels between 0 and 1.
        interpolation: a name in `INTERPOLATIONS`.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        resize_to: tuple[int, int],
        mean: float | Sequence[float],
        std: float | Sequence[float],
        interpolation: str,
    ):
        self.crop_size, self.resize_to = tuple(crop_size), tuple(resize_to)
        self.mean, self.std = channel_values(mean), channel_values(std)
        self.interpolation = interpolation

    def crops(self, frames: np.ndarray, num_crops: int) -> list[Tensor]:
        """Crops along the longer side: the centre for 1, else both ends and evenly between."""
        clip = resize_to_cover(frames_to_clip(frames), self.resize_to, self.interpolation)
        places = [0.5] if num_crops == 1 else [i / (num_crops - 1) for i in range(num_crops)]
        wide = clip.shape[-1] * self.crop_size[0] >= clip.shape[-2] * self.crop_size[1]
        positions = [(0.5, place) if wide else (place, 0.5) for place in places]
        return [self.normalize(crop_clip(clip, self.crop_size, place)) for place in positions]

    def normalize(self, clips: Tensor) -> Tensor:
        """Pixels (…, C, H, W) to what a model takes."""
        return normalize_clip(clips, self.mean, self.std)

    def __call__(self, frames: np.ndarray) -> Tensor:
        """Frames (T, H, W, C) uint8 to the centre crop (T, C, H, W) float32."""
        return self.crops(frames, 1)[0]


class TrainTransform:
    """Random cut, flip, colours and boxes, the same for all frames of a clip.

    What is drawn for one option does not depend on the others. `EvalTransform.normalize` makes of
    the result what a model takes, best of whole batches on the device.

    Args:
        like: the evaluation transform whose crop size, statistics and interpolation to use.
        augmentation: what is drawn; the part that mixes clips is for whole batches.
    """

    def __init__(self, like: EvalTransform, augmentation: Augmentation | None = None):
        self.like = like
        self.augmentation = augmentation or Augmentation()
        name = self.augmentation.auto_augment
        self._policy = None if name == "none" else ClipPolicy(name, like.mean, like.interpolation)

    @property
    def needed(self) -> tuple[int, int]:
        """Pixels (height, width) of frames of which no cut has to be enlarged."""
        options = self.augmentation
        factor = options.scale_jitter[1]
        if options.crop_scale:
            low, high = options.crop_ratio
            share = max(options.crop_scale[0], 1e-6)
            factor = math.sqrt(max(high, 1 / low) / share)
        height, width = (math.ceil(factor * side) for side in self.like.crop_size)
        return height, width

    def __call__(
        self, frames: np.ndarray, rng: np.random.Generator, may_flip: bool = True
    ) -> tuple[Tensor, bool]:
        """A clip of frames, with draws from `rng`, and whether it is flipped.

        Args:
            frames: (T, H, W, C) uint8; not changed.
            rng: its draws are as many whatever the options.
            may_flip: False where a flipped clip has no label.

        Returns:
            (T, C, H, W) uint8, in memory of its own, channels last.
        """
        options = self.augmentation
        factor, *place, flip = rng.uniform(size=4)
        cuts, policies, colors, boxes = map(np.random.default_rng, rng.integers(2**63, size=4))
        clip = frames_to_clip(frames)
        clip = self._cut(clip, cuts) if options.crop_scale else self._jittered(clip, factor, place)
        flipped = bool(flip < options.hflip) and may_flip
        if flipped:
            clip = F.horizontal_flip(clip)
        if self._policy:
            clip = self._policy(clip, policies)
        if options.color_jitter:
            clip = jitter_colors(clip, options.color_jitter, colors)
        if boxes.uniform() < options.random_erasing:
            clip = erase_box(clip, options.erasing_mode, self.like.mean, self.like.std, boxes)
        return clip.clone(memory_format=torch.channels_last), flipped

    def _jittered(self, clip: Tensor, factor: float, place: Sequence[float]) -> Tensor:
        """Resized by a factor between the two (0 to 1) of the scale, then cut out at a place."""
        low, high = self.augmentation.scale_jitter
        size = tuple(round(side * (low + (high - low) * factor)) for side in self.like.crop_size)
        # Few frames at a time stay in the processor's cache until they are cut.
        parts = [
            crop_clip(
                resize_to_cover(part, size, self.like.interpolation), self.like.crop_size, place
            )
            for part in clip.split(_CUT_AT_ONCE)
        ]
        return torch.cat(parts)

    def _cut(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """A random share of the frame, resized."""
        options, (height, width) = self.augmentation, self.like.crop_size
        box = draw_cut(clip.shape[-2:], options.crop_scale, options.crop_ratio, width / height, rng)
        return _resize(F.crop(clip, *box), self.like.crop_size, self.like.interpolation)
