"""The picture shows the very clips and labels that training gives the model."""

import json

import numpy as np
import pytest
import torch
from conftest import random_frames
from PIL import Image

from lvt_ff import LVTFFForVideoClassification
from lvt_ff.cli import main
from lvt_ff.data import Augmentation, EvalTransform
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training import show_batch as module
from lvt_ff.training.finetune import finetune
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.training.show_batch import show_batch
from lvt_ff.utils.errors import UsageError

SIZES = dict(num_frames=3, img_size=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(6):
        folder = root / f"goes {('left', 'right', 'up')[number % 3]}"
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{number}.mp4", random_frames(8, 32, 48, seed=number))
    return root


@pytest.fixture
def shown(videos, monkeypatch, tmp_path):
    """Runs the command; gives the frames and titles that it draws."""
    seen = []
    monkeypatch.setattr(module, "contact_sheet", lambda *args: seen.append(args))

    def show(**options):
        defaults = dict(train_data=videos, model="test_lvt_ff", batch_size=4, **SIZES)
        show_batch(output_file=tmp_path / "batch.png", **defaults | options)
        _, clips, titles, *_ = seen[-1]
        return np.stack(clips), titles

    return show


@pytest.mark.parametrize("more", [dict(hflip=0.5), dict(num_repeats=2, balance="sampling")])
def test_clips_are_those_that_fine_tuning_gives_the_model(
    more, videos, shown, tmp_path, monkeypatch
):
    given = []
    forward = LVTFFForVideoClassification.forward

    def kept(self, pixel_values_videos=None, **options):
        given.append(pixel_values_videos)
        return forward(self, pixel_values_videos, **options)

    monkeypatch.setattr(LVTFFForVideoClassification, "forward", kept)
    options = dict(SIZES, model="test_lvt_ff", batch_size=4, seed=3, recipe="modern", **more)
    finetune(
        train_data=videos,
        output_dir=tmp_path / "run",
        epochs=2,
        pretrained=False,
        model_args=dict(depth=1),
        num_workers=0,
        cpu=True,
        **options,
    )
    for epoch in (1, 2):
        frames, _ = shown(epoch=epoch, **options)
        expected = (given[len(given) // 2 * (epoch - 1)] * 0.5 + 0.5) * 255
        assert frames.shape == (4, 3, 32, 32, 3)
        pixels = expected.permute(0, 1, 3, 4, 2).numpy()
        np.testing.assert_allclose(frames, pixels, atol=0.51)  # mixed pixels are no whole numbers


def test_titles_are_the_labels_with_their_shares(shown):
    plain, names = shown()
    mixed, titles = shown(mixup=0.8)
    by_hand = BatchTransform(
        EvalTransform((1, 1), (1, 1), 0.0, 1.0, "bilinear"), Augmentation(mixup=0.8), 2, 0
    )
    _, shares = by_hand(torch.zeros(2, 1, 3, 1, 1), torch.tensor([0, 1]), 0, 0)
    share = shares[0, 0].item()
    blended = share * plain[0].astype(float) + (1 - share) * plain[3]
    np.testing.assert_allclose(mixed[0], blended, atol=1.01)
    larger, smaller = sorted([(share, names[0]), (1 - share, names[3])], reverse=True)
    assert titles[0] == f"{larger[0]:.2f} {larger[1]} + {smaller[0]:.2f} {smaller[1]}"


def test_flipped_clips_have_the_label_of_the_other_side(shown, capsys):
    both = shown(batch_size=6), shown(batch_size=6, hflip=1.0, hflip_swap=True)
    (plain, names), (flipped, titles) = both
    assert (flipped == plain[:, :, :, ::-1]).all() and len(set(names)) == 3
    other = {"goes left": "goes right", "goes right": "goes left", "goes up": "goes up"}
    assert titles == [other[name] for name in names]
    assert "goes left" not in capsys.readouterr().out
    shown(hflip=1.0)
    assert "'goes left' and 'goes right'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(epoch=2),
        dict(sampling="dense"),
        dict(crop_scale=(0.1, 1.0)),
        dict(color_jitter=0.4),
        dict(auto_augment="rand-m9-n3"),
        dict(random_erasing=1.0),
        dict(cutmix=1.0),
        dict(recipe="modern"),
        dict(num_repeats=2),
        dict(balance="sampling"),
    ],
    ids=str,
)
def test_options_change_the_clips(shown, change):
    assert not np.array_equal(shown()[0], shown(**change)[0])


def test_every_part_of_a_recipe_can_be_turned_off(shown):
    off = dict(auto_augment="none", random_erasing=0.0, mixup=0.0, cutmix=0.0)
    for plain, modern in zip(shown(), shown(recipe="modern", **off), strict=True):
        assert np.array_equal(plain, modern)


def test_stride_sizes_and_batch_change_what_is_read(shown):
    strides = [shown(sampling="dense", sampling_stride=stride)[0] for stride in (1, 2)]
    assert not np.array_equal(*strides)
    frames, titles = shown(num_frames=2, img_size=48, batch_size=5)
    assert frames.shape == (5, 2, 48, 48, 3) and len(titles) == 5


def test_listed_videos_may_have_several_labels(shown, videos, tmp_path):
    paths = sorted(videos.rglob("*.mp4"))
    labels = ["a;b", "a", "b;c", "c", "a;c", "b"]
    names = [*(path.name for path in paths), "gone.mp4"]
    rows = [
        dict(path=name, labels=label.split(";"))
        for name, label in zip(names, [*labels, "a"], strict=True)
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "all").mkdir()
    for path in paths:
        (tmp_path / "all" / path.name).symlink_to(path)
    (tmp_path / "names.txt").write_text("c\nb\na\n")
    options = dict(train_data=tmp_path / "list.jsonl", video_root=tmp_path / "all", batch_size=6)
    with pytest.raises(UsageError, match="gone.mp4"):
        shown(**options)
    with pytest.raises(UsageError):
        shown(**options, missing="skip", data_format="ssv2")
    _, titles = shown(**options, missing="skip", data_format="table")
    assert sorted(titles) == sorted(label.replace(";", " + ") for label in labels)
    _, titles = shown(**options, missing="skip", class_file=tmp_path / "names.txt")
    expected = [" + ".join(reversed(label.split(";"))) for label in labels]
    assert sorted(titles) == sorted(expected)


def test_of_a_large_batch_only_the_first_clips_are_drawn(shown, monkeypatch):
    whole, names = shown(cutmix=1.0)
    monkeypatch.setattr(module, "_MOST_DRAWN", 3)
    frames, titles = shown(cutmix=1.0)
    assert np.array_equal(frames, whole[:3]) and titles == names[:3]


def test_clips_of_a_model_folder_have_its_size(shown, hf_model, processor, tmp_path):
    for part in (hf_model, processor):
        part.save_pretrained(tmp_path / "model")
    frames, _ = shown(model=str(tmp_path / "model"), num_frames=None, img_size=None)
    assert frames.shape == (4, 4, 64, 64, 3)


def test_the_picture_is_written_and_what_was_not_read_is_told(videos, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for number, path in enumerate(sorted(videos.rglob("*.mp4"))):
        (folder / f"class {number % 2}").mkdir(exist_ok=True)
        content = b"no video" if number == 0 else path.read_bytes()
        (folder / f"class {number % 2}" / f"{number}.mp4").write_bytes(content)
    args = f"--train_data {folder} --model test_lvt_ff --batch_size 6 --columns 3"
    assert main(["show-batch", *args.split(), "--output_file", str(tmp_path / "b.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not read, another in its place" in lines[0] and "0.mp4" in lines[0]
    assert lines[-1] == f"wrote {tmp_path / 'b.png'}"
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.format == "PNG" and picture.height > 1.5 * picture.width


@pytest.mark.parametrize(
    "change, message",
    [
        (["--mixup", "0.8", "--batch_size", "1"], "--batch_size of 2 or more, got 1"),
        (["--erasing_mode", "rand"], "has an effect only with --random_erasing"),
        (["--auto_augment", "rand-x9"], "cannot read 'x9'"),
        (["--model", "lvt_ff_sz"], "neither a variant nor a model folder"),
        (["--train_data", "nowhere"], "nowhere does not exist"),
        (["--output_file", "no/such/folder.png"], "There is no folder"),
    ],
)
def test_mistakes_are_told_in_a_line(videos, change, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["--train_data", str(videos), "--model", "test_lvt_ff", *change]
    assert main(["show-batch", *args]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
