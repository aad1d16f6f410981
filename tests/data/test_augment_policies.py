"""Policies draw as timm's and torchvision's do, once for all frames of a clip."""

import pickle
import random

import numpy as np
import pytest
import torch
from conftest import random_frames
from PIL import Image
from timm.data import auto_augment as timm_policies
from torchvision.transforms import InterpolationMode, v2

from lvt_ff.data.augment_policies import ClipPolicy, check_policy

MEAN = (0.4, 0.5, 0.6)
FILL = (102, 128, 153)
POLICIES = [
    "rand-m7-n4-mstd0.5-inc1",
    "rand-m10-n2-p1",
    "original-mstd0.5",
    "originalr",
    "v0",
    "v0r",
    "3a",
    "augmix-m5-w2-d2-b1",
    "trivial",
]


def clip_of(num_frames=3):
    return torch.from_numpy(random_frames(num_frames, 40, 48)).permute(0, 3, 1, 2)


def changed(policy, clip, seed, interpolation="bilinear"):
    return ClipPolicy(policy, MEAN, interpolation)(clip, np.random.default_rng(seed))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "trivial"])
def test_frames_are_those_of_timm(policy):
    maker = {
        "rand": timm_policies.rand_augment_transform,
        "augmix": timm_policies.augment_and_mix_transform,
    }.get(policy.split("-")[0], timm_policies.auto_augment_transform)
    by_timm = maker(policy, dict(img_mean=FILL, interpolation=2))
    clip = clip_of(2)
    for seed in range(30):  # until every operation was drawn
        drawn = int(np.random.default_rng(seed).integers(2**32))
        for before, after in zip(clip, changed(policy, clip, seed), strict=True):
            random.seed(drawn)
            np.random.seed(drawn)
            frame = np.asarray(by_timm(Image.fromarray(before.permute(1, 2, 0).numpy())))
            assert np.array_equal(frame, after.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "name, mode", [("nearest", "NEAREST"), ("bilinear", "BILINEAR"), ("bicubic", "BILINEAR")]
)
def test_trivial_augment_is_torchvisions_frame_by_frame(name, mode):
    theirs = v2.TrivialAugmentWide(interpolation=InterpolationMode[mode], fill=list(FILL))
    clip = clip_of()
    for seed in range(6):
        ours = changed("trivial", clip, seed, name)
        for before, after in zip(clip, ours, strict=True):
            torch.manual_seed(int(np.random.default_rng(seed).integers(2**32)))
            torch.testing.assert_close(theirs(before), after, atol=1, rtol=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_follow_from_the_generator(policy):
    clip, found = clip_of(1), []
    policy = ClipPolicy(policy, MEAN, "bilinear")
    again = pickle.loads(pickle.dumps(policy))
    for seed in range(4):
        found.append(policy(clip, np.random.default_rng(seed)))
        assert found[-1].shape == clip.shape and found[-1].dtype == torch.uint8
        assert torch.equal(found[-1], again(clip, np.random.default_rng(seed)))
    assert any(not torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    "policy, other",
    [
        ("rand-m9-n2", "rand-m3-n2"),
        ("rand-m9-n2", "rand-m9-n4"),
        ("rand-m9-n2", "rand-m9-n2-p1"),
        ("rand-m9-n2", "rand-m9-n2-mstd1"),
        ("rand-m9-n2", "rand-m9-n2-inc1"),
        ("augmix-m3", "augmix-m9"),
        ("augmix-m3", "augmix-m3-w1"),
        ("augmix-m3", "augmix-m3-d3"),
        ("augmix-m3", "augmix-m3-b1"),
        ("v0", "v0-mstd3"),
    ],
)
def test_every_part_of_a_name_changes_the_result(policy, other):
    clip = clip_of(1)
    pairs = ((changed(policy, clip, seed), changed(other, clip, seed)) for seed in range(20))
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_what_moves_into_the_frame_has_the_mean_colour():
    clip = torch.zeros(1, 3, 40, 48, dtype=torch.uint8)
    for policy in ("rand-m10-n4-p1", "trivial"):
        corners = [changed(policy, clip, seed)[0, :, 0, 0].tolist() for seed in range(40)]
        assert list(FILL) in corners
    one, each = (ClipPolicy("v0", mean, "bilinear") for mean in ((0.5,), (0.5, 0.5, 0.5)))
    for seed in range(20):
        clips = [policy(clip, np.random.default_rng(seed)) for policy in (one, each)]
        assert torch.equal(*clips)


@pytest.mark.parametrize("policy", [*POLICIES, "rand-m0-n1", "rand", "rand-p0.5-m9", "augmix"])
def test_known_policies_are_taken(policy):
    check_policy(policy)


@pytest.mark.parametrize(
    "policy, message",
    [
        ("", "no policy ''"),
        ("Rand-m9", "no policy 'Rand-m9': choose from none, rand, augmix, original"),
        ("randaugment", "no policy"),
        ("rand-m11", "cannot read 'm11'; behind rand may stand.* m .magnitude from 0 to 10"),
        ("rand-m9.5", "cannot read 'm9.5'"),
        ("rand-n0", "cannot read 'n0'"),
        ("rand-p0.0", "cannot read 'p0.0'"),
        ("rand-p2", "cannot read 'p2'"),
        ("rand-mstd", "cannot read 'mstd'"),
        ("rand-m7-m9", "cannot read 'm9'"),
        ("rand-inc2", "cannot read 'inc2'"),
        ("rand-q3", "cannot read 'q3'"),
        ("rand-", "cannot read ''"),
        ("rand--m7", "cannot read ''"),
        ("v0-m7", "cannot read 'm7'; behind v0 may stand, once each and with a number, mstd"),
        ("augmix-n2", "cannot read 'n2'"),
        ("trivial-m9", "behind trivial may stand, once each and with a number, nothing"),
        ("rand-m" + "9" * 1000, "cannot read 'm999"),
    ],
)
def test_unknown_policies_are_refused(policy, message):
    with pytest.raises(ValueError, match=message) as told:
        check_policy(policy)
    assert len(str(told.value)) < 500
