"""Something-Something V2, Kinetics and Charades, in the files and folders that people have."""

import csv
import json
import os
from typing import get_args

import numpy as np
import pytest

from lvt_ff.data import DataFormat, load_video_list
from lvt_ff.data.formats import FORMATS, recognised


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def below(root, videos):
    return [os.path.relpath(path, root) for path in videos.paths]


def test_formats_and_their_names_are_one_list():
    assert get_args(DataFormat) == ("auto", *FORMATS)


# Something-Something V2

TEMPLATES = {
    "Approaching [something] with your camera": "0",
    "Pushing [something] from left to right": "1",
    "Pushing [something] from right to left": "2",
    "Putting [something] onto [something]": "10",
    "Holding [something]": "3",
}
SSV2 = [
    ("78687", "Putting [something] onto [something]"),
    ("1", "Holding [something]"),
    ("42326", "Approaching [something] with your camera"),
    ("2", "Holding [something]"),
]


def bare(template):
    return template.replace("[", "").replace("]", "")


def write_ssv2(folder, name="train.json", labels="labels.json", rows=SSV2):
    folder.mkdir(exist_ok=True)
    content = [
        dict(id=i, label=t.replace("[something]", "a cup"), template=t, placeholders=["a cup"])
        for i, t in rows
    ]
    (folder / name).write_text(json.dumps(content))
    if labels:
        (folder / labels).write_text(json.dumps({bare(t): n for t, n in TEMPLATES.items()}))
    return folder / name


@pytest.mark.parametrize(
    "name, labels",
    [
        ("train.json", "labels.json"),
        ("something-something-v2-validation.json", "something-something-v2-labels.json"),
    ],
)
def test_ssv2_numbers_are_those_of_its_labels(tmp_path, name, labels, caplog):
    file = write_ssv2(tmp_path / "labels", name, labels)
    root = make(tmp_path / "videos", *(f"{i}.webm" for i, _ in SSV2))
    assert recognised(str(file)) == "ssv2"
    videos = load_video_list(file, video_root=root)
    numbers = json.loads((tmp_path / "labels" / labels).read_text())
    order = sorted(numbers, key=lambda name: int(numbers[name]))
    assert videos.class_names == tuple(order) and len(order) == len(TEMPLATES)
    rows = json.loads(file.read_text())
    assert below(root, videos) == [f"{row['id']}.webm" for row in rows]
    assert [order[label] for label in videos.labels] == [bare(row["template"]) for row in rows]
    assert not caplog.messages


def test_ssv2_videos_may_lie_in_other_folders_and_forms(tmp_path):
    file = write_ssv2(tmp_path)
    make(tmp_path, "20bn-something-something-v2/78687.webm", "parts/00/1.mp4", "parts/01/2.MP4")
    make(tmp_path, "frames/42326/img_00001.jpg", "frames/42326/img_00002.jpg", "parts/.x/1.mp4")
    (tmp_path / "parts/loop").symlink_to(tmp_path)
    assert below(tmp_path, load_video_list(file)) == [
        *("20bn-something-something-v2/78687.webm", "parts/00/1.mp4"),
        *("frames/42326", "parts/01/2.MP4"),
    ]


def test_ssv2_without_its_labels_says_so(tmp_path, caplog):
    file = write_ssv2(make(tmp_path, *(f"{i}.webm" for i, _ in SSV2)), labels=None)
    videos = load_video_list(file)
    assert videos.class_names == tuple(sorted({bare(template) for _, template in SSV2}))
    assert "no labels.json beside" in caplog.text and "--class_file" in caplog.text
    named = tmp_path / "elsewhere.json"
    named.write_text(json.dumps({bare(t): int(n) for t, n in TEMPLATES.items()}))
    assert len(load_video_list(file, class_file=named).class_names) == len(TEMPLATES)


