"""Lists of labelled videos: a folder of class folders, or a CSV file."""

import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from lvt_ff.data.csv_list import read_csv_list
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_files import VIDEO_SUFFIXES, list_folder
from lvt_ff.utils.short_text import shortened
from lvt_ff.video.sources import VideoSource

__all__ = [
    "VIDEO_SUFFIXES",
    "VideoList",
    "VideoStore",
    "load_multi_label_list",
    "load_value_list",
    "load_video_list",
]

_logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class VideoStore(Protocol):
    """Videos that are no files of their own: parts of larger files, by their place in a list."""

    def source(self, index: int) -> VideoSource:
        """What a reader takes for a video; raises VideoReadError where it cannot be had."""

    def take(self, indices: np.ndarray) -> "VideoStore":
        """These videos, in this order."""


@dataclass(frozen=True)
class VideoList:
    """Videos with their labels, and the class names.

    Args:
        paths: (n,), of files; of videos in a store, what they are called.
        labels: class numbers (n,); 0 or 1 for every class (n, K) where a video may have several;
            or numbers to predict (n,).
        class_names: in order.
        spans: start and end of what is used of each file, in seconds (n, 2); NaN for its own start
            or end. None uses all files whole.
        store: where the videos lie that are no files of their own.
    """

    paths: Texts
    labels: np.ndarray
    class_names: tuple[str, ...]
    spans: np.ndarray | None = None
    store: VideoStore | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> VideoSource:
        """What a reader takes for a video; raises VideoReadError where a store cannot give it."""
        return self.paths[index] if self.store is None else self.store.source(index)

    def take(self, indices: np.ndarray) -> "VideoList":
        """These videos, in this order."""
        return replace(
            self,
            paths=self.paths.take(indices),
            labels=self.labels[indices],
            spans=None if self.spans is None else self.spans[indices],
            store=None if self.store is None else self.store.take(indices),
        )

    def fingerprint(self) -> str:
        """A short text that other videos, labels or classes change; the parent folder does not."""
        names = ["/".join(Path(path).parts[-2:]) for path in self.paths]
        content = "\n".join([*names, *self.class_names, *map(str, self.labels)])
        if self.spans is not None:
            content += f"\n{self.spans.tolist()}"
        code = zlib.crc32(content.encode(errors="surrogatepass"))  # names need not be UTF-8
        return f"{len(self)} videos, {code:08x}"

    def with_class_order(self, class_names: tuple[str, ...]) -> "VideoList":
        """The same videos with class numbers for the same classes in another order."""
        number = np.array([class_names.index(name) for name in self.class_names])
        return replace(self, labels=number[self.labels], class_names=class_names)


def load_video_list(source: str | Path, class_names: tuple[str, ...] | None = None) -> VideoList:
    """Read a folder with one subfolder per class, or a CSV file with the columns `path,label`.

    What is left out, and columns that are not used, are logged as a warning.

    Args:
        source: folder or CSV file. Videos may lie at any depth below the folder of their class,
            where a folder of numbered pictures is a video too; hidden files are none. Relative
            paths in a CSV count from the file's folder; labels are class names.
        class_names: the classes in order, where a model already has them; None takes those found,
            numbers by their size and then the others by text.

    Raises:
        ValueError: nothing there, no video, one class only, another kind of file, wrong columns, or
            a class the model does not have.
    """
    source = Path(source)
    if not source.exists():
        raise ValueError(f"{source} does not exist: give a folder of class folders or a CSV file.")
    rows = _folder_rows(source) if source.is_dir() else read_csv_list(source)
    found = sorted({label for _, label in rows}, key=_class_order)
    if class_names is None:
        if len(found) < 2:
            raise ValueError(
                f"{source} has one class only ({shortened(found[0])!r}): training needs two or "
                "more, each in its own subfolder or label."
            )
        class_names = tuple(found)
    number = {name: index for index, name in enumerate(class_names)}
    unknown = [label for label in found if label not in number]
    if unknown:
        raise ValueError(
            f"{source} has classes that the model does not: {_first(unknown)}. The model's "
            f"{len(class_names)} classes are {_first(class_names)}…: rename the labels."
        )
    return VideoList(
        Texts(str(path) for path, _ in rows),
        np.array([number[label] for _, label in rows]),
        tuple(class_names),
    )


def load_multi_label_list(source: str | Path, class_names: tuple[str, ...]) -> VideoList:
    """`load_video_list` for a model of several labels a video, each of them in a row of its own.

    Returns:
        Each video once, with labels (n, K).
    """
    rows = load_video_list(source, class_names)
    number: dict[str, int] = {}
    video = [number.setdefault(path, len(number)) for path in rows.paths]
    labels = np.zeros((len(number), len(class_names)), dtype=np.int64)
    labels[video, rows.labels] = 1
    return VideoList(Texts(number), labels, rows.class_names)


def load_value_list(source: str | Path, name: str) -> VideoList:
    """Read a CSV file with the columns `path,label` whose labels are numbers.

    Args:
        source: CSV file; relative paths count from its folder.
        name: of what the numbers say.

    Returns:
        Labels (n,) float64.

    Raises:
        ValueError: no such file, wrong columns, or a label that is not a number.
    """
    source = Path(source)
    if not source.is_file():
        raise ValueError(
            f"The model predicts numbers (its problem_type is regression): give a CSV file with "
            f"the columns path,label whose labels are numbers, got {source}."
        )
    rows = read_csv_list(source)
    values = []
    for path, label in rows:
        try:
            values.append(float(label))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise ValueError(
                f"The model predicts numbers (its problem_type is regression), but {source} has "
                f"the label {shortened(label)!r} for {shortened(path.name)}."
            )
    return VideoList(Texts(str(path) for path, _ in rows), np.array(values), (name,))


def _first(names: Sequence[str]) -> list[str]:
    return [shortened(name, 80) for name in names[:5]]


def _class_order(name: str) -> tuple[bool, float, str]:
    """Sorts numbers by size, and what is no number by text, after them."""
    number = _NUMBER.fullmatch(name)
    return not number, float(name) if number else 0.0, name


def _folder_rows(folder: Path) -> list[tuple[Path, str]]:
    contents = list_folder(folder)
    told = contents.told()
    if not contents.rows:
        raise ValueError(
            f"No video found in {folder}: expected {folder}/CLASS/NAME.mp4, or another file that "
            f"FFmpeg reads, or pictures {folder}/CLASS/NAME/0001.jpg, …{told and f'. {told}'}"
        )
    if told:
        _logger.warning("%s", told)
    return contents.rows
