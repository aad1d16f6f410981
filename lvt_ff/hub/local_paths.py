"""Records and cards without the folders of the machine that wrote them.

They are made to be shown: of an absolute path the last part stays, the name of the data.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["local_paths", "without_paths"]

# In a text: a path's start where neither a word, an address nor a tag goes on before it, and at
# least two parts.
_IN_TEXT = re.compile(r"(?<![\w.:/\\~<-])(?:~|[A-Za-z]:)?(?:[\\/][^\s\\/`'\"<>|*?()\[\]{},;]+){2,}")


def local_paths(value: Any) -> set[str]:
    """The absolute paths in nested data: texts that are one, and those within texts."""
    found = set()
    for text in _texts(value):
        if "\n" not in text and (PurePosixPath(text).is_absolute() or _is_windows(text)):
            found.add(text)
        else:
            found.update(match[0].rstrip(".:") for match in _IN_TEXT.finditer(text))
    return found - {"/"}


def without_paths(value: Any, paths: Iterable[str]) -> Any:
    """Nested data, or a text, with each of these paths replaced by its last part."""
    if isinstance(value, dict):
        return {
            without_paths(key, paths): without_paths(inner, paths) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_paths(inner, paths) for inner in value]
    if isinstance(value, str):
        for path in sorted(paths, key=len, reverse=True):  # a file before its folder
            name = PureWindowsPath(path).name if _is_windows(path) else PurePosixPath(path).name
            whole = rf"(?<![\w.:/\\~-]){re.escape(path)}(?![\w-])"  # not a part of an address
            value = re.sub(whole, lambda _, name=name: name, value)
    return value


def _is_windows(text: str) -> bool:
    return bool(re.match(r"[A-Za-z]:[\\/]", text))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
