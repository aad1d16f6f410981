"""Lists of labelled videos, whichever format they come in."""

import logging
import math
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lvt_ff.data.class_file import MOST_CLASSES, Classes, read_class_file
from lvt_ff.data.formats import FORMATS, DataFormat, Listing, Request, recognised
from lvt_ff.data.label_spans import LabelSpans
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_files import VIDEO_SUFFIXES
from lvt_ff.data.video_store import VideoStore
from lvt_ff.utils.short_text import counted, listed, shortened
from lvt_ff.utils.validation import check_choice
from lvt_ff.video.sources import VideoSource

__all__ = [
    "VIDEO_SUFFIXES",
    "DataFormat",
    "Missing",
    "Task",
    "VideoList",
    "VideoStore",
    "class_counts",
    "class_numbers",
    "labelled",
    "load_video_list",
    "read_listing",
]

Missing = Literal["fail", "skip"]
Task = Literal["auto", "single", "multi", "regression"]

_logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


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
        label_spans: from when to when each label holds, where labels do not hold all the time.
        num_missing: how many more were listed, and left out because they are not on disk.
    """

    paths: Texts
    labels: np.ndarray
    class_names: tuple[str, ...]
    spans: np.ndarray | None = None
    store: VideoStore | None = None
    label_spans: LabelSpans | None = None
    num_missing: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def task(self) -> str:
        """What labels say: "single" for one class a video, "multi" for several, "regression"."""
        if self.labels.ndim == 2:
            return "multi"
        return "regression" if self.labels.dtype.kind == "f" else "single"

    def class_counts(self) -> np.ndarray:
        """Videos of each class (K,)."""
        return class_counts(self.labels, len(self.class_names))

    def source(self, index: int) -> VideoSource:
        """What a reader takes for a video; raises VideoReadError where a store cannot give it."""
        return self.paths[index] if self.store is None else self.store.source(index)

    def span(self, index: int) -> tuple[float, float] | None:
        """Start and end of what is used of a video, in seconds, NaN for its own; None for all."""
        return None if self.spans is None else tuple(self.spans[index].tolist())

    def take(self, indices: np.ndarray) -> "VideoList":
        """These videos, in this order."""
        return replace(
            self,
            paths=self.paths.take(indices),
            labels=self.labels[indices],
            spans=None if self.spans is None else self.spans[indices],
            store=None if self.store is None else self.store.take(indices),
            label_spans=None if self.label_spans is None else self.label_spans.take(indices),
        )

    def fingerprint(self) -> str:
        """A short text that other videos, labels or classes change; where they all lie does not."""
        paths = list(self.paths)
        root = os.path.commonprefix([min(paths), max(paths)]).rpartition(os.sep)[0]
        names = [path[len(root) :] for path in paths]
        labels = map(str, self.labels) if self.labels.ndim == 1 else [_code(self.labels)]
        content = "\n".join([*names, *self.class_names, *labels])
        if self.spans is not None:
            content += f"\n{self.spans.tolist()}"
        if self.label_spans is not None:
            content += f"\n{_code(self.label_spans.times)}"
        code = zlib.crc32(content.encode(errors="surrogatepass"))  # names need not be UTF-8
        return f"{len(self)} videos, {code:08x}"

    def with_class_order(self, class_names: tuple[str, ...]) -> "VideoList":
        """The same videos with class numbers for the same classes in another order."""
        number = np.array([class_names.index(name) for name in self.class_names])
        spans = self.label_spans
        if spans is not None:
            spans = replace(spans, labels=number[spans.labels])
        if self.labels.ndim == 2:
            labels = np.zeros((len(self), len(class_names)), self.labels.dtype)
            labels[:, number] = self.labels
        else:
            labels = number[self.labels]
        return replace(self, labels=labels, class_names=class_names, label_spans=spans)


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Videos of each class (K,).

    Args:
        labels: class numbers (n,), or 0 or 1 for every class (n, K).
        num_classes: K.
    """
    if labels.ndim == 2:
        return labels.sum(axis=0)
    return np.bincount(labels, minlength=num_classes)