def test_ssv2_with_the_classes_of_a_model(tmp_path, caplog):
    file = write_ssv2(make(tmp_path, *(f"{i}.webm" for i, _ in SSV2)))
    names = tuple(reversed([bare(template) for template in TEMPLATES]))
    videos = load_video_list(file, names)
    assert [names[label] for label in videos.labels] == [bare(template) for _, template in SSV2]
    (tmp_path / "labels.json").unlink()
    again = load_video_list(file, names)
    assert again.labels.tolist() == videos.labels.tolist() and not caplog.messages
    with pytest.raises(ValueError, match="classes that the model does not"):
        load_video_list(file, names[1:3])


def test_ssv2_missing_videos_are_counted(tmp_path, caplog):
    file = write_ssv2(make(tmp_path, "1.webm", "2.mp4"))
    with pytest.raises(ValueError, match=r"2 of 4 files .*78687.webm: looked for in .*all folders"):
        load_video_list(file)
    videos = load_video_list(file, missing="skip")
    assert below(tmp_path, videos) == ["1.webm", "2.mp4"] and len(videos.class_names) == 5
    with pytest.raises(ValueError, match="no folder .*nowhere to look for videos in"):
        load_video_list(file, video_root=tmp_path / "nowhere")


def test_large_json_is_never_in_a_message(tmp_path):
    rows = [(str(number), f"Holding [thing {number}]") for number in range(5000)]
    cases = [
        write_ssv2(tmp_path / "a", rows=rows),  # templates that labels.json does not have
        write_ssv2(tmp_path / "b", labels=None, rows=rows),  # no video
    ]
    test = tmp_path / "test.json"
    test.write_text(json.dumps([dict(id=i) for i, _ in rows]))
    broken = tmp_path / "broken.json"
    broken.write_text(cases[0].read_text()[:-1000])
    for file in (*cases, test, broken):
        for form in ("auto", "ssv2"):
            with pytest.raises(ValueError) as raised:
                load_video_list(file, data_format=form)
            assert len(str(raised.value)) < 800
    with pytest.raises(ValueError, match="test.json has none"):
        load_video_list(test, data_format="ssv2")


# Kinetics

CLIPS = [
    ("testifying", "---QUuC4vJs", 84, 94, "validate"),
    ("arm wrestling", "_a-b_c", 0, 10, "train"),
    ("zumba", "--07WQ2iBlw", 1, 11, "train"),
    ("arm wrestling", "_a-b_c", 10, 20, "train"),
]
ORDER = ("arm wrestling", "testifying", "zumba")


def name_of(clip):
    _, video, start, end, _ = clip
    return f"{video}_{start:06d}_{end:06d}"


def write_kinetics(folder, clips=CLIPS, columns=5):
    names = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")
    rows = [(*clip, 0) for clip in clips]
    with open(folder / "kinetics.csv", "w", newline="") as file:
        csv.writer(file).writerows([names[:columns], *(row[:columns] for row in rows)])
    return folder / "kinetics.csv"


LAYOUTS = {
    "by class": lambda clip: f"{clip[0]}/{name_of(clip)}.mp4",
    "underscores": lambda clip: f"{clip[0].replace(' ', '_')}/{name_of(clip)}.mkv",
    "split and class": lambda clip: f"{clip[4]}/{clip[0]}/{name_of(clip)}.mp4",
    "class and split": lambda clip: f"{clip[0]}/{clip[4]}/{name_of(clip)}.mp4",
    "split": lambda clip: f"{clip[4]}/{name_of(clip)}.mp4",
    "flat": lambda clip: f"{name_of(clip)}.webm",
}


