"""prepare-data: what it writes from which data, and that it may be ended at any time."""

import csv
import os
import signal
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import random_frames
from shard_sets import CLASSES, content, in_a_fork, write_folder

from lvt_ff.cli import main
from lvt_ff.data import load_video_list, read_clip
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.data.shards import convert, prepare, read_index, writer
from lvt_ff.data.shards.open import UNFINISHED
from lvt_ff.data.synthetic import write_video
from lvt_ff.utils import atomic_io
from lvt_ff.utils.errors import Failure, UsageError

pytestmark = pytest.mark.usefixtures("inline")

SMALL = 1.5e-5  # gigabytes: a few of the test's videos


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    """What a run writes that nothing ends."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LVT_FF_DECODE", "inline")
        prepare_data(str(source), folder, shard_size=SMALL, num_workers=2)
    return folder


def after(number: int, module, name: str, then):
    """Replace a function of a module by one that does something instead of its last call."""
    real, calls = getattr(module, name), []

    def counting(*args, **options):
        calls.append(name)
        if len(calls) == number:
            then()
        return real(*args, **options)

    setattr(module, name, counting)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


MOMENTS = {
    "first video": (1, convert.Converter, "__call__"),
    "in a shard": (6, writer.ShardWriter, "add"),
    "before a shard has its name": (2, writer, "_verify"),
    "before it is noted": (2, prepare, "write_text"),
    "while it is noted": (3, atomic_io.os, "replace"),
    "last shard": (19, writer.ShardWriter, "add"),
    "before the index": (1, prepare, "write_index"),
    "before it counts": (1, os, "rename"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_to_the_same_bytes(source, undisturbed, tmp_path, moment):
    number, owner, name = MOMENTS[moment]
    folder = tmp_path / "shards"

    def work() -> None:
        after(number, owner, name, die)
        prepare_data(str(source), folder, shard_size=SMALL, num_workers=2)

    assert in_a_fork(work) == -signal.SIGKILL
    with pytest.raises(ValueError, match="not complete"):
        load_video_list(folder)
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("*.tar")}
    done = prepare_data(str(source), folder, shard_size=SMALL, num_workers=3)
    assert content(folder) == content(undisturbed)
    assert not (folder / UNFINISHED).exists()
    assert (done["num_videos"], done["num_left_out"]) == (10, 1)
    noted = sorted(kept)[:-1]  # the last may not have been noted
    assert all(file.stat().st_mtime_ns == kept[file] for file in noted)


def frames_of(folder: Path) -> dict[str, np.ndarray]:
    """Frames of all videos of shards, by the names of their members."""
    found = {}
    for file in sorted(folder.glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                if member.name.endswith(".mp4"):
                    content = archive.extractfile(member).read()
                    found[member.name] = read_clip(content, range)
    return found


def test_a_run_killed_while_it_encodes_goes_on_to_the_same_videos(source, tmp_path):
    options = dict(short_side=16, shard_size=SMALL, num_workers=2)
    whole, folder = tmp_path / "whole", tmp_path / "shards"
    prepare_data(str(source), whole, **options)

    def work() -> None:
        after(8, convert.Converter, "__call__", die)
        prepare_data(str(source), folder, **options)

    assert in_a_fork(work) == -signal.SIGKILL
    prepare_data(str(source), folder, **options)
    ours, plain = frames_of(folder), frames_of(whole)
    assert ours.keys() == plain.keys() and len(ours) == 10
    for name, frames in plain.items():  # x264 does not always give the same bytes
        assert frames.shape == ours[name].shape
        assert np.abs(frames.astype(int) - ours[name]).mean() < 4


def test_a_run_that_is_complete_is_not_done_again(source, undisturbed, capsys):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.iterdir()}
    assert main(["prepare-data", str(source), str(undisturbed), f"--shard_size={SMALL}"]) == 0
    told = capsys.readouterr().out
    assert "10 of 11 listed videos" in told and "1 video left out" in told
    now = {file: file.stat().st_mtime_ns for file in undisturbed.iterdir()}
    assert now == before


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(shard_size=1.0), "another shard_size"),
        (dict(shard_size=SMALL, short_side=16), "another short_side"),
        (dict(shard_size=SMALL, on_damage="raise"), "another on_damage"),
    ],
)
def test_other_settings_are_refused(source, undisturbed, options, told):
    with pytest.raises(UsageError, match=told):
        prepare_data(str(source), undisturbed, **options)


def test_videos_that_cannot_be_read_are_listed_with_the_reason(source, undisturbed):
    with open(undisturbed / "bad_files.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == str(source / "sit/broken.mp4") and row["outcome"] == "left out"
    assert "Invalid data" in row["reason"]


def test_damage_decides_with_the_option(tmp_path):
    write_folder(tmp_path / "in", num_clips=4)
    (tmp_path / "in/sit/broken.mp4").unlink()
    cut = tmp_path / "in/sit/01.mp4"
    write_video(cut.with_suffix(".mkv"), random_frames(30, 32, 48), fps=10)
    data = cut.with_suffix(".mkv").read_bytes()
    cut.with_suffix(".mkv").write_bytes(data[: len(data) * 2 // 3])
    kept = prepare_data(str(tmp_path / "in"), tmp_path / "kept")
    assert (kept["num_videos"], kept["num_damaged"], kept["num_left_out"]) == (5, 1, 0)
    out = prepare_data(str(tmp_path / "in"), tmp_path / "out", on_damage="raise")
    assert (out["num_videos"], out["num_damaged"], out["num_left_out"]) == (4, 0, 1)
    assert "kept" in (tmp_path / "kept/bad_files.csv").read_text()


def test_nothing_readable_is_a_failure(tmp_path):
    for name in CLASSES:
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "a.mp4").write_bytes(b"no video")
    with pytest.raises(Failure, match="None of the 2 videos"):
        prepare_data(str(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize(
    "args, told",
    [
        (["SOURCE", "SOURCE/out"], "outside of what is prepared"),
        (["SOURCE", "SOURCE/sit", "--keyframes", "3"], "outside"),
        (["SOURCE", "OUT", "--keyframes", "3"], "give --short_side too"),
        (["SOURCE", "OUT", "--crf", "3"], "give --short_side too"),
        (["SOURCE", "OUT", "--short_side", "33"], "must be even"),
        (["SOURCE", "FULL"], "not empty"),
        (["PARTS", "OUT"], "cannot be copied"),
    ],
)
def test_wrong_usage_is_told(source, tmp_path, capsys, args, told):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    lines = [f"{source}/jump/00.mp4,jump,0,0.5", f"{source}/sit/01.mp4,sit,,"]
    (tmp_path / "parts.csv").write_text("\n".join(["path,label,start,end", *lines]))
    places = dict(SOURCE=source, OUT=tmp_path / "out", FULL=tmp_path / "full")
    places["PARTS"] = tmp_path / "parts.csv"
    for name, place in places.items():
        args = [arg.replace(name, str(place)) for arg in args]
    assert main(["prepare-data", *args]) == 2
    assert told in capsys.readouterr().err


def encoded(folder: Path, row: int):
    """A video of shards, opened by PyAV alone."""
    return av.open(load_video_list(folder).source(row))


def test_videos_are_encoded_with_the_size_and_key_frames_asked_for(tmp_path):
    for name, shape in (("a", (96, 128)), ("b", (160, 96)), ("c", (32, 48))):
        file = tmp_path / "in" / ("left" if name == "a" else "right") / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(20, *shape), fps=10)
    prepare_data(str(tmp_path / "in"), tmp_path / "out", short_side=64, keyframes=4, crf=30)
    prepare_data(str(tmp_path / "in"), tmp_path / "fine", short_side=64, keyframes=20, crf=10)
    sizes = []
    for row in range(3):
        with encoded(tmp_path / "out", row) as container:
            stream = container.streams.video[0]
            sizes.append((stream.height, stream.width))
            packets = [packet for packet in container.demux(stream) if packet.size]
            keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
            assert len(packets) == 20 and max(np.diff([*keys, 20])) <= 4
            assert stream.codec_context.name == "h264"
    assert sizes == [(64, 86), (106, 64), (32, 48)]
    smaller, larger = (
        sum(read_index(tmp_path / name / "index.parquet").size) for name in ("out", "fine")
    )
    assert smaller < larger


def test_parts_of_videos_are_cut_out(source, tmp_path):
    video = tmp_path / "long.mp4"
    frames = random_frames(20, 32, 48)
    write_video(video, frames, fps=10)
    lines = ["path,label,start,end", "long.mp4,a,0.5,1.2", "long.mp4,b,1.2,", "long.mp4,a,,0.3"]
    (tmp_path / "parts.csv").write_text("\n".join(lines))
    prepare_data(str(tmp_path / "parts.csv"), tmp_path / "out", short_side=32, keyframes=2, crf=4)
    parts = load_video_list(tmp_path / "out")
    names = ["long.mp4#t=0.5,1.2", "long.mp4#t=1.2", "long.mp4#t=,0.3"]
    assert list(parts.paths) == names and parts.labels.tolist() == [0, 1, 0]
    index = read_index(tmp_path / "out/index.parquet")
    assert index.frames.tolist() == [7, 8, 3]
    assert index.seconds.tolist() == pytest.approx([0.7, 0.8, 0.3])
    for row, first in enumerate((5, 12, 0)):
        count = int(index.frames[row])
        got = read_clip(parts.source(row), range(count)).astype(int)
        expected = read_clip(video, range(first, first + count)).astype(int)
        assert np.abs(got - expected).mean() < 3


def test_labels_and_when_they_hold_are_kept(tmp_path):
    """Charades: several labels a video, each from a start to an end."""
    for name in ("AAAAA", "BBBBB", "CCCCC"):
        write_video(tmp_path / f"{name}.mp4", random_frames(16, 32, 48, seed=ord(name[0])), fps=4)
    names = "".join(f"c{number:03d} Action {number}\n" for number in range(157))
    (tmp_path / "Charades_v1_classes.txt").write_text(names)
    rows = ["AAAAA,c003 0.00 2.50;c001 1.00 3.90;c003 3.00 3.50", "BBBBB,", "CCCCC,c156 0.10 9.00"]
    list_file = tmp_path / "Charades_v1_train.csv"
    list_file.write_text("\n".join(["id,actions", *rows]))
    files = load_video_list(list_file)
    prepare_data(str(list_file), tmp_path / "out")
    stored = load_video_list(tmp_path / "out")
    assert stored.class_names == files.class_names and stored.task == "multi"
    assert np.array_equal(stored.labels, files.labels)
    for row in range(3):
        for times in ((0, 0.9), (2.6, 2.9), (1, 1), (3.2, 3.3), (8, 9)):
            one, other = (videos.label_spans.within(row, *times) for videos in (files, stored))
            assert sorted(one) == sorted(other)


def test_shards_of_shards_and_of_pictures(source, undisturbed, tmp_path):
    prepare_data(str(undisturbed), tmp_path / "again", shard_size=SMALL)
    one, other = load_video_list(undisturbed), load_video_list(tmp_path / "again")
    assert list(one.paths) == list(other.paths)
    assert all(one.source(row).read() == other.source(row).read() for row in range(len(one)))
    from PIL import Image

    for name in CLASSES:
        folder = tmp_path / "pictures" / name / "clip"
        folder.mkdir(parents=True)
        for number, pixels in enumerate(random_frames(5, 32, 48)):
            Image.fromarray(pixels).save(folder / f"{number}.png")
    with pytest.raises(Failure, match="give --short_side"):
        prepare_data(str(tmp_path / "pictures"), tmp_path / "copied")
    prepare_data(str(tmp_path / "pictures"), tmp_path / "encoded", short_side=32)
    assert read_index(tmp_path / "encoded/index.parquet").frames.tolist() == [5, 5]


def test_names_of_shards_that_are_missing_on_disk_are_skipped_on_request(source, tmp_path):
    rows = ["path,label", f"{source}/jump/00.mp4,jump", f"{source}/sit/01.mp4,sit", "gone.mp4,sit"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert main(["prepare-data", str(tmp_path / "list.csv"), str(tmp_path / "a")]) == 2
    done = prepare_data(str(tmp_path / "list.csv"), tmp_path / "a", missing="skip")
    assert done["num_videos"] == 2
