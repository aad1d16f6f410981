"""How many videos public data sets have, as their authors tell: copies often lack some."""

from typing import NamedTuple

__all__ = ["PUBLISHED", "Published", "recognised_set"]


class Published(NamedTuple):
    """A public data set.

    Args:
        name: of it.
        num_classes: of it.
        a_class: a class that others of as many classes do not have, in small letters.
        train, validation: videos of its parts.
        exact: these numbers are the same for everybody; else videos have gone since.
    """

    name: str
    num_classes: int
    a_class: str
    train: int
    validation: int
    exact: bool


PUBLISHED = (
    Published(
        "Something-Something V2",
        174,
        "pushing something from left to right",
        168_913,
        24_777,
        True,
    ),
    Published("Kinetics-400", 400, "abseiling", 246_000, 20_000, False),
    Published("Charades", 157, "holding some clothes", 7_985, 1_863, True),
)


def recognised_set(class_names: tuple[str, ...]) -> Published | None:
    """The public data set that has these classes."""
    lower = {name.lower() for name in class_names}
    for one in PUBLISHED:
        if len(class_names) == one.num_classes and one.a_class in lower:
            return one
    return None
