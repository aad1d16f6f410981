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


def test_cross_entropy_takes_numbers_shares_smoothing_and_weights():
    assert make_loss("cross_entropy", 0.0)(LOGITS, LABELS) == F.cross_entropy(LOGITS, LABELS)
    shares = F.one_hot(LABELS, 4).float()
    smooth = make_loss("cross_entropy", 0.2)
    torch.testing.assert_close(smooth(LOGITS, LABELS), smooth(LOGITS, shares))
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    expected = F.cross_entropy(LOGITS, LABELS, torch.tensor(weights, dtype=torch.float32))
    assert make_loss("cross_entropy", 0.0, weights)(LOGITS, LABELS) == expected


def test_bce_of_several_labels_and_of_one():
    loss = make_loss("bce", 0.0)
    assert loss(LOGITS, SEVERAL) == F.binary_cross_entropy_with_logits(LOGITS, SEVERAL)
    one = F.binary_cross_entropy_with_logits(LOGITS, F.one_hot(LABELS, 4).float())
    torch.testing.assert_close(loss(LOGITS, LABELS), one)
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    weighed = make_loss("bce", 0.0, weights)(LOGITS, SEVERAL)
    weight = torch.tensor(weights, dtype=torch.float32)
    assert weighed == F.binary_cross_entropy_with_logits(LOGITS, SEVERAL, weight)
    assert make_loss("bce", 0.3)(LOGITS, SEVERAL) != loss(LOGITS, SEVERAL)


def test_asymmetric_loss_of_halves_of_a_batch_averages_to_that_of_all():
    loss = make_loss("asymmetric", 0.0)
    whole = loss(LOGITS, SEVERAL)
    assert whole == AsymmetricLossMultiLabel()(LOGITS, SEVERAL)
    halves = [loss(LOGITS[part], SEVERAL[part]) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, whole)
    one = loss(LOGITS, LABELS)
    assert one == loss(LOGITS, F.one_hot(LABELS, 4).float())


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
