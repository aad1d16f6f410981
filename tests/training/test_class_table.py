"""How many videos each class has, told in full or in short."""

import numpy as np

from lvt_ff.data import VideoList
from lvt_ff.data.texts import Texts
from lvt_ff.training.class_table import class_table


def videos_of(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"c{number}" for number in range(len(counts)))
    return VideoList(Texts(f"{n}.mp4" for n in range(len(labels))), labels, names)


def test_few_classes_have_a_line_each():
    assert class_table(videos_of(3, 1)).splitlines() == [
        *("training  class", "       3  c0", "       1  c1"),
        "training: smallest class c1 (1 video), largest c0 (3 videos)",
    ]


def test_many_classes_are_told_by_the_smallest_the_largest_and_the_empty():
    training, evaluation = [5] * 300, [1] * 300
    training[7], training[9] = 2, 11
    evaluation[20:40] = [0] * 20
    lines = class_table(videos_of(*training), videos_of(*evaluation)).splitlines()
    assert lines[0] == "training: smallest class c7 (2 videos), largest c9 (11 videos)"
    assert lines[1] == "evaluation: smallest class c20 (0 videos), largest c0 (1 video)"
    assert lines[2].startswith("evaluation: 20 classes without a video: c20, c21, ")
    assert lines[2].endswith("c29 and 10 more")
    assert len(lines) == 3


def test_long_names_do_not_fill_the_terminal():
    names = ("a" * 5000, "b")
    videos = VideoList(Texts(["0.mp4", "1.mp4"]), np.array([0, 1]), names)
    assert len(class_table(videos)) < 500
