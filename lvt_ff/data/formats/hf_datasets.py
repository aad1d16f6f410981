"""Data sets of the library `datasets`: a folder, Parquet files, or a name on the Hub."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_places import which_exist
from lvt_ff.data.video_store import NamedBytes
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import VideoReadError, one_line
from lvt_ff.utils.short_text import listed, shortened
from lvt_ff.video.sources import VideoSource, is_address

__all__ = ["EXPECTS", "DatasetStore", "read", "recognises"]

_logger = logging.getLogger(__name__)

EXPECTS = (
    "a folder that the library datasets saved, Parquet files, or ORG/NAME on the Hub, each with "
    ":SPLIT behind it where there are several"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SAVED = ("dataset_dict.json", "state.json")
_PARQUET = ".parquet"
_VIDEO_COLUMNS = ("video", "clip", "path", "file", "video_path")
_LABEL_COLUMNS = ("label", "labels", "class", "action", "category", "activity")
# What splits are called that serve the same purpose, the better ones first.
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "test"),
    "test": ("test", "testing", "validation", "valid", "val"),
}
_ROWS = 1000  # whose names are read at a time


def recognises(source: str) -> bool:
    """Whether it is a saved data set, Parquet files, or looks like a name on the Hub."""
    place, _ = _place_and_split(source)
    path = Path(place)
    if path.is_dir():
        return any((path / name).is_file() for name in _SAVED) or bool(_parquet_files(path))
    if path.exists():
        return path.suffix == _PARQUET
    return bool(_HUB_NAME.fullmatch(place))


def read(request: Request) -> Listing:
    """Rows with a video, and a label or several.

    Raises:
        ValueError: nothing by this name, `datasets` is not installed, several splits of which none
            is chosen, or no column of videos or of labels.
    """
    place, split = _place_and_split(request.source)
    dataset = _one_split(request.source, _load(place), split, request.split)
    videos, labels = _columns(request.source, dataset)
    names, numbers, rows, multi, official = _labels(dataset, labels)
    dataset = _undecoded(dataset.select_columns([videos]), videos)
    about = dict(official=official, multi=multi)
    about |= dict(may_number=all(name.isdecimal() for name in names))
    if getattr(dataset.features[videos], "dtype", None) in ("string", "large_string"):
        paths, where = _paths(request, place, _names(dataset, videos))
        return Listing(Texts(paths), names, numbers, rows, **about, **where)
    if request.video_root is not None:
        _logger.warning(
            "The video root %s is not used for %s, whose column %s holds the videos themselves.",
            request.video_root,
            request.source,
            videos,
        )
    store = DatasetStore(dataset, videos, request.source, np.arange(len(dataset)))
    return Listing(Texts(_names(dataset, videos)), names, numbers, rows, **about, store=store)


def _paths(request: Request, place: str, names: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Paths of videos that a column of texts names, or addresses, and which are not there."""
    local = Path(place)
    own = local if local.is_dir() else local.parent
    root = request.video_root or (own if local.exists() else Path())
    paths = [name if is_address(name) else os.path.join(root, name) for name in names]
    here = np.array([is_address(path) for path in paths]) | which_exist(paths)
    return paths, dict(absent=~here, place=f"paths count from {root}")


class DatasetStore:
    """A `VideoStore` of a column of a data set.

    Args:
        dataset: of `datasets`, whose videos are not decoded.
        column: theirs.
        source: what messages call the data set.
        rows: of the videos.
    """

    def __init__(self, dataset: Any, column: str, source: str, rows: np.ndarray):
        self._dataset, self._column, self._source, self._rows = dataset, column, source, rows

    def source(self, index: int) -> VideoSource:
        """A video's bytes, or its path.

        Raises:
            VideoReadError: the row has neither.
        """
        row = int(self._rows[index])
        video = self._dataset[row][self._column]
        content, path = (video or {}).get("bytes"), (video or {}).get("path")
        if content is not None:
            return NamedBytes(content, f"{self._source} row {row}{path and f' ({path})' or ''}")
        if not path:
            raise VideoReadError(f"Cannot read video {self._source} row {row}: it has none.")
        return path

    def take(self, indices: np.ndarray) -> "DatasetStore":
        """These videos, in this order."""
        return DatasetStore(self._dataset, self._column, self._source, self._rows[indices])


def _place_and_split(source: str) -> tuple[str, str | None]:
    """A path or a name on the Hub, and what stands behind a colon."""
    place, _, split = source.rpartition(":")
    if place and not os.path.exists(source) and re.fullmatch(r"[\w.-]+", split):
        return place, split
    return source, None


