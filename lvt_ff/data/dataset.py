"""Lists of labelled videos, and the dataset that turns them into clips.

What is drawn for a clip is a function of (seed, epoch, place in the list) alone, so that a resumed
run, any number of workers and any number of processes see the same clips.
"""

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lvt_ff.data.reader import VideoReadError, read_clip
from lvt_ff.data.sampling import sample_indices
from lvt_ff.data.transforms import EvalTransform, TrainTransform

__all__ = [
    "VIDEO_SUFFIXES",
    "EvalDataset",
    "TrainDataset",
    "VideoList",
    "collate",
    "load_video_list",
    "read_views",
]

VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
_REPLACEMENTS = 10  # clips tried in place of one that cannot be read


@dataclass(frozen=True)
class VideoList:
    """Paths and class numbers of labelled videos, and the class names."""

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


class TrainDataset(Dataset):
    """Random clips; a file that cannot be read is replaced by another, and reported.

    Args:
        videos: what to draw from.
        transform: frames and generator to clip.
        num_frames, sampling, stride: see `sample_indices`.
        seed: of all draws.
        decoder, timeout_s: see `read_clip`.

    Items are asked for as (epoch, index).
    """

    def __init__(
        self,
        videos: VideoList,
        transform: TrainTransform,
        *,
        num_frames: int,
        sampling: str,
        stride: int,
        seed: int,
        decoder: str,
        timeout_s: float = 60.0,
    ):
        self.videos = videos
        self.transform = transform
        self.clip_options = dict(num_frames=num_frames, sampling=sampling, stride=stride)
        self.seed = seed
        self.read_options = dict(decoder=decoder, timeout_s=timeout_s)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        failures = []
        rng = np.random.default_rng((self.seed, epoch, index))
        for _ in range(_REPLACEMENTS):
            try:
                frames = read_clip(
                    self.videos.paths[index],
                    lambda total: sample_indices(total, rng=rng, **self.clip_options),
                    **self.read_options,
                )
            except VideoReadError as error:
                failures.append((str(self.videos.paths[index]), str(error)))
                index = int(rng.integers(len(self)))
                continue
            label = int(self.videos.labels[index])
            return dict(clip=self.transform(frames, rng), label=label, failures=failures)
        raise VideoReadError(
            f"{_REPLACEMENTS} videos in a row could not be read; the last: {failures[-1][1]}"
        )


class EvalDataset(Dataset):
    """All test views of each video; a file that cannot be read gives no views and its reason.

    Args:
        videos: what to evaluate.
        transform: frames to crops.
        num_clips, num_crops: views are every clip times every crop.
        num_frames, sampling, stride: see `sample_indices`.
        decoder, timeout_s: see `read_clip`.
    """

    def __init__(
        self,
        videos: VideoList,
        transform: EvalTransform,
        *,
        num_clips: int,
        num_crops: int,
        num_frames: int,
        sampling: str,
        stride: int,
        decoder: str,
        timeout_s: float = 60.0,
    ):
        self.videos = videos
        self.transform = transform
        self.num_clips, self.num_crops = num_clips, num_crops
        self.clip_options = dict(
            num_frames=num_frames, sampling=sampling, stride=stride, num_clips=num_clips
        )
        self.read_options = dict(decoder=decoder, timeout_s=timeout_s)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        item = dict(index=index, label=int(self.videos.labels[index]))
        try:
            views = read_views(
                self.videos.paths[index],
                self.transform,
                self.clip_options,
                self.num_crops,
                **self.read_options,
            )
        except VideoReadError as error:
            return dict(item, clip=None, failure=(str(self.videos.paths[index]), str(error)))
        return dict(item, clip=views, failure=None)


def read_views(
    path: str,
    transform: EvalTransform | Callable,
    clip_options: dict,
    num_crops: int,
    **read_options,
) -> Tensor:
    """All test views (V, T, C, H, W) of a video, by clip, then crop; it is read once."""
    num_frames, num_clips = clip_options["num_frames"], clip_options["num_clips"]
    frames = read_clip(
        path,
        lambda total: np.concatenate(
            [sample_indices(total, clip=clip, **clip_options) for clip in range(num_clips)]
        ),
        **read_options,
    )
    clips = (frames[i * num_frames :][:num_frames] for i in range(num_clips))
    return torch.stack([view for clip in clips for view in transform.crops(clip, num_crops)])


def collate(items: list[dict]) -> dict:
    """Stack clips and labels, keep the rest as lists; unreadable items have no clip."""
    readable = [item for item in items if item["clip"] is not None]
    batch = {key: [item[key] for item in items] for key in items[0] if key != "clip"}
    batch["clip"] = torch.stack([item["clip"] for item in readable]) if readable else None
    return batch
