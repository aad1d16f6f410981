"""Lists of labelled videos: a folder of class folders, or a CSV file."""

import csv
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "VIDEO_SUFFIXES",
    "VideoList",
    "load_multi_label_list",
    "load_value_list",
    "load_video_list",
]

VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)


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
        return f"{len(self)} videos, {zlib.crc32(content.encode()):08x}"


def load_video_list(source: str | Path, class_names: tuple[str, ...] | None = None) -> VideoList:
    """Read a folder with one subfolder per class, or a CSV file with the columns `path,label`.

    Args:
        source: folder or CSV file. Relative paths in a CSV count from the file's folder; labels are
            class names.
        class_names: the classes in order, where a model already has them; None takes those found,
            sorted.

    Raises:
        ValueError: nothing there, no video, one class only, wrong columns, or a class the model
            does not have.
    """
    source = Path(source)
    if not source.exists():
        raise ValueError(f"{source} does not exist: give a folder of class folders or a CSV file.")
    rows = _folder_rows(source) if source.is_dir() else _csv_rows(source)
    found = sorted({label for _, label in rows})
    if class_names is None:
        if len(found) < 2:
            raise ValueError(
                f"{source} has one class only ({found[0]!r}): training needs two or more, each in "
                "its own subfolder or label."
            )
        class_names = tuple(found)
    unknown = [label for label in found if label not in class_names]
    if unknown:
        raise ValueError(
            f"{source} has classes that the model does not: {unknown[:5]}. The model's "
            f"{len(class_names)} classes are {list(class_names[:5])}…: rename the labels."
        )
    number = {name: index for index, name in enumerate(class_names)}
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
    rows = _csv_rows(source)
    values = []
    for path, label in rows:
        try:
            values.append(float(label))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise ValueError(
                f"The model predicts numbers (its problem_type is regression), but {source} has "
                f"the label {label!r} for {path.name}."
            )
    return VideoList(np.array([str(path) for path, _ in rows]), np.array(values), (name,))


def _folder_rows(folder: Path) -> list[tuple[Path, str]]:
    rows = [
        (path, path.parent.name)
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]
    if not rows:
        raise ValueError(
            f"No video found in {folder}: expected {folder}/CLASS/NAME.mp4 (or one of "
            f"{' '.join(sorted(VIDEO_SUFFIXES))})."
        )
    return rows


def _csv_rows(file: Path) -> list[tuple[Path, str]]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns, lines = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{file} is neither a folder of class folders nor a CSV file: {error}"
        ) from error
    if not {"path", "label"} <= set(columns):
        raise ValueError(f"{file} needs the columns path,label in its first line, got {columns}.")
    if not lines:
        raise ValueError(f"{file} has no rows.")
    for number, line in enumerate(lines, start=2):
        for column in ("path", "label"):
            if not line[column]:
                raise ValueError(f"{file} has no {column} in line {number}.")
    rows = [(file.parent / line["path"], line["label"]) for line in lines]
    missing = [str(path) for path, _ in rows if not path.is_file()]
    if missing:
        raise ValueError(
            f"{file} lists {len(missing)} of {len(rows)} files that do not exist, such as "
            f"{missing[0]}: paths count from {file.parent}."
        )
    return rows
