"""Lists of videos in text, of every kind, and what their labels become."""

import csv
import json
import math
import os

import numpy as np
import pytest

from lvt_ff.data import load_video_list
from lvt_ff.data.class_file import read_class_file
from lvt_ff.data.video_places import videos_below, which_exist

NAMES = ("b/1.mp4", "a/0.mp4", "b/2 of 3.mp4", "a/1.mp4")
LABELS = ("jump", "sit", "jump", "run")


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def listing(root, text, name="list.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    return root / name


def found(root, videos):
    """(path below the folder, class) of each video."""
    return [
        (os.path.relpath(path, root), videos.class_names[label])
        for path, label in zip(videos.paths, videos.labels, strict=True)
    ]


# One list, many spellings


def as_csv(rows, delimiter=",", end="\n", mark=""):
    lines = [("path", "label"), *rows]
    return mark + "".join(delimiter.join(line) + end for line in lines)


SPELLINGS = {
    "list.csv": as_csv,
    "comma.txt": lambda rows: as_csv(rows, mark="\ufeff", end="\r\n"),
    "semicolon.csv": lambda rows: as_csv(rows, ";"),
    "list.tsv": lambda rows: as_csv(rows, "\t", "\r\n"),
    "list.jsonl": lambda rows: "".join(
        json.dumps(dict(path=path, label=label)) + "\n\n" for path, label in rows
    ),
    "marked.jsonl": lambda rows: (
        "\ufeff" + "\r\n".join(json.dumps(dict(label=label, path=path)) for path, label in rows)
    ),
    "list.json": lambda rows: json.dumps([dict(path=p, label=la) for p, la in rows], indent=1),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_list_in_many_spellings_is_the_same(root, name, caplog):
    rows = list(zip(NAMES, LABELS, strict=True))
    videos = load_video_list(listing(root, SPELLINGS[name](rows), name))
    assert found(root, videos) == rows
    assert videos.class_names == ("jump", "run", "sit") and videos.task == "single"
    assert videos.spans is None and not caplog.messages


@pytest.mark.parametrize(
    "line",
    [
        "{path} {label}",
        "{path},{label}",
        "{path}\t{label}",
        "{path}; {label}",
        '"{path}" {label}',
        "{path} 120 {label}",
        '"{path}" 120 {label}',
        "{path},7,{label}",
    ],
)
def test_lists_without_a_header_end_in_a_class_number(root, line):
    """As VideoMAE, SlowFast and rawframes lists are written."""
    numbers = (1, 0, 1, 2)
    text = "\n".join(line.format(path=p, label=n) for p, n in zip(NAMES, numbers, strict=True))
    videos = load_video_list(listing(root, text + "\r\n", "train.txt"))
    assert [os.path.relpath(path, root) for path in videos.paths] == list(NAMES)
    assert videos.labels.tolist() == list(numbers)
    assert videos.class_names == ("0", "1", "2")


def test_a_path_may_end_in_a_number_where_not_all_do(root):
    (root / "clip 3").mkdir()
    for number in range(2):
        (root / f"clip 3/{number}.jpg").write_bytes(b"x")
    videos = load_video_list(listing(root, "clip 3 1\na/0.mp4 0\n", "train.txt"))
    assert found(root, videos) == [("clip 3", "1"), ("a/0.mp4", "0")]


# Several labels


def test_a_column_of_several_labels_makes_a_row_of_zeros_and_ones(root):
    rows = [["jump", "sit"], ["run"], [], ["sit", "jump", "sit"]]
    with open(root / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "labels"), *zip(NAMES, map(json.dumps, rows), strict=True)])
    by_json = load_video_list(root / "list.csv")
    names = sorted({label for row in rows for label in row})
    assert by_json.class_names == tuple(names) and by_json.task == "multi"
    expected = [[int(name in row) for name in names] for row in rows]
    assert by_json.labels.tolist() == expected

    text = "path;labels\n" + "".join(
        f"{path}; {' | '.join(row)} \n" for path, row in zip(NAMES, rows, strict=True)
    )
    by_bars = load_video_list(listing(root, text))
    lines = [json.dumps(dict(path=p, labels=row)) for p, row in zip(NAMES, rows, strict=True)]
    by_lines = load_video_list(listing(root, "\n".join(lines), "list.jsonl"))
    for videos in (by_bars, by_lines):
        assert videos.labels.tolist() == expected
        assert videos.fingerprint() == by_json.fingerprint()


