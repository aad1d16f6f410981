"""Labels of flipped clips, and clips that come several times in an epoch."""

import numpy as np
import pytest
import torch
from conftest import random_frames

from lvt_ff.data import (
    Augmentation,
    EvalTransform,
    TrainDataset,
    TrainTransform,
    VideoList,
    flip_warning,
)
from lvt_ff.data.augment_labels import MirroredLabels
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.data.texts import Texts

NAMES = ("moving left", "turning left", "moving right", "waving")
OTHER = [2, 1, 0, 3]  # of a flipped clip; "turning left" has none


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"{number}.mp4", random_frames(6, 32, 40, seed=number))
    return [str(folder / f"{number}.mp4") for number in range(4)]


def dataset(paths, labels, seed=0, **options):
    like = EvalTransform((32, 32), (32, 32), 0.5, 0.5, "bilinear")
    return TrainDataset(
        VideoList(Texts(paths), np.array(labels), NAMES),
        TrainTransform(like, Augmentation(**options)),
        num_frames=3,
        sampling="uniform",
        stride=1,
        seed=seed,
        decoder="auto",
    )


def test_flipped_clips_get_the_label_of_the_other_side(paths):
    plain, kept, swapped = (
        dataset(paths, range(4), **options)
        for options in ({}, dict(hflip=1.0), dict(hflip=1.0, hflip_swap=True))
    )
    for index in range(4):
        items = [data[0, index] for data in (plain, kept, swapped)]
        assert [item["label"] for item in items] == [index, index, OTHER[index]]
        assert torch.equal(items[1]["clip"], items[0]["clip"].flip(-1))
        without_label = index == 1
        expected = items[0] if without_label else items[1]
        assert torch.equal(items[2]["clip"], expected["clip"])


def test_labels_follow_each_single_flip(paths):
    plain = dataset(paths, range(4))
    swapping = dataset(paths, range(4), hflip=0.5, hflip_swap=True)
    found = set()
    for epoch in range(12):
        item = swapping[epoch, 0]
        flipped = not torch.equal(item["clip"], plain[epoch, 0]["clip"])
        assert item["label"] == (2 if flipped else 0)
        found.add(flipped)
    assert found == {True, False}


def test_columns_of_several_labels_are_exchanged(paths):
    labels = [[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    swapping = dataset(paths, labels, hflip=1.0, hflip_swap=True)
    expected = [[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert [list(swapping[0, index]["label"]) for index in range(4)] == expected
    plain, flipped = dataset(paths, labels), dataset(paths, labels, hflip=1.0)
    for index, has_other in enumerate([True, False, True, True]):
        source = flipped if has_other else plain
        assert torch.equal(swapping[0, index]["clip"], source[0, index]["clip"])


def test_labels_flipped_twice_are_as_before():
    mirrored = MirroredLabels(NAMES)
    for label in (*range(4), [1, 0, 0, 1], [0, 0, 1, 0]):
        label = np.array(label)
        assert np.array_equal(mirrored(mirrored(label)), label)


def test_repeats_are_other_clips_of_the_same_video(paths):
    data = dataset(paths, range(4), crop_scale=(0.3, 1.0))
    first, again, second = (data[key]["clip"] for key in ((1, 2, 0), (1, 2, 0), (1, 2, 1)))
    assert torch.equal(first, data[1, 2]["clip"]) and torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(second, data[1, 2, 2]["clip"])
    assert not torch.equal(second, data[2, 2, 1]["clip"])
    assert data[1, 2, 1]["label"] == 2


@pytest.mark.parametrize(
    "names, options, told",
    [
        (NAMES, {}, []),
        (NAMES[3:], dict(hflip=0.5), []),
        (
            NAMES,
            dict(hflip=0.5),
            ["--hflip 0.5", "'moving left' and 'moving right'", "'turning left'", "--hflip_swap"],
        ),
        (NAMES, dict(hflip=0.5, hflip_swap=True), ["1 class", "never flipped: turning left"]),
        (NAMES[::2], dict(hflip=0.5, hflip_swap=True), []),
    ],
)
def test_warnings_name_the_classes_that_flips_make_wrong(names, options, told):
    warning = flip_warning(names, Augmentation(**options))
    assert bool(warning) == bool(told)
    for part in told:
        assert part in warning
    assert "waving" not in warning


def test_warnings_stay_short():
    names = [f"{number} {side} {'x' * 300}" for number in range(50) for side in ("left", "right")]
    assert len(flip_warning(names, Augmentation(hflip=0.5))) < 1200
    lone = names[::2]
    assert len(flip_warning(lone, Augmentation(hflip=0.5, hflip_swap=True))) < 1200
