"""What may be drawn at random for clips and batches of training: all options, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from lvt_ff.data.augment_policies import check_policy
from lvt_ff.utils.option_types import (
    ClosedUnitInterval,
    Factor,
    NonNegativeFloat,
    PositiveFloat,
)

__all__ = ["Augmentation"]

_RANGES = {"scale_jitter": "factor", "crop_scale": "share", "crop_ratio": "ratio"}
# Options that change something only beside another one, or one of several.
_PARTS = {
    "crop_ratio": ("crop_scale",),
    "hflip_swap": ("hflip",),
    "erasing_mode": ("random_erasing",),
    "mixup_prob": ("mixup", "cutmix"),
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Every option of augmentation; the defaults jitter the scale and do nothing else.

    Args:
        scale_jitter: Frames are resized to cover the crop times a random factor between these;
            1.143,1.429 if neither given nor the recipe's.
        crop_scale: In place of scale_jitter, cut a random share of the frame's area between these
            and resize that, such as 0.08,1.
        crop_ratio: How much wider than the crop's own shape that cut is, at least and at most;
            0.75,1.333 if neither given nor the recipe's.
        hflip: Probability of a horizontal flip; leave 0 where left and right are classes, or set
            hflip_swap.
        hflip_swap: Give a flipped clip the label of the class whose name has left and right
            exchanged; clips of a class that names a side and has no such partner are not flipped.
        color_jitter: Brightness, contrast and saturation change by factors up to this far from 1,
            in random order.
        auto_augment: Random operations by timm's or torchvision's name: rand-m7-n4-mstd0.5-inc1
            (RandAugment), original, originalr, v0, v0r, 3a (AutoAugment), augmix-m3-w3, trivial;
            none turns the recipe's off.
        random_erasing: Probability that a random box is covered, the same one in all frames.
        erasing_mode: What covers the box: random pixels (if not given), one random colour, or the
            mean colour (const).
        mixup: Blend pairs of clips of a batch, and their labels, in shares from Beta(X, X).
        cutmix: Put a box of one clip of a batch into another, sized by shares from Beta(X, X).
        mixup_prob: Probability that a batch is mixed; 1 if neither given nor the recipe's.
        mixup_switch_prob: Probability of cutmix where mixup is on too; 0.5 if neither given nor the
            recipe's.
    """

    scale_jitter: tuple[Factor, Factor] = (256 / 224, 320 / 224)  # the authors'
    crop_scale: tuple[ClosedUnitInterval, ClosedUnitInterval] | None = None
    crop_ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    hflip: ClosedUnitInterval = 0.0
    hflip_swap: bool = False
    color_jitter: NonNegativeFloat = 0.0
    auto_augment: str = "none"
    random_erasing: ClosedUnitInterval = 0.0
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    mixup_prob: ClosedUnitInterval = 1.0
    mixup_switch_prob: ClosedUnitInterval = 0.5

    def __post_init__(self):
        for name, what in _RANGES.items():
            values = getattr(self, name)
            if values is not None and values[0] > values[1]:
                raise ValueError(f"--{name} takes the smaller {what} first, got {tuple(values)}.")
        if self.auto_augment != "none":
            check_policy(self.auto_augment)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Augmentation":
        """Those among other options, by name; None stands for the default."""
        given = {field.name: options.get(field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def mixes(self) -> bool:
        """Whether clips of a batch are mixed with one another."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mixup_prob > 0

    def check_batch_size(self, batch_size: int) -> None:
        """Raise ValueError for batches in which nothing can be mixed."""
        if self.mixes and batch_size < 2:
            raise ValueError(
                f"--mixup and --cutmix need a --batch_size of 2 or more, got {batch_size}: clips "
                "are mixed within one forward pass."
            )

    def check_effects(self, asked: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that was asked for and, beside the others, does nothing.

        Args:
            asked: options by name, without a recipe's; None for those that were left out.
        """
        asked = {name for name, value in asked.items() if value is not None and self._is_set(name)}
        if {"crop_scale", "scale_jitter"} <= asked:
            raise ValueError("--crop_scale takes the place of --scale_jitter: leave one out.")
        for name, others in _PARTS.items():
            if name in asked and not any(map(self._is_set, others)):
                needed = " or ".join(f"--{other}" for other in others)
                raise ValueError(f"--{name} has an effect only with {needed}: set that too.")
        if "mixup_switch_prob" in asked and not (self.mixup and self.cutmix):
            raise ValueError("--mixup_switch_prob has an effect only with --mixup and --cutmix.")

    def _is_set(self, name: str) -> bool:
        """Whether an option has another value than its default; False for names of others."""
        for field in fields(self):
            if field.name == name:
                value = getattr(self, name)
                return (tuple(value) if isinstance(value, list) else value) != field.default
        return False
