"""An index of tar shards that have none, from the headers of their members."""

import logging
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lvt_ff.data.class_file import MOST_CLASSES
from lvt_ff.data.shards.index import ShardIndex
from lvt_ff.data.shards.members import (
    LABEL_ENDINGS,
    Sample,
    is_video_ending,
    key_and_ending,
    read_label,
)
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_files import is_foreign
from lvt_ff.utils.progress import progress_bar
from lvt_ff.utils.short_text import counted, shortened

__all__ = ["read_samples", "scan_shards"]

_logger = logging.getLogger(__name__)


def scan_shards(files: Sequence[Path]) -> ShardIndex:
    """Find the videos of tar files, and their labels in the members beside them.

    Args:
        files: of one folder.

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
    return _index(found)


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
                if is_foreign(os.path.basename(member.name)):
                    continue
                key, ending = key_and_ending(member.name)
                if not member.isfile() or member.offset_data + member.size > size:
                    continue
                if ending in LABEL_ENDINGS:
                    labels.setdefault(key, {})[ending] = archive.extractfile(member).read()
                elif is_video_ending(ending):
                    videos.setdefault(key, Sample(member.name, member.offset_data, member.size))
            end = archive.offset
        if _has_content(file, end):
            _logger.warning(
                "%s has a damaged header at byte %d, or another tar file behind its end: what "
                "follows is not used.",
                file,
                end,
            )
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


def _has_content(file: Path, start: int) -> bool:
    """Whether there is anything but zeros in a file from a place on."""
    with open(file, "rb") as content:
        content.seek(start)
        return any(chunk.strip(b"\0") for chunk in iter(lambda: content.read(2**20), b""))


def _label(file: Path, key: str, sample: Sample, beside: dict[str, bytes]) -> None:
    problem = "nothing beside it"
    for ending in LABEL_ENDINGS:
        if ending not in beside:
            continue
        try:
            read_label(sample, ending, beside[ending])
            return
        except (TypeError, ValueError) as error:
            problem = f"{ending}: {error}"
    raise ValueError(
        f"{file} has no label for {shortened(sample.member)} ({problem}): put a class number into "
        f"{shortened(key)}.cls, a name into .txt, or one of label, labels, class_name into .json."
    )


def _index(found: Sequence[tuple[str, int, list[Sample]]]) -> ShardIndex:
    """The index of shards: name, bytes and videos of each.

    Raises:
        ValueError: labels of several kinds, or a number below 0.
    """
    samples = [sample for _, _, samples in found for sample in samples]
    labels, rows, names, official = _labels(samples)
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
        rows=rows,
        label_spans=_label_spans(samples),
        multi=any(sample.multi for sample in samples),
        class_names=names,
        official=official,
        frames=np.array([sample.frames for sample in samples], np.int32),
        seconds=np.array([sample.seconds for sample in samples], np.float64),
    )


def _labels(
    samples: Sequence[Sample],
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], bool]:
    """Class numbers, whose each is, the names of the classes, and whether numbers have names."""
    kinds = {type(label) for sample in samples for label in sample.labels}
    if len(kinds) > 1:
        raise ValueError(
            "The labels of the shards are numbers and names: use one of the two throughout."
        )
    if kinds == {str}:
        names = sorted({label for sample in samples for label in sample.labels})
    else:
        names = _names_of_numbers(samples)
    number = {name: index for index, name in enumerate(names)} if kinds == {str} else {}
    labels, rows = [], []
    for row, sample in enumerate(samples):
        for label in sample.labels:
            labels.append(number.get(label, label))
            rows.append(row)
    official = not number and any(sample.class_names for sample in samples)
    return np.array(labels, np.int64), np.array(rows, np.int64), tuple(names), official


def _label_spans(samples: Sequence[Sample]) -> np.ndarray | None:
    if any(len(sample.spans or ()) != len(sample.labels) for sample in samples):
        return None
    return np.array([span for sample in samples for span in sample.spans or ()]).reshape(-1, 2)


def _names_of_numbers(samples: Sequence[Sample]) -> list[str]:
    """Names of classes by number, as the members have them, else the numbers."""
    numbers = {label for sample in samples for label in sample.labels}
    if min(numbers, default=0) < 0:
        raise ValueError(f"The shards have the label {min(numbers)}: class numbers begin at 0.")
    if max(numbers, default=0) >= MOST_CLASSES:
        raise ValueError(
            f"The shards have the class number {max(numbers)}, and at most {MOST_CLASSES - 1:,} "
            "is allowed: put names into .txt, or class_name into .json, without numbers."
        )
    names = [str(number) for number in range(max(numbers, default=-1) + 1)]
    for sample in samples:
        if len(sample.class_names) == len(sample.labels):
            for label, name in zip(sample.labels, sample.class_names, strict=True):
                names[label] = name
    return names
