"""How fast clips are read: the loader of training, our reader alone, and bare decoders, in turn."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from lvt_ff.benchmarking.bare_decoders import BARE_DECODERS
from lvt_ff.data import TrainDataset, VideoList, collate, sample_indices
from lvt_ff.utils.errors import Failure, VideoReadError
from lvt_ff.utils.progress import progress_bar
from lvt_ff.video.reader import read_frames
from lvt_ff.video.sources import local_video

__all__ = ["Lane", "measure_loading", "readable_videos"]


class Lane(NamedTuple):
    """One way to read the same clips.

    Args:
        name: "decoder", "reader" or "loader".
        dataset: its clips.
        batches: keys of them, in turn.
        collate: makes a batch of them.
    """

    name: str
    dataset: Dataset
    batches: list[list]
    collate: Callable[[list], Any]


class _BareClips(Dataset):
    """Frames by bare decoders, which stay where they are."""

    def __init__(self, tasks: list[tuple[str, str, list[int]]]):
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> int:
        decoder, path, indices = self._tasks[index]
        return len(BARE_DECODERS[decoder](path, indices))


class _ReadClips(Dataset):
    """The same frames by our reader, which stay where they are."""

    def __init__(self, dataset: TrainDataset, indices: list[list[int]]):
        self._videos, self._indices = dataset.videos, indices
        self._options = dict(dataset.read_options, needed=dataset.transform.needed)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> int:
        source = self._videos.source(index)
        return len(read_frames(source, self._indices[index], **self._options).frames)


def readable_videos(
    videos: VideoList, number: int, num_workers: int, options: dict[str, Any]
) -> tuple[VideoList, list[tuple[int, str]]]:
    """So many videos, evenly from all of a list, with their frames and a bare decoder for each.

    Raises:
        Failure: none of them can be read.
    """
    places = np.unique(np.linspace(0, len(videos) - 1, min(number, len(videos))).round())
    videos = videos.take(places.astype(int))

    named = options.get("decoder", "auto")
    names = list(BARE_DECODERS) if named == "auto" else [named]

    def look(row: int) -> tuple[int, str] | None:
        for name in names:
            try:
                clip = read_frames(videos.source(row), [0], **options | dict(decoder=name))
            except VideoReadError:
                continue
            return clip.total, clip.decoder
        return None

    with ThreadPoolExecutor(num_workers) as threads:
        facts = list(threads.map(look, range(len(videos))))
    kept = [row for row, fact in enumerate(facts) if fact]
    if not kept:
        raise Failure(f"None of {len(videos)} videos can be read, such as {videos.paths[0]}.")
    return videos.take(np.array(kept)), [facts[row] for row in kept]


@contextmanager
def _plain_files(videos: VideoList) -> Iterator[list[str]]:
    """Files of all videos: of those in a store, copies that are gone afterwards."""
    if videos.store is None:
        yield list(videos.paths)
        return
    with tempfile.TemporaryDirectory(prefix="lvt_ff_") as folder:
        paths = []
        for row in range(len(videos)):
            paths.append(str(Path(folder, f"{row}.mp4")))
            with local_video(videos.source(row)) as path:
                shutil.copyfile(path, paths[-1])
        yield paths


def measure_loading(
    videos: VideoList,
    facts: list[tuple[int, str]],
    dataset: TrainDataset,
    *,
    batch_size: int,
    num_workers: int,
    repeats: int,
) -> dict[str, dict[str, Any]]:
    """Clips/s of each lane, over rounds in which all have their turn.

    Args:
        videos, facts: see `readable_videos`.
        dataset: of these videos.
        batch_size: of the loader.
        num_workers: processes of every lane.
        repeats: rounds, after one that does not count.

    Returns:
        For "decoder", "reader" and "loader", `clips_s` of each round, their median, and the median
        of the rounds' ratios to the decoder.
    """
    rng = np.random.default_rng(dataset.seed)
    indices = [
        sample_indices(total, rng=rng, **dataset.clip_options).tolist() for total, _ in facts
    ]
    with _plain_files(videos) as paths:
        tasks = [
            (decoder, path, chosen)
            for (_, decoder), path, chosen in zip(facts, paths, indices, strict=True)
        ]
        rows = range(len(videos))
        keys = [(0, row) for row in rows]  # of the first epoch
        batches = [keys[start:][:batch_size] for start in rows[::batch_size]]
        lanes = [
            Lane("decoder", _BareClips(tasks), [[row] for row in rows], len),
            Lane(
                "reader",
                _ReadClips(dataset, indices),
                [[row] for row in rows],
                len,
            ),
            Lane("loader", dataset, batches, collate),
        ]
        rounds = _take_turns(lanes, num_workers, repeats)
    found = {}
    for lane in lanes:
        ratios = [one[lane.name] / one["decoder"] for one in rounds]
        speeds = [one[lane.name] for one in rounds]
        found[lane.name] = dict(
            clips_s=statistics.median(speeds),
            clips_s_rounds=speeds,
            ratio=statistics.median(ratios),
            ratio_range=[min(ratios), max(ratios)],
        )
    return found


def _take_turns(lanes: list[Lane], num_workers: int, repeats: int) -> list[dict[str, float]]:
    loaders = {
        lane.name: DataLoader(
            lane.dataset,
            batch_sampler=lane.batches,
            collate_fn=lane.collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
        for lane in lanes
    }
    rounds = []
    with progress_bar((repeats + 1) * len(lanes), "turn", desc="measuring") as bar:
        for _ in range(repeats + 1):
            speeds = {}
            for lane in lanes:
                start = time.perf_counter()
                for _batch in loaders[lane.name]:
                    pass
                speeds[lane.name] = len(lane.dataset) / (time.perf_counter() - start)
                bar.update()
            rounds.append(speeds)
    return rounds[1:]
