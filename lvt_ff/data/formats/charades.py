"""Charades as it is distributed: CSV with the actions of each video and their times.

A video's labels are all of its actions, as its mean average precision is measured; a training clip
has the labels of the actions that overlap it, as in SlowFast's training.
"""

import csv
import logging
import re
from pathlib import Path

import numpy as np

from lvt_ff.data.class_file import Classes, read_class_file
from lvt_ff.data.formats.file_head import header_columns
from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_places import videos_below
from lvt_ff.utils.short_text import shortened

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = "the CSV of Charades, with the columns id and actions"

_logger = logging.getLogger(__name__)

_CLASS_FILE = "Charades_v1_classes.txt"
_NUM_CLASSES = 157
_ACTION = re.compile(r"c(\d{3}) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)")
_Action = tuple[int, float, float]


def recognises(source: str) -> bool:
    """Whether it is a CSV file with the columns of Charades, and none of paths."""
    columns = header_columns(source)
    return columns >= {"id", "actions"} and "path" not in columns


def read(request: Request) -> Listing:
    """Videos ID.mp4 anywhere below the root, each once with all of its actions.

    Raises:
        ValueError: another kind of file, or an action that is written otherwise.
    """
    file = Path(request.source)
    videos = _videos(file)
    classes = request.classes or _classes_beside(file)
    place = {number: place for place, number in enumerate(classes.numbers)}
    actions = [action for _, actions in videos for action in actions]
    unknown = next((number for number, _, _ in actions if number not in place), None)
    if unknown is not None:
        raise ValueError(
            f"{file} has the action c{unknown:03d}, which is none of the {len(classes.names)} "
            "classes of its class file."
        )
    found = videos_below(request.root, {name for name, _ in videos})
    return Listing(
        Texts(found.get(name, [f"{name}.mp4"])[0] for name, _ in videos),
        classes.names,
        np.array([place[number] for number, _, _ in actions], np.int64),
        np.repeat(np.arange(len(videos)), [len(actions) for _, actions in videos]),
        official=True,
        multi=True,
        label_spans=np.array([times for _, *times in actions]).reshape(-1, 2),
        absent=np.array([name not in found for name, _ in videos]),
        place=f"looked for in {request.root} and all folders below it",
    )


def _videos(file: Path) -> list[tuple[str, list[_Action]]]:
    """Name and actions of each video."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            videos = [
                ((row.get("id") or "").strip(), _actions(file, reader.line_num, row.get("actions")))
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is no CSV file in UTF-8: {error}.") from error
    if not videos or not all(name for name, _ in videos):
        raise ValueError(f"{file} is no list of Charades: each of its lines needs an id.")
    return videos


def _actions(file: Path, line: int, text: str | None) -> list[_Action]:
    if text is None:
        raise ValueError(f"{file} has no actions in line {line}, not even an empty field.")
    actions = []
    for part in filter(None, map(str.strip, text.split(";"))):
        found = _ACTION.fullmatch(part)
        if not found:
            raise ValueError(
                f"{file} has the action {shortened(part, 60)!r} in line {line}: expected a class "
                "and two times, such as c092 11.90 21.20."
            )
        actions.append((int(found[1]), float(found[2]), float(found[3])))
    return actions


def _classes_beside(file: Path) -> Classes:
    if (file.parent / _CLASS_FILE).is_file():
        return read_class_file(file.parent / _CLASS_FILE)
    _logger.warning(
        "There is no %s beside %s: its classes are called c000 to c%d. --class_file says where "
        "their names are.",
        _CLASS_FILE,
        file,
        _NUM_CLASSES - 1,
    )
    numbers = range(_NUM_CLASSES)
    return Classes(tuple(f"c{number:03d}" for number in numbers), tuple(numbers))
