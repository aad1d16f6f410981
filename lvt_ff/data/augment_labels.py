"""What a horizontal flip does to labels whose names tell left from right."""

from collections.abc import Sequence

import numpy as np

from lvt_ff.data.augmentation import Augmentation
from lvt_ff.data.left_right import left_right_pairs, unpaired
from lvt_ff.utils.short_text import counted, listed, shortened

__all__ = ["MirroredLabels", "flip_warning"]


class MirroredLabels:
    """Labels of flipped clips: those of the classes with left and right exchanged.

    Args:
        class_names: in order.
    """

    def __init__(self, class_names: Sequence[str]):
        pairs = left_right_pairs(class_names)
        lone = set(unpaired(class_names))
        self._other = np.array([pairs.get(number, number) for number in range(len(class_names))])
        self._lone = np.array([name in lone for name in class_names])

    def may_flip(self, label: np.ndarray) -> bool:
        """Whether a flipped clip has a label: not if it names a side and has no partner.

        Args:
            label: a class number (), or 0 or 1 for every class (K,).
        """
        return not bool(np.any(self._lone[label] if label.ndim == 0 else self._lone & (label > 0)))

    def __call__(self, label: np.ndarray) -> np.ndarray:
        """The label of the flipped clip, of the same kind."""
        return self._other[label] if label.ndim == 0 else label[self._other]


def flip_warning(class_names: Sequence[str], augmentation: Augmentation) -> str:
    """What to tell, before training, of flips and classes that name a side; empty for nothing.

    Args:
        class_names: in order.
        augmentation: of the run.
    """
    if not augmentation.hflip:
        return ""
    pairs = [pair for pair in left_right_pairs(class_names).items() if pair[0] < pair[1]]
    lone = unpaired(class_names)
    if augmentation.hflip_swap:
        number = counted(len(lone), "class", "classes")
        return (
            f"--hflip_swap: clips of {number} that name a side and have no partner are never "
            f"flipped: {listed(lone)}"
            if lone
            else ""
        )
    told = [f"{_named(class_names[a])} and {_named(class_names[b])}" for a, b in pairs]
    told += map(_named, lone)
    if not told:
        return ""
    return (
        f"--hflip {augmentation.hflip:g} flips clips whose class names a side, and keeps the "
        f"label: {listed(told, 5, 150)}. Set --hflip 0, or --hflip_swap to exchange such labels."
    )


def _named(name: str) -> str:
    return repr(shortened(name, 60))
