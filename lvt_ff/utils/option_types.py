"""Types of options: numbers within limits, and every type in words for help and errors."""

import json
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

__all__ = [
    "LIMITS",
    "ClosedUnitInterval",
    "Factor",
    "NonNegativeFloat",
    "NonNegativeInt",
    "OpenUnitInterval",
    "Port",
    "PositiveFloat",
    "PositiveInt",
    "Seed",
    "Share",
    "Decay",
    "expected",
    "limits",
    "placeholder",
    "as_typed",
]

# Names for what jsonargparse checks wherever a value comes from: flag, recipe file or Python.
Decay = restricted_number_type("Decay", float, [(">", 0), ("<=", 1)])
Factor = restricted_number_type("Factor", float, (">=", 1))
Port = restricted_number_type("Port", int, [(">=", 1), ("<=", 65535)])
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<=", 2**32 - 1)])
Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])

LIMITS: dict[type, str] = {
    ClosedUnitInterval: "between 0 and 1",
    Decay: "above 0 and at most 1",
    Factor: "at least 1",
    NonNegativeFloat: "at least 0",
    NonNegativeInt: "at least 0",
    OpenUnitInterval: "above 0 and below 1",
    Port: "between 1 and 65535",
    PositiveFloat: "above 0",
    PositiveInt: "at least 1",
    Seed: "between 0 and 2**32 - 1",
    Share: "at least 0 and below 1",
}


def as_typed(value: Any) -> str:
    """A value as one would type it."""
    if value is None or isinstance(value, bool | dict):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return ",".join(map(as_typed, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _members(annotation: Any) -> tuple[Any, int | None] | None:
    """The type and number of a list's or tuple's members; None for anything else."""
    kinds = get_args(annotation)
    if get_origin(annotation) is list:
        return kinds[0], None
    if get_origin(annotation) is tuple:
        return kinds[0], None if kinds[-1] is Ellipsis else len(kinds)
    return None


def limits(annotation: Any) -> str | None:
    """What a number, or each of several, must be within; None where anything goes."""
    kind = _without_none(annotation)
    member, _ = _members(kind) or (kind, None)
    return LIMITS.get(member)


def placeholder(annotation: Any) -> str:
    """What stands for a value in a help text."""
    kind = _without_none(annotation)
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(as_typed, get_args(kind)))}}}"
    if kind is bool:
        return "{true,false}" if kind is annotation else "{true,false,null}"
    if members := _members(kind):
        member, count = members
        return ",".join([placeholder(member)] * (count or 2)) + ("" if count else ",…")
    if get_origin(kind) is dict:
        return "JSON"
    for base, word in ((int, "N"), (float, "X"), (Path, "PATH")):
        if issubclass(kind, base):
            return word
    return "TEXT"


def expected(annotation: Any) -> str:
    """A type in words, to stand behind "must be"."""
    kind = _without_none(annotation)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(as_typed, get_args(kind)))}"
    if members := _members(kind):
        word = {"N": "integers", "X": "numbers"}.get(placeholder(members[0]), "values")
        example = ",".join(str(number) for number in range(1, 1 + (members[1] or 2)))
        return f"{members[1] or 'several'} {word} such as {example}"
    if get_origin(kind) is dict:
        return 'names with values, such as {"depth": 2}'
    words = {"N": "an integer", "X": "a number", "PATH": "a path", "TEXT": "text"}
    return words.get(placeholder(kind), "true or false")