def load_video_list(
    source: str | Path,
    class_names: tuple[str, ...] | None = None,
    *,
    data_format: DataFormat = "auto",
    video_root: str | Path | None = None,
    missing: Missing = "fail",
    class_file: str | Path | None = None,
    task: Task = "auto",
    split: str | None = None,
) -> VideoList:
    """Read videos and labels from a folder or a list, in any of the formats of `FORMATS`.

    What is left out, and columns that are not used, are logged as a warning.

    Args:
        source: what the format takes: a folder with one subfolder per class, or a file that lists
            videos.
        class_names: the classes in order, where a model already has them. None takes those of
            `class_file`, else those of the data set's own label file, else those found, numbers by
            their size and then the others by text. In a list whose labels are whole numbers, these
            are the numbers of the classes.
        data_format: "auto" recognises it; a name of `FORMATS` forces one.
        video_root: the folder that listed videos lie in; None for where the list lies.
        missing: videos that are listed and not on disk end the loading ("fail"), or are left out
            with a warning ("skip"), unless all are.
        class_file: names of classes in the data set's order; see `read_class_file`.
        task: "single" gives labels (n,), "multi" (n, K), "regression" (n,) float64 of labels that
            are numbers, with the one name of `class_names` if given; "auto" gives the second where
            the format has several labels a video, else the first.
        split: of several in one source, the wanted one.

    Raises:
        ValueError: nothing there, no video, one class only, another kind of file, wrong columns, a
            class that the model does not have, or missing videos.
    """
    check_choice("missing", missing, get_args(Missing))
    check_choice("task", task, get_args(Task))
    if task == "regression" and _is_folder(source, data_format):
        raise ValueError(
            f"The model predicts numbers (its problem_type is regression): give a CSV file with "
            f"the columns path,label whose labels are numbers, got the folder {source}."
        )
    request, listing = read_listing(
        source,
        data_format=data_format,
        video_root=video_root,
        class_file=class_file,
        split=split,
        has_order=class_names is not None,
    )
    there = _on_disk(request.source, listing, missing)
    videos = labelled(request, there, class_names, task)
    return replace(videos, num_missing=len(listing) - len(there))


def _is_folder(source: str | Path, data_format: DataFormat) -> bool:
    """Whether classes are those that videos lie in the folders of, which are no numbers."""
    if data_format == "auto" and Path(source).is_dir():
        data_format = recognised(str(source))
    return data_format == "folder"


def read_listing(
    source: str | Path,
    *,
    data_format: DataFormat = "auto",
    video_root: str | Path | None = None,
    class_file: str | Path | None = None,
    split: str | None = None,
    has_order: bool = False,
) -> tuple[Request, Listing]:
    """What was asked of a format, and what it lists, whether it is on disk or not.

    Args:
        source, data_format, video_root, class_file, split: see `load_video_list`.
        has_order: a model has the classes and their order.

    Raises:
        ValueError: see `load_video_list`.
    """
    check_choice("data_format", data_format, get_args(DataFormat))
    source = str(source)
    classes = read_class_file(class_file) if class_file is not None else None
    root = Path(video_root) if video_root is not None else None
    request = Request(source, root, classes, split, has_order)
    if data_format == "auto":
        data_format = recognised(source)
    return request, FORMATS[data_format].read(request)


def labelled(
    request: Request, listing: Listing, class_names: tuple[str, ...] | None, task: Task
) -> VideoList:
    """The videos of a listing with class numbers, or values, for labels.

    Args:
        request: what the listing answers.
        listing: of videos that are there.
        class_names, task: see `load_video_list`.

    Raises:
        ValueError: see `load_video_list`.
    """
    source = request.source
    if task == "auto":
        task = "multi" if listing.multi else "single"
    if task == "regression":
        return _with_values(source, listing, class_names)
    order, number = _class_numbers(source, listing, class_names, request.classes)
    if task == "multi":
        return _with_several_labels(source, listing, order, number)
    return _with_classes(source, listing, order, number)


