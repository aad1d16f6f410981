"""Files that name the classes of a data set in its own order."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lvt_ff.utils.short_text import shortened

__all__ = ["MOST_CLASSES", "Classes", "read_class_file"]

MOST_CLASSES = 30_000  # that numbers alone may ask for

_NUMBERED = re.compile(r"c?(\d+)[\s,;]+(\S.*)")
_TITLES = re.compile(r"(id|index|number)[\s,;]+(name|label|class)", re.IGNORECASE)
_ADVICE = (
    'Write one name a line, in the order of the classes; or a number and a name; or JSON, ["jump", '
    '"sit"] or {"jump": 0, "sit": 1}'
)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Args:
        names: in order.
        numbers: what lists of videos call each of them, ascending; they need not begin at 0.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]

    def name_of(self, number: int) -> str | None:
        """The name of the class that lists call by a number; None where there is none."""
        try:
            return self.names[self.numbers.index(number)]
        except ValueError:
            return None


def read_class_file(file: str | Path) -> Classes:
    """Read names of classes from text or JSON.

    Args:
        file: one name a line, or a number and a name (`0,jump`, `1 jump`, `c000 jump`); or JSON, a
            list of names or an object of names and numbers, either of which may be the key.

    Raises:
        ValueError: no such file, not UTF-8, no names, one twice, or a number twice.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"There is no file {file} with names of classes.")
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8. {_ADVICE}.") from error
    pairs = _json_pairs(file, text) if text[:1] in ("[", "{") else _line_pairs(text)
    names = [name for _, name in pairs]
    if not names:
        raise ValueError(f"{file} has no names of classes. {_ADVICE}.")
    for what, values in (("name", names), ("number", [number for number, _ in pairs])):
        if len({*values}) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"{file} has the {what} {shortened(str(twice), 80)!r} more than once.")
    pairs.sort()
    return Classes(tuple(name for _, name in pairs), tuple(number for number, _ in pairs))


def _line_pairs(text: str) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and _TITLES.fullmatch(lines[0]):
        del lines[0]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        pairs = [(int(found[1]), found[2].strip().strip('"')) for found in numbered]
        if len({number for number, _ in pairs}) == len(pairs):
            return pairs
    return list(enumerate(lines))  # names may begin with numbers, but not each with another


def _json_pairs(file: Path, text: str) -> list[tuple[int, str]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}. {_ADVICE}.") from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return list(enumerate(content))
    try:
        if isinstance(content, dict):
            items = content.items()
            by_number = all(str(key).isdecimal() for key in content)
            return [(int(k), str(v)) if by_number else (int(v), k) for k, v in items]
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{file} has other JSON than names of classes. {_ADVICE}.")
