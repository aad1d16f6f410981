"""Accuracies against scikit-learn's, and rows that could not be scored."""

import numpy as np
import pytest

from lvt_ff.training.metrics import (
    average_precision,
    class_accuracy,
    class_average_precision,
    confusion_matrix,
    regression_errors,
    topk_accuracy,
)

SCORES = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [np.nan] * 3])
LABELS = np.array([0, 1, 2, 0])


def test_topk_counts_ranks_and_treats_unread_files_as_wrong():
    assert topk_accuracy(SCORES, LABELS, 1) == 1 / 4
    assert topk_accuracy(SCORES, LABELS, 2) == 2 / 4
    assert topk_accuracy(SCORES, LABELS, 3) == 3 / 4
    assert topk_accuracy(SCORES, LABELS, 5) == 3 / 4


def test_topk_equals_sklearn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.random((200, 10)), rng.integers(0, 10, 200)
    for k in (1, 5):
        expected = sklearn.top_k_accuracy_score(labels, scores, k=k, labels=range(10))
        assert topk_accuracy(scores, labels, k) == expected


def test_confusion_matrix_leaves_out_unread_files():
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_class_accuracy_has_a_row_per_class_that_occurs():
    rows = class_accuracy(SCORES, LABELS, ("a", "b", "c", "d"))
    assert [(row["name"], row["num_videos"], row["top1"]) for row in rows] == [
        *(("a", 2, 0.5), ("b", 1, 0.0), ("c", 1, 0.0))
    ]


def test_average_precision_equals_sklearn_also_where_scores_are_equal():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for scores in (rng.random(200), rng.integers(0, 5, 200) / 5):
        positives = rng.random(200) < 0.2
        expected = sklearn.average_precision_score(positives, scores)
        assert average_precision(scores, positives) == pytest.approx(expected)


def test_average_precision_ranks_unread_files_last():
    scores, positives = np.array([0.9, np.nan, 0.1]), np.array([True, True, False])
    assert average_precision(scores, positives) == pytest.approx((1 + 2 / 3) / 2)
    rows = class_average_precision(scores[:, None], positives[:, None], ("a",))
    assert rows == [dict(name="a", num_videos=2, average_precision=pytest.approx(5 / 6))]


def test_class_average_precision_has_a_row_per_class_that_occurs():
    labels = np.array([[1, 0, 1], [0, 0, 1]])
    rows = class_average_precision(np.array([[0.2, 0.5, 0.1], [0.9, 0.5, 0.2]]), labels, "abc")
    assert [(row["name"], row["num_videos"]) for row in rows] == [("a", 1), ("c", 2)]
    assert [row["average_precision"] for row in rows] == [0.5, 1.0]


def test_regression_errors_leave_out_unread_files():
    errors = regression_errors(np.array([1.0, np.nan, 4.0]), np.array([2.0, 9.0, 1.0]))
    assert errors["mean_absolute_error"] == 2
    assert errors["root_mean_square_error"] == pytest.approx(5**0.5)
    assert set(regression_errors(np.array([np.nan]), np.array([1.0])).values()) == {None}