@pytest.mark.parametrize("columns", [4, 5, 6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinetics_clips_are_found_in_every_layout(tmp_path, layout, columns):
    wanted = [LAYOUTS[layout](clip) for clip in CLIPS]
    root = make(tmp_path / "videos", *wanted)
    file = write_kinetics(tmp_path, columns=columns)
    assert recognised(str(file)) == "kinetics"
    videos = load_video_list(file, video_root=root)
    assert below(root, videos) == wanted and videos.spans is None
    assert videos.class_names == ORDER
    with open(file, newline="") as rows:
        labels = [row["label"] for row in csv.DictReader(rows)]
    assert [ORDER[label] for label in videos.labels] == labels


def test_kinetics_files_of_whole_videos_are_cut_by_its_times(tmp_path, caplog):
    make(tmp_path, "---QUuC4vJs.mp4", "arm wrestling/_a-b_c.mkv", f"{name_of(CLIPS[2])}.mp4")
    videos = load_video_list(write_kinetics(tmp_path))
    assert below(tmp_path, videos) == [
        *("---QUuC4vJs.mp4", "arm wrestling/_a-b_c.mkv"),
        *(f"{name_of(CLIPS[2])}.mp4", "arm wrestling/_a-b_c.mkv"),
    ]
    nan = np.nan
    np.testing.assert_array_equal(videos.spans, [[84, 94], [0, 10], [nan, nan], [10, 20]])
    assert "3 files are named by the video alone" in caplog.text


def test_kinetics_copies_of_a_clip_are_told_apart_by_class_and_split(tmp_path):
    names = [f"{split}/{label}/{name_of(CLIPS[1])}.mp4" for split, label in (
        ("test", "zumba"), ("train", "arm_wrestling"), ("train", "zumba"), ("val", "arm_wrestling")
    )]  # fmt: skip
    make(tmp_path, *names)
    videos = load_video_list(write_kinetics(tmp_path, CLIPS[1:3]), missing="skip")
    assert below(tmp_path, videos) == [names[1]]


def test_kinetics_says_where_classes_are_numbered_among_themselves(tmp_path, caplog):
    make(tmp_path, *(f"{name_of(clip)}.mp4" for clip in CLIPS))
    file = write_kinetics(tmp_path, columns=4)
    load_video_list(file)
    assert "has 3 classes, and Kinetics 400, 600 or 700" in caplog.text
    caplog.clear()
    (tmp_path / "classes.txt").write_text("abseiling\nzumba\ntestifying\narm wrestling\n")
    videos = load_video_list(file, class_file=tmp_path / "classes.txt")
    assert videos.labels.tolist() == [2, 3, 1, 3]
    load_video_list(file, ORDER)
    assert not caplog.messages


def test_kinetics_splits_of_one_file(tmp_path, caplog):
    make(tmp_path, *(f"{name_of(clip)}.mp4" for clip in CLIPS))
    load_video_list(write_kinetics(tmp_path), ORDER)
    assert "several splits (train, validate), and all are used" in caplog.text
    caplog.clear()
    videos = load_video_list(write_kinetics(tmp_path), ORDER, split="validate")
    assert not caplog.messages
    assert below(tmp_path, videos) == [f"{name_of(CLIPS[0])}.mp4"]
    with pytest.raises(ValueError, match=r"no clips of the split test: it has \['train', 'valid"):
        load_video_list(write_kinetics(tmp_path), split="test")


@pytest.mark.parametrize(
    "text, message",
    [
        ("youtube_id,time_start,time_end,split\na,0,10,test\n", "needs the columns label, .*test"),
        ("label,youtube_id,time_start,time_end\nx,a,0,10\ny,b,zero,10\n", "no clip in line 3"),
        ("label,youtube_id,time_start,time_end\nx,a,0\n", "no clip in line 2"),
    ],
)
def test_wrong_lists_of_kinetics_are_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_video_list(tmp_path / "list.csv")


# Charades

COLUMNS = ("id", "subject", "scene", "quality", "script", "actions", "length")
CHARADES = [
    ("46GP8", "c092 11.90 21.20;c147 0.00 12.60", 24.83),
    ("N11GT", "c098 2.10 14.00;c075 0.00 13.00;c098 20.00 22.5", 24.58),
    ("KRF68", "", 31.0),
]


def write_charades(folder, rows=CHARADES, classes=True):
    with open(folder / "Charades_v1_train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        script = 'A person, in the kitchen;\nsays "hello".'
        writer.writerows(
            [COLUMNS, *((i, "HR43", "Kitchen", 6, script, actions, s) for i, actions, s in rows)]
        )
    if classes:
        lines = (f"c{number:03d} Doing {number:03d}, of something\n" for number in range(157))
        (folder / "Charades_v1_classes.txt").write_text("".join(lines))
    return folder / "Charades_v1_train.csv"


def test_charades_videos_have_all_of_their_actions(tmp_path, caplog):
    file = write_charades(make(tmp_path, *(f"Charades_v1_480/{i}.mp4" for i, _, _ in CHARADES)))
    assert recognised(str(file)) == "charades"
    videos = load_video_list(file)
    assert below(tmp_path, videos) == [f"Charades_v1_480/{i}.mp4" for i, _, _ in CHARADES]
    assert videos.class_names == tuple(f"Doing {n:03d}, of something" for n in range(157))
    with open(file, newline="") as rows:
        texts = [row["actions"] for row in csv.DictReader(rows)]
    expected = np.zeros((3, 157), int)
    for video, text in enumerate(texts):
        for action in text.split(";") if text else []:
            expected[video, int(action[1:4])] = 1
    np.testing.assert_array_equal(videos.labels, expected)
    assert videos.task == "multi" and videos.spans is None and not caplog.messages


def overlapping(text, first, last):
    """Numbers of the actions that have some of the time between two frames."""
    actions = [action.split() for action in text.split(";") if action]
    return {int(c[1:]) for c, start, end in actions if float(start) <= last and first <= float(end)}


def test_charades_actions_keep_their_times(tmp_path):
    file = write_charades(make(tmp_path, *(f"{i}.mp4" for i, _, _ in CHARADES)))
    videos = load_video_list(file)
    turned = videos.take(np.array([2, 1, 0]))
    for first, last in ((0.0, 1.0), (11.0, 11.8), (11.95, 12.5), (13.5, 19.0), (22.5, 24.0)):
        for number, (_, text, _) in enumerate(CHARADES):
            expected = overlapping(text, first, last)
            assert {*videos.label_spans.within(number, first, last).tolist()} == expected
            assert {*turned.label_spans.within(2 - number, first, last).tolist()} == expected
    order = tuple(reversed(videos.class_names))
    moved = videos.with_class_order(order)
    assert {*moved.label_spans.within(0, 0, 1).tolist()} == {156 - 147}
    assert (
        videos.fingerprint()
        != load_video_list(
            write_charades(tmp_path, [*CHARADES[:2], ("KRF68", "c000 0.0 1.0", 31.0)])
        ).fingerprint()
    )


def test_charades_without_its_classes_says_so(tmp_path, caplog):
    file = write_charades(make(tmp_path, *(f"{i}.mp4" for i, _, _ in CHARADES)), classes=False)
    assert load_video_list(file).class_names == tuple(f"c{n:03d}" for n in range(157))
    assert "no Charades_v1_classes.txt beside" in caplog.text


def test_charades_frames_may_be_pictures_and_videos_may_be_missing(tmp_path):
    make(tmp_path, *(f"Charades_v1_rgb/46GP8/46GP8-{number:06d}.jpg" for number in (1, 2, 3)))
    videos = load_video_list(write_charades(tmp_path), missing="skip")
    assert below(tmp_path, videos) == ["Charades_v1_rgb/46GP8"]
    assert np.flatnonzero(videos.labels[0]).tolist() == [92, 147]
    assert {*videos.label_spans.within(0, 0, 1).tolist()} == {147}


@pytest.mark.parametrize(
    "actions, message",
    [("c92 1 2", "the action 'c92 1 2' in line"), ("c157 1.0 2.0", "action c157, which is none")],
)
def test_wrong_actions_are_refused(tmp_path, actions, message):
    file = write_charades(make(tmp_path, "46GP8.mp4"), [("46GP8", actions, 3.0)])
    with pytest.raises(ValueError, match=message):
        load_video_list(file)
    with pytest.raises(ValueError, match="has 2 labels for .*46GP8.mp4, where each"):
        load_video_list(write_charades(tmp_path, CHARADES[:1]), task="single")
