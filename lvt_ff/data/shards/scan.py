"""An index of tar shards that have none, from the headers of their members."""

import logging
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lvt_ff.data.shards.index import ShardIndex
from lvt_ff.data.shards.members import (
    LABEL_ENDINGS,
    Sample,
    is_video_ending,
    key_and_ending,
    read_label,
)
from lvt_ff.data.texts import Texts
from lvt_ff.utils.progress import progress_bar
from lvt_ff.utils.short_text import counted, shortened

__all__ = ["index_of_samples", "read_samples", "scan_shards"]

_logger = logging.getLogger(__name__)


def scan_shards(
    files: Sequence[Path], class_names: tuple[str, ...] | None = None, is_prepared: bool = False
) -> ShardIndex:
    """Find the videos of tar files, and their labels in the members beside them.

    Args:
        files: of one folder.
        class_names: of the numbers that are labels; None takes those that the members say, or else
            the numbers themselves.
        is_prepared: see `ShardIndex`.

    Raises:
        ValueError: a tar file that is compressed or none, a video without a label, or no video.
    """
    found = []
    with progress_bar(len(files), "shard", desc="looking through the shards") as bar:
        for file in files:
            found.append((file.name, file.stat().st_size, read_samples(file)))
            bar.update()
    if not any(samples for _, _, samples in found):
        raise ValueError(
            f"No video found in {counted(len(files), 'tar file')}, such as {files[0]}: members "
            "must be called KEY.mp4 (or another ending of a video), with the label in KEY.json, "
            "KEY.cls or KEY.txt beside it."
        )
    return index_of_samples(found, class_names, is_prepared)


def read_samples(file: Path) -> list[Sample]:
    """The videos of a tar file, in its order.

    Raises:
        ValueError: it is compressed or no tar file, or a video has no label.
    """
    videos: dict[str, Sample] = {}
    labels: dict[str, dict[str, bytes]] = {}
    size = file.stat().st_size
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                archive.members.clear()  # it would keep them all
                key, ending = key_and_ending(member.name)
                if not member.isfile() or member.offset_data + member.size > size:
                    continue
                if ending in LABEL_ENDINGS:
                    labels.setdefault(key, {})[ending] = archive.extractfile(member).read()
                elif is_video_ending(ending):
                    videos.setdefault(key, Sample(member.name, member.offset_data, member.size))
    except tarfile.ReadError as error:
        if not videos:
            raise ValueError(
                f"{file} is no tar file, or a compressed one ({error}): videos are read at their "
                "places in it, so that it must not be compressed."
            ) from error
        _logger.warning("%s is damaged (%s): what lies before is used.", file, error)
    for key, sample in videos.items():
        _label(file, key, sample, labels.get(key, {}))
    return list(videos.values())


def _label(file: Path, key: str, sample: Sample, beside: dict[str, bytes]) -> None:
    problem = "nothing beside it"
    for ending in LABEL_ENDINGS:
        if ending not in beside:
            continue
        try:
            read_label(sample, ending, beside[ending])
            return
        except (ValueError, UnicodeDecodeError) as error:
            problem = f"{ending}: {error}"
    raise ValueError(
        f"{file} has no label for {shortened(sample.member)} ({problem}): put a class number into "
        f"{shortened(key)}.cls, a name into .txt, or one of label, labels, class_name into .json."
    )


def index_of_samples(
    found: Sequence[tuple[str, int, list[Sample]]],
    class_names: tuple[str, ...] | None,
    is_prepared: bool,
) -> ShardIndex:
    """The index of videos by shard: name, bytes and samples of each.

    Raises:
        ValueError: labels of several kinds, or class numbers without a name.
    """
    samples = [sample for _, _, samples in found for sample in samples]
    labels, names = _labels(samples, class_names)
    places = [
        f"{shard}/{sample.member}" if sample.name is None else sample.name
        for shard, _, samples in found
        for sample in samples
    ]
    return ShardIndex(
        shards=tuple(shard for shard, _, _ in found),
        shard_bytes=tuple(size for _, size, _ in found),
        shard=np.repeat(np.arange(len(found)), [len(s) for _, _, s in found]).astype(np.int32),
        offset=np.array([sample.offset for sample in samples], np.int64),
        size=np.array([sample.size for sample in samples], np.int64),
        members=Texts(sample.member for sample in samples),
        names=Texts(places),
        labels=labels,
        class_names=names,
        frames=np.array([sample.frames for sample in samples], np.int32),
        seconds=np.array([sample.seconds for sample in samples], np.float64),
        is_prepared=is_prepared,
    )


def _labels(
    samples: Sequence[Sample], class_names: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    kinds = {type(label) for sample in samples for label in sample.labels}
    if len(kinds) > 1:
        raise ValueError(
            f"The labels of the shards are of several kinds ({', '.join(_names_of(kinds))}): use "
            "numbers or names throughout."
        )
    if kinds == {float}:
        return np.array([sample.labels[0] for sample in samples]), class_names or ("value",)
    names = class_names or _class_names(samples, kinds)
    number = {name: index for index, name in enumerate(names)}
    rows = [
        [number.get(label, -1) if isinstance(label, str) else label for label in sample.labels]
        for sample in samples
    ]
    for sample, row in zip(samples, rows, strict=True):
        if not all(0 <= label < len(names) for label in row):
            raise ValueError(
                f"{shortened(sample.member)} has the label {shortened(str(sample.labels), 80)}, "
                f"which is none of the {counted(len(names), 'class', 'classes')}."
            )
    if not any(sample.is_multi_label for sample in samples):
        return np.array([row[0] for row in rows], np.int64), names
    labels = np.zeros((len(samples), len(names)), np.int64)
    for index, row in enumerate(rows):
        labels[index, row] = 1
    return labels, names


def _class_names(samples: Sequence[Sample], kinds: set[type]) -> tuple[str, ...]:
    """As the members have them: by number, else sorted."""
    if kinds == {str}:
        return tuple(sorted({label for sample in samples for label in sample.labels}))
    numbers = {label for sample in samples for label in sample.labels}
    names = {number: str(number) for number in range(max(numbers, default=-1) + 1)}
    for sample in samples:
        if len(sample.class_names) == len(sample.labels):
            names.update(zip(sample.labels, sample.class_names, strict=True))
    return tuple(names[number] for number in sorted(names))


def _names_of(kinds: set[type]) -> list[str]:
    words = {int: "numbers", float: "numbers with a point", str: "names"}
    return sorted(words[kind] for kind in kinds)
