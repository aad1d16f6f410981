"""Text with a line for each video: CSV, TSV, JSON, and the lists of VideoMAE and SlowFast."""

import math
import os
import re
from pathlib import Path

import numpy as np

from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.formats.table_rows import Row, read_rows
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_places import which_exist
from lvt_ff.utils.short_text import shortened

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = (
    "text with the columns path and label or labels, and start and end where parts of videos are "
    'meant, as CSV, TSV or JSON; or "path label-number" lines'
)
_NUMBER = re.compile(r"0|[1-9][0-9]*")


def recognises(source: str) -> bool:
    """Whether it is a file: what is wrong in it, `read` tells best."""
    return Path(source).is_file()


def read(request: Request) -> Listing:
    """Videos of a list; relative paths count from the root.

    Raises:
        ValueError: another kind of file, wrong columns, or a line with something wrong in it; the
            message names the line.
    """
    file = Path(request.source)
    rows, multi = read_rows(file)
    root = "" if request.root == Path() else str(request.root)
    paths = [os.path.join(root, row.path) for row in rows]
    number: dict[str, int] = {}
    labels = [number.setdefault(label, len(number)) for row in rows for label in row.labels]
    return Listing(
        Texts(paths),
        tuple(number),
        np.array(labels, np.int64),
        np.repeat(np.arange(len(rows)), [len(row.labels) for row in rows]),
        may_number=all(_NUMBER.fullmatch(name) for name in number),
        multi=multi,
        spans=_spans(file, rows),
        absent=~which_exist(paths),
        place=f"paths count from {request.root}",
    )


def _spans(file: Path, rows: list[Row]) -> np.ndarray | None:
    """Starts and ends in seconds (n, 2); None where no row has any."""
    if not any(row.start or row.end for row in rows):
        return None
    return np.array(
        [(_seconds(file, row, "start"), _seconds(file, row, "end")) for row in rows]
    ).reshape(-1, 2)


def _seconds(file: Path, row: Row, column: str) -> float:
    text = getattr(row, column)
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(
            f"{file} has the {column} {shortened(text, 60)!r} in line {row.line}: write seconds, "
            "such as 12.5, or nothing."
        )
    if column == "end" and row.start and value <= float(row.start):
        raise ValueError(
            f"{file} has the end {text} in line {row.line}, which is not behind its start "
            f"{row.start}."
        )
    return value
