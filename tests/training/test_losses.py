"""Losses and class weights are what timm, torch and scikit-learn make of the same numbers."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional as F

from lvt_ff.training.losses import class_weights, hits, make_loss, video_chances

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 3, 1, 1])
SEVERAL = (torch.rand(6, 4, generator=GENERATOR) > 0.5).float()


WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0])
WEIGHT = torch.tensor(WEIGHTS, dtype=torch.float32)


def test_cross_entropy_takes_numbers_shares_smoothing_and_weights():
    torch.testing.assert_close(
        make_loss("cross_entropy", 0.0)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS)
    )
    shares = F.one_hot(LABELS, 4).float()
    smooth = make_loss("cross_entropy", 0.2)
    torch.testing.assert_close(smooth(LOGITS, LABELS), smooth(LOGITS, shares))
    each = F.cross_entropy(LOGITS, LABELS, WEIGHT, reduction="none")
    weighed = make_loss("cross_entropy", 0.0, WEIGHTS)
    torch.testing.assert_close(weighed(LOGITS, LABELS), each.mean())
    torch.testing.assert_close(weighed(LOGITS, shares), each.mean())


def test_bce_of_several_labels_and_of_one():
    loss = make_loss("bce", 0.0, several=True)
    expected = F.binary_cross_entropy_with_logits(LOGITS, SEVERAL)
    torch.testing.assert_close(loss(LOGITS, SEVERAL), expected)
    weighed = make_loss("bce", 0.0, WEIGHTS, several=True)(LOGITS, SEVERAL)
    expected = F.binary_cross_entropy_with_logits(LOGITS, SEVERAL, WEIGHT)
    torch.testing.assert_close(weighed, expected)
    assert make_loss("bce", 0.3, several=True)(LOGITS, SEVERAL) != loss(LOGITS, SEVERAL)
    shares = F.one_hot(LABELS, 4).float()
    smoothed = 0.9 * shares + 0.1 / 4
    one = make_loss("bce", 0.1)
    expected = F.binary_cross_entropy_with_logits(LOGITS, smoothed)
    torch.testing.assert_close(one(LOGITS, LABELS), expected)
    torch.testing.assert_close(one(LOGITS, shares), expected)


def test_asymmetric_loss_is_timms():
    loss = make_loss("asymmetric", 0.0, several=True)
    assert loss(LOGITS, SEVERAL) == AsymmetricLossMultiLabel()(LOGITS, SEVERAL)
    one = make_loss("asymmetric", 0.0)
    shares = F.one_hot(LABELS, 4).float()
    assert one(LOGITS, LABELS) == AsymmetricLossMultiLabel()(LOGITS, shares)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "asymmetric"])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(name):
    loss = make_loss(name, 0.1, WEIGHTS)
    parts = [loss(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(sum(parts) / 6, loss(LOGITS, LABELS))


def test_cross_entropy_of_several_labels_is_refused():
    with pytest.raises(ValueError, match="takes one label a video, and these have several"):
        make_loss("cross_entropy", 0.0, several=True)


def test_make_loss_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="--loss must be one of .*got 'hinge'"):
        make_loss("hinge", 0.0)


def test_hits_count_the_highest_score_among_one_or_several_labels():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert hits(logits, torch.tensor([0, 0])) == 0.5
    assert hits(logits, torch.tensor([[1, 1, 0], [1, 0, 0]])) == 0.5
    assert hits(logits, torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.6, 0.4]])) == 0.5
    assert hits(logits, torch.zeros(2, 3)) == 0.0


def test_class_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 2, 2, 3])
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
    weights = class_weights(labels, 4)
    np.testing.assert_allclose(weights[[0, 2, 3]], expected)
    assert weights[1] == 0 and np.mean(weights[labels]) == pytest.approx(1)
    several = np.eye(4, dtype=int)[labels]
    np.testing.assert_allclose(class_weights(several, 4), weights)


def test_video_chances_draw_all_classes_alike():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    chances = video_chances(labels, 3)
    np.testing.assert_allclose([chances[labels == k].sum() for k in range(3)], 1 / 3)
    several = np.array([[1, 0], [1, 1], [1, 0], [0, 0]])
    chances = video_chances(several, 2)
    assert chances[1] > chances[0] == chances[2] == chances[3]
    assert chances.sum() == pytest.approx(1)
