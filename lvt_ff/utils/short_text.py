"""What users gave, in messages: never more of it than fits a few lines."""

from collections.abc import Sequence

__all__ = ["counted", "listed", "shortened"]


def shortened(text: str, length: int = 200) -> str:
    """A text of at most `length` characters, its middle left out where there are more."""
    if len(text) <= length:
        return text
    kept = length - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def listed(names: Sequence[str], number: int = 10, length: int = 60) -> str:
    """The first names with commas between, each shortened, and how many more there are."""
    told = ", ".join(shortened(name, length) for name in names[:number])
    more = len(names) - number
    return f"{told} and {more} more" if more > 0 else told


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: "1 class", "2 classes"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
