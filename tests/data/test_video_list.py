"""Lists of labelled videos: what is a video, of which class, and what is told of the rest."""

import csv
import errno
import json
import os
import sys

import numpy as np
import pytest

from lvt_ff.data import load_video_list
from lvt_ff.data.video_list import VIDEO_SUFFIXES


def write(root, *names, content=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def found(root, videos):
    """(path below the folder, class) of each video."""
    return [
        (os.path.relpath(path, root), videos.class_names[label])
        for path, label in zip(videos.paths, videos.labels, strict=True)
    ]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", *("jump/2.mp4", "jump/3.mp4", "sit/4.mp4", "wave/0.mp4"))


def listing(root, text, encoding="utf-8"):
    file = root / "list.csv"
    file.write_bytes(text.encode(encoding))
    return file


# Folders


def test_folder_is_one_class_per_subfolder(folder, caplog):
    videos = load_video_list(folder)
    assert videos.class_names == ("jump", "sit", "wave")
    assert found(folder, videos) == [
        *(("jump/2.mp4", "jump"), ("jump/3.mp4", "jump")),
        *(("sit/4.mp4", "sit"), ("wave/0.mp4", "wave")),
    ]
    assert not caplog.messages


@pytest.mark.parametrize(
    "names",
    [
        ["jump/._2.mp4", ".DS_Store", "jump/.DS_Store", "jump/Thumbs.db", "desktop.ini"],
        [".ipynb_checkpoints/0.mp4", ".Trash-1000/files/0.mp4", "__MACOSX/jump/._2.mp4"],
        ["jump/.ipynb_checkpoints/2.mp4", "jump/@eaDir/2.mp4", "jump/sub/__MACOSX/2.mp4"],
        ["lost+found/0.mp4", "$RECYCLE.BIN/0.mp4", "System Volume Information/0.mp4"],
        ["@eaDir/0.mp4", "#recycle/0.mp4", "jump/frames/._1.jpg", "jump/frames/._2.jpg"],
    ],
)
def test_hidden_and_foreign_files_are_passed_over_without_a_word(folder, names, caplog):
    before = load_video_list(folder)
    after = load_video_list(write(folder, *names))
    assert after.fingerprint() == before.fingerprint()
    assert after.class_names == before.class_names
    assert not caplog.messages


def test_the_data_folder_may_lie_below_a_hidden_one(tmp_path):
    root = write(tmp_path / ".cache/__MACOSX/data", "a/0.mp4", "b/0.mp4")
    assert len(load_video_list(root)) == 2


def test_deeper_videos_belong_to_the_class(folder):
    write(folder, "jump/subject2/1.mp4", "run/a/b/c/0.mp4", "run/a/0.MOV")
    assert found(folder, load_video_list(folder)) == [
        *(("jump/2.mp4", "jump"), ("jump/3.mp4", "jump"), ("jump/subject2/1.mp4", "jump")),
        *(("run/a/0.MOV", "run"), ("run/a/b/c/0.mp4", "run")),
        *(("sit/4.mp4", "sit"), ("wave/0.mp4", "wave")),
    ]


def test_a_folder_of_numbered_pictures_is_one_video(folder, caplog):
    write(folder, *(f"run/s1/frame_{number:04d}.JPG" for number in range(3)))
    write(folder, *(f"run/s2/deep/{number}.png" for number in range(2)), "run/s2/deep/info.txt")
    write(folder, "run/one/1.jpg", "run/words/left.jpg", "run/words/right.jpg")
    write(folder, "run/both/1.jpg", "run/both/2.jpg", "run/both/0.mp4", "run/1.png", "run/2.png")
    names = [name for name, label in found(folder, load_video_list(folder)) if label == "run"]
    assert names == ["run/both/0.mp4", "run/s1", "run/s2/deep"]
    (told,) = caplog.messages
    assert "8 files in" in told and "5 .jpg, 2 .png, 1 .txt (such as run/1.png)." in told


def test_links_are_followed_but_in_no_circle(folder, tmp_path):
    (folder / "jump/again").symlink_to(folder / "jump")
    (folder / "all").symlink_to(folder)
    (folder / "sit/self").symlink_to("self")
    (folder / "sit/gone.mp4").symlink_to("nowhere.mp4")
    (folder / "run").symlink_to(write(tmp_path / "elsewhere", "x/0.mp4"))
    names = [name for name, _ in found(folder, load_video_list(folder))]
    assert names == [
        *("jump/2.mp4", "jump/3.mp4", "run/x/0.mp4", "sit/4.mp4", "sit/gone.mp4", "wave/0.mp4")
    ]


def test_what_is_left_out_is_told_in_one_warning(folder, caplog):
    write(folder, *(f"jump/{number}.txt" for number in range(10)), "sit/a.json", "sit/b.json")
    write(folder, "wave/README", "top.mp4", "list.csv")
    (folder / "run/empty").mkdir(parents=True)
    assert load_video_list(folder).class_names == ("jump", "sit", "wave")
    (told,) = caplog.messages
    assert told == (
        f"13 files in {folder} are no videos and are left out: 10 .txt, 2 .json, 1 without suffix "
        f"(such as jump/0.txt). 2 files directly in {folder} are in no class folder and are left "
        "out: 1 .csv, 1 .mp4 (such as list.csv). 1 class folder holds no video: run."
    )


def test_many_kinds_and_long_names_are_told_in_short(folder, caplog):
    write(folder, *(f"jump/{'n' * 200}.k{number}" for number in range(40)))
    write(folder, *(f"{'e' * 200}{number}/x.txt" for number in range(40)))
    load_video_list(folder)
    (told,) = caplog.messages
    assert "80 files" in told and "and 36 more" in told and "40 class folders hold" in told
    assert len(told) < 1500


@pytest.mark.parametrize("suffix", ["m2ts", "MXF", "vob", "asf", "dv", "gif", "y4m", "rmvb", "wtv"])
def test_less_common_suffixes_are_videos(folder, suffix):
    assert f".{suffix.lower()}" in VIDEO_SUFFIXES
    assert "run" in load_video_list(write(folder, f"run/0.{suffix}")).class_names


def test_a_folder_that_cannot_be_opened_is_told(folder, caplog, monkeypatch):
    write(folder, "sit/locked/0.mp4")
    scan = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(load_video_list(folder)) == 4
    assert "1 folder is left out that cannot be opened" in caplog.messages[0]
    assert "sit/locked (Permission denied)" in caplog.messages[0]


def test_a_folder_without_a_video_is_refused_and_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_video_list(tmp_path / "nothing")
    with pytest.raises(ValueError, match="No video found in .*CLASS/NAME.mp4"):
        load_video_list(tmp_path)
    with pytest.raises(ValueError, match="3 files .* 2 .jpg, 1 .txt .* directly .* 1 .mp4"):
        load_video_list(write(tmp_path, "a/1.jpg", "a/2.jpg", "b/x.txt", "0.mp4"))


# Classes


def test_class_names_of_a_model_decide_the_numbers(folder):
    videos = load_video_list(folder, ("wave", "sit", "fall", "jump"))
    assert videos.labels.tolist() == [3, 3, 1, 0]
    with pytest.raises(ValueError, match="classes that the model does not: .'jump'"):
        load_video_list(folder, ("wave", "sit"))


def test_classes_in_another_order_are_the_same_videos(folder):
    videos, order = load_video_list(folder), ("wave", "jump", "sit")
    moved, read = videos.with_class_order(order), load_video_list(folder, order)
    assert found(folder, moved) == found(folder, videos)
    assert moved.fingerprint() == read.fingerprint() != videos.fingerprint()


def test_numbers_sort_by_size_before_text(tmp_path):
    names = ["10", "2", "-1", "b", "1.5", "02", "10a", "nan", "9" * 400]
    write(tmp_path, *(f"{name}/0.mp4" for name in names if len(name) < 256))
    order = ("-1", "1.5", "02", "2", "10", "10a", "b", "nan")
    assert load_video_list(tmp_path).class_names == order
    rows = "".join(f"2/0.mp4,{name}\n" for name in names)
    order = (*order[:5], "9" * 400, *order[5:])
    assert load_video_list(listing(tmp_path, "path,label\n" + rows)).class_names == order


# Names that are not UTF-8


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_videos_too(folder):
    name = os.fsdecode(b"jump/caf\xe9 \xff.mp4")
    videos = load_video_list(write(folder, name))
    assert name in [path for path, _ in found(folder, videos)]
    assert all(os.path.exists(path) for path in videos.paths)
    assert videos.fingerprint() != load_video_list(write(folder, "jump/5.mp4")).fingerprint()


# CSV files


def test_csv_lists_the_same_videos(folder):
    rows = [("path", "label"), *found(folder, load_video_list(folder))]
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    by_csv, by_folder = load_video_list(folder / "list.csv"), load_video_list(folder)
    assert by_csv.paths == by_folder.paths
    assert by_csv.labels.tolist() == by_folder.labels.tolist()


@pytest.mark.parametrize(
    "text",
    [
        'path,label\njump/2.mp4,dog\njump/3.mp4,dog \n sit/4.mp4 , "cat"\nwave/0.mp4,\tcat\t\n',
        " path ; label \r\njump/2.mp4;dog\r\njump/3.mp4;dog\r\nsit/4.mp4;cat\r\nwave/0.mp4;cat\r\n",
        "label\tpath\ndog\tjump/2.mp4\ndog\tjump/3.mp4\ncat\tsit/4.mp4\ncat\twave/0.mp4\n",
        "\ufeff\n\npath,label,,\njump/2.mp4,dog,,\n\njump/3.mp4,dog\nsit/4.mp4,cat\nwave/0.mp4,cat\n,,,",
        'path,label\r"jump/2.mp4",dog\r"jump/3.mp4","dog"\rsit/4.mp4,cat\rwave/0.mp4,cat',
    ],
    ids=["spaces", "semicolons", "tabs", "blank lines", "old line ends"],
)
def test_the_same_list_in_several_spellings(folder, text, caplog):
    assert found(folder, load_video_list(listing(folder, text))) == [
        *(("jump/2.mp4", "dog"), ("jump/3.mp4", "dog")),
        *(("sit/4.mp4", "cat"), ("wave/0.mp4", "cat")),
    ]
    assert not caplog.messages


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,class\na.mp4,x\n", r"needs the columns path,label.*got \['file', 'class'\]"),
        ("Path,Label\na.mp4,x\n", r"got \['Path', 'Label'\].* Write path,label into the first"),
        ("path name\na.mp4 0\n", r"got \['path name'\].*a line such as jump/0001.mp4,jump"),
        ("sit/4.mp4 0\nwave/0.mp4 up\n", "'wave/0.mp4 up' in line 2, which does not end in the"),
        ("path,label,path\na.mp4,x,y\n", "each once, got .'path', 'label', 'path'"),
        ("", "needs the columns path,label"),
        ("path,label\n", "has no rows"),
        ("path,label\nwave/0.mp4,\n", "no label in line 2"),
        ("path,label\n\n\nwave/0.mp4,a\n\nwave/0.mp4, \n", "no label in line 6"),
        ('path,label\n"wave/0.mp4","a\nb"\n,a\n', "no path in line 4"),
        ("path,label\r\n\r\nwave/0.mp4\r\n", "no label in line 3"),
        ("path,label\nwave/0.mp4,up, down\n", "has 3 fields in line 2, but 2 columns: put"),
        ("path,label\nwave/0.mp4,a\nnone.mp4,b\n", "1 of 2 files that do not exist.*none.mp4"),
        ("path,label\nwave,a\nsit/4.mp4,b\n", "1 of 2 .*wave, a folder without numbered pictures"),
        ("path,label\nwave/0.mp4,a\n", "one class only"),
        ('[{"path": "wave/0.mp4", "label": "a"}]', "one class only"),
        ('\n {"path": "wave/0.mp4"}\n{"path": "b"}\n', "no label in line 2"),
        ('{"path": "wave/0.mp4",\n"label": "a"}', "is JSON, but has no whole object in line 1"),
        ('{"path": "wave/0.mp4", "label": {"a": 1}}', "has {'a': 1} in line 1, where a text or"),
        ('[{"path": "wave/0.mp4"', "begins as JSON and is none"),
        ('[["wave/0.mp4", "a"]]', "no JSON object with path and label in line 1"),
        ("path,label,start\nwave/0.mp4,a,1:30\n", "the start '1:30' in line 2: write seconds"),
        ("path,label,end\nwave/0.mp4,a,-1\n", "the end '-1' in line 2: write seconds"),
        ("path,label,start,end\nwave/0.mp4,a,2,2.0\n", "the end 2.0 in line 2, .* its start 2"),
        ('path;labels\nwave/0.mp4;["a\n', "labels in line 2 that are no JSON list"),
        ('path,label\n"wave/0.mp4,a\nsit/4.mp4,b\n', "no label in line 3"),
    ],
)
def test_wrong_csv_files_are_refused(folder, text, message):
    with pytest.raises(ValueError, match=message):
        load_video_list(listing(folder, text))


