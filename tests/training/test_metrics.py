"""Accuracies against scikit-learn's, and rows that could not be scored."""

import numpy as np
import pytest

from lvt_ff.training.metrics import class_accuracy, confusion_matrix, topk_accuracy

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
