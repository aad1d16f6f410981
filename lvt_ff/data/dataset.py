"""Lists of labelled videos, and the dataset that turns them into clips.

What is drawn for a clip is a function of (seed, epoch, place in the list, repeat) alone, so that a
resumed run, any number of workers and any number of processes see the same clips.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lvt_ff.data.augment_labels import MirroredLabels
from lvt_ff.data.sampling import sample_indices
from lvt_ff.data.transforms import EvalTransform, TrainTransform
from lvt_ff.data.video_list import VideoList
from lvt_ff.utils.errors import VideoReadError
from lvt_ff.video.clip_buffer import MAX_PIXELS
from lvt_ff.video.reader import OnDamage, ReadClip, read_frames, warn_of_damage
from lvt_ff.video.sources import VideoSource

__all__ = [
    "EvalDataset",
    "Key",
    "TrainDataset",
    "collate",
    "read_views",
]

# Clips tried in place of one that cannot be read: where half of all cannot, which a run may allow,
# ten in a row would be found in every epoch.
_REPLACEMENTS = 30

Key = tuple[int, int] | tuple[int, int, int]  # epoch, place in the list, and which of its clips


class _Read(NamedTuple):
    """A clip as it is in its file; the place of its video, what draws for it, and failures."""

    index: int
    clip: ReadClip
    rng: np.random.Generator
    failures: list[tuple[str, str]]


class TrainDataset(Dataset):
    """Random clips; a file that cannot be read is replaced by another, damage is reported.

    The label of an item is a class number or a number, or where a video may have several labels a
    list of 0 or 1 for each class, in which labels that hold during a part of the video only count
    for the clips that show some of it.

    Args:
        videos: what to draw from.
        transform: frames and generator to clip; with `hflip_swap`, labels follow its flips. Frames
            that are much larger than it needs are made smaller while PyAV decodes them.
        num_frames, sampling, stride: see `sample_indices`.
        seed: of all draws.
        decoder, timeout_s, max_pixels, on_damage: see `read_clip`.

    Items are asked for as (epoch, index), or (epoch, index, repeat) where a video comes several
    times in an epoch; repeat 0 is the clip of (epoch, index). Clips are (T, C, H, W) uint8, with
    channels last in memory.
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
        max_pixels: int = MAX_PIXELS,
        on_damage: OnDamage = "skip",
    ):
        self.videos = videos
        self.transform = transform
        self.clip_options = dict(num_frames=num_frames, sampling=sampling, stride=stride)
        self.seed = seed
        self.read_options = dict(
            decoder=decoder, timeout_s=timeout_s, max_pixels=max_pixels, on_damage=on_damage
        )
        swaps = transform.augmentation.hflip_swap
        self._mirrored = MirroredLabels(videos.class_names) if swaps else None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: Key) -> dict:
        return self._item(self._read(key))

    def __getitems__(self, keys: Sequence[Key]) -> list[dict]:
        """Items of a batch: while a clip is augmented here, a decoder process reads the next."""
        if type(self).__getitem__ is not TrainDataset.__getitem__:  # a subclass has its own items
            return [self[key] for key in keys]
        items = []
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(self._read, keys[0])
            for key in keys[1:]:
                read, reading = reading.result(), reader.submit(self._read, key)
                items.append(self._item(read))
            items.append(self._item(reading.result()))
        return items

    def _read(self, key: Key) -> _Read:
        index = key[1]
        failures = []
        rng = np.random.default_rng((self.seed, *key))  # where a 0 at the end is as good as none
        for _ in range(_REPLACEMENTS):
            before = rng.bit_generator.state
            choose = partial(self._choose, rng, before)
            try:
                clip = read_frames(
                    self.videos.source(index),
                    choose,
                    span=self.videos.span(index),
                    needed=self.transform.needed,
                    **self.read_options,
                )
            except VideoReadError as error:
                failures.append((self.videos.paths[index], str(error)))
                rng.bit_generator.state = before  # whether frames were chosen or not
                index = int(rng.integers(len(self)))
                continue
            return _Read(index, clip, rng, failures)
        raise VideoReadError(
            f"{_REPLACEMENTS} videos in a row could not be read, perhaps as the place where they "
            f"lie cannot be reached any more; the last: {failures[-1][1]}"
        )

    def _item(self, read: _Read) -> dict:
        index, clip, rng, failures = read
        pixels, label = self._augmented(clip.frames, self._label(index, clip), rng)
        return dict(
            clip=pixels,
            label=label.tolist(),
            path=self.videos.paths[index],
            failures=failures,
            damage=_damage(self.videos.paths[index], clip.damage),
        )

    def _label(self, index: int, clip: ReadClip) -> np.ndarray:
        labels, spans = self.videos.labels[index], self.videos.label_spans
        if spans is not None and clip.seconds is not None:
            shown = np.zeros_like(labels)
            shown[spans.within(index, *clip.seconds)] = 1
            return shown
        return labels

    def _augmented(
        self, frames: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        if self._mirrored is None:
            return self.transform(frames, rng)[0], label
        clip, flipped = self.transform(frames, rng, self._mirrored.may_flip(label))
        return clip, self._mirrored(label) if flipped else label

    def _choose(self, rng: np.random.Generator, before: dict, total: int) -> np.ndarray:
        """Frame numbers; leaves `rng` as one call does, however often it is called."""
        rng.bit_generator.state = before
        return sample_indices(total, rng=rng, **self.clip_options)


class EvalDataset(Dataset):
    """All test views of each video; a file that cannot be read gives no views and its reason.

    Args:
        videos: what to evaluate.
        transform: frames to crops.
        num_clips, num_crops: views are every clip times every crop.
        num_frames, sampling, stride: see `sample_indices`.
        decoder, timeout_s, max_pixels, on_damage: see `read_clip`.
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
        max_pixels: int = MAX_PIXELS,
        on_damage: OnDamage = "skip",
    ):
        self.videos = videos
        self.transform = transform
        self.num_clips, self.num_crops = num_clips, num_crops
        self.clip_options = dict(
            num_frames=num_frames, sampling=sampling, stride=stride, num_clips=num_clips
        )
        self.read_options = dict(
            decoder=decoder, timeout_s=timeout_s, max_pixels=max_pixels, on_damage=on_damage
        )

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        path = self.videos.paths[index]
        item = dict(index=index, label=self.videos.labels[index].tolist())
        try:
            views, clip = _views_and_clip(
                self.videos.source(index),
                self.transform,
                self.clip_options,
                self.num_crops,
                span=self.videos.span(index),
                **self.read_options,
            )
        except VideoReadError as error:
            return dict(item, clip=None, failure=(path, str(error)), damage=None, decoder=None)
        damage = _damage(path, clip.damage)
        return dict(item, clip=views, failure=None, damage=damage, decoder=clip.decoder)


def read_views(
    video: VideoSource,
    transform: EvalTransform | Callable,
    clip_options: dict,
    num_crops: int,
    **read_options,
) -> Tensor:
    """All test views (V, T, C, H, W) of a video, by clip, then crop; it is read once."""
    views, clip = _views_and_clip(video, transform, clip_options, num_crops, **read_options)
    if clip.damage:
        warn_of_damage(video, clip.damage, stacklevel=3)
    return views


def _damage(path: str, damage: str) -> tuple[str, str] | None:
    return (path, damage) if damage else None


def _views_and_clip(
    video: VideoSource,
    transform: EvalTransform | Callable,
    clip_options: dict,
    num_crops: int,
    **read_options,
) -> tuple[Tensor, ReadClip]:
    num_frames, num_clips = clip_options["num_frames"], clip_options["num_clips"]
    clip = read_frames(
        video,
        lambda total: np.concatenate(
            [sample_indices(total, clip=clip, **clip_options) for clip in range(num_clips)]
        ),
        **read_options,
    )
    clips = (clip.frames[i * num_frames :][:num_frames] for i in range(num_clips))
    views = [view for frames in clips for view in transform.crops(frames, num_crops)]
    return torch.stack(views), clip


def collate(items: list[dict]) -> dict:
    """Stack clips and labels, keep the rest as lists; unreadable items have no clip."""
    readable = [item for item in items if item["clip"] is not None]
    batch = {key: [item[key] for item in items] for key in items[0] if key != "clip"}
    batch["clip"] = _stacked([item["clip"] for item in readable]) if readable else None
    return batch


def _stacked(clips: list[Tensor]) -> Tensor:
    """Clips (…, C, H, W) as one tensor, in the order of memory that they have: another takes ten
    times as long. In a worker it is made where the main process can see it."""
    by_pixel = [clip.movedim(-3, -1) for clip in clips]
    if all(clip.is_contiguous() for clip in by_pixel):
        return default_collate(by_pixel).movedim(-1, -3)
    return default_collate(clips)
