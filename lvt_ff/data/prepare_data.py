"""The command `lvt-ff prepare-data`: a data set in any format to tar shards with an index."""

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lvt_ff.data.shards.convert import Converter
from lvt_ff.data.shards.index import INDEX_NAME, ShardIndex, import_pyarrow
from lvt_ff.data.shards.open import RECORD, UNFINISHED
from lvt_ff.data.shards.prepare import Left, ShardMaker
from lvt_ff.data.video_list import DataFormat, Missing, VideoList, load_video_list
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import Failure, UsageError, usage
from lvt_ff.utils.option_types import PositiveFloat, PositiveInt, as_typed
from lvt_ff.utils.output import LOCK_NAME, check_output_folder, only_run
from lvt_ff.utils.short_text import counted, shortened
from lvt_ff.video.clip_buffer import MAX_PIXELS
from lvt_ff.video.reader import OnDamage
from lvt_ff.video.reencode import EncodeSettings

__all__ = ["prepare_data"]

_KEYFRAMES, _CRF = 12, 20
_BAD = "bad_files.csv"
_WORK = "videos"  # folder of those that are in no shard yet


@command(
    {
        "source": "what is prepared",
        "short_side": "encoding",
        "shard_size": "shards",
        "num_workers": "hardware and speed",
    }
)
def prepare_data(
    source: str,
    dest: Path,
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    class_file: Path | None = None,
    split: str | None = None,
    task: Literal["auto", "single", "multi"] = "auto",
    missing: Missing = "fail",
    short_side: PositiveInt | None = None,
    keyframes: PositiveInt | None = None,
    crf: PositiveInt | None = None,
    shard_size: PositiveFloat = 1.0,
    num_workers: PositiveInt | None = None,
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
) -> dict:
    """Write a data set as tar shards, which --train_data and the WebDataset library read.

    Videos are copied as they are or, with --short_side, encoded anew as H.264 in MP4 without sound.
    Those that cannot be read are left out and listed in bad_files.csv. A run that was ended, in
    whatever way, goes on where it was when the same command is given again. Every video is decoded,
    and every shard read back, before it counts.

    Args:
        source: Folder with one subfolder per class, or any other data that --train_data takes.
        dest: Folder for the shards; made if it is not there.
        data_format: Format of SOURCE; auto recognises it.
        video_root: Folder that listed videos lie in, if not that of the list.
        class_file: File with the names of the classes in order.
        split: Part of SOURCE, where it has several.
        task: Labels of a video; auto takes several where the format has several.
        missing: What is done with videos that are listed and not on disk.
        short_side: Pixels of the shorter side of videos that are encoded anew; smaller ones keep
            their size. Videos are copied if not given.
        keyframes: Most frames from one key frame to the next, with --short_side; 12 if not given.
        crf: Quality of the encoding, with --short_side: less is better and larger; 20 if not given.
        shard_size: Size of a shard in gigabytes.
        num_workers: Videos that are read at a time; as many as there are CPU cores if not given.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: keep what they still show
            (skip), or leave them out (raise).
    """
    with usage():
        import_pyarrow()
        check_output_folder(dest, "DEST")
        if Path(source).is_dir() and _is_within(dest, Path(source)):
            raise ValueError(f"{dest} lies in {source}: give a DEST outside of what is prepared.")
        settings = _encode_settings(short_side, keyframes, crf)
        videos = load_video_list(
            source,
            data_format=data_format,
            video_root=video_root,
            missing=missing,
            class_file=class_file,
            task=task,
            split=split,
        )
        if settings is None and videos.spans is not None:
            raise ValueError(
                f"{source} lists parts of videos, by start and end, which cannot be copied: give "
                "--short_side to have them cut out and encoded."
            )
    wanted = dict(
        source=os.path.abspath(source) if os.path.exists(source) else source,
        videos=videos.fingerprint(),
        short_side=short_side,
        keyframes=settings and settings.keyframes,
        crf=settings and settings.crf,
        shard_size=shard_size,
        max_pixels=max_pixels,
        on_damage=on_damage,
    )
    with only_run(dest, "DEST"):
        done = _begin(dest, wanted)
        if done is None:
            convert = Converter(videos, dest / UNFINISHED / _WORK, settings, max_pixels, on_damage)
            threads = num_workers or os.cpu_count() or 1
            maker = ShardMaker(videos, dest, convert, int(shard_size * 1e9), threads)
            done = _finish(dest, wanted, videos, *maker.run())
    _report(dest, done)
    return done