def test_rows_of_one_part_of_a_file_are_one_video_of_several_labels(root):
    text = (
        "path,label,start,end\na/0.mp4,jump,0,1\na/0.mp4,sit,1,2\na/0.mp4,run,0,1\nb/1.mp4,run,,\n"
    )
    videos = load_video_list(listing(root, text), task="multi")
    assert videos.class_names == ("jump", "run", "sit")
    assert videos.labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(videos.spans, [[0, 1], [1, 2], [math.nan, math.nan]])
    for other in ("single", "auto"):
        assert len(load_video_list(listing(root, text), task=other)) == 4


def test_the_task_decides_what_labels_may_be(root):
    several = listing(root, "path,labels\na/0.mp4,jump|sit\nb/1.mp4,jump\n")
    with pytest.raises(ValueError, match="has 2 labels for .*a/0.mp4, where each video should"):
        load_video_list(several, task="single")
    with pytest.raises(ValueError, match="has no labels"):
        load_video_list(listing(root, "path,labels\na/0.mp4,\n"))
    one_each = listing(root, "path,labels\na/0.mp4,sit\nb/1.mp4,jump\n")
    assert load_video_list(one_each, task="single").labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="needs one number for each video"):
        load_video_list(listing(root, "path,labels\na/0.mp4,1|2\nb/1.mp4,\n"), task="regression")


def test_labels_of_another_order_stay_with_their_classes(root):
    text = "path,labels\na/0.mp4,b|c\nb/1.mp4,a\n"
    videos, order = load_video_list(listing(root, text)), ("c", "a", "b")
    moved, read = videos.with_class_order(order), load_video_list(root / "list.csv", order)
    assert moved.labels.tolist() == read.labels.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert moved.fingerprint() == read.fingerprint() != videos.fingerprint()


# Parts of files


def test_starts_and_ends_are_seconds(root):
    text = "path,label,start,end\na/0.mp4,x,0.0,1.9\na/0.mp4,y,2.1,\nb/1.mp4,x,,\nb/1.mp4,y,,3e0\n"
    videos = load_video_list(listing(root, text))
    nan = math.nan
    np.testing.assert_array_equal(videos.spans, [[0, 1.9], [2.1, nan], [nan, nan], [nan, 3]])
    assert videos.span(0) == (0.0, 1.9)
    taken = videos.take(np.array([1]))
    np.testing.assert_array_equal(taken.spans, [[2.1, nan]])
    whole = load_video_list(listing(root, text.replace("2.1", "2.2")))
    assert whole.fingerprint() != videos.fingerprint()


# Numbers of classes


def test_numbers_are_the_numbers_of_classes(root, caplog):
    videos = load_video_list(listing(root, "path,label\na/0.mp4,2\na/1.mp4,5\nb/1.mp4,2\n"))
    assert videos.labels.tolist() == [2, 5, 2]
    assert videos.class_names == ("0", "1", "2", "3", "4", "5")
    (told,) = caplog.messages
    assert "up to 5, but no video of 4 of them: 0, 1, 3, 4." in told and "--class_file" in told


def test_numbers_are_names_where_not_all_are_numbers(root, caplog):
    videos = load_video_list(listing(root, "path,label\na/0.mp4,2\na/1.mp4,10\nb/1.mp4,none\n"))
    assert videos.labels.tolist() == [0, 1, 2] and videos.class_names == ("2", "10", "none")
    videos = load_video_list(listing(root, "path,label\na/0.mp4,02\na/1.mp4,3\n"))
    assert videos.class_names == ("02", "3") and not caplog.messages


def test_a_number_that_would_make_far_too_many_classes_is_refused(root):
    with pytest.raises(ValueError, match="class number 20240101.*20,240,102 classes.*class_file"):
        load_video_list(listing(root, "a/0.mp4 20240101\nb/1.mp4 3\n"))


def test_numbers_of_a_model_are_its_classes(root):
    names = ("zero", "one", "two")
    videos = load_video_list(listing(root, "a/0.mp4 2\nb/1.mp4 0\n"), names)
    assert videos.labels.tolist() == [2, 0] and videos.class_names == names
    with pytest.raises(ValueError, match="classes that the model does not: .'3'"):
        load_video_list(listing(root, "a/0.mp4 3\nb/1.mp4 0\n"), names)
    # Names that are numbers come first.
    videos = load_video_list(root / "list.csv", ("3", "0", "7"))
    assert videos.labels.tolist() == [0, 1]


