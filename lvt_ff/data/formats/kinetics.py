"""Kinetics as it is distributed: CSV with a YouTube video and two times for each clip.

Clips are found in all usual layouts: ID_000010_000020.mp4, or ID.mp4 for a whole video, in one
folder, by class, by split, or by both.
"""

import csv
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lvt_ff.data.formats.file_head import header_columns
from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_places import videos_below
from lvt_ff.utils.short_text import counted, listed, shortened

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = "the CSV of Kinetics, with the columns label, youtube_id, time_start, time_end"

_logger = logging.getLogger(__name__)

_VIDEO = {"youtube_id", "time_start", "time_end"}
_SIZES = (400, 600, 700)  # classes of Kinetics


class _Clip(NamedTuple):
    label: str
    video: str
    start: float
    end: float
    split: str


def recognises(source: str) -> bool:
    """Whether it is a CSV file with the columns of Kinetics, and none of paths."""
    columns = header_columns(source)
    return columns >= _VIDEO and "path" not in columns


def read(request: Request) -> Listing:
    """Clips below the root.

    Raises:
        ValueError: wrong columns, a time that is no number, or no clip of the split.
    """
    file = Path(request.source)
    clips = _clips(file, request.split)
    found = videos_below(request.root, {name for clip in clips for name in _names(clip)})
    places = [_place(clip, found) for clip in clips]
    names = tuple(sorted({clip.label for clip in clips}))
    if request.classes is None and not request.has_order and len(names) not in _SIZES:
        _logger.warning(
            "%s has %s, and Kinetics 400, 600 or 700: they are numbered by the alphabet among "
            "themselves. --class_file says where the official numbers are.",
            file,
            counted(len(names), "class", "classes"),
        )
    number = {name: place for place, name in enumerate(names)}
    return Listing(
        Texts(
            path or f"{_names(clip)[0]}.mp4" for clip, (path, _) in zip(clips, places, strict=True)
        ),
        names,
        np.array([number[clip.label] for clip in clips], np.int64),
        np.arange(len(clips)),
        spans=_spans(file, clips, [whole for _, whole in places]),
        absent=np.array([not path for path, _ in places]),
        place=f"looked for in {request.root} and all folders below it",
    )


def _clips(file: Path, split: str | None) -> list[_Clip]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = {*(reader.fieldnames or ())}
            if not columns >= _VIDEO | {"label"}:
                raise ValueError(
                    f"{file} needs the columns label, youtube_id, time_start and time_end; lists "
                    "of Kinetics without labels (its test part) cannot be used."
                )
            clips = [_clip(file, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is no CSV file in UTF-8: {error}.") from error
    splits = sorted({clip.split for clip in clips})
    if split is None and len(splits) > 1:
        _logger.warning(
            "%s has clips of several splits (%s), and all are used: make a file of each.",
            file,
            listed(splits),
        )
    kept = [clip for clip in clips if split in (None, clip.split)]
    if not kept:
        raise ValueError(f"{file} has no clips of the split {split}: it has {splits[:5]}.")
    return kept


def _clip(file: Path, line: int, row: dict[str, str]) -> _Clip:
    try:
        times = float(row["time_start"]), float(row["time_end"])
        return _Clip(
            row["label"].strip(),
            row["youtube_id"].strip(),
            *times,
            (row.get("split") or "").strip(),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{file} has no clip in line {line}: expected label, youtube_id and two times in "
            f"seconds, got {shortened(str(list(row.values())), 120)}."
        ) from error


def _names(clip: _Clip) -> tuple[str, str]:
    """What the clip's file is called, and that of the whole video."""
    return f"{clip.video}_{int(clip.start):06d}_{int(clip.end):06d}", clip.video


def _place(clip: _Clip, found: dict[str, list[str]]) -> tuple[str, bool]:
    """The clip's file, "" where there is none, and whether it is the whole video."""
    for name in _names(clip):
        paths = found.get(name, ())
        if name == clip.video:  # pictures have no times
            paths = [path for path in paths if os.path.basename(path) != name]
        if paths:
            best = max(paths, key=lambda path: _fit(clip, path)) if len(paths) > 1 else paths[0]
            return best, name == clip.video
    return "", False


def _fit(clip: _Clip, path: str) -> int:
    """How many of a clip's class and split are among the folders that a file lies in."""
    folders = Path(path).parts[:-1]
    return (clip.split in folders) + any(
        folder.replace("_", " ") == clip.label.replace("_", " ") for folder in folders
    )


def _spans(file: Path, clips: Iterable[_Clip], whole: list[bool]) -> np.ndarray | None:
    """Times of those clips whose file is the whole video."""
    if not any(whole):
        return None
    _logger.warning(
        "%s: %s named by the video alone; the part from time_start to time_end is used of each.",
        file,
        counted(sum(whole), "file is", "files are"),
    )
    times = np.array([(clip.start, clip.end) for clip in clips])
    return np.where(np.array(whole)[:, None], times, np.nan)
