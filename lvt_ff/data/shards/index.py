"""The index of a folder of shards: a Parquet file with a row for each video."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lvt_ff.data.texts import Texts
from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.environment import install_hint

__all__ = ["INDEX_NAME", "ShardIndex", "import_pyarrow", "read_index", "write_index"]

INDEX_NAME = "index.parquet"
_KEY = b"lvt_ff"  # of what the file says of all rows, as JSON
_SPAN_COLUMNS = ("starts", "ends")  # of the labels of a video
_ROWS = 50_000  # that are read at a time: few, or their memory adds up


@dataclass(frozen=True)
class ShardIndex:
    """Where n videos lie, and what they are.

    Args:
        shards: names of the tar files.
        shard_bytes: size of each.
        shard: number of the tar file of each video, (n,) int32.
        offset, size: bytes of each video in its tar file, (n,) int64.
        members: what each is called in its tar file.
        names: what each is called in messages and tables.
        labels: class numbers (m,), of all videos.
        rows: places of videos (m,), ascending: whose label each is.
        label_spans: from when to when a label holds, in seconds (m, 2); None for all the time.
        multi: a video may have several labels, or none.
        class_names: in order.
        official: they are all classes of the data set in its own order, not those that occur.
        frames: of each video, (n,) int32; -1 where it is not known.
        seconds: of each video, (n,) float64; NaN where it is not known.
        is_prepared: written with the shards, not found by looking through them.
    """

    shards: tuple[str, ...]
    shard_bytes: tuple[int, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    members: Texts
    names: Texts
    labels: np.ndarray
    rows: np.ndarray
    label_spans: np.ndarray | None
    multi: bool
    class_names: tuple[str, ...]
    official: bool
    frames: np.ndarray
    seconds: np.ndarray
    is_prepared: bool = field(default=False)

    def __len__(self) -> int:
        return len(self.shard)


def import_pyarrow() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ValueError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"The index of tar shards is a Parquet file, for which pyarrow is missing ({error}): "
            f"{install_hint('data')}."
        ) from error
    return pyarrow, pyarrow.parquet


def write_index(path: Path, index: ShardIndex) -> None:
    """Write an index, whole or not at all."""
    pyarrow, parquet = import_pyarrow()
    columns = dict(
        shard=pyarrow.DictionaryArray.from_arrays(index.shard, list(index.shards)),
        offset=index.offset,
        size=index.size,
        **_label_columns(pyarrow, index),
        name=pyarrow.array(_utf8(index.names), pyarrow.string()),
        member=pyarrow.array(_utf8(index.members), pyarrow.string()),
        frames=index.frames,
        seconds=index.seconds,
    )
    about = dict(
        version=1,
        class_names=index.class_names,
        official=index.official,
        shards=dict(zip(index.shards, index.shard_bytes, strict=True)),
        is_prepared=index.is_prepared,
        multi=index.multi,
    )
    table = pyarrow.table(columns).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    with atomic_file(path) as partial:
        parquet.write_table(table, partial, row_group_size=_ROWS)


def read_index(path: Path) -> ShardIndex:
    """Read an index.

    Raises:
        ValueError: another kind of file, or pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow()
    try:
        file = parquet.ParquetFile(path, memory_map=True)
        about = json.loads(file.schema_arrow.metadata[_KEY])
        shards = tuple(about["shards"])
        labels, rows = _labels(file, about["multi"])
        spans = _label_spans(file) if _SPAN_COLUMNS[0] in file.schema_arrow.names else None
        index = ShardIndex(
            shards=shards,
            shard_bytes=tuple(about["shards"].values()),
            shard=_shard_numbers(file, shards),
            offset=_numbers(file, "offset"),
            size=_numbers(file, "size"),
            members=_texts(pyarrow, file, "member"),
            names=_texts(pyarrow, file, "name"),
            labels=labels,
            rows=rows,
            label_spans=spans,
            multi=about["multi"],
            class_names=tuple(about["class_names"]),
            official=about["official"],
            frames=_numbers(file, "frames"),
            seconds=_numbers(file, "seconds"),
            is_prepared=about["is_prepared"],
        )
    except (KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{path} is not an index of shards ({error}): delete it to have it made again from "
            "the tar files."
        ) from error
    pyarrow.default_memory_pool().release_unused()
    return index


def _label_columns(pyarrow: Any, index: ShardIndex) -> dict[str, Any]:
    if not index.multi:
        return dict(label=index.labels)
    ends = np.searchsorted(index.rows, np.arange(len(index) + 1)).astype(np.int32)
    columns = dict(labels=index.labels.astype(np.int32))
    if index.label_spans is not None:
        columns.update(zip(_SPAN_COLUMNS, np.ascontiguousarray(index.label_spans.T), strict=True))
    return {
        name: pyarrow.ListArray.from_arrays(pyarrow.array(ends), pyarrow.array(values))
        for name, values in columns.items()
    }


def _labels(file: Any, multi: bool) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers, and whose each is."""
    if not multi:
        return _numbers(file, "label"), np.arange(file.metadata.num_rows)
    counts = [column.value_lengths().to_numpy() for column in _columns(file, "labels")]
    labels = _members(file, "labels").astype(np.int64)
    return labels, np.repeat(np.arange(file.metadata.num_rows), _joined(counts))


def _label_spans(file: Any) -> np.ndarray:
    return np.stack([_members(file, name) for name in _SPAN_COLUMNS], axis=1)


def _members(file: Any, name: str) -> np.ndarray:
    """What the lists of a column hold, one after the other."""
    return _joined([column.flatten().to_numpy() for column in _columns(file, name)])


def _columns(file: Any, name: str) -> Iterable[Any]:
    return (
        batch.column(0) for batch in file.iter_batches(_ROWS, columns=[name], use_threads=False)
    )


def _numbers(file: Any, name: str) -> np.ndarray:
    return _joined([column.to_numpy() for column in _columns(file, name)])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _shard_numbers(file: Any, shards: tuple[str, ...]) -> np.ndarray:
    number = {name: index for index, name in enumerate(shards)}
    parts = []
    for column in _columns(file, "shard"):
        column = column if hasattr(column, "dictionary") else column.dictionary_encode()
        here = np.array([number[name] for name in column.dictionary.to_pylist()], np.int32)
        parts.append(here[column.indices.to_numpy()])
    return _joined(parts)


def _texts(pyarrow: Any, file: Any, name: str) -> Texts:
    content, lengths = [], [np.zeros(1, np.int64)]
    for column in _columns(file, name):
        ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column) + 1]
        data = column.buffers()[2]
        if data is not None:
            content.append(np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].copy())
        lengths.append(np.diff(ends).astype(np.int64))
    joined = np.concatenate(content or [np.zeros(0, np.uint8)])
    return Texts.of_arrays(joined, np.cumsum(np.concatenate(lengths)))


def _utf8(texts: Texts) -> list[str]:
    """Names of files need not be UTF-8, and what stands in a Parquet file must be."""
    return [text.encode(errors="backslashreplace").decode() for text in texts]