@pytest.mark.parametrize(
    "content", ["path,label\nsit/4.mp4,käse\n".encode("latin1"), b"\0\xff" * 9]
)
def test_other_files_than_text_in_utf8_are_refused(folder, content):
    (folder / "list.csv").write_bytes(content)
    with pytest.raises(ValueError, match="neither a folder .* nor a CSV file in UTF-8.*Write path"):
        load_video_list(folder / "list.csv")


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([dict(id=str(number), label="holding a thing") for number in range(30_000)]),
        LONG * 20,
        ",".join([LONG] * 20),
        ",".join(f"column {number}" for number in range(50_000)),
        f"path,label\n{LONG * 2},a\n",
        f"path,label\nabsent/{'y/' * 1000}\0{LONG[:1000]},a\n",
        f"path,label\nsit/4.mp4,{LONG}\n",
        "path,label\n" + "".join(f"sit/4.mp4,{number}{LONG[:9000]}\n" for number in range(10)),
    ],
    ids=["json", "a line", "fields", "columns", "field", "path", "class", "classes"],
)
def test_errors_show_little_of_a_file(folder, text):
    file, messages = listing(folder, text), []
    for load in (
        load_video_list,
        lambda file: load_video_list(file, ("a" * 5000, "b" * 5000)),
        lambda file: load_video_list(file, ("length",), task="regression"),
    ):
        try:
            load(file)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 1 and max(map(len, messages)) < 1000 + len(str(file))


