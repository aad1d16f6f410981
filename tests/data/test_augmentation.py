"""Augmentation of clips: each option does what it says, to all frames, and nothing else."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import random_frames
from PIL import Image, ImageEnhance
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from lvt_ff.data import Augmentation, EvalTransform, TrainTransform
from lvt_ff.data.augment_pixels import draw_cut, erase_box, jitter_colors

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LIKE = EvalTransform((32, 32), (36, 36), MEAN, STD, "bilinear")
EVERYTHING = dict(
    crop_scale=(0.3, 1.0),
    hflip=0.5,
    color_jitter=0.4,
    auto_augment="rand-m7-n4-mstd0.5-inc1",
    random_erasing=0.5,
)


def augmented(frames, seed=0, like=LIKE, **options):
    return TrainTransform(like, Augmentation(**options))(frames, np.random.default_rng(seed))[0]


def as_clip(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_without_options_a_clip_is_resized_cut_and_flipped_by_four_draws(seed):
    frames, rng = random_frames(3, 60, 90), np.random.default_rng(seed)
    transform = TrainTransform(LIKE, Augmentation(scale_jitter=(1.1, 1.4), hflip=0.5))
    clip, flipped = transform(frames, rng)
    rng = np.random.default_rng(seed)
    side = round(32 * rng.uniform(1.1, 1.4))
    expected = F.resize(as_clip(frames), [side, round(side * 1.5)], antialias=True)
    top = round((side - 32) * rng.uniform())
    left = round((expected.shape[-1] - 32) * rng.uniform())
    expected = expected[..., top : top + 32, left : left + 32]
    assert flipped == (rng.uniform() < 0.5)
    assert clip.dtype == torch.uint8
    assert torch.equal(clip, expected.flip(-1) if flipped else expected)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    by_hand = (clip.float() * (1 / 255) - mean) / std
    assert torch.equal(LIKE.normalize(clip), by_hand)
    assert torch.equal(LIKE.normalize(torch.stack([clip, clip]))[1], by_hand)


@pytest.mark.parametrize("factor, covered", [(1.0, 32), (1.5, 48)])
def test_scale_jitter_is_the_size_before_the_cut(factor, covered):
    ramp = np.tile(np.arange(96, dtype=np.uint8), (1, 96, 1))[..., None].repeat(3, axis=-1)
    clip = augmented(ramp, scale_jitter=(factor, factor)).float()
    steps = clip[0, 0, 16, 1:] - clip[0, 0, 16, :-1]
    assert steps[1:-1].mean().item() == pytest.approx(96 / covered, rel=0.05)


def test_flip_is_torchvisions_of_the_same_cut():
    frames = random_frames(2, 60, 90)
    for seed in range(3):
        plain, flipped = (augmented(frames, seed, hflip=hflip) for hflip in (0.0, 1.0))
        assert torch.equal(flipped, F.horizontal_flip(plain)) and not torch.equal(flipped, plain)


def test_flips_come_as_often_as_they_should_and_not_where_they_may_not():
    transform = TrainTransform(LIKE, Augmentation(hflip=0.3))
    frames = random_frames(1, 32, 32)
    draws = [transform(frames, np.random.default_rng(seed))[1] for seed in range(300)]
    assert 0.2 < np.mean(draws) < 0.4
    seed = draws.index(True)
    clip, flipped = transform(frames, np.random.default_rng(seed), may_flip=False)
    assert not flipped and torch.equal(clip, augmented(frames, seed))


# Random resized crops


def test_a_cut_of_the_whole_frame_is_a_resize():
    frames = random_frames(2, 60, 90)
    clip = augmented(frames, crop_scale=(1, 1), crop_ratio=(1.5, 1.5))
    assert torch.equal(clip, F.resize(as_clip(frames), [32, 32], antialias=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_has_the_area_and_the_shape_that_were_asked_for(seed):
    y, x = np.mgrid[:120, :160]
    frames = np.stack([x, y, x], axis=-1)[None].astype(np.uint8)
    like = EvalTransform((32, 64), (32, 64), 0.5, 0.5, "bilinear")
    clip = augmented(frames, seed, like, crop_scale=(0.2, 0.2), crop_ratio=(0.8, 0.8))[0].float()
    width = (clip[0, 16, -3] - clip[0, 16, 2]).item() * 64 / 59
    height = (clip[1, -3, 32] - clip[1, 2, 32]).item() * 32 / 27
    assert width * height == pytest.approx(0.2 * 120 * 160, rel=0.06)
    assert width / height == pytest.approx(0.8 * 64 / 32, rel=0.06)


def test_cuts_are_distributed_as_torchvisions():
    rng, image = np.random.default_rng(0), torch.zeros(3, 60, 80)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    torch.manual_seed(0)
    ours = np.array([draw_cut((60, 80), scale, ratio, 1.0, rng) for _ in range(800)])
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(800)])
    for cuts in (ours, theirs):
        assert (cuts[:, :2] >= 0).all() and (cuts[:, :2] + cuts[:, 2:] <= (60, 80)).all()
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=3)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=2)


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (50, 50)])
def test_where_no_cut_fits_it_is_torchvisions_central_one(size):
    scale = (3.0, 3.0)
    theirs = RandomResizedCrop.get_params(torch.zeros(3, *size), scale, (0.8, 1.25))
    assert draw_cut(size, scale, (0.8, 1.25), 1.0, np.random.default_rng(0)) == theirs


# Colours


def given(factors, order):
    """A generator whose draws are known."""
    return SimpleNamespace(uniform=lambda low, high, n: factors, permutation=lambda n: order)


def test_colors_change_as_in_pil_in_the_drawn_order():
    frames = random_frames(2, 24, 24)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for factors, order in (([1.3, 0.7, 0.4], [2, 0, 1]), ([0.8, 1.4, 1.2], [0, 1, 2])):
        clip = jitter_colors(as_clip(frames), 0.6, given(factors, order))
        for number, frame in enumerate(frames):
            image = Image.fromarray(frame)
            for kind in order:
                image = kinds[kind](image).enhance(factors[kind])
            ours = clip[number].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(ours, np.asarray(image), atol=3)


def test_color_factors_are_as_far_from_one_as_the_strength_says():
    seen = []

    def uniform(low, high, n):
        seen.append((low, high))
        return [1.0] * n

    clip = as_clip(random_frames(1, 8, 8))
    for strength in (0.4, 1.5):
        rng = SimpleNamespace(uniform=uniform, permutation=range)
        assert torch.equal(jitter_colors(clip, strength, rng), clip)
    assert seen == [(0.6, 1.4), (0, 2.5)]


def test_color_jitter_keeps_what_is_where():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, 3), dtype=np.uint8)[rng.integers(0, 5, (1, 40, 40))]
    like = EvalTransform((32, 32), (32, 32), MEAN, STD, "nearest")
    plain, jittered = (augmented(frames, 1, like, color_jitter=c) for c in (0.0, 0.5))
    changes = {}
    for before, after in zip(plain.flatten(2)[0].T, jittered.flatten(2)[0].T, strict=True):
        changes.setdefault(tuple(before.tolist()), set()).add(tuple(after.tolist()))
    assert len(changes) == 5 and all(len(found) == 1 for found in changes.values())
    assert any({before} != after for before, after in changes.items())


# Erasing


def box_of(changed):
    """Top, left, height and width of what changed (H, W), which must be a full box."""
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    top, left = rows[0].item(), columns[0].item()
    height, width = rows[-1].item() + 1 - top, columns[-1].item() + 1 - left
    assert changed.sum() == height * width
    return top, left, height, width


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erasing_covers_one_box_in_all_frames_and_nothing_else(mode, seed):
    frames = np.zeros((3, 40, 60, 3), dtype=np.uint8)  # a colour that no mode paints everywhere
    before = frames.copy()
    plain = augmented(frames, seed)
    clip = augmented(frames, seed, random_erasing=1.0, erasing_mode=mode)
    changed = (clip != plain).any(1)
    assert (changed == changed[0]).all() and (frames == before).all()
    top, left, height, width = box_of(changed[0])
    assert 0.015 < height * width / 32**2 < 0.36 and 0.2 < height / width < 5
    box = clip[..., top : top + height, left : left + width]
    assert (box == box[:1]).all()
    colors = len(box[0].flatten(1).unique(dim=1)[0])
    assert colors > 20 if mode == "pixel" else colors == 1
    if mode == "const":
        assert box[0, :, 0, 0].tolist() == [102, 128, 153]


def test_erased_pixels_have_the_mean_and_deviation_of_the_data():
    clip = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    erased = erase_box(clip, "pixel", (0.5,), (0.1,), np.random.default_rng(0))
    pixels = erased[erased > 0].double() / 255
    assert len(pixels) > 5000
    assert pixels.mean().item() == pytest.approx(0.5, abs=0.005)
    assert pixels.std().item() == pytest.approx(0.1, abs=0.005)


def test_erasing_comes_as_often_as_it_should():
    frames = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    clips = [augmented(frames, seed, random_erasing=0.25) for seed in range(300)]
    assert 0.18 < np.mean([clip.any().item() for clip in clips]) < 0.32


# All of them


def test_all_frames_of_a_clip_are_changed_in_the_same_way():
    still = random_frames(1, 60, 90).repeat(4, axis=0)
    for seed in range(10):
        clip = augmented(still, seed, **EVERYTHING)
        assert (clip == clip[:1]).all()


def test_one_option_leaves_what_others_draw():
    frames = random_frames(2, 60, 90)
    for seed in range(3):
        whole = augmented(frames, seed, **EVERYTHING | dict(random_erasing=0.0))
        erased = augmented(frames, seed, **EVERYTHING | dict(random_erasing=1.0))
        box_of((whole != erased).any(1)[0])
        cuts = dict(crop_scale=(0.3, 1.0), color_jitter=0.4)
        black = np.zeros((1, 60, 90, 3), dtype=np.uint8)  # which colours and cuts do not change
        boxes = [augmented(black, seed, random_erasing=1.0, **more) for more in ({}, cuts)]
        assert torch.equal(*boxes) and boxes[0].any()
        flips = (augmented(frames, seed, color_jitter=0.4, hflip=hflip) for hflip in (0.0, 1.0))
        torch.testing.assert_close(next(flips), next(flips).flip(-1), atol=1, rtol=0)


def test_draws_follow_from_the_generator_and_leave_the_global_ones():
    frames = random_frames(2, 60, 90)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    clips = [augmented(frames, seed, **EVERYTHING) for seed in (0, 0, 1)]
    now = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])
    assert now[0] == states[0] and torch.equal(now[2], states[2])
    assert (now[1][1] == states[1][1]).all() and now[1][2:] == states[1][2:]


def test_a_clip_has_memory_of_its_own():
    frames = np.ascontiguousarray(random_frames(2, 32, 32))  # as readers give them
    before = frames.copy()
    clip = augmented(frames, scale_jitter=(1.0, 1.0))  # neither resized nor cut
    assert torch.equal(clip, as_clip(frames))
    assert clip.is_contiguous(memory_format=torch.channels_last)
    clip.zero_()
    augmented(frames, scale_jitter=(1.0, 1.0), random_erasing=1.0)
    assert np.array_equal(frames, before)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(scale_jitter=(2.0, 1.0)), "--scale_jitter takes the smaller factor first"),
        (dict(crop_scale=(1.0, 0.5)), "--crop_scale takes the smaller share first"),
        (dict(crop_scale=(0.5, 1.0), crop_ratio=(2, 1)), "--crop_ratio takes the smaller ratio"),
        (dict(auto_augment="randaugment"), "--auto_augment has no policy 'randaugment'"),
    ],
)
def test_options_out_of_order_or_unknown_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(crop_scale=(0.5, 1.0), scale_jitter=(1.0, 2.0)), "--crop_scale takes the place of"),
        (dict(crop_ratio=(1.0, 1.0)), "--crop_ratio has an effect only with --crop_scale"),
        (dict(hflip_swap=True), "--hflip_swap has an effect only with --hflip"),
        (dict(erasing_mode="const"), "--erasing_mode has an effect only with --random_erasing"),
        (dict(mixup_prob=0.5), "--mixup_prob has an effect only with --mixup or --cutmix"),
        (dict(mixup=1.0, mixup_switch_prob=0.3), "only with --mixup and --cutmix"),
    ],
)
def test_options_that_change_nothing_are_refused_if_asked_for(options, message):
    merged = Augmentation.from_options(options)
    with pytest.raises(ValueError, match=message):
        merged.check_effects(options)
    merged.check_effects(dict.fromkeys(options))  # they are the recipe's
    merged.check_effects(dict(lr=0.1, hflip=0.0))
    needed = dict(hflip=0.5, random_erasing=0.5, mixup=0.5, cutmix=0.5, crop_scale=(0.1, 1.0))
    if "scale_jitter" not in options:
        Augmentation(**needed | options).check_effects(options)


def test_options_are_taken_from_among_others():
    options = dict(lr=0.1, hflip=0.5, mixup=None, scale_jitter=[1.0, 1.2])
    assert Augmentation.from_options(options) == Augmentation(hflip=0.5, scale_jitter=[1.0, 1.2])
    defaults = list(Augmentation().scale_jitter)
    options = dict(scale_jitter=defaults, crop_scale=[0.5, 1.0])  # as a file of settings has them
    Augmentation(**options).check_effects(options)


def test_mixing_needs_two_clips():
    for options in (dict(mixup=0.8), dict(cutmix=1.0)):
        with pytest.raises(ValueError, match="--batch_size of 2 or more, got 1"):
            Augmentation(**options).check_batch_size(1)
        Augmentation(**options).check_batch_size(2)
    Augmentation().check_batch_size(1)
    Augmentation(mixup=0.8, mixup_prob=0.0).check_batch_size(1)


def test_cuts_are_never_empty():
    cut = draw_cut((8, 8), (0.0, 0.0), (1.0, 1.0), 1.0, np.random.default_rng(0))
    assert cut[2:] == (1, 1) and math.prod(cut[2:]) == 1


@pytest.mark.parametrize("share", [0.3, 1e-4])
def test_no_cut_of_the_frames_that_are_needed_is_enlarged(share):
    wide = EvalTransform((32, 64), (36, 72), MEAN, STD, "bilinear")
    options = Augmentation(crop_scale=(share, 1.0))
    needed, rng = TrainTransform(wide, options).needed, np.random.default_rng(0)
    cuts = [draw_cut(needed, (share, share), options.crop_ratio, 2.0, rng) for _ in range(200)]
    least = np.min([cut[2:] for cut in cuts], axis=0)
    assert (least >= [31, 63]).all() and (least <= [36, 72]).all()
    assert TrainTransform(wide, Augmentation(scale_jitter=(1.1, 1.5))).needed == (48, 96)
