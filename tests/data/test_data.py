"""Transforms and datasets: one preprocessing, one draw per clip."""

import numpy as np
import pytest
import timm
import torch
from conftest import random_frames

from lvt_ff import VideoReadError
from lvt_ff.data import (
    Augmentation,
    EvalDataset,
    EvalTransform,
    TrainDataset,
    TrainTransform,
    collate,
    dataset,
    load_video_list,
    read_clip,
    read_views,
    sample_indices,
    transforms,
)
from lvt_ff.data.synthetic.demo import TIME_CLASSES, draw_clip
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.data.transforms import crop_clip, resize_to_cover
from lvt_ff.hub.model_folder import build_model
from lvt_ff.video.reader import read_frames

CLIP = dict(num_frames=4, sampling="uniform", stride=2, decoder="auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number, label in enumerate(["wave", "wave", "jump", "jump", "sit"]):
        (root / label).mkdir(exist_ok=True)
        write_video(root / label / f"{number}.mp4", random_frames(12, 64, 96, seed=number))
    return root


def small_transform():
    return EvalTransform((32, 32), (32, 32), [0.5] * 3, [0.5] * 3, "bilinear")


def test_one_clip_is_one_tensor_in_timm_processor_and_training(folder):
    path = folder / "wave" / "0.mp4"
    model, processor, _ = build_model("test_lvt_ff", ["a", "b"])
    by_processor = processor(str(path), return_tensors="pt")["pixel_values_videos"][0]
    by_training = EvalDataset(
        load_video_list(folder), processor.eval_transform(), num_clips=1, num_crops=1, **CLIP
    )[3]["clip"][0]
    config = timm.data.resolve_model_data_config(timm.create_model("test_lvt_ff"))
    assert config["crop_pct"] == 1.0
    size = config["input_size"][1:]
    by_timm_config = EvalTransform(
        size, size, config["mean"], config["std"], config["interpolation"]
    )(read_clip(path, lambda n: sample_indices(n, 4)))
    assert by_processor.shape == (4, 3, 64, 64)
    assert torch.equal(by_processor, by_training)
    assert torch.equal(by_processor, by_timm_config)
    assert by_processor.min() >= -1 and by_processor.max() <= 1


def test_resize_covers_and_keeps_the_shape():
    clip = torch.zeros(2, 3, 60, 90, dtype=torch.uint8)
    assert resize_to_cover(clip, (32, 32), "bilinear").shape == (2, 3, 32, 48)
    assert resize_to_cover(clip, (32, 64), "bicubic").shape == (2, 3, 43, 64)
    assert resize_to_cover(clip.transpose(2, 3), (32, 32), "bilinear").shape == (2, 3, 48, 32)


def test_large_frames_are_resized_part_by_part(monkeypatch):
    clip = torch.from_numpy(random_frames(5, 60, 90)).permute(0, 3, 1, 2)
    for name in ("nearest", "bilinear", "bicubic"):
        whole = resize_to_cover(clip, (32, 32), name)
        monkeypatch.setattr(transforms, "_RESIZED_BYTES", 2 * clip[0].nbytes)
        torch.testing.assert_close(resize_to_cover(clip, (32, 32), name), whole, atol=0, rtol=0)
        monkeypatch.undo()


def test_three_crops_lie_left_centre_right_or_top_centre_bottom():
    ramp = np.tile(np.arange(96, dtype=np.uint8), (2, 32, 1))[..., None].repeat(3, axis=-1)
    transform = EvalTransform((32, 32), (32, 32), [0.0] * 3, [1 / 255] * 3, "bilinear")
    lefts = [crop[0, 0, 0, 0].item() for crop in transform.crops(ramp, 3)]
    assert lefts == pytest.approx([0, 32, 64])
    tops = [crop[0, 0, 0, 0].item() for crop in transform.crops(ramp.swapaxes(1, 2), 3)]
    assert tops == pytest.approx([0, 32, 64])
    assert len(transform.crops(ramp, 1)) == 1
    torch.testing.assert_close(transform.crops(ramp, 3)[1], transform(ramp))


def test_crop_positions():
    clip = torch.arange(5.0).expand(1, 1, 4, 5)
    assert crop_clip(clip, (2, 3), (1.0, 1.0))[0, 0, 0].tolist() == [2, 3, 4]
    assert crop_clip(clip, (2, 3), (0.0, 0.0))[0, 0, 0].tolist() == [0, 1, 2]


def train_set(folder, seed=0, **changes):
    augmentation = Augmentation(scale_jitter=(1.0, 1.3), hflip=0.5)
    transform = TrainTransform(small_transform(), augmentation)
    return TrainDataset(load_video_list(folder), transform, seed=seed, **{**CLIP, **changes})


def test_training_clips_are_functions_of_seed_epoch_and_index(folder):
    first, again = train_set(folder), train_set(folder)
    torch.manual_seed(3)
    np.random.seed(3)
    assert torch.equal(first[1, 2]["clip"], again[1, 2]["clip"])
    assert not torch.equal(first[1, 2]["clip"], first[0, 2]["clip"])
    assert not torch.equal(first[1, 2]["clip"], train_set(folder, seed=1)[1, 2]["clip"])


def test_draws_do_not_depend_on_how_often_frames_are_chosen(folder, monkeypatch):
    expected = train_set(folder)[0, 2]["clip"]

    def choosing_twice(path, choose, **options):
        choose(100)
        return read_frames(path, choose, **options)

    monkeypatch.setattr(dataset, "read_frames", choosing_twice)
    assert torch.equal(train_set(folder)[0, 2]["clip"], expected)


def test_unreadable_training_video_is_replaced_and_reported(folder, tmp_path):
    for name in ("wave", "jump"):
        (tmp_path / name).mkdir()
    (tmp_path / "wave/bad.mp4").write_bytes(b"bad")
    (tmp_path / "jump/good.mp4").write_bytes((folder / "jump/2.mp4").read_bytes())
    item = train_set(tmp_path)[0, 1]
    assert item["label"] == 0
    assert item["failures"][0][0].endswith("wave/bad.mp4")
    assert "pyav" in item["failures"][0][1]
    (tmp_path / "jump/good.mp4").write_bytes(b"bad too")
    with pytest.raises(VideoReadError, match="30 videos in a row"):
        train_set(tmp_path)[0, 1]


def test_unreadable_evaluation_video_is_not_replaced(folder, tmp_path):
    for name in ("wave", "jump"):
        (tmp_path / name).mkdir()
    (tmp_path / "wave/bad.mp4").write_bytes(b"bad")
    (tmp_path / "jump/good.mp4").write_bytes((folder / "jump/2.mp4").read_bytes())
    data = EvalDataset(
        load_video_list(tmp_path), small_transform(), num_clips=2, num_crops=3, **CLIP
    )
    good, bad = data[0], data[1]
    assert good["clip"].shape == (6, 4, 3, 32, 32) and good["failure"] is None
    assert bad["clip"] is None and bad["failure"][0].endswith("wave/bad.mp4")
    batch = collate([good, bad])
    assert batch["clip"].shape[0] == 1 and batch["index"] == [0, 1]


def test_only_training_decodes_less_than_all_pixels(folder, monkeypatch):
    sizes, video_frames = [], dataset.read_frames

    def noting(*args, **options):
        clip = video_frames(*args, **options)
        sizes.append(clip.frames.shape[1:3])
        return clip

    monkeypatch.setattr(dataset, "read_frames", noting)
    videos, like = load_video_list(folder), small_transform()  # of 96 × 64 pixels
    for largest in (1.0, 1.1):
        augmentation = Augmentation(scale_jitter=(1.0, largest))
        TrainDataset(videos, TrainTransform(like, augmentation), seed=0, **CLIP)[0, 0]
    EvalDataset(videos, like, num_clips=1, num_crops=1, **CLIP)[0]
    assert sizes == [(32, 48), (64, 96), (64, 96)]


def test_clips_of_a_batch_stay_in_their_order_of_memory():
    frames = torch.arange(2 * 2 * 4 * 5 * 3).to(torch.uint8).reshape(2, 2, 4, 5, 3)
    by_pixel = frames.movedim(-1, 2)
    for clips, strides in ((by_pixel, by_pixel.stride()), (by_pixel.contiguous(), None)):
        batch = collate([dict(clip=clip) for clip in clips])["clip"]
        assert torch.equal(batch, by_pixel)
        assert batch.stride() == (strides or clips.stride())


def test_views_are_clips_by_crops_of_one_reading(folder):
    path = folder / "wave/0.mp4"
    options = dict(num_frames=4, sampling="dense", stride=1, num_clips=2)
    views = read_views(path, small_transform(), options, 3, decoder="auto")
    assert views.shape == (6, 4, 3, 32, 32)
    second = read_clip(path, lambda n: sample_indices(n, clip=1, **options))
    torch.testing.assert_close(views[3:], torch.stack(small_transform().crops(second, 3)))


STEP = 12  # of brightness, from one frame to the next
UNCHANGED = Augmentation(scale_jitter=(1.0, 1.0), hflip=0.0)


@pytest.fixture(scope="module")
def stairs(tmp_path_factory):
    """Lists of two videos of 16 frames a second, whose frame t is as light as t steps."""
    root = tmp_path_factory.mktemp("stairs")
    frames = np.ones((20, 32, 32, 3), np.uint8) * (STEP * np.arange(20))[:, None, None, None]
    write_video(root / "a.mp4", frames.astype(np.uint8))
    write_video(root / "b.mp4", frames[::-1].astype(np.uint8))
    write(root / "parts.csv", "path,label,start,end\na.mp4,x,0.25,0.5\nb.mp4,y,0.5,0.75\n")
    write(root / "beyond.csv", "path,label,start,end\na.mp4,x,7,9\nb.mp4,y,0.5,0.75\n")
    write(root / "whole.csv", "path,label\na.mp4,x\nb.mp4,y\n")
    write(root / "charades.csv", 'id,actions\na,"c002 0.00 0.30;c000 1.10 1.20;c005 0.5 0.6"\n')
    return root


def write(file, text):
    file.write_text(text)


def numbers(clip):
    """Which frames of `stairs` a clip (T, C, H, W) has, normalised or not yet."""
    pixels = clip.float() if clip.dtype == torch.uint8 else (clip * 0.5 + 0.5) * 255
    return (pixels.mean((1, 2, 3)) / STEP).round().int().tolist()


def stair_set(file, **changes):
    transform = TrainTransform(small_transform(), UNCHANGED)
    return TrainDataset(load_video_list(file), transform, seed=0, **{**CLIP, **changes})


def test_clips_are_of_the_listed_parts_of_files(stairs):
    train = stair_set(stairs / "parts.csv")
    assert numbers(train[0, 0]["clip"]) == [4, 5, 6, 7]
    assert numbers(train[0, 1]["clip"]) == [11, 10, 9, 8]
    views = EvalDataset(
        load_video_list(stairs / "parts.csv"),
        small_transform(),
        num_clips=2,
        num_crops=1,
        **{**CLIP, "num_frames": 2},
    )
    assert [number // 2 for view in views[0]["clip"] for number in numbers(view)] == [2, 3, 2, 3]
    assert numbers(views[1]["clip"].flatten(0, 1)) != numbers(views[0]["clip"].flatten(0, 1))
    assert numbers(stair_set(stairs / "whole.csv")[0, 0]["clip"])[-1] > 14


def test_a_part_beyond_the_end_is_a_file_that_cannot_be_read(stairs):
    item = stair_set(stairs / "beyond.csv")[0, 0]
    (failure,) = item["failures"][:1]
    assert failure[0].endswith("a.mp4") and "the file is 1.25 s long" in failure[1]
    assert item["label"] == 1
    videos = load_video_list(stairs / "beyond.csv")
    views = EvalDataset(videos, small_transform(), num_clips=1, num_crops=1, **CLIP)
    assert views[0]["clip"] is None and "7 s to 9 s" in views[0]["failure"][1]


def test_labels_of_a_training_clip_are_those_of_its_time(stairs):
    data = stair_set(stairs / "charades.csv", sampling="dense", stride=1, num_frames=2)
    actions, seen = {2: (0.0, 0.3), 0: (1.1, 1.2), 5: (0.5, 0.6)}, set()
    for epoch in range(30):
        item = data[epoch, 0]
        first, last = (number / 16 for number in numbers(item["clip"]))
        expected = [
            name for name, (start, end) in actions.items() if start <= last and first <= end
        ]
        assert np.flatnonzero(item["label"]).tolist() == sorted(expected)
        seen.add(tuple(expected))
    assert {(2,), (0,), (5,), ()} <= seen
    item = EvalDataset(data.videos, small_transform(), num_clips=1, num_crops=1, **CLIP)[0]
    assert np.flatnonzero(item["label"]).tolist() == [0, 2, 5]
    batch = collate([data[0, 0], data[1, 0]])
    assert np.stack(batch["label"]).shape == (2, 157) and batch["clip"].shape[0] == 2


def test_labels_are_of_their_kind(stairs):
    write(stairs / "several.csv", "path,labels\na.mp4,x|z\nb.mp4,y\n")
    assert stair_set(stairs / "several.csv")[0, 0]["label"] == [1, 0, 1]
    assert stair_set(stairs / "whole.csv")[0, 1]["label"] == 1
    write(stairs / "numbers.csv", "path,label\na.mp4,0.5\nb.mp4,-3\n")
    values = load_video_list(stairs / "numbers.csv", task="regression")
    data = TrainDataset(values, TrainTransform(small_transform(), UNCHANGED), seed=0, **CLIP)
    assert [data[0, 0]["label"], data[0, 1]["label"]] == [0.5, -3.0]


def brightness(frames):
    return frames.astype(float).max((1, 2, 3))


def column(frames):
    ground = np.median(frames, (1, 2), keepdims=True)
    weight = np.abs(frames - ground).sum(-1).clip(60) - 60
    return (weight * np.arange(frames.shape[2])).sum((1, 2)) / weight.sum((1, 2)).clip(1)


@pytest.mark.parametrize("measure, label", [(column, 0), (brightness, 4)])
def test_made_up_quantity_is_sorted_in_its_classes_alone(measure, label):
    order = np.arange(16)

    def trend(other, seed):
        frames = draw_clip(other, np.random.default_rng(seed))
        assert frames.shape == (16, 48, 56, 3)
        return np.corrcoef(measure(frames), order)[0, 1]

    rising = [trend(label, seed) for seed in range(10)]
    falling = [trend(label + 1, seed) for seed in range(10)]
    others = [trend(c, s) for c in range(8) if c // 2 != label // 2 for s in range(10)]
    assert np.mean(rising) > 0.7 and np.mean(falling) < -0.7
    assert abs(np.mean(others)) < 0.2 and np.max(np.abs(others)) < 0.95


@pytest.mark.parametrize("measure", [column, brightness])
def test_made_up_frames_are_alike_in_all_classes_but_for_their_order(measure):
    values = [
        np.concatenate([measure(draw_clip(c, np.random.default_rng((c, s)))) for s in range(30)])
        for c in range(len(TIME_CLASSES))
    ]
    means, spreads = [v.mean() for v in values], [v.std() for v in values]
    assert np.std(means) < 0.2 * np.mean(spreads)
    assert np.std(spreads) < 0.1 * np.mean(spreads)