def test_a_list_of_which_no_video_has_a_label_is_refused(root):
    rows = [dict(path=name, labels=[]) for name in NAMES]
    (root / "list.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="No video of .*list.json has a label"):
        load_video_list(root / "list.json", ("jump", "sit"))


def test_numbers_of_one_list_are_all_names_or_all_places(root):
    listing(root, "a/0.mp4 0\nb/1.mp4 1\na/0.mp4 2\n")
    assert load_video_list(root / "list.csv", ("1", "2", "3")).labels.tolist() == [0, 1, 2]


def test_numbers_that_begin_at_one_are_told_where_a_model_counts_from_zero(root, caplog):
    names = ("walk", "sit", "jump")
    listing(root, "a/0.mp4 1\nb/1.mp4 2\n")
    assert load_video_list(root / "list.csv", names).labels.tolist() == [1, 2]
    assert "class numbers from 1 on" in caplog.text and "--class_file" in caplog.text
    caplog.clear()
    listing(root, "a/0.mp4 0\nb/1.mp4 2\n")
    load_video_list(root / "list.csv", names)
    assert not caplog.messages


CLASS_FILES = {
    "names.txt": "walk\nsit\njump\nrun\n",
    "spaced.txt": "\ufeffwalk\r\n sit \r\n\r\njump\r\nrun",
    "numbered.txt": "2 jump\n0 walk\n1 sit\n3 run\n",
    "table.csv": 'id,name\n0,walk\n1,"sit"\n2,jump\n3,run\n',
    "charades.txt": "c000 walk\nc001 sit\nc002 jump\nc003 run\n",
    "names.json": '["walk", "sit", "jump", "run"]',
    "by_name.json": '{"jump": 2, "walk": "0", "sit": 1, "run": 3}',
    "by_number.json": '{"0": "walk", "1": "sit", "10": "run", "2": "jump"}',
}


@pytest.mark.parametrize("name", CLASS_FILES)
def test_a_class_file_gives_names_and_official_order(root, name, caplog):
    file = listing(root, CLASS_FILES[name], name)
    by_number = listing(root, "a/0.mp4 2\nb/1.mp4 0\n", "numbers.txt")
    by_name = listing(root, "path,label\na/0.mp4,jump\nb/1.mp4,walk\n", "names.csv")
    for source in (by_number, by_name):
        videos = load_video_list(source, class_file=file)
        assert videos.class_names == ("walk", "sit", "jump", "run")
        assert videos.labels.tolist() == [2, 0]
    assert not caplog.messages
    for source in (listing(root, "a/0.mp4 9\nb/1.mp4 0\n"), listing(root, "path,label\na/0.mp4,x")):
        with pytest.raises(ValueError, match="classes that the file of classes does not"):
            load_video_list(source, class_file=file)


def test_numbers_of_a_class_file_need_not_begin_at_zero(root):
    """As in UCF101, whose lists and names count from 1."""
    file = listing(root, "1 ApplyEyeMakeup\n2 Archery\n3 Basketball\n", "classInd.txt")
    videos = load_video_list(listing(root, "a/0.mp4 1\nb/1.mp4 3\n"), class_file=file)
    assert videos.class_names == ("ApplyEyeMakeup", "Archery", "Basketball")
    assert videos.labels.tolist() == [0, 2]
    with pytest.raises(ValueError, match="classes that the file of classes does not: .'0'"):
        load_video_list(listing(root, "a/0.mp4 0\nb/1.mp4 3\n"), class_file=file)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no names of classes. Write one name a line"),
        ("jump\nsit\njump\n", "the name 'jump' more than once"),
        ('{"jump": 0, "sit": 0}', "the number '0' more than once"),
        ('{"jump": [0]}', "other JSON than names"),
        ('["jump", 1]', "other JSON than names"),
        ('["jump"', "is no JSON"),
    ],
)
def test_wrong_class_files_are_refused(root, text, message):
    with pytest.raises(ValueError, match=message):
        read_class_file(listing(root, text, "classes.txt"))
    with pytest.raises(ValueError, match="no file .*absent.txt"):
        read_class_file(root / "absent.txt")


def test_folders_of_some_classes_keep_the_numbers_of_a_class_file(root):
    file = listing(root, "d\nc\nb\na\n", "classes.txt")
    videos = load_video_list(root, class_file=file)
    assert videos.class_names == ("d", "c", "b", "a")
    assert {videos.class_names[label] for label in videos.labels} == {"a", "b"}


# Missing files, and where they are


