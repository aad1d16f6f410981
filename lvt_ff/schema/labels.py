"""Names of classes: which numbers they may have, and whose outputs they are."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from lvt_ff.schema.keys import MAX_CLASSES
from lvt_ff.utils.json_files import shown

__all__ = ["check_labels", "ordered_names"]


def check_labels(
    labels: Any, source: str, key: str, num_classes: int | None = None
) -> dict[int, str]:
    """Names of classes by the number of their output, whatever numbers they have.

    Args:
        labels: a list of names, or an object from numbers (as JSON has them, in text) to names.
        source: the file they come from, for the message.
        key: theirs in it.
        num_classes: outputs, where that is known; see `ordered_names`.

    Raises:
        ValueError: names that are not text or not unique; keys that are not numbers.
    """
    told = f"{source}: {key} must "
    if not isinstance(labels, list | tuple | Mapping):
        raise ValueError(f"{told}be an object from numbers to names, got {shown(labels)}.")
    if len(labels) > MAX_CLASSES:
        raise ValueError(f"{told}have at most {MAX_CLASSES:,} names, got {len(labels):,}.")
    pairs = labels.items() if isinstance(labels, Mapping) else enumerate(labels)
    names = {}
    for number, name in pairs:
        if str(number) != str(_class_number(number)):
            raise ValueError(f"{told}have non-negative integers as keys, got {shown(number)}.")
        if not isinstance(name, str) or not name.strip() or _unprintable(name):
            raise ValueError(f"{told}have printable names, got {shown(name)} for class {number}.")
        names[int(number)] = name
    numbers: dict[str, int] = {}
    for number, name in names.items():
        if numbers.setdefault(name, number) != number:
            raise ValueError(
                f"{told}have a name for each class, got {shown(name)} for {numbers[name]} and for "
                f"{number}: rename one of them."
            )
    return dict(enumerate(ordered_names(names, num_classes)))


def ordered_names(names: Mapping[int | str, str], num_classes: int | None = None) -> list[str]:
    """The names of the outputs, in order.

    A table with gaps names some of `num_classes` outputs, where that is known and its numbers fit.
    Else, as where it counts from 1 (UCF101's does), it names the outputs in the order of its
    numbers: transformers takes the length of `id2label` for the number of outputs.

    Args:
        names: by number; JSON files have the numbers as text.
        num_classes: outputs, of which those in a gap are called LABEL_0 and so on.
    """
    pairs = {int(number): name for number, name in names.items()}
    has_gaps = bool(pairs) and set(pairs) != set(range(len(pairs)))
    if has_gaps and num_classes and max(pairs) < num_classes:
        return [pairs.get(number, f"LABEL_{number}") for number in range(num_classes)]
    return [pairs[number] for number in sorted(pairs)]


def _class_number(key: Any) -> int | None:
    return int(key) if str(key).isascii() and str(key).isdigit() and len(str(key)) < 10 else None


def _unprintable(name: str) -> bool:
    # They would break the lines of commands and cards, or cannot be written at all.
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
