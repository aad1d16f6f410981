"""check-data: each kind of fault in a list, counted and named, and nothing else."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import random_frames

from lvt_ff.cli import main
from lvt_ff.data.check_data import check_data
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.data.published import PUBLISHED, recognised_set
from lvt_ff.data.synthetic import write_video
from lvt_ff.utils.errors import Failure

pytestmark = pytest.mark.usefixtures("inline")


@pytest.fixture
def good(tmp_path):
    """Six videos of three classes, nothing wrong with them."""
    for index, name in enumerate(("left", "right", "jump") * 2):
        file = tmp_path / "videos" / name / f"clip{index}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(8, 32, 48, seed=index))
    return tmp_path / "videos"


def findings(*args, **options) -> list[dict]:
    """The rows of the file that the command writes."""
    file = Path(args[0]).parent / "bad.csv"
    with pytest.raises(Failure, match="bad"):
        check_data(*map(str, args), output_file=file, num_frames=8, num_workers=2, **options)
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def test_nothing_wrong_is_status_0(good, capsys):
    results = check_data(str(good), num_frames=8)
    counts = results["lists"]["training"]
    assert (counts["num_listed"], counts["num_checked"], counts["bad"]) == (6, 6, {})
    assert main(["check-data", str(good), "--num_frames", "8"]) == 0
    assert "6 videos listed, 6 looked at, 3 classes of 2 to 2 videos" in capsys.readouterr().out


def test_more_frames_than_a_video_has_are_told(good):
    with pytest.raises(Failure, match="6 things"):
        check_data(str(good), num_frames=9)


def faulty_list(good: Path) -> Path:
    """A list in which each kind of fault is once, twice or three times."""
    (good / "empty.mp4").touch()
    (good / "text.mp4").write_text("no video")
    write_video(good / "short.mp4", random_frames(5, 32, 48, seed=50))
    write_video(good / "cut.mkv", random_frames(40, 32, 48, seed=51))
    whole = (good / "cut.mkv").read_bytes()
    (good / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    shutil.copy(good / "left/clip0.mp4", good / "copy.mp4")
    (good / "classes.txt").write_text("left\nright\njump\nsit\n")
    rows = [f"{name}/clip{i}.mp4,{name}" for i, name in enumerate(("left", "right", "jump") * 2)]
    rows += ["gone.mp4,left", "nowhere/gone.mp4,left", "empty.mp4,left", "text.mp4,left"]
    rows += ["short.mp4,jump", "cut.mkv,jump", "copy.mp4,right", "left/clip0.mp4,left"]
    rows += ["jump/clip2.mp4,fly"]
    (good / "list.csv").write_text("\n".join(["path,label", *rows]))
    return good / "list.csv"


def test_each_fault_is_counted_and_named(good):
    rows = findings(faulty_list(good), class_file=good / "classes.txt")
    assert Counter(row["kind"] for row in rows) == {
        "missing": 2,
        "unknown label": 1,
        "empty": 1,
        "unreadable": 1,
        "too short": 1,
        "damaged in part": 1,
        "duplicate": 2,
        "class without videos": 1,
    }
    by_kind = {row["kind"]: row for row in rows}
    assert by_kind["unknown label"]["reason"] == "'fly' is none of the 4 classes"
    assert by_kind["too short"]["reason"].startswith("5 frames")
    assert "sit" in by_kind["class without videos"]["reason"]
    twice = {Path(row["path"]).name: row["reason"] for row in rows if row["kind"] == "duplicate"}
    assert twice["clip0.mp4"] == "listed before"
    assert twice["copy.mp4"].startswith("the same content") and "another label" in twice["copy.mp4"]
    assert {row["list"] for row in rows} == {"training"}


def test_parts_of_one_file_are_no_duplicates(good):
    lines = ["path,label,start,end", "left/clip0.mp4,left,0,0.25", "left/clip0.mp4,left,0.25,0.5"]
    lines += ["right/clip1.mp4,right,,"]
    (good / "parts.csv").write_text("\n".join(lines))
    assert check_data(str(good / "parts.csv"), num_frames=4)["lists"]["training"]["bad"] == {}
    (good / "parts.csv").write_text("\n".join([*lines, "left/clip0.mp4,left,0,0.25"]))
    (row,) = [row for row in findings(good / "parts.csv") if row["kind"] == "duplicate"]
    assert row["reason"] == "listed before"


def test_videos_in_both_lists_are_found_by_place_and_by_content(good, tmp_path):
    other = tmp_path / "test"
    for name, source in (("left/x.mp4", "left/clip0.mp4"), ("right/y.mp4", "right/clip1.mp4")):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good / source, other / name)
    write_video(other / "right/clip4.mp4", random_frames(8, 32, 48, seed=99))
    rows = findings(good, other)
    assert sorted(Path(row["path"]).name for row in rows) == ["x.mp4", "y.mp4"]
    assert {row["list"] for row in rows} == {"evaluation"}
    assert all("the same content as" in row["reason"] for row in rows)
    rows = findings(good, good)
    assert len(rows) == 6 and {row["reason"] for row in rows} == {"also in the training list"}
    file = tmp_path / "only_new.csv"
    file.write_text(f"path,label\n{other}/right/clip4.mp4,right\n{other}/gone.mp4,left\n")
    (row,) = findings(good, file)
    assert (row["list"], row["kind"]) == ("evaluation", "missing")


def test_names_in_both_lists_are_a_note(good, tmp_path):
    write_video(tmp_path / "clip4.mp4", random_frames(8, 32, 48, seed=99))
    (tmp_path / "test.csv").write_text("path,label\nclip4.mp4,right\n")
    results = check_data(str(good), str(tmp_path / "test.csv"), num_frames=8)
    assert any("clip4" in note for note in results["notes"])


def test_shards_are_checked_against_files(good, tmp_path):
    prepare_data(str(good), tmp_path / "shards")
    assert (
        check_data(str(tmp_path / "shards"), num_frames=8)["lists"]["training"]["num_checked"] == 6
    )
    rows = findings(good, tmp_path / "shards")
    assert Counter(row["kind"] for row in rows) == {"in both lists": 6}


def test_pairs_of_left_and_right_are_a_note(good):
    (note,) = check_data(str(good), num_frames=8)["notes"]
    assert "'left' and 'right'" in note and "--hflip_swap" in note


def test_nothing_left_is_wrong_usage(tmp_path, capsys):
    (tmp_path / "list.csv").write_text("path,label\na.mp4,x\nb.mp4,y\n")
    assert main(["check-data", str(tmp_path / "list.csv")]) == 2
    assert "None of the 2 videos" in capsys.readouterr().err


def test_counts_are_held_against_the_published_ones(tmp_path):
    names = ["Pushing something from left to right", *(f"Doing {n}" for n in range(173))]
    (tmp_path / "labels.json").write_text(
        json.dumps({name: str(i) for i, name in enumerate(names)})
    )
    rows = [dict(id=str(n), template=names[n].replace("something", "[something]")) for n in (0, 5)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    for row in rows:
        write_video(tmp_path / f"{row['id']}.webm", random_frames(8, 32, 48), codec="libvpx-vp9")
    with pytest.raises(Failure):
        check_data(str(tmp_path / "train.json"), num_frames=8)
    from lvt_ff.data.check_data import _published, _read

    note = _published([_read("training", str(tmp_path / "train.json"), "auto", None)])[0]
    assert "168,913 videos for training and 24,777 for validation; 2 are listed" in note


def test_published_sets_are_recognised_by_their_classes():
    for one in PUBLISHED:
        names = [one.a_class.capitalize(), *(f"class {n}" for n in range(one.num_classes - 1))]
        assert recognised_set(tuple(names)) is one
        assert recognised_set(tuple(names[:-1])) is None
        assert recognised_set(tuple(names[1:] + ["other"])) is None
