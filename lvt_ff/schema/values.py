"""Kinds of values that files may hold: Python's types, with bounds and choices in `Annotated`.

huggingface_hub's strict dataclasses look at the types, as in transformers' own configurations.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import make_dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import strict, validated_field
from huggingface_hub.errors import StrictDataclassError

from lvt_ff.utils.json_files import shown

__all__ = ["between", "check_values", "demands", "one_of"]


def demands(words: str | Callable[[], str], whole: bool = False) -> Callable:
    """Marks a check with what it demands, for messages: behind the kind, or in its place."""

    def mark(check: Callable[[Any], None]) -> Callable[[Any], None]:
        check.told, check.whole = words if callable(words) else lambda: words, whole
        return check

    return mark


def between(least: float, most: float) -> Callable[[Any], None]:
    """A check that a number, or each of a list, lies within these bounds."""

    @demands(f"between {least:,} and {most:,}")
    def check(value: Any) -> None:
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and not least <= number <= most:  # nor is NaN
                raise ValueError

    return check


def one_of(choices: Collection, told: str = "") -> Callable[[Any], None]:
    """A check for one of these, of the same type; a table may grow after this."""

    def words() -> str:
        return told or f"one of {', '.join('null' if c is None else repr(c) for c in choices)}"

    @demands(words, True)
    def check(value: Any) -> None:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError

    return check


def check_values(schema: type, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise ValueError for the first value that is not of its kind; unknown names pass."""
    for name, kind in schema.__annotations__.items():
        if name not in values:
            continue
        try:
            _validator(schema, name)(value=values[name])
        except (StrictDataclassError, OverflowError) as error:
            raise ValueError(
                f"{source}: {prefix}{name} must be {_in_words(kind)}, got {shown(values[name])}."
            ) from error


@lru_cache
def _validator(schema: type, name: str) -> type:
    """A strict dataclass with the `value` of one key alone: its error is that key's."""
    kind, checks = schema.__annotations__[name], []
    if get_origin(kind) is Annotated:
        kind, *checks = get_args(kind)
    return strict(make_dataclass("Key", [("value", kind, validated_field(checks))]))


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        inner, check = get_args(kind)
        return check.told() if check.whole else f"{_in_words(inner)} {check.told()}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) in (UnionType, Union):
        parts = dict.fromkeys(_in_words(part) for part in get_args(kind))
        return " or ".join(p for p in parts if p != "an integer" or "a number" not in parts)
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: "an object",
        list: "a list",
        tuple: "a list",
        type(None): "null",
    }
    word = words.get(get_origin(kind) or kind, str(kind))
    inner = [part for part in get_args(kind) if part is not ...]
    if word == "a list" and inner:
        return "a list of numbers" if inner[0] is not str else "a list of texts"
    return word
