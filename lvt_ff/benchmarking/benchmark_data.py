"""The command `lvt-ff benchmark-data`: how much of a decoder's speed is left in training."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from lvt_ff.benchmarking.loading import measure_loading, readable_videos
from lvt_ff.data import EvalTransform, TrainDataset, TrainTransform, load_video_list
from lvt_ff.data.formats import DataFormat
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import PositiveInt
from lvt_ff.utils.output import check_output_file
from lvt_ff.utils.short_text import counted
from lvt_ff.video.clip_buffer import MAX_PIXELS
from lvt_ff.video.decoders import Decoder

__all__ = ["benchmark_data"]

_MEAN = _STD = 0.5  # their values do not change the speed


@command(
    {
        "data": "what is read",
        "num_frames": "clips",
        "num_workers": "measurement",
        "output": "output",
    }
)
def benchmark_data(
    data: str,
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    class_file: Path | None = None,
    num_frames: PositiveInt = 16,
    img_size: PositiveInt = 224,
    sampling: Literal["uniform", "dense"] = "uniform",
    stride: PositiveInt = 4,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    num_workers: PositiveInt = 2,
    batch_size: PositiveInt = 8,
    num_videos: PositiveInt = 256,
    repeats: PositiveInt = 3,
    output: Path | None = None,
) -> dict:
    """Measure clips/s of training's loader against bare decoders, on the same videos in one run.

    Three ways to read the same clips take turns, with as many processes: a bare decoder, as in a
    script; our reader, with its checks and in processes of its own; and all of training's loader,
    with random crops, in batches. The bare one is torchcodec or decord where they read a file
    rightly, else PyAV, or the backend that --decoder names. The reader remembers what it found out
    about 64 videos in each process: with fewer it looks too fast.

    Args:
        data: Training data, in any form that --train_data takes.
        data_format: Format of DATA; auto recognises it.
        video_root: Folder that listed videos lie in, if not that of the list.
        class_file: File with the names of the classes in order.
        num_frames: Frames of a clip.
        img_size: Height and width of its frames in pixels.
        sampling: One frame of each of as many segments (uniform), or every --stride-th (dense).
        stride: Frames between two of a dense clip.
        decoder: Video backend; auto takes the first that is made for a file.
        max_pixels: Largest frame that is decoded, in pixels.
        num_workers: Processes that read videos, in all three ways.
        batch_size: Clips of a batch.
        num_videos: Videos that are read in each turn, evenly from all of DATA.
        repeats: Rounds in which each way has its turn, after one that does not count.
        output: JSON file for the figures.
    """
    with usage():
        if output is not None:
            check_output_file(output, "--output")
        videos = load_video_list(
            data,
            data_format=data_format,
            video_root=video_root,
            class_file=class_file,
            missing="skip",
        )
        if videos.spans is not None:
            raise ValueError(
                f"{data} lists parts of videos, which bare decoders cannot find by their seconds: "
                "measure the shards that prepare-data --short_side makes of them."
            )
    reading = dict(decoder=decoder, max_pixels=max_pixels)
    videos, facts = readable_videos(videos, num_videos, num_workers, reading)
    size = (img_size, img_size)
    transform = EvalTransform(size, size, _MEAN, _STD, "bicubic")
    dataset = TrainDataset(
        videos,
        TrainTransform(transform),
        num_frames=num_frames,
        sampling=sampling,
        stride=stride,
        seed=0,
        **reading,
    )
    how = dict(batch_size=batch_size, num_workers=num_workers, repeats=repeats)
    measured = measure_loading(videos, facts, dataset, **how)
    results = dict(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        data=data,
        num_videos=len(videos),
        decoders=sorted({name for _, name in facts}),
        settings=dict(
            num_frames=num_frames, img_size=img_size, sampling=sampling, stride=stride, **how
        ),
        **measured,
        shares=_shares(measured),
        environment=environment(cpu=True),
    )
    _report(results)
    if output is not None:
        write_text(output, json.dumps(results, indent=2) + "\n")
        print(f"wrote {output}")
    return results


def _shares(measured: dict[str, dict]) -> dict[str, float]:
    """What the loader's time is spent on."""
    reading = min(measured["loader"]["clips_s"] / measured["reader"]["clips_s"], 1.0)
    return dict(reading=reading, augmentation_and_batches=1 - reading)


def _report(results: dict) -> None:
    settings = results["settings"]
    print(
        f"{counted(results['num_videos'], 'video')}, clips of {settings['num_frames']} frames, "
        f"{counted(settings['num_workers'], 'process', 'processes')}, "
        f"{counted(settings['repeats'], 'round')}"
    )
    named = {
        "decoder": f"bare {' and '.join(results['decoders'])}",
        "reader": "our reader",
        "loader": "training's loader",
    }
    width = max(map(len, named.values()))
    print(f"{'':<{width}}{'clips/s':>10}{'× bare':>9}{'min–max':>12}")
    for name, title in named.items():
        row = results[name]
        low, high = row["ratio_range"]
        spread = f"{low:.2f}–{high:.2f}"
        print(f"{title:<{width}}{row['clips_s']:>10.4g}{row['ratio']:>9.2f}{spread:>12}")
    shares = [f"{what.replace('_', ' ')} {100 * s:.0f} %" for what, s in results["shares"].items()]
    print(f"of the loader's time: {', '.join(shares)}")