def _encode_settings(
    short_side: int | None, keyframes: int | None, crf: int | None
) -> EncodeSettings | None:
    """How videos are encoded; None copies them."""
    if short_side is None:
        given = [name for name, value in (("keyframes", keyframes), ("crf", crf)) if value]
        if given:
            raise ValueError(
                f"--{given[0]} is of videos that are encoded anew: give --short_side too, or leave "
                "it out."
            )
        return None
    if short_side % 2:
        raise ValueError(f"--short_side must be even, as H.264 has it, got {short_side}.")
    return EncodeSettings(short_side, keyframes or _KEYFRAMES, crf or _CRF)


def _is_within(inner: Path, outer: Path) -> bool:
    return outer.resolve() in (inner.resolve(), *inner.resolve().parents)


def _begin(dest: Path, wanted: dict[str, Any]) -> dict | None:
    """Make the folder ready to begin or to go on; what is told of it, where it is complete."""
    unfinished = dest / UNFINISHED
    if (dest / RECORD).is_file() and not unfinished.is_dir():
        told = json.loads((dest / RECORD).read_text(encoding="utf-8"))
        _check_same(dest, told["settings"], wanted)
        return told
    if (unfinished / RECORD).is_file():
        told = json.loads((unfinished / RECORD).read_text(encoding="utf-8"))
        _check_same(dest, told, wanted)
    else:
        found = sorted({file.name for file in dest.iterdir()} - {LOCK_NAME, UNFINISHED})
        if found:
            raise UsageError(
                f"{dest} is not empty, it holds {shortened(found[0])}: give another DEST."
            )
        unfinished.mkdir(exist_ok=True)
        write_text(unfinished / RECORD, json.dumps(wanted))
    shutil.rmtree(unfinished / _WORK, ignore_errors=True)
    (unfinished / _WORK).mkdir()
    return None


def _check_same(dest: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if then.get(name) != value:
            raise UsageError(
                f"{dest} holds shards that were made with another {name}, "
                f"{shortened(as_typed(then.get(name)))} instead of {shortened(as_typed(value))}: "
                "give the same, or another DEST."
            )


def _finish(
    dest: Path,
    settings: dict[str, Any],
    videos: VideoList,
    index: ShardIndex | None,
    left: Sequence[Left],
) -> dict:
    """Write what is told of the shards; they count when the folder of unfinished ones is gone."""
    if index is None:
        raise Failure(f"None of the {len(videos)} videos could be read: {left[0].reason}")
    if left:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "outcome", "reason"))
        writer.writerows((told.path, told.outcome, told.reason) for told in left)
        write_text(dest / _BAD, text.getvalue())
    num_damaged = sum(told.outcome == "kept" for told in left)
    done = dict(
        settings=settings,
        num_listed=len(videos),
        num_videos=len(index),
        num_left_out=len(left) - num_damaged,
        num_damaged=num_damaged,
        num_shards=len(index.shards),
        num_bytes=sum(index.shard_bytes),
        num_classes=len(index.class_names),
        hours=float(index.seconds.sum()) / 3600,
        environment=environment(cpu=True),
    )
    write_text(dest / RECORD, json.dumps(done, indent=2) + "\n")
    gone = dest / f".{UNFINISHED}"
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(dest / UNFINISHED, gone)
    shutil.rmtree(gone, ignore_errors=True)
    return done


def _report(dest: Path, done: dict) -> None:
    print(
        f"{dest}: {done['num_videos']} of {done['num_listed']} listed videos, "
        f"{done['hours']:.2f} h, in {counted(done['num_shards'], 'shard')} of "
        f"{done['num_bytes'] / 1e9:.3g} GB with {INDEX_NAME}"
    )
    if done["num_left_out"]:
        print(f"{counted(done['num_left_out'], 'video')} left out: see {dest / _BAD}")
    if done["num_damaged"]:
        print(f"{counted(done['num_damaged'], 'video')} damaged in part: see {dest / _BAD}")
