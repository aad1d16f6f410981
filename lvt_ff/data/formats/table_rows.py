"""The lines of a list of videos, in whichever kind of text they are written."""

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from lvt_ff.utils.short_text import listed, shortened

__all__ = ["LABEL_SEPARATOR", "Row", "first_line", "read_rows"]

LABEL_SEPARATOR = "|"  # in a column of several; commas and semicolons part columns

_logger = logging.getLogger(__name__)

_COLUMNS = ("path", "label", "labels", "start", "end")
_DELIMITERS = ",;\t "  # semicolons are what spreadsheets write where a comma is in numbers
_FIRST_LINE = 100_000  # characters of a first line that are looked at
_DIGITS = "0123456789"
_MAX_DIGITS = 9
_ADVICE = (
    "Write path,label into the first line, and a line such as jump/0001.mp4,jump for each video"
)


class Row(NamedTuple):
    """A video of a list, as texts without the spaces around them.

    Args:
        line: of the file, from 1.
        path: never empty.
        labels: one, or where the list has a column for several, none or more.
        start, end: empty where there is none.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    start: str = ""
    end: str = ""


def read_rows(file: Path) -> tuple[list[Row], bool]:
    """The rows of a list, and whether they may have several labels.

    Args:
        file: text in UTF-8. Columns are named in the first line, separated by commas, semicolons,
            tabs or spaces, or by the keys of JSON objects, of which there is one a line or a list.
            Without names, each line ends in the number of a class, which may stand behind a number
            of frames.

    Raises:
        ValueError: another kind of file, wrong columns, a line with something wrong in it, or no
            lines.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            first = first_line(handle)
            handle.seek(0)
            if first.lstrip().startswith(("[", "{")):
                rows, multi = _json_rows(file, handle, first)
            elif delimiter := _delimiter(first):
                reader = csv.reader(handle, delimiter=delimiter, skipinitialspace=True)
                rows, multi = _csv_rows(file, reader)
            else:
                rows, multi = _numbered_rows(file, handle, first), False
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{file} is neither a folder of class folders nor a CSV file in UTF-8: {error}. "
            f"{_ADVICE}."
        ) from error
    if not rows:
        raise ValueError(f"{file} has no rows. {_ADVICE}.")
    return rows, multi


def first_line(handle: TextIO) -> str:
    """The first line that is not blank; empty where there is none."""
    line = "\n"
    while line and not line.strip():
        line = handle.readline(_FIRST_LINE)
    return line


def _delimiter(first: str) -> str:
    """What stands between the columns that the first line names; "" where it names none."""
    for delimiter in _DELIMITERS:
        names = _stripped(next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), []))
        if names.count("path") == 1 == names.count("label") + names.count("labels"):
            return delimiter
    return ""


def _csv_rows(file: Path, reader: Iterator[list[str]]) -> tuple[list[Row], bool]:
    rows, names = [], None
    for line in reader:
        fields = _stripped(line)
        if not any(fields):
            continue
        if names is None:
            names = fields
            _tell_unused(file, names)
            continue
        if any(fields[len(names) :]):
            raise ValueError(
                f"{file} has {len(fields)} fields in line {reader.line_num}, but {len(names)} "
                "columns: put paths and labels that hold a comma in quotation marks."
            )
        rows.append(_row(file, reader.line_num, dict(zip(names, fields, strict=False))))
    return rows, "labels" in (names or ())


def _row(file: Path, line: int, fields: dict[str, Any]) -> Row:
    for column in ("path", *(() if "labels" in fields else ("label",))):
        if not fields.get(column):
            raise ValueError(
                f"{file} has no {column} in line {line}: write one, or delete the line."
            )
    several = "labels" in fields
    labels = _several(file, line, fields["labels"]) if several else (fields["label"],)
    return Row(line, fields["path"], labels, fields.get("start", ""), fields.get("end", ""))


def _several(file: Path, line: int, text: str) -> tuple[str, ...]:
    """Labels of one video, each once."""
    if not text.startswith("["):
        labels = text.split(LABEL_SEPARATOR)
    else:
        try:
            labels = [_text(file, line, label) for label in json.loads(text)]
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{file} has labels in line {line} that are no JSON list ({error}): write "
                f'["jump", "run"] or jump{LABEL_SEPARATOR}run.'
            ) from error
    return tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))


def _json_rows(file: Path, handle: TextIO, first: str) -> tuple[list[Row], bool]:
    objects = _json_list(file, handle) if first.lstrip()[0] == "[" else _json_lines(file, handle)
    rows, names = [], {}
    for line, content in objects:
        if not isinstance(content, dict):
            raise ValueError(f"{file} has no JSON object with path and label in line {line}.")
        names.update(dict.fromkeys(content))
        fields = {name: _text(file, line, content[name]) for name in _COLUMNS if name in content}
        rows.append(_row(file, line, fields))
    _tell_unused(file, list(names))
    return rows, "labels" in names


def _json_lines(file: Path, handle: TextIO) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(handle, start=1):
        if not text.strip():
            continue
        try:
            yield line, json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"{file} is JSON, but has no whole object in line {line} ({error}). A list of "
                'videos has one a line, such as {"path": "jump/0001.mp4", "label": "jump"}.'
            ) from error


def _json_list(file: Path, handle: TextIO) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.load(handle), start=1)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} begins as JSON and is none: {error}.") from error


def _text(file: Path, line: int, value: Any) -> str:
    """A value of JSON as CSV would have it."""
    if isinstance(value, list):
        return json.dumps(value)
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value).strip()
    raise ValueError(
        f"{file} has {shortened(str(value), 60)} in line {line}, where a text or a number belongs."
    )


def _numbered_rows(file: Path, handle: TextIO, first: str) -> list[Row]:
    """Rows of a list without a header: a path, perhaps a number of frames, a class number."""
    if not _last_number(first.strip()):
        got = [shortened(name.strip(), 40) for name in first.split(",")[:8]]
        raise ValueError(
            f"{file} needs the columns path,label in its first line, each once, got {got}. "
            f"{_ADVICE}."
        )
    lines = [(line, text.strip()) for line, text in enumerate(handle, start=1) if text.strip()]
    rows = []
    for line, text in lines:
        found = _last_number(text)
        if not found:
            raise ValueError(
                f"{file} has {shortened(text, 60)!r} in line {line}, which does not end in the "
                "number of a class, as its first line does."
            )
        path, label = found
        rows.append(Row(line, path.strip('"'), (str(label),)))
    before = [_last_number(row.path) for row in rows]
    if all(before):  # numbers of frames
        rows = [row._replace(path=found[0]) for row, found in zip(rows, before, strict=True)]
    return rows


def _last_number(text: str) -> tuple[str, int] | None:
    """A line without the number at its end, and that number; None where there is none."""
    head = text.rstrip(_DIGITS)
    rest = head.rstrip(" \t,;")
    if not 0 < len(text) - len(head) <= _MAX_DIGITS or not 0 < len(rest) < len(head):
        return None
    return rest, int(text[len(head) :])


def _stripped(fields: Sequence[str]) -> list[str]:
    return [field.strip() for field in fields]


def _tell_unused(file: Path, names: Sequence[str]) -> None:
    unused = [name for name in names if name and name not in _COLUMNS]
    if unused:
        _logger.warning(
            "%s has columns that are not used: %s. Only path, label or labels, start and end are.",
            file,
            listed(unused),
        )