def test_columns_that_are_not_used_are_told(folder, caplog):
    text = "path,label,From,,Split\nsit/4.mp4,a,0.0,,x\nsit/4.mp4,b,2.1,,x\n"
    assert len(load_video_list(listing(folder, text))) == 2
    (told,) = caplog.messages
    assert "not used: From, Split." in told and "Only path, label or labels, start and end" in told


def test_paths_that_the_system_refuses_stay_in_the_list(folder, monkeypatch):
    names = ["n" * 300 + ".mp4", "stale/0.mp4", "sit/4.mp4"]
    look = os.stat

    def stat(path, *args, **options):
        if "stale" in str(path):
            raise OSError(errno.ESTALE, "Stale file handle")
        return look(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    rows = "".join(f"{name},{name[0]}\n" for name in names)
    videos = load_video_list(listing(folder, f"path,label\n{rows}"))
    assert [name for name, _ in found(folder, videos)] == names


def test_a_row_may_name_a_folder_of_numbered_pictures(folder):
    write(folder, "frames/a/1.jpg", "frames/a/2.jpg")
    file = listing(folder, "path,label\nframes/a,x\nsit/4.mp4,y\n")
    assert found(folder, load_video_list(file)) == [("frames/a", "x"), ("sit/4.mp4", "y")]


# Several labels, and numbers


def test_lists_of_several_labels_are_read_alike(folder, caplog):
    text = "path;label;note\n\nsit/4.mp4; up \nwave/0.mp4;down;1\nsit/4.mp4;down\n"
    videos = load_video_list(listing(folder, text), ("up", "down"), task="multi")
    assert [os.path.relpath(path, folder) for path in videos.paths] == ["sit/4.mp4", "wave/0.mp4"]
    np.testing.assert_array_equal(videos.labels, [[1, 1], [0, 1]])
    assert "not used: note" in caplog.text
    write(folder, "up/deep/0.mp4", "down/0.txt")
    for name in ("jump", "sit", "wave"):
        (folder / name).rename(folder / f".{name}")
    assert load_video_list(folder, ("up", "down"), task="multi").labels.tolist() == [[1, 0]]
    assert "1 file in" in caplog.text


def test_lists_of_numbers_are_read_alike(folder, caplog):
    file = listing(folder, "path\tlabel\tunit\n\nsit/4.mp4\t 1.5 \nwave/0.mp4\t-2\n")
    videos = load_video_list(file, ("length",), task="regression")
    assert videos.labels.tolist() == [1.5, -2.0] and videos.class_names == ("length",)
    assert videos.task == "regression"
    assert "not used: unit" in caplog.text
    with pytest.raises(ValueError, match="has the label 'up' for 4.mp4"):
        load_video_list(
            listing(folder, "path,label\nsit/4.mp4,up\n"), ("length",), task="regression"
        )
    with pytest.raises(ValueError, match="no label in line 4"):
        load_video_list(
            listing(folder, "path,label\nsit/4.mp4,1\n\nsit/4.mp4,\n"),
            ("length",),
            task="regression",
        )
