"""What the members of a tar shard say: which belong together, and which label a video has."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lvt_ff.data.video_files import VIDEO_SUFFIXES
from lvt_ff.utils.short_text import shortened

__all__ = [
    "LABEL_ENDINGS",
    "Sample",
    "described",
    "is_video_ending",
    "key_and_ending",
    "read_label",
]

LABEL_ENDINGS = ("json", "cls", "txt")  # in this order where a video has several
_NUMBER_KEYS = ("label", "cls", "class_id", "target")
_NAME_KEYS = ("class_name", "class", "category", "action")


@dataclass
class Sample:
    """A video in a tar file, and what is said of it.

    Args:
        member: the video's.
        offset, size: its bytes.
        labels: numbers or names of its classes.
        class_names: of those, where numbers have names too.
        multi: it may have several, or none.
        spans: from when to when each label holds, in seconds, if not all the time.
        name: what it was called before.
        frames, seconds: of it; -1 and NaN where nothing says.
    """

    member: str
    offset: int
    size: int
    labels: tuple[int | str, ...] = ()
    class_names: tuple[str, ...] = ()
    multi: bool = False
    spans: tuple[tuple[float, float], ...] | None = None
    name: str | None = None
    frames: int = -1
    seconds: float = float("nan")


def key_and_ending(member: str) -> tuple[str, str]:
    """As WebDataset splits names: all up to the first dot of the last part, and the rest."""
    folder, base = os.path.split(member)
    stem, _, ending = base.partition(".")
    return os.path.join(folder, stem), ending.lower()


def is_video_ending(ending: str) -> bool:
    """Whether a member of this ending is a video."""
    return "." + ending.rpartition(".")[2] in VIDEO_SUFFIXES


def described(
    labels: Sequence[int],
    class_names: Sequence[str],
    multi: bool,
    spans: Sequence[Sequence[float]] | None = None,
    **more: Any,
) -> bytes:
    """The content of a video's JSON member: numbers and names of its classes, and what else."""
    names = [class_names[label] for label in labels]
    if multi:
        said = dict(labels=list(labels), class_names=names)
    else:
        said = dict(label=labels[0], class_name=names[0])
    if spans is not None:
        said["label_spans"] = spans
    return json.dumps(said | more).encode()


def read_label(sample: Sample, ending: str, content: bytes) -> None:
    """Put what a member beside a video says into its sample.

    Raises:
        ValueError: it says nothing that is understood.
    """
    text = content.decode().strip()
    if ending != "json":
        sample.labels = (int(text) if ending == "cls" else text,)
        return
    said = json.loads(text)
    said = said if isinstance(said, dict) else dict(label=said)
    sample.name = said.get("name", sample.name)
    sample.frames = int(said.get("frames", -1))
    sample.seconds = float(said.get("seconds", "nan"))
    if isinstance(said.get("labels"), list):
        sample.labels, sample.multi = tuple(said["labels"]), True
        sample.class_names = tuple(said.get("class_names", ()))
        spans = said.get("label_spans")
        if spans is not None:
            sample.spans = tuple((float(start), float(end)) for start, end in spans)
    else:
        _read_one(sample, said)
    if not all(isinstance(label, int | str) for label in sample.labels):
        raise ValueError(f"labels {shortened(str(list(sample.labels)), 80)}")


def _read_one(sample: Sample, said: dict) -> None:
    number = next((said[key] for key in _NUMBER_KEYS if key in said), None)
    name = next((said[key] for key in _NAME_KEYS if isinstance(said.get(key), str)), None)
    if number is None and name is None:
        raise ValueError(f"no label among {shortened(', '.join(said), 80)}")
    sample.labels = (name if number is None else number,)
    sample.class_names = (name,) if name is not None and isinstance(number, int) else ()
