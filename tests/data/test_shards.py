"""Tar shards: written, read by others, read by place, and what is wrong with them."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import torch
import webdataset
from shard_sets import CLASSES, in_a_fork, write_folder

from lvt_ff.data import EvalTransform, TrainDataset, TrainTransform, load_video_list, read_clip
from lvt_ff.data.formats import recognised
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.data.shards import ShardIndex, open_index, read_index, scan, write_index
from lvt_ff.data.shards.writer import new_shard
from lvt_ff.data.texts import Texts
from lvt_ff.utils.errors import Failure, VideoReadError

pytestmark = pytest.mark.usefixtures("inline")

KEPT = 10  # videos of the source that can be read


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def shards(source, tmp_path_factory):
    """The source, copied; as small as shards can be, there are several."""
    folder = tmp_path_factory.mktemp("shards") / "copied"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LVT_FF_DECODE", "inline")
        prepare_data(str(source), folder, shard_size=1.5e-5, num_workers=2)
    return folder


def members(folder: Path) -> dict[str, bytes]:
    """All members of all tar files, as Python's own library reads them."""
    found = {}
    for file in sorted(folder.glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                found[member.name] = archive.extractfile(member).read()
    return found


def train_items(videos) -> list[dict]:
    transform = TrainTransform(EvalTransform((24, 24), (24, 24), 0.5, 0.5, "bicubic"))
    dataset = TrainDataset(
        videos, transform, num_frames=4, sampling="uniform", stride=1, seed=3, decoder="auto"
    )
    return [dataset[epoch, index] for epoch in range(2) for index in range(len(videos))]


def test_tar_files_hold_the_bytes_of_the_files_with_labels_beside(source, shards):
    found = members(shards)
    said = {name: json.loads(text) for name, text in found.items() if name.endswith(".json")}
    assert len(said) == KEPT and len(found) == 2 * KEPT
    for name, about in said.items():
        assert found[name.replace(".json", ".mp4")] == (source / about["name"]).read_bytes()
        assert CLASSES[about["label"]] == about["class_name"] == Path(about["name"]).parent.name
        assert about["frames"] == 8 and about["seconds"] == pytest.approx(1)
    assert len(list(shards.glob("*.tar"))) > 2


def test_index_says_where_each_video_lies(source, shards):
    rows = pyarrow.parquet.read_table(shards / "index.parquet").to_pylist()
    assert [row["name"] for row in rows] == [
        str(path.relative_to(source)) for path in sorted(source.glob("*/??.mp4"))
    ]
    for row in rows:
        with open(shards / row["shard"], "rb") as file:
            file.seek(row["offset"])
            assert file.read(row["size"]) == (source / row["name"]).read_bytes()
        assert CLASSES[row["label"]] == Path(row["name"]).parent.name
        assert (row["frames"], row["seconds"]) == (8, pytest.approx(1))


def test_webdataset_reads_the_shards(source, shards):
    urls = [str(file) for file in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == KEPT
    for sample in samples:
        video = sample["mp4"]
        expected = (source / sample["json"]["name"]).read_bytes()
        assert video == expected or bytes(video) == expected


def test_training_on_shards_has_the_clips_of_training_on_files(source, shards):
    (source / "sit/broken.mp4").rename(source / "broken")
    try:
        files = load_video_list(source)
        stored = load_video_list(shards)
        assert stored.class_names == files.class_names
        assert np.array_equal(stored.labels, files.labels)
        for one, other in zip(train_items(files), train_items(stored), strict=True):
            assert torch.equal(one["clip"], other["clip"])
            assert one["label"] == other["label"]
    finally:
        (source / "broken").rename(source / "sit/broken.mp4")


def test_take_reads_the_videos_of_these_places(shards):
    videos = load_video_list(shards)
    order = np.array([7, 0, 7, 3])
    some = videos.take(order)
    for place, row in enumerate(order):
        assert some.source(place).read() == videos.source(int(row)).read()
        assert some.paths[place] == videos.paths[int(row)]


def write_foreign(folder: Path, source: Path, labels, ending: str, first: int = 0) -> list[Path]:
    """Shards as the WebDataset library writes them."""
    files = sorted(source.glob("*/??.mp4"))
    with webdataset.TarWriter(str(folder / f"foreign-{first:03d}.tar")) as writer:
        for index, (file, label) in enumerate(zip(files, labels, strict=False)):
            key = f"a/sample{first + index:04d}"
            writer.write({"__key__": key, "mp4": file.read_bytes(), ending: label})
    return files


@pytest.mark.parametrize(
    "ending, labels, expected, names",
    [
        ("cls", [1, 0, 2], [1, 0, 2], ("0", "1", "2")),
        ("txt", ["sit", "jump", "sit"], [1, 0, 1], ("jump", "sit")),
        ("json", [{"label": 1}, {"label": 0}, {"label": 1}], [1, 0, 1], ("0", "1")),
        (
            "json",
            [dict(label=1, class_name="b"), dict(label=0, class_name="z"), dict(label=1)],
            [1, 0, 1],
            ("z", "b"),
        ),
        ("json", [{"class": "sit"}, {"class": "jump"}, {"class": "sit"}], [1, 0, 1], CLASSES),
    ],
)
def test_shards_of_others_have_their_labels_found(
    source, tmp_path, ending, labels, expected, names
):
    files = write_foreign(tmp_path, source, labels, ending)
    videos = load_video_list(tmp_path)
    assert videos.labels.tolist() == expected and videos.class_names == names
    for row, file in enumerate(files[:3]):
        assert np.array_equal(read_clip(videos.source(row), [2]), read_clip(file, [2]))
    assert len(read_index(tmp_path / "index.parquet")) == 3
    one = load_video_list(next(tmp_path.glob("*.tar")))  # a single tar file, without an index
    assert one.labels.tolist() == expected


def test_several_labels_of_shards_of_others(source, tmp_path):
    labels = [{"labels": [0, 2]}, {"labels": []}, {"labels": [1]}]
    write_foreign(tmp_path, source, labels, "json")
    for _ in range(2):  # by scanning, then by the index
        videos = load_video_list(tmp_path)
        assert videos.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_index_is_made_once_and_again_where_tar_files_come(source, tmp_path, monkeypatch):
    write_foreign(tmp_path, source, [0, 1, 0], "cls")
    scanned = []
    real = scan.read_samples
    monkeypatch.setattr(scan, "read_samples", lambda file: scanned.append(file) or real(file))
    assert len(open_index(tmp_path)) == len(open_index(tmp_path)) == 3
    assert len(scanned) == 1
    write_foreign(tmp_path, source, [1, 1], "cls", first=10)
    assert len(open_index(tmp_path)) == 5 and len(scanned) == 3


def test_index_that_cannot_be_kept_is_made_in_memory(source, tmp_path, monkeypatch, caplog):
    write_foreign(tmp_path, source, [0, 1, 0], "cls")

    def refuse(path, index):
        raise OSError("read-only")

    monkeypatch.setattr("lvt_ff.data.shards.open.write_index", refuse)
    assert len(load_video_list(tmp_path)) == 3
    assert "cannot be kept" in caplog.text and not (tmp_path / "index.parquet").exists()


@pytest.mark.parametrize(
    "labels, ending, told",
    [
        ([{"caption": "x"}], "json", "no label among caption"),
        ([dict(label=[[1]])], "json", "label"),
        (["x", 3], "cls", "cls"),
        ([{"label": -1}], "json", "begin at 0"),
        ([{"label": 3_000_000}], "json", "class number 3000000"),
    ],
)
def test_shards_without_labels_are_refused_in_words(source, tmp_path, labels, ending, told):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for index, label in enumerate(labels):
            text = label if isinstance(label, str) else json.dumps(label)
            for name, data in ((f"{index}.mp4", b"v"), (f"{index}.{ending}", text.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match=told):
        load_video_list(tmp_path)


def test_compressed_tar_files_are_refused_in_words(shards, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz") as archive:
        archive.add(next(shards.glob("*.tar")), "a.mp4")
    with pytest.raises(ValueError, match="must not be compressed"):
        load_video_list(tmp_path)


def write_tar(file: Path, names) -> None:
    with tarfile.open(file, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"1" if name.endswith("cls") else b"v"))


def test_members_behind_a_damaged_header_are_told(tmp_path, caplog):
    write_tar(tmp_path / "x.tar", [f"{k}.{e}" for k in range(3) for e in ("mp4", "cls")])
    assert len(scan.scan_shards([tmp_path / "x.tar"]).members) == 3 and not caplog.messages
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[4 * 512] ^= 255  # of the second video, behind two members with a block each
    (tmp_path / "x.tar").write_bytes(content)
    assert len(scan.scan_shards([tmp_path / "x.tar"]).members) == 1
    assert "damaged header at byte 2048" in caplog.text


def test_members_of_other_systems_are_no_videos(tmp_path):
    write_tar(tmp_path / "x.tar", ["._0.mp4", "0.mp4", "0.cls"])
    assert list(scan.scan_shards([tmp_path / "x.tar"]).members) == ["0.mp4"]


def test_an_archive_beside_class_folders_does_not_make_shards_of_them(source, tmp_path):
    shutil.copytree(source, tmp_path / "videos")
    write_tar(tmp_path / "videos/train.tar", ["jump/1.mp4"])
    assert recognised(str(tmp_path / "videos")) == "folder"
    for folder in [path for path in (tmp_path / "videos").iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    assert recognised(str(tmp_path / "videos")) == "shards"


@pytest.fixture
def own_shards(shards, tmp_path):
    """A copy that may be damaged."""
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def damage(folder: Path, how: str) -> None:
    first, second = sorted(folder.glob("*.tar"))[:2]
    if how == "truncated":
        os.truncate(first, 3000)
    elif how == "replaced":
        first.write_bytes(second.read_bytes())
    elif how == "zeroed":
        first.write_bytes(bytes(first.stat().st_size))
    else:
        first.unlink()


@pytest.mark.parametrize(
    "how, told",
    [
        ("truncated", "the file ends after"),
        ("replaced", "another member"),
        ("zeroed", "no member at its place"),
        ("gone", "No such file"),
    ],
)
def test_a_damaged_shard_costs_its_videos_and_not_the_run(own_shards, how, told, caplog):
    shard = sorted(own_shards.glob("*.tar"))[0].name
    index = read_index(own_shards / "index.parquet")
    damage(own_shards, how)
    videos = load_video_list(own_shards)
    lost = [row for row in range(len(videos)) if index.shards[index.shard[row]] == shard]
    assert 0 < len(lost) < len(videos)
    if how in ("truncated", "gone"):
        assert shard in caplog.text
    with pytest.raises(VideoReadError, match=told) as error:
        videos.source(lost[-1])
    assert f"{shard}/{index.members[lost[-1]]}" in str(error.value)
    items = train_items(videos)
    assert len(items) == 2 * len(videos)
    failed = {path for item in items for path, _ in item["failures"]}
    assert failed >= {videos.paths[lost[-1]]} and failed <= {videos.paths[row] for row in lost}


def test_an_index_of_something_else_is_refused_in_words(own_shards):
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), own_shards / "index.parquet")
    with pytest.raises(ValueError, match="delete it to have it made again"):
        load_video_list(own_shards)


def test_what_reads_otherwise_than_it_was_written_is_no_shard(tmp_path):
    with pytest.raises(Failure, match="reads otherwise"), new_shard(tmp_path / "a.tar") as shard:
        shard.add_bytes("a.mp4", b"video")
        shard._digests["a.mp4"] = "0" * 64
    assert not list(tmp_path.iterdir())


def made_up_index(num_rows: int, shards: int = 50) -> ShardIndex:
    rng = np.random.default_rng(0)
    return ShardIndex(
        shards=tuple(f"shard-{number:06d}.tar" for number in range(shards)),
        shard_bytes=(10**9,) * shards,
        shard=np.sort(rng.integers(0, shards, num_rows)).astype(np.int32),
        offset=rng.integers(0, 10**9, num_rows),
        size=rng.integers(0, 10**6, num_rows),
        members=Texts(f"{number:09d}.mp4" for number in range(num_rows)),
        names=Texts(f"some_class/video_{number:09d}.mp4" for number in range(num_rows)),
        labels=rng.integers(0, 400, num_rows),
        rows=np.arange(num_rows),
        label_spans=None,
        multi=False,
        class_names=tuple(f"class {number}" for number in range(400)),
        official=True,
        frames=rng.integers(0, 300, num_rows).astype(np.int32),
        seconds=rng.uniform(0, 10, num_rows),
        is_prepared=True,
    )


def test_index_of_50_000_rows_comes_back_and_takes_little_memory(tmp_path):
    index = made_up_index(50_000)
    write_index(tmp_path / "index.parquet", index)
    write_index(tmp_path / "small.parquet", made_up_index(50))

    def measure() -> None:
        process = psutil.Process()
        read_index(tmp_path / "small.parquet")  # what pyarrow takes once and for all
        before = process.memory_info().rss
        read = read_index(tmp_path / "index.parquet")
        used = process.memory_info().rss - before
        same = read.members == index.members and read.names == index.names
        for name in ("shard", "offset", "size", "labels", "rows", "frames", "seconds"):
            same &= np.array_equal(getattr(read, name), getattr(index, name))
        same &= (read.shards, read.class_names) == (index.shards, index.class_names)
        os._exit(0 if same and used < 30e6 else 2)

    assert in_a_fork(measure) == 0