def _on_disk(source: str, listing: Listing, missing: str) -> Listing:
    """Those of the listed videos that are there."""
    if listing.absent is None or not listing.absent.any():
        return listing
    absent, total = np.flatnonzero(listing.absent), len(listing)
    first = listing.paths[int(absent[0])]
    folder = ", a folder without numbered pictures" if Path(first).is_dir() else ""
    told = (
        f"{source} lists {len(absent)} of {total} files that do not exist, such as "
        f"{shortened(first)}{folder}: {listing.place}"
    )
    if len(absent) == total:
        raise ValueError(f"{told}. Say with --video_root where the videos lie.")
    if missing == "fail":
        raise ValueError(
            f"{told}. Say with --video_root where the videos lie, or leave out those that are "
            "missing with --missing skip."
        )
    _logger.warning("%s. They are left out.", told)
    return listing.take(np.flatnonzero(~listing.absent))


def class_numbers(
    source: str,
    listing: Listing,
    class_names: tuple[str, ...] | None,
    classes: Classes | None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes in order, and the number of each of the listing's names; -1 for what is none."""
    order = class_names or (classes.names if classes else _found_order(source, listing))
    number = {name: place for place, name in enumerate(order)}
    if not order:
        raise ValueError(f"{source} has no labels.")
    # One list has one meaning: where some numbers are no names, none of them is.
    used = [listing.names[place] for place in np.unique(listing.labels)]
    by_number = listing.may_number and not all(name in number for name in used)
    if by_number and class_names and classes is None and "0" not in used:
        _logger.warning(
            "%s has class numbers from %d on, which are counted from 0 among the model's classes: "
            "give --class_file if the first one is 1.",
            source,
            min(map(int, used)),
        )
    known = [_by_number(int(n), order, classes) if by_number else n for n in listing.names]
    return tuple(order), np.array([number.get(name, -1) for name in known], np.int64)


def _class_numbers(
    source: str,
    listing: Listing,
    class_names: tuple[str, ...] | None,
    classes: Classes | None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """`class_numbers` where every label is of a class."""
    order, numbers = class_numbers(source, listing, class_names, classes)
    unknown = [listing.names[place] for place in np.unique(listing.labels) if numbers[place] < 0]
    if unknown:
        raise ValueError(
            f"{source} has classes that the model does not: {_first(unknown)}. The model's "
            f"{len(order)} classes are {_first(order)}…: rename the labels."
            if class_names
            else f"{source} has classes that the file of classes does not: {_first(unknown)}. "
            f"Its {len(order)} classes are {_first(order)}…"
        )
    return order, numbers


def _by_number(number: int, order: Sequence[str], classes: Classes | None) -> str | None:
    if classes is not None:
        return classes.name_of(number)
    return order[number] if number < len(order) else None


def _found_order(source: str, listing: Listing) -> tuple[str, ...]:
    """Classes in order, where nobody has said which there are."""
    if listing.official:
        return listing.names
    whole = all(re.fullmatch(r"-?\d+", name) for name in listing.names)
    least = min(map(int, listing.names), default=0) if whole else 0
    if listing.store is not None and least < 0:
        raise ValueError(
            f"{source} has the label {least}, and class numbers begin at 0: videos without a "
            "label, as test splits have them, cannot be used."
        )
    if not listing.may_number or not listing.names:
        return tuple(sorted(listing.names, key=_class_order))
    most = max(map(int, listing.names))
    if most >= MOST_CLASSES:
        raise ValueError(
            f"{source} has the class number {most}, so that there would be {most + 1:,} classes: "
            "say with --class_file which there are, or write names."
        )
    names = tuple(map(str, range(most + 1)))
    empty = [name for name in names if name not in {*listing.names}]
    if empty:
        _logger.warning(
            "%s has class numbers up to %d, but no video of %s: %s. They stay classes, so that "
            "numbers keep their meaning; --class_file says which classes there are.",
            source,
            most,
            counted(len(empty), "of them", "of them"),
            listed(empty),
        )
    return names


def _with_classes(
    source: str, listing: Listing, order: tuple[str, ...], number: np.ndarray
) -> VideoList:
    """A list of one label a video."""
    counts = np.bincount(listing.rows, minlength=len(listing))
    if (counts != 1).any():
        place = int((counts != 1).argmax())
        raise ValueError(
            f"{source} has {counted(int(counts[place]), 'label')} for "
            f"{shortened(listing.paths[place])}, where each video should have one."
        )
    if len(order) < 2:
        raise ValueError(
            f"{source} has one class only ({shortened(order[0])!r}): training needs two or "
            "more, each in its own subfolder or label."
        )
    labels = np.empty(len(listing), np.int64)
    labels[listing.rows] = number[listing.labels]
    return VideoList(listing.paths, labels, order, listing.spans, listing.store)


def _with_several_labels(
    source: str, listing: Listing, order: tuple[str, ...], number: np.ndarray
) -> VideoList:
    """A list of several labels a video; rows of one path and span are one video."""
    place, first = _videos_of(listing)
    owners, values = place[listing.rows], number[listing.labels]
    labels = np.zeros((len(first), len(order)), np.uint8)
    labels[owners, values] = 1
    if not labels.any():
        raise ValueError(f"No video of {source} has a label: some need one to learn or measure by.")
    spans = None
    if listing.label_spans is not None:
        spans = LabelSpans.of(owners, values, listing.label_spans, len(first))
    return VideoList(
        listing.paths.take(first),
        labels,
        order,
        None if listing.spans is None else listing.spans[first],
        None if listing.store is None else listing.store.take(first),
        spans,
    )


def _videos_of(listing: Listing) -> tuple[np.ndarray, np.ndarray]:
    """The video (n,) that each row is of, and the first row of each video."""
    if listing.store is not None:  # names may be the same by chance
        return np.arange(len(listing)), np.arange(len(listing))
    spans = [()] * len(listing)
    if listing.spans is not None:
        spans = map(tuple, np.nan_to_num(listing.spans, nan=-1).tolist())
    videos: dict[tuple, int] = {}
    keys = zip(listing.paths, spans, strict=True)
    place = np.array([videos.setdefault(key, len(videos)) for key in keys])
    return place, np.unique(place, return_index=True)[1]


def _with_values(source: str, listing: Listing, class_names: tuple[str, ...] | None) -> VideoList:
    """A list of a number for each video."""
    if not len(listing.labels) == len(listing) == len(np.unique(listing.rows)):
        raise ValueError(f"{source} needs one number for each video, in a column label.")
    values = np.empty(len(listing))
    for row, label in zip(listing.rows, listing.labels, strict=True):
        values[row] = _value(listing.names[label])
        if not math.isfinite(values[row]):
            raise ValueError(
                "The model predicts numbers (its problem_type is regression), but "
                f"{source} has the label {shortened(listing.names[label])!r} for "
                f"{shortened(Path(listing.paths[int(row)]).name)}."
            )
    return VideoList(listing.paths, values, class_names or ("value",), listing.spans, listing.store)


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _first(names: Sequence[str]) -> list[str]:
    return [shortened(name, 80) for name in names[:5]]


def _class_order(name: str) -> tuple[bool, float, str]:
    """Sorts numbers by size, and what is no number by text, after them."""
    number = _NUMBER.fullmatch(name)
    return not number, float(name) if number else 0.0, name


def _code(values: np.ndarray) -> str:
    return f"{values.shape} {zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"
