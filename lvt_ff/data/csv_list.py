"""CSV files that list labelled videos."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lvt_ff.data.video_files import is_video
from lvt_ff.utils.short_text import listed, shortened

__all__ = ["read_csv_list"]

_logger = logging.getLogger(__name__)

_COLUMNS = ("path", "label")
_DELIMITERS = ",;\t"  # semicolons are what spreadsheets write where a comma is in numbers
_FIRST_LINE = 100_000  # characters of a first line that are looked at
_ADVICE = (
    "Write path,label into the first line, and a line such as jump/0001.mp4,jump for each video"
)


def read_csv_list(file: Path) -> list[tuple[Path, str]]:
    """Read path and label of each video, without the spaces around them.

    Args:
        file: text in UTF-8 with the columns `path,label`, which its first line names, separated by
            commas, semicolons or tabs. Relative paths count from the file's folder.

    Raises:
        ValueError: another kind of file, wrong columns, a line that lacks a path or a label or has
            more than the first line names, no lines, or files that do not exist.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            delimiter = _delimiter(file, _first_line(handle))
            handle.seek(0)
            reader = csv.reader(handle, delimiter=delimiter, skipinitialspace=True)
            rows = list(_rows(file, reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{file} is neither a folder of class folders nor a CSV file in UTF-8: {error}. "
            f"{_ADVICE}."
        ) from error
    if not rows:
        raise ValueError(f"{file} has no rows. {_ADVICE}.")
    missing = [path for path, _ in rows if not is_video(path)]
    if missing:
        folder = ", a folder without numbered pictures" if missing[0].is_dir() else ""
        raise ValueError(
            f"{file} lists {len(missing)} of {len(rows)} files that do not exist, such as "
            f"{shortened(str(missing[0]))}{folder}: paths count from {file.parent}."
        )
    return rows


def _first_line(handle: TextIO) -> str:
    """The first line that is not blank; empty where there is none."""
    line = "\n"
    while line and not line.strip():
        line = handle.readline(_FIRST_LINE)
    return line


def _delimiter(file: Path, first: str) -> str:
    """What stands between the columns; raises ValueError where path and label are not there."""
    if first.lstrip().startswith(("[", "{")):
        raise ValueError(
            f"{file} is JSON, but a list of videos is a CSV file with the columns path,label (or "
            f"a folder of class folders). {_ADVICE}."
        )
    for delimiter in _DELIMITERS:
        names = _stripped(next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), []))
        if [names.count(column) for column in _COLUMNS] == [1, 1]:
            return delimiter
    got = [shortened(name.strip(), 40) for name in first.split(",")[:8]]
    raise ValueError(
        f"{file} needs the columns path,label in its first line, each once, got {got}. {_ADVICE}."
    )


def _rows(file: Path, reader: Iterator[list[str]]) -> Iterator[tuple[Path, str]]:
    names = None
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
        row = dict(zip(names, fields, strict=False))
        for column in _COLUMNS:
            if not row.get(column):
                raise ValueError(
                    f"{file} has no {column} in line {reader.line_num}: write one, or delete the "
                    "line."
                )
        yield file.parent / row["path"], row["label"]


def _stripped(fields: list[str]) -> list[str]:
    return [field.strip() for field in fields]


def _tell_unused(file: Path, names: list[str]) -> None:
    unused = [name for name in names if name and name not in _COLUMNS]
    if unused:
        _logger.warning(
            "%s has columns that are not used: %s. Only path and label are; videos are used "
            "whole, from their start to their end.",
            file,
            listed(unused),
        )
