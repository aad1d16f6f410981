"""What is wrong with the videos of a list: each read once, and compared with the others."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvt_ff.data.video_list import VideoList
from lvt_ff.utils.errors import VideoReadError
from lvt_ff.utils.in_order import in_order
from lvt_ff.utils.progress import progress_bar
from lvt_ff.utils.short_text import shortened
from lvt_ff.video.reader import read_frames
from lvt_ff.video.sources import VideoSource

__all__ = ["Finding", "Looked", "duplicates", "look_at_all", "overlaps", "problems", "same_names"]

_CHUNK = 2**20


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        path: of the video, or what it is called; "" for what is of none.
        kind: in a word or two, by which findings are counted.
        reason: in words.
    """

    path: str
    kind: str
    reason: str


@dataclass
class Looked:
    """What was seen of a video.

    Args:
        size: bytes; -1 where they cannot be had.
        digest: of its content; "" where no other has its size.
        frames: within its span.
        problem: why it cannot be read, or "".
        damage: what of it is lost, or "".
    """

    size: int = -1
    digest: str = ""
    frames: int = 0
    problem: str = ""
    damage: str = ""


def look_at_all(
    lists: Sequence[VideoList], num_frames: int, max_pixels: int, num_workers: int
) -> list[list[Looked]]:
    """Look at all videos of several lists, and take digests of those that have one size."""
    tasks = [(videos, row) for videos in lists for row in range(len(videos))]

    def at_all(what: str, work: Callable, tasks: Sequence[tuple]) -> list:
        done = []
        with (
            progress_bar(len(tasks), "video", desc=what) as bar,
            closing(in_order(lambda task: work(*task), tasks, num_workers)) as results,
        ):
            for result in results:
                done.append(result)
                bar.update()
        return done

    looked = at_all(
        "reading", lambda videos, row: _look_at(videos, row, num_frames, max_pixels), tasks
    )
    sizes = Counter(one.size for one in looked)
    alike = [place for place, one in enumerate(looked) if one.size > 0 and sizes[one.size] > 1]
    digests = at_all("comparing", _digest_of, [tasks[place] for place in alike])
    for place, digest in zip(alike, digests, strict=True):
        looked[place].digest = digest
    ends = np.cumsum([len(videos) for videos in lists])
    return [looked[end - len(videos) : end] for videos, end in zip(lists, ends, strict=True)]


def _look_at(videos: VideoList, row: int, num_frames: int, max_pixels: int) -> Looked:
    looked = Looked()

    def spread(total: int) -> np.ndarray:
        return np.linspace(0, total - 1, num_frames).round().astype(int)

    try:
        source = videos.source(row)
        looked.size = _num_bytes(source)
        clip = read_frames(source, spread, max_pixels=max_pixels, span=videos.span(row))
        looked.frames, looked.damage = clip.total, clip.damage
    except (VideoReadError, OSError) as error:
        looked.problem = str(error)
    return looked


def _files(source: VideoSource) -> list[str]:
    """The file of a path, or those of a folder."""
    if not isinstance(source, str | os.PathLike):
        return []
    if not os.path.isdir(source):
        return [os.fspath(source)]
    return [entry.path for entry in sorted(os.scandir(source), key=lambda e: e.name)]


def _num_bytes(source: VideoSource) -> int:
    if hasattr(source, "getbuffer"):
        return source.getbuffer().nbytes
    return sum(os.path.getsize(file) for file in _files(source))


def _digest_of(videos: VideoList, row: int) -> str:
    """Of a video's content; of its place where that cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        source = videos.source(row)
        if hasattr(source, "getbuffer"):
            digest.update(source.getbuffer())
        for file in _files(source):
            with open(file, "rb") as content:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
    except (VideoReadError, OSError):
        return f"unreadable {id(videos)} {row}"
    return digest.hexdigest()


def problems(videos: VideoList, looked: Sequence[Looked], num_frames: int) -> list[Finding]:
    """What is wrong with videos by themselves."""
    found = []
    for path, one in zip(videos.paths, looked, strict=True):
        if one.problem:
            kind = "unreadable" if one.size else "empty"
            found.append(Finding(path, kind, one.problem))
            continue
        if one.damage:
            found.append(Finding(path, "damaged in part", one.damage))
        if one.frames < num_frames:
            reason = f"{one.frames} frames, fewer than the {num_frames} of a clip"
            found.append(Finding(path, "too short", reason))
    return found


def duplicates(videos: VideoList, looked: Sequence[Looked]) -> list[Finding]:
    """Videos that a list has had before: the same part of the same file, or of the same content."""
    first_place: dict[tuple, int] = {}
    first_content: dict[tuple, int] = {}
    found = []
    for row, one in enumerate(looked):
        path = videos.paths[row]
        former = first_place.setdefault(_place(videos, row), row)
        reason = "listed before"
        if former == row and one.digest:
            former = first_content.setdefault(_content(videos, row, one), row)
            reason = f"the same content as {shortened(videos.paths[former])}"
        if former != row:
            other = not np.array_equal(videos.labels[row], videos.labels[former])
            found.append(
                Finding(path, "duplicate", reason + (", with another label" if other else ""))
            )
    return found


def overlaps(
    train: VideoList, train_looked: Sequence[Looked], other: VideoList, looked: Sequence[Looked]
) -> list[Finding]:
    """Videos of another list that are also in the training list."""
    places = {_place(train, row) for row in range(len(train))}
    contents: dict[tuple, int] = {}
    for row, one in enumerate(train_looked):
        if one.digest:
            contents.setdefault(_content(train, row, one), row)
    found = []
    for row, one in enumerate(looked):
        content = contents.get(_content(other, row, one)) if one.digest else None
        if _place(other, row) in places:
            found.append(Finding(other.paths[row], "in both lists", "also in the training list"))
        elif content is not None:
            reason = f"the same content as {shortened(train.paths[content])} in the training list"
            found.append(Finding(other.paths[row], "in both lists", reason))
    return found


def same_names(train: VideoList, other: VideoList) -> list[str]:
    """Names without folder and suffix that both lists have, of different files."""
    names = [{Path(path).stem: path for path in paths} for paths in (train.paths, other.paths)]
    both = names[0].keys() & names[1].keys()
    return sorted(name for name in both if names[0][name] != names[1][name])


def _place(videos: VideoList, row: int) -> tuple:
    if videos.store is not None:  # what videos are called may be the same by chance
        return id(videos), row
    return os.path.realpath(videos.paths[row]), _span(videos, row)


def _content(videos: VideoList, row: int, one: Looked) -> tuple:
    return one.size, one.digest, _span(videos, row)


def _span(videos: VideoList, row: int) -> tuple:
    return tuple(np.nan_to_num(videos.span(row) or (), nan=-1).tolist())
