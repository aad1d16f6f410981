"""Views that are pooled by their logits have the scores that numpy makes of probabilities."""

import numpy as np
import pytest
import torch

from lvt_ff.hf.pooling import default_pooling, pool_logits
from lvt_ff.hf.scores import scores_from_logits

LOGITS = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)) * 4  # 5 videos, 4 views


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


FUNCTIONS = dict(softmax=softmax, sigmoid=sigmoid, none=lambda logits: logits)


@pytest.mark.parametrize("weights", [None, [0.1, 2.0, 1.0, 0.5]])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_mean_is_that_of_scores(function, weights):
    pooled = pool_logits(
        LOGITS, function, "mean", None if weights is None else torch.tensor(weights)
    )
    scores = FUNCTIONS[function](LOGITS.double().numpy())
    expected = np.average(scores, axis=1, weights=weights)
    np.testing.assert_allclose(scores_from_logits(pooled, function), expected, rtol=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_max_is_that_of_scores(function):
    found = scores_from_logits(pool_logits(LOGITS, function, "max"), function).numpy()
    expected = FUNCTIONS[function](LOGITS.double().numpy()).max(axis=1)
    if function == "softmax":
        expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_single_view_stays_as_it_is_and_sure_ones_do_not_overflow():
    for function in FUNCTIONS:
        for pooling in ("mean", "max"):
            assert torch.equal(pool_logits(LOGITS[:, :1], function, pooling).float(), LOGITS[:, 0])
    sure = torch.tensor([[1e4, -1e4], [1e4, -1e4]])
    for function in ("softmax", "sigmoid"):
        assert scores_from_logits(pool_logits(sure, function, "mean"), function).tolist() == [1, 0]


def test_several_labels_take_the_largest_score():
    assert [default_pooling(name) for name in ("softmax", "sigmoid", "none")] == [
        *("mean", "max", "mean")
    ]
    with pytest.raises(ValueError, match="pooling must be one of"):
        pool_logits(LOGITS, "softmax", "median")
