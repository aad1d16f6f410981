"""JSON files from elsewhere: an object, or an error that names the file and what is wrong."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read_object", "shown"]

_MAX_BYTES = 256_000_000  # a million classes with long names need half of it
_MAX_DEPTH = 32


def read_object(file: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: not a file that can be read, no JSON in UTF-8, or JSON of another kind.
    """
    file = Path(file)
    if not file.is_file():  # a pipe would let us wait for ever
        raise ValueError(f"{file} is not a file: expected one with a JSON object.")
    try:
        size = file.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"it has {size:,} bytes, expected at most {_MAX_BYTES:,}")
        read = json.loads(file.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
        _check_depth(read)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        got = f"{error.object[error.start]:#04x} at byte {error.start}"
        raise ValueError(f"{file} is damaged: expected text in UTF-8, got {got}.") from error
    except RecursionError as error:
        raise ValueError(f"{file} is damaged: it is nested too deeply.") from error
    except ValueError as error:  # of JSON, and of numbers with thousands of digits
        raise ValueError(f"{file} is damaged: {error}.") from error
    if not isinstance(read, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object, got {shown(read)}.")
    return read


def shown(value: Any) -> str:
    """A value as messages show it, in a few words."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({type(value).__name__})"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"expected numbers, got {name}")


def _check_depth(read: Any) -> None:
    """Raise ValueError where values are nested deeper than any reader needs."""
    level = [read] if isinstance(read, dict | list) else []
    for _ in range(_MAX_DEPTH):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [value for part in inner for value in part if isinstance(value, dict | list)]
    if level:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