def _parquet_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(f"*{_PARQUET}"), *folder.glob(f"data/*{_PARQUET}")])


def _load(place: str) -> Any:
    """A data set or several by their split."""
    path = Path(place)
    try:
        import datasets
    except ImportError as error:
        what = "is a data set of" if path.exists() else "does not exist here; the Hub's need"
        raise ValueError(
            f"{place} {what} the library datasets, which is missing ({error}): "
            f"{install_hint('data')}."
        ) from error
    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        return datasets.load_from_disk(place)
    try:
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=place, split="train")
        name, _, revision = place.partition("@") if not path.exists() else (place, "", "")
        return datasets.load_dataset(name, revision=revision or None)
    except Exception as error:  # it has many kinds, and lets those of its parsers through
        where = "" if path.exists() else " does not exist here and"
        raise ValueError(
            f"{place}{where} cannot be loaded as a data set: {shortened(one_line(error), 300)}."
        ) from error


def _one_split(source: str, loaded: Any, named: str | None, purpose: str | None) -> Any:
    """The split that is named, or the one for a purpose."""
    if not hasattr(loaded, "keys"):
        if named is not None:
            raise ValueError(f"{source} has no splits: leave out :{named}.")
        return loaded
    wanted = (named,) if named else _SPLITS.get(purpose, (purpose,))
    found = next((name for name in wanted if name in loaded), None)
    if found is None and named is None and purpose is None and len(loaded) == 1:
        (found,) = loaded
    if found is None:
        lacking = f"has no split {wanted[0]}" if wanted[0] else "has several splits"
        raise ValueError(
            f"{source} {lacking}: say which of {listed(list(loaded))} is meant, such as "
            f"{_place_and_split(source)[0]}:{next(iter(loaded))}."
        )
    return loaded[found]


def _columns(source: str, dataset: Any) -> tuple[str, str]:
    """The columns of videos and of labels, by their kind or else by their name."""
    kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
    videos = [name for name, kind in kinds.items() if kind == "Video"]
    videos += [name for name in _VIDEO_COLUMNS if name in kinds]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels += [name for name in _LABEL_COLUMNS if name in kinds]
    for what, found in (("videos", videos), ("labels", labels)):
        if not found:
            raise ValueError(
                f"{source} has no column of {what}; its columns are {listed(list(kinds))}. Rename "
                f"the right one to {'video' if what == 'videos' else 'label'}."
            )
    return videos[0], labels[0]


def _labels(
    dataset: Any, column: str
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, bool, bool]:
    """Names of classes, their numbers and whose each is, whether there are several, in order."""
    values = dataset.select_columns([column])[:][column]
    feature = dataset.features[column]
    multi = any(isinstance(value, Sequence) and not isinstance(value, str) for value in values)
    of_videos = [value if multi and value is not None else [value] for value in values]
    rows = np.repeat(np.arange(len(values)), [len(labels) for labels in of_videos])
    labels = [label for some in of_videos for label in some]
    if None in labels:
        raise ValueError(
            f"Row {rows[labels.index(None)]} has no label: test splits often have none."
        )
    known = getattr(getattr(feature, "feature", feature), "names", None)
    if known is not None:
        numbers = np.array(labels, np.int64)
        if len(numbers) and numbers.min() < 0:
            row = int(rows[numbers.argmin()])
            raise ValueError(f"Row {row} has no label: test splits often have none.")
        return tuple(known), numbers, rows, multi, True
    number: dict[str, int] = {}
    numbers = [number.setdefault(str(label), len(number)) for label in labels]
    return tuple(number), np.array(numbers, np.int64), rows, multi, False


def _undecoded(dataset: Any, column: str) -> Any:
    """A data set that gives videos as they are stored."""
    import datasets

    if type(dataset.features[column]).__name__ != "Video":
        return dataset
    return dataset.cast_column(column, datasets.Video(decode=False))


def _names(dataset: Any, column: str) -> list[str]:
    """What videos are called: their paths, or else their rows."""
    import pyarrow.compute
    import pyarrow.types

    names = []
    for table in dataset.with_format("arrow").iter(_ROWS):
        videos = table.column(column)
        if pyarrow.types.is_struct(videos.type):
            videos = pyarrow.compute.struct_field(videos, "path")
        names += videos.to_pylist()
    return [name or f"row {row}" for row, name in enumerate(names)]