def test_missing_files_are_counted_and_may_be_left_out(root, caplog):
    text = "path,label,start\na/0.mp4,x,1\nno/1.mp4,y,2\nb/1.mp4,x,3\nno/2.mp4,z,4\n"
    file = listing(root, text)
    with pytest.raises(ValueError) as raised:
        load_video_list(file)
    told = str(raised.value)
    assert f"lists 2 of 4 files that do not exist, such as {root}/no/1.mp4: paths count" in told
    assert "--video_root" in told and "--missing skip" in told
    videos = load_video_list(file, missing="skip")
    assert [os.path.relpath(path, root) for path in videos.paths] == ["a/0.mp4", "b/1.mp4"]
    assert videos.class_names == ("x", "y", "z"), "classes are those of the list, not of the disk"
    assert videos.labels.tolist() == [0, 0] and videos.spans[:, 0].tolist() == [1, 3]
    (message,) = caplog.messages
    assert "2 of 4 files" in message and "left out" in message


def test_a_list_without_any_file_is_always_an_error(root):
    file = listing(root, "path,label\nno/1.mp4,y\nno/2.mp4,z\n")
    for missing in ("fail", "skip"):
        with pytest.raises(ValueError, match="2 of 2 files that do not exist.*--video_root where"):
            load_video_list(file, missing=missing)


def test_a_root_is_where_paths_count_from(root, tmp_path_factory):
    file = listing(tmp_path_factory.mktemp("lists"), "path,label\n0.mp4,x\n1.mp4,y\n")
    with pytest.raises(ValueError, match="2 of 2"):
        load_video_list(file)
    videos = load_video_list(file, video_root=root / "a")
    assert found(root, videos) == [("a/0.mp4", "x"), ("a/1.mp4", "y")]
    absolute = listing(root, f"path,label\n{root}/a/0.mp4,x\n{root}/b/1.mp4,y\n")
    assert len(load_video_list(absolute, video_root="/nowhere")) == 2


def test_a_root_is_told_to_be_of_no_use_for_a_folder(root, caplog):
    assert len(load_video_list(root, video_root="/elsewhere")) == 4
    assert "/elsewhere is not used" in caplog.text


def test_many_files_are_looked_for_by_listing_their_folders(tmp_path, monkeypatch):
    for number in range(0, 40, 2):
        (tmp_path / f"{number}.mp4").write_bytes(b"x")
    (tmp_path / "1.mp4").symlink_to("0.mp4")
    (tmp_path / "3.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "5.mp4").mkdir()
    paths = [str(tmp_path / f"{number}.mp4") for number in range(40)]
    paths += [str(tmp_path / "./0.mp4"), str(tmp_path / "5.mp4/../2.mp4"), "0.mp4", ""]
    expected = [os.path.isfile(path) for path in paths]
    asked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: asked.append(path) or stat(path, **how))
    assert which_exist(paths).tolist() == expected
    assert expected.count(True) == 23 and len(asked) == len(paths) - 21


# Which format


def test_a_source_of_no_format_says_what_was_looked_for(root):
    with pytest.raises(ValueError, match="does not exist"):
        load_video_list(root / "nothing.csv")
    with pytest.raises(ValueError, match="data_format must be one of.*'table'.*got 'csv'"):
        load_video_list(root, data_format="csv")
    os.mkfifo(root / "pipe")  # which would wait for a writer
    with pytest.raises(ValueError, match="no known format.*folder .a folder with one.*--data_form"):
        load_video_list(root / "pipe")


def test_a_format_can_be_forced(root):
    rows = [dict(path=p, label=la, id=p, template=la) for p, la in zip(NAMES, "xyxy", strict=True)]
    file = listing(root, json.dumps(rows), "train.json")
    with pytest.raises(ValueError, match="4 of 4 files"):  # taken for Something-Something
        load_video_list(file)
    assert load_video_list(file, data_format="table").class_names == ("x", "y")
    with pytest.raises(ValueError, match="is no folder"):
        load_video_list(file, data_format="folder")


def test_columns_of_other_data_sets_are_no_reason_to_take_a_table_for_them(root, caplog):
    for names in ("path,label,id,actions", "path,label,youtube_id,time_start,time_end"):
        rows = [f"{path},{path[0]}" + ",1" * (names.count(",") - 1) for path in NAMES]
        videos = load_video_list(listing(root, "\n".join([names, *rows])))
        assert videos.class_names == ("a", "b")
        assert "not used: " in caplog.text


def test_videos_below_a_folder_are_found_once_whatever_leads_to_them(root):
    (root / "a/again").symlink_to(root)
    (root / "a/self").symlink_to("self")
    assert videos_below(root, {"0", "2 of 3", "x"}) == {
        "0": [f"{root}/a/0.mp4"],
        "2 of 3": [f"{root}/b/2 of 3.mp4"],
    }
