"""A list of videos to tar shards: in parallel, to be stopped and started again at any time."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lvt_ff.data.shards.convert import Converter, Ready
from lvt_ff.data.shards.index import INDEX_NAME, ShardIndex, write_index
from lvt_ff.data.shards.members import described, key_and_ending
from lvt_ff.data.shards.open import UNFINISHED
from lvt_ff.data.shards.scan import scan_shards
from lvt_ff.data.shards.writer import new_shard
from lvt_ff.data.video_list import VideoList
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.in_order import in_order
from lvt_ff.utils.progress import progress_bar
from lvt_ff.video import pool

__all__ = ["Left", "ShardMaker", "video_names"]

_SEED = 0  # of the order in the shards


@dataclass(frozen=True)
class Left:
    """A video that is not whole in the shards, or not at all.

    Args:
        path: of the original.
        outcome: "left out" or "kept".
        reason: why.
    """

    path: str
    outcome: str
    reason: str


def video_names(videos: VideoList) -> list[str]:
    """What videos are called in shards: their paths from the folder that all lie in.

    Parts of files are told apart by their seconds, as in addresses: jump/0001.mp4#t=2.5,7.
    """
    paths = list(videos.paths)
    folder = ""
    if videos.store is None:
        with suppress(ValueError):  # on several drives
            folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, folder) if folder else path for path in paths]
    if videos.spans is None:
        return names
    return [name + _fragment(*span) for name, span in zip(names, videos.spans, strict=True)]


def _fragment(start: float, end: float) -> str:
    if np.isnan(start) and np.isnan(end):
        return ""
    return f"#t={'' if np.isnan(start) else f'{start:g}'}" + ("" if np.isnan(end) else f",{end:g}")


class ShardMaker:
    """Writes a list of videos to shards.

    The videos' order in the shards is drawn once and for all, since programs that read shards from
    their beginning want the classes mixed; the index has them in the order of the list.

    Args:
        videos: the list.
        folder: of the shards.
        convert: makes videos ready, by their places in the list.
        shard_bytes: a shard ends when it has so many.
        num_workers: threads.
    """

    def __init__(
        self,
        videos: VideoList,
        folder: Path,
        convert: Converter,
        shard_bytes: int,
        num_workers: int,
    ):
        self._videos, self._folder, self._convert = videos, folder, convert
        self._shard_bytes, self._num_workers = shard_bytes, num_workers
        self._names = video_names(videos)
        self._order = np.random.default_rng(_SEED).permutation(len(videos)).tolist()

    def run(self) -> tuple[ShardIndex, list[Left]]:
        """Write what is not there yet, then the index; also what is not whole or left out."""
        done = self._finished()
        start = done[-1]["end"] if done else 0
        pool.restart(self._num_workers)
        bar = progress_bar(len(self._videos), "video", desc="preparing", initial=start)
        todo = in_order(self._convert, self._order[start:], self._num_workers)
        with bar, closing(todo) as ready:
            while start < len(self._order):
                shard = self._write_shard(len(done), start, ready, bar.update)
                done.append(shard)
                start = shard["end"]
        names = [shard["name"] for shard in done if shard["name"]]
        index = self._write_index(names) if names else None
        left = sorted((row, Left(*told)) for shard in done for row, *told in shard["left"])
        return index, [told for _, told in left]

    def _note(self, number: int) -> Path:
        return self._folder / UNFINISHED / f"{number:06d}.json"

    def _finished(self) -> list[dict[str, Any]]:
        """What is told of the shards that are there, from the first on."""
        done = []
        while (file := self._note(len(done))).is_file():
            done.append(json.loads(file.read_text(encoding="utf-8")))
        return done

    def _write_shard(
        self,
        number: int,
        start: int,
        ready: Iterator[Ready],
        progress: Callable[[], Any],
    ) -> dict[str, Any]:
        """Write videos until the shard is full, and a note of how far it goes."""
        left, end, shard = [], start, None
        name = f"shard-{number:06d}.tar"
        with ExitStack() as stack:
            for item in ready:
                end += 1
                progress()
                left += self._left(item)
                if item.problem:
                    continue
                if shard is None:  # a shard without a video is none
                    shard = stack.enter_context(new_shard(self._folder / name))
                self._add(shard, item)
                if shard.size >= self._shard_bytes:
                    break
        note = dict(name=name if shard else None, end=end, left=left)
        write_text(self._note(number), json.dumps(note))
        return note

    def _left(self, item: Ready) -> list[tuple[int, str, str, str]]:
        path = self._videos.paths[item.row]
        if item.problem:
            return [(item.row, path, "left out", item.problem)]
        return [(item.row, path, "kept", item.damage)] if item.damage else []

    def _add(self, shard: Any, item: Ready) -> None:
        key = f"{item.row:09d}"
        content, size = item.open()
        with content:
            shard.add(f"{key}.{item.ending}", content, size)
        labels, spans = _labels_of(self._videos, item.row)
        told = described(
            labels,
            self._videos.class_names,
            multi=self._videos.task == "multi",
            spans=spans,
            name=self._names[item.row],
            frames=item.frames,
            seconds=item.seconds,
        )
        shard.add_bytes(f"{key}.json", told)
        self._convert.forget(item)

    def _write_index(self, names: Sequence[str]) -> ShardIndex:
        """The index, from the tar files as they are, in the order of the list."""
        found = scan_shards([self._folder / name for name in names])
        rows = np.array([int(key_and_ending(member)[0]) for member in found.members])
        index = replace(
            _reordered(found, np.argsort(rows)),
            class_names=self._videos.class_names,
            official=True,
            is_prepared=True,
        )
        write_index(self._folder / INDEX_NAME, index)
        return index


def _labels_of(videos: VideoList, row: int) -> tuple[list[int], list[list[float]] | None]:
    """Class numbers of a video, and from when to when they hold."""
    spans = videos.label_spans
    if spans is not None:
        mine = slice(spans.ends[row], spans.ends[row + 1])
        start = 0.0 if videos.spans is None else np.nan_to_num(videos.spans[row, 0])
        return spans.labels[mine].tolist(), (spans.times[mine] - start).tolist()
    labels = videos.labels[row]
    return (np.flatnonzero(labels).tolist() if labels.ndim else [int(labels)]), None


def _reordered(index: ShardIndex, order: np.ndarray) -> ShardIndex:
    """The same videos in another order."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rows = place[index.rows]
    by_row = np.argsort(rows, kind="stable")
    spans = index.label_spans
    return replace(
        index,
        shard=index.shard[order],
        offset=index.offset[order],
        size=index.size[order],
        members=index.members.take(order),
        names=index.names.take(order),
        labels=index.labels[by_row],
        rows=rows[by_row],
        label_spans=None if spans is None else spans[by_row],
        frames=index.frames[order],
        seconds=index.seconds[order],
    )
