"""Classes that a horizontal flip turns into one another, by the words left and right in them."""

import re
from collections.abc import Sequence

__all__ = ["left_right_pairs", "unpaired"]

# As a word of its own, in any case, also in move_left, leftwards and SwipeLeft; not in upright.
_SIDE = re.compile(
    r"(?<![A-Za-z])(?:left|right|LEFT|RIGHT)(?=(?:wards?)?(?![a-z])|WARDS?(?![A-Za-z]))"
    r"|(?<![A-Z])(?:Left|Right)(?=(?:wards?)?(?![a-z]))"
)
_OTHER = {"left": "right", "right": "left"}


def left_right_pairs(class_names: Sequence[str]) -> dict[int, int]:
    """The number of the class that each class becomes in a mirrored video.

    Args:
        class_names: in order.

    Returns:
        For each class whose name, with "left" and "right" exchanged, is another class's: that one.
        A pair stands in it both ways; classes that a flip does not change are not in it.
    """
    number = {name: index for index, name in enumerate(class_names)}
    mirrored = {index: number.get(_mirrored(name)) for name, index in number.items()}
    return {
        index: other for index, other in mirrored.items() if other is not None and other != index
    }


def unpaired(class_names: Sequence[str]) -> list[str]:
    """Classes that name a side and have no partner: mirrored, such a video is of no class."""
    known = set(class_names)
    return [name for name in class_names if _SIDE.search(name) and _mirrored(name) not in known]


def _mirrored(name: str) -> str:
    return _SIDE.sub(lambda found: _other_side(found[0]), name)


def _other_side(word: str) -> str:
    other = _OTHER[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
