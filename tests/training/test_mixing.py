"""Batches are normalised and mixed as timm's Mixup does it, with draws by seed and place."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.data import mixup as timm_mixup
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from lvt_ff.data import Augmentation, EvalTransform
from lvt_ff.training.mixing import BatchTransform

LIKE = EvalTransform((24, 32), (24, 32), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), "bilinear")
LABELS = torch.tensor([0, 2, 1, 0])


def batch(size=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, 2, 3, 24, 32), generator=generator, dtype=torch.uint8)


def mixed(step=0, micro_batch=0, labels=LABELS, seed=0, **options):
    transform = BatchTransform(LIKE, Augmentation(**options), 3, seed)
    return transform(batch(len(labels)), labels, step, micro_batch)


def test_without_mixing_clips_are_normalised_and_labels_stay():
    clips, labels = mixed()
    assert torch.equal(clips, torch.stack([LIKE.normalize(clip) for clip in batch()]))
    assert labels is LABELS and clips.dtype == torch.float32
    assert mixed(mixup=0.8, mixup_prob=0.0)[1] is LABELS


def by_timm(monkeypatch, step, labels, smoothing=0.0, multi_label=False, **options):
    """timm's Mixup with our generator's draws in place of its global ones."""
    rng = np.random.default_rng((0, step, 0, 0x317))
    draws = SimpleNamespace(
        rand=rng.random, beta=rng.beta, randint=lambda low, high, size: rng.integers(low, high)
    )
    with monkeypatch.context() as patch:
        patch.setattr(timm_mixup, "np", SimpleNamespace(random=draws, sqrt=np.sqrt, clip=np.clip))
        mix = timm_mixup.Mixup(
            options.get("mixup", 0.0),
            options.get("cutmix", 0.0),
            prob=options.get("mixup_prob", 1.0),
            switch_prob=options.get("mixup_switch_prob", 0.5),
            label_smoothing=smoothing,
            num_classes=3,
            multi_label=multi_label,
        )
        clips = LIKE.normalize(batch(len(labels)))
        frames, targets = mix(clips.flatten(1, 2).clone(), labels)
    return frames.unflatten(1, clips.shape[1:3]), targets


CHOICES = [
    dict(mixup=0.8),
    dict(cutmix=1.0),
    dict(mixup=0.8, cutmix=1.0),
    dict(mixup=0.2, cutmix=0.5, mixup_switch_prob=0.9),
    dict(mixup=0.8, mixup_prob=0.5),
    dict(mixup=0.8, cutmix=1.0, mixup_prob=0.6, mixup_switch_prob=0.3),
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_clips_and_shares_are_those_of_timm(options, monkeypatch):
    for step in range(12):
        clips, shares = mixed(step, **options)
        expected, targets = by_timm(monkeypatch, step, LABELS, **options)
        torch.testing.assert_close(clips, expected)
        torch.testing.assert_close(shares, targets)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_smoothing_by_the_loss_is_timms_smoothing_of_targets(monkeypatch):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        _, shares = mixed(step, mixup=0.8, cutmix=1.0)
        options = dict(smoothing=0.1, mixup=0.8, cutmix=1.0)
        _, targets = by_timm(monkeypatch, step, LABELS, **options)
        ours = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, shares)
        torch.testing.assert_close(ours, SoftTargetCrossEntropy()(logits, targets))


def test_several_labels_are_mixed_linearly():
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]])
    clips, shares = mixed(labels=labels, mixup=0.8)
    _, single = mixed(mixup=0.8)
    share = single[1, 2]  # of the second clip's own label; its partner has another
    expected = share * labels + (1 - share) * labels.flip(0)
    torch.testing.assert_close(shares, expected)
    torch.testing.assert_close(clips, mixed(mixup=0.8)[0])


def test_a_clip_in_the_middle_of_an_odd_batch_stays():
    for options in (dict(mixup=0.8), dict(cutmix=1.0)):
        clips, shares = mixed(labels=LABELS[:3], **options)
        plain = LIKE.normalize(batch(3))
        torch.testing.assert_close(clips[1], plain[1])
        assert not torch.allclose(clips[0], plain[0])
        torch.testing.assert_close(shares[1], torch.tensor([0.0, 0.0, 1.0]))


def test_boxes_are_the_same_in_all_frames_and_shares_are_their_areas():
    plain = LIKE.normalize(batch())
    for step in range(8):
        clips, shares = mixed(step, cutmix=1.0)
        changed = (clips != plain).any(2)  # (B, T, H, W)
        assert (changed == changed[:1, :1]).all()
        area = changed[0, 0].float().mean()
        torch.testing.assert_close(shares[1, 2], 1 - area)
        torch.testing.assert_close(shares[1, 1], area)


def test_draws_follow_from_seed_step_and_place_alone():
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = mixed(3, 1, seed=5, mixup=0.8)[1]
    assert torch.equal(first, mixed(3, 1, seed=5, mixup=0.8)[1])
    for place in (dict(step=4), dict(micro_batch=2), dict(seed=6)):
        options = dict(step=3, micro_batch=1, seed=5) | place
        assert not torch.equal(first, mixed(**options, mixup=0.8)[1])
    assert (np.random.get_state()[1] == state[0]).all()
    assert torch.equal(torch.get_rng_state(), state[1])
