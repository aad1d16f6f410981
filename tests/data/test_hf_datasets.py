"""Data sets of the library `datasets`: which classes, splits and bytes they give."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import random_frames

import lvt_ff
from lvt_ff.data import load_video_list, read_clip
from lvt_ff.data.synthetic import write_video
from lvt_ff.utils.errors import VideoReadError

datasets = pytest.importorskip("datasets")

NAMES = ["sit", "jump", "fly"]  # not in the order of the alphabet
LABELS = [1, 0, 0, 2, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for index in range(len(LABELS)):
        write_video(folder / f"{index}.mp4", random_frames(6, 32, 48, seed=index))
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("LVT_FF_DECODE", "inline")


def dataset(files, labels=LABELS, label_kind=None, embedded=True):
    kind = label_kind or datasets.ClassLabel(names=NAMES)
    features = datasets.Features(video=datasets.Video(decode=False), label=kind)
    videos = [
        dict(
            bytes=file.read_bytes() if embedded else None, path=file.name if embedded else str(file)
        )
        for file in files
    ]
    return datasets.Dataset.from_dict(dict(video=videos, label=labels), features=features)


def check(videos, files, rows, labels=LABELS):
    assert videos.class_names == tuple(NAMES)
    assert videos.labels.tolist() == [labels[row] for row in rows]
    for place, row in enumerate(rows):
        got = read_clip(videos.source(place), [0, 5])
        assert np.array_equal(got, read_clip(files[row], [0, 5]))


def test_a_saved_dataset_gives_its_classes_in_their_order(files, tmp_path):
    dataset(files).save_to_disk(tmp_path / "saved")
    videos = load_video_list(tmp_path / "saved")
    check(videos, files, range(5))
    assert list(videos.paths) == [file.name for file in files]
    check(videos.take(np.array([3, 1, 3])), files, [3, 1, 3])


def test_videos_that_are_not_in_the_dataset_are_read_where_they_lie(files, tmp_path):
    dataset(files, embedded=False).save_to_disk(tmp_path / "saved")
    check(load_video_list(tmp_path / "saved"), files, range(5))


@pytest.mark.parametrize("layout", ["saved", "parquet"])
def test_splits_are_chosen_by_name_or_purpose(files, tmp_path, layout):
    parts = datasets.DatasetDict(
        train=dataset(files).select([0, 1, 2]), val=dataset(files).select([3, 4])
    )
    place = tmp_path / layout
    if layout == "saved":
        parts.save_to_disk(place)
    else:
        for name, part in parts.items():
            part.to_parquet(place / f"data/{'validation' if name == 'val' else name}.parquet")
    check(load_video_list(f"{place}:train"), files, [0, 1, 2])
    check(load_video_list(place, split="train"), files, [0, 1, 2])
    check(load_video_list(place, split="validation"), files, [3, 4])
    with pytest.raises(ValueError, match="has several splits"):
        load_video_list(place)
    with pytest.raises(ValueError, match="has no split other"):
        load_video_list(f"{place}:other")


def test_a_parquet_file_is_one_split(files, tmp_path):
    dataset(files).to_parquet(tmp_path / "a.parquet")
    check(load_video_list(tmp_path / "a.parquet"), files, range(5))


def test_labels_in_words_and_several_labels(files, tmp_path):
    words = [NAMES[label] for label in LABELS]
    dataset(files, words, datasets.Value("string")).save_to_disk(tmp_path / "words")
    videos = load_video_list(tmp_path / "words")
    assert videos.class_names == tuple(sorted(NAMES))
    assert [videos.class_names[label] for label in videos.labels] == words
    several = [[0, 2], [1], [], [2], [0, 1]]
    kind = datasets.List(datasets.ClassLabel(names=NAMES))
    dataset(files, several, kind).save_to_disk(tmp_path / "several")
    videos = load_video_list(tmp_path / "several")
    assert videos.task == "multi"
    assert [np.flatnonzero(row).tolist() for row in videos.labels] == several


def test_paths_in_a_column_of_texts_are_files_below_the_root(files, tmp_path, caplog):
    features = datasets.Features(
        video=datasets.Value("string"), label=datasets.ClassLabel(names=NAMES)
    )
    rows = dict(video=[*(file.name for file in files), "gone.mp4"], label=[*LABELS, 0])
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="lists 6 of 6 files that do not exist"):
        load_video_list(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="lists 1 of 6 files that do not exist, such as .*gone"):
        load_video_list(tmp_path / "a.parquet", video_root=files[0].parent)
    root = dict(video_root=files[0].parent)
    check(load_video_list(tmp_path / "a.parquet", missing="skip", **root), files, range(5))
    dataset(files).save_to_disk(tmp_path / "embedded")
    caplog.clear()
    check(load_video_list(tmp_path / "embedded", **root), files, range(5))
    assert "is not used" in caplog.text


def test_a_row_without_a_video_is_one_bad_video(files, tmp_path):
    whole = dataset(files)
    rows = [dict(row) for row in whole]
    rows[2]["video"] = None
    datasets.Dataset.from_list(rows, features=whole.features).save_to_disk(tmp_path / "saved")
    videos = load_video_list(tmp_path / "saved")
    assert len(videos) == 5 and videos.source(1).read()
    with pytest.raises(VideoReadError, match="row 2"):
        videos.source(2)


def test_paths_in_plain_text_are_read(files, tmp_path):
    rows = dict(path=[str(file) for file in files], label=[NAMES[label] for label in LABELS])
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    videos = load_video_list(tmp_path / "a.parquet")
    assert list(videos.paths) == rows["path"]
    assert np.array_equal(read_clip(videos.source(2), [3]), read_clip(files[2], [3]))


def test_bytes_that_are_no_video_are_named(files, tmp_path):
    whole = dataset(files)
    rows = [dict(row) for row in whole]
    rows[2]["video"] = dict(bytes=b"no video", path="x.mp4")
    datasets.Dataset.from_list(rows, features=whole.features).save_to_disk(tmp_path / "saved")
    videos = load_video_list(tmp_path / "saved")
    with pytest.raises(VideoReadError, match=r"saved row 2 \(x.mp4\)"):
        read_clip(videos.source(2), [0])


@pytest.mark.parametrize("lacking, told", [("video", "column of videos"), ("label", "of labels")])
def test_a_dataset_without_a_column_is_refused_in_words(files, tmp_path, lacking, told):
    dataset(files).rename_column(lacking, "other").remove_columns(["other"]).save_to_disk(
        tmp_path / "saved"
    )
    with pytest.raises(ValueError, match=told):
        load_video_list(tmp_path / "saved")


def test_test_splits_without_labels_are_refused_in_words(files, tmp_path):
    dataset(files, [0, 1, -1, 0, 0]).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="Row 2 has no label"):
        load_video_list(tmp_path / "saved")


@pytest.mark.parametrize("kind", [None, datasets.Value("string"), datasets.Value("int64")])
def test_empty_labels_are_refused_in_words(files, tmp_path, kind):
    labels = [0, 1, None, 0, 0]
    if kind and kind.dtype == "string":
        labels = ["sit", "jump", None, "sit", "sit"]
    dataset(files, labels, kind).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="Row 2 has no label"):
        load_video_list(tmp_path / "saved")


def test_numbers_below_zero_are_no_classes(files, tmp_path):
    dataset(files, [0, 1, -1, 0, 0], datasets.Value("int64")).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="the label -1, and class numbers begin at 0"):
        load_video_list(tmp_path / "saved")
    values = load_video_list(tmp_path / "saved", task="regression")
    assert values.labels.tolist() == [0, 1, -1, 0, 0]


def test_a_name_on_the_hub_is_loaded_with_its_revision(files, monkeypatch):
    asked = []

    def load(name, revision=None):
        asked.append((name, revision))
        return datasets.DatasetDict(train=dataset(files))

    monkeypatch.setattr(datasets, "load_dataset", load)
    check(load_video_list("some-org/clips@v1:train"), files, range(5))
    check(load_video_list("some-org/clips"), files, range(5))
    assert asked == [("some-org/clips", "v1"), ("some-org/clips", None)]


def test_a_name_that_is_nowhere_is_told(hub):
    with pytest.raises(ValueError, match="does not exist here and cannot be loaded"):
        load_video_list("some-org/nothing")


def test_the_library_is_asked_for_where_it_is_missing(files, tmp_path, monkeypatch):
    dataset(files).save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install"):
        load_video_list(tmp_path / "saved")


def test_optional_libraries_are_imported_inside_functions_only():
    for path in Path(lvt_ff.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            imported = {getattr(node, "module", None) or "", *names}
            assert not imported & {"pyarrow", "pyarrow.parquet", "datasets", "webdataset"}, path
