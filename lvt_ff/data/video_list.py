"""Lists of labelled videos: a folder of class folders, or a CSV file."""

import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvt_ff.data.csv_list import read_csv_list
from lvt_ff.data.video_files import VIDEO_SUFFIXES, list_folder
from lvt_ff.utils.short_text import shortened

__all__ = [
    "VIDEO_SUFFIXES",
    "VideoList",
    "load_multi_label_list",
    "load_value_list",
    "load_video_list",
]

_logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class VideoList:
    """Paths and labels of videos, and the class names.

    Args:
        paths: (n,).
        labels: class numbers (n,); 0 or 1 for every class (n, K) where a video may have several;
            or numbers to predict (n,).
        class_names: in order.
    """

    paths: np.ndarray  # one block: a list of 200,000 Python strings is copied into each worker
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """A short text that other videos, labels or classes change; the parent folder does not."""
        names = ["/".join(Path(path).parts[-2:]) for path in self.paths]
        content = "\n".join([*names, *self.class_names, *map(str, self.labels)])
        code = zlib.crc32(content.encode(errors="surrogatepass"))  # names need not be UTF-8
        return f"{len(self)} videos, {code:08x}"

    def with_class_order(self, class_names: tuple[str, ...]) -> "VideoList":
        """The same videos with class numbers for the same classes in another order."""
        number = np.array([class_names.index(name) for name in self.class_names])
        return VideoList(self.paths, number[self.labels], class_names)


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
        np.array([str(path) for path, _ in rows]),
        np.array([number[label] for _, label in rows]),
        tuple(class_names),
    )


def load_multi_label_list(source: str | Path, class_names: tuple[str, ...]) -> VideoList:
    """`load_video_list` for a model of several labels a video, each of them in a row of its own.

    Returns:
        Each video once, with labels (n, K).
    """
    rows = load_video_list(source, class_names)
    paths, first, video = np.unique(rows.paths, return_index=True, return_inverse=True)
    labels = np.zeros((len(paths), len(class_names)), dtype=np.int64)
    labels[video, rows.labels] = 1
    order = np.argsort(first)  # as listed
    return VideoList(paths[order], labels[order], rows.class_names)


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
    return VideoList(np.array([str(path) for path, _ in rows]), np.array(values), (name,))


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
