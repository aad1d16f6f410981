"""Accuracies against scikit-learn's, and rows that could not be scored."""

import numpy as np
import pytest

from lvt_ff.training import bootstrap
from lvt_ff.training.measures import confidence_intervals, measure
from lvt_ff.training.metrics import (
    average_precision,
    binary_cross_entropy,
    calibration_error,
    class_accuracy,
    class_average_precision,
    confusion_matrix,
    cross_entropy,
    majority,
    mean_class_accuracy,
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


# Beside accuracy


@pytest.fixture
def drawn():
    """Logits of 300 videos and 7 classes, better than chance, and labels; one class is missing."""
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 0, 0, 1, 2, 4, 5, 6], 300)
    logits = rng.normal(size=(300, 7)).astype(np.float32)
    logits[np.arange(300), labels] += 1
    return logits, labels


def softmax(logits):
    shares = np.exp(logits.astype(float))
    return shares / shares.sum(axis=1, keepdims=True)


def test_mean_class_accuracy_and_confusion_equal_sklearn(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels = drawn
    predicted = logits.argmax(axis=1)
    # Class 3 has no video: sklearn leaves it out, with a warning.
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = sklearn.balanced_accuracy_score(labels, predicted)
    assert mean_class_accuracy(logits, labels) == pytest.approx(expected)
    expected = sklearn.confusion_matrix(labels, predicted, labels=range(7))
    assert np.array_equal(confusion_matrix(logits, labels), expected)
    logits[0] = np.nan
    predicted[0] = (labels[0] + 1) % 3  # unread is wrong
    rates = sklearn.recall_score(labels, predicted, average=None, labels=[0, 1, 2, 4, 5, 6])
    assert mean_class_accuracy(logits, labels) == pytest.approx(rates.mean())


def test_losses_equal_sklearn_and_leave_out_unread_files(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels = drawn
    expected = sklearn.log_loss(labels, softmax(logits), labels=range(7))
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-9)
    far = logits.astype(np.float64) + 1e4  # which overflows an exponential
    assert cross_entropy(far, labels) == pytest.approx(expected, rel=1e-9)
    several = np.random.default_rng(2).integers(0, 2, logits.shape)
    yes = 1 / (1 + np.exp(-logits.astype(float)))
    expected = np.mean([sklearn.log_loss(several[:, k], yes[:, k]) for k in range(7)])
    assert binary_cross_entropy(logits, several) == pytest.approx(expected, rel=1e-9)
    for loss, truth in ((cross_entropy, labels), (binary_cross_entropy, several)):
        expected = loss(logits[1:], truth[1:])
        changed = logits.copy()
        changed[0] = np.nan
        assert loss(changed, truth) == pytest.approx(expected)
        assert loss(np.full_like(logits, np.nan), truth) is None


def test_calibration_error_equals_a_loop_over_bins(drawn):
    logits, labels = drawn
    scores = softmax(logits)
    scores[:5] = np.eye(7)[labels[:5]]  # 1.0 belongs to the last bin
    sure, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    expected = 0.0
    for number in range(15):
        inside = (sure > number / 15) & (sure <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(scores, labels) == pytest.approx(expected)
    assert calibration_error(scores, labels, num_bins=1) == pytest.approx(
        abs(right.mean() - sure.mean())
    )
    scores[0] = np.nan
    assert calibration_error(scores, labels) == pytest.approx(
        calibration_error(scores[1:], labels[1:])
    )
    assert calibration_error(scores[:1], labels[:1]) is None


def test_majority_is_what_one_answer_gets(drawn):
    logits, labels = drawn
    number, share = majority(labels)
    always = np.zeros_like(logits)
    always[:, number] = 1
    assert share == topk_accuracy(always, labels, 1) and number == 0


def test_figures_of_draws_equal_sklearn_with_weights(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, labels = drawn
    counts = np.random.default_rng(0).multinomial(300, [1 / 300] * 300, size=3)
    hits = logits.argmax(axis=1) == labels
    several = (np.random.default_rng(2).random((300, 7)) < 0.2).astype(int)
    several[:, 3] = 0
    precisions = [
        lambda drawn, k=k: average_precision(logits[:, k], several[:, k] > 0, drawn)
        for k in range(7)
    ]
    found = dict(
        mean=bootstrap.means(hits)(counts),
        classes=bootstrap.class_means(hits, labels)(counts),
        precision=bootstrap.mean_of_defined(precisions)(counts),
        root=bootstrap.root_mean(logits[:, 0] ** 2)(counts),
    )
    for draw, weights in enumerate(counts):
        assert found["mean"][draw] == pytest.approx(np.average(hits, weights=weights))
        rates = sklearn.recall_score(
            labels,
            logits.argmax(axis=1),
            sample_weight=weights,
            average=None,
            labels=[0, 1, 2, 4, 5, 6],
        )
        assert found["classes"][draw] == pytest.approx(rates.mean())
        expected = sklearn.average_precision_score(
            several[:, [0, 1, 2, 4, 5, 6]], logits[:, [0, 1, 2, 4, 5, 6]], sample_weight=weights
        )
        assert found["precision"][draw] == pytest.approx(expected)
        expected = np.sqrt(np.average(logits[:, 0] ** 2, weights=weights))
        assert found["root"][draw] == pytest.approx(expected, rel=1e-5)


def test_interval_of_a_share_is_the_binomial_one(monkeypatch):
    stats = pytest.importorskip("scipy.stats")
    hits = np.arange(200) < 150
    found = bootstrap.intervals(dict(top1=bootstrap.means(hits)), 200)
    assert found == bootstrap.intervals(dict(top1=bootstrap.means(hits)), 200)
    expected = np.array(stats.binom.interval(0.95, 200, 0.75)) / 200
    np.testing.assert_allclose(found["top1"], expected, atol=0.01)
    # Draws that do not fit into memory at once are the same.
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 1000)
    assert found == bootstrap.intervals(dict(top1=bootstrap.means(hits)), 200)


def test_intervals_hold_their_figures(drawn):
    logits, labels = drawn
    several = (np.random.default_rng(2).random(logits.shape) < 0.2).astype(int)
    names = tuple("abcdefg")
    for function, truth in (("softmax", labels), ("sigmoid", several)):
        figures = measure(logits, truth, names, function)
        found = confidence_intervals(logits, truth, function)
        for name, (low, high) in found.items():
            assert 0 < low < figures[name] < high < 1 and high - low < 0.2
    values = np.random.default_rng(3).normal(size=300)
    figures = measure(logits[:, :1], values, ("speed",), "none")
    for name, (low, high) in confidence_intervals(logits[:, :1], values, "none").items():
        assert low < figures[name] < high


def test_mean_average_precision_leaves_out_classes_without_videos(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    logits, _ = drawn
    labels = (np.random.default_rng(2).random(logits.shape) < 0.2).astype(int)
    labels[:, [1, 3]] = 0
    there = [0, 2, 4, 5, 6]
    found = measure(logits, labels, tuple("abcdefg"), "sigmoid")
    expected = sklearn.average_precision_score(labels[:, there], logits[:, there])
    assert found["mean_average_precision"] == pytest.approx(expected)
    assert found["num_classes_without_videos"] == 2
    assert found["chance_average_precision"] == pytest.approx(labels[:, there].mean())


def test_nothing_is_measured_where_nothing_was_read():
    assert measure(np.full((3, 2), np.nan), np.array([0, 1, 1]), ("a", "b"), "softmax") == {}


def test_without_a_label_there_is_no_average_precision():
    logits, labels = np.random.default_rng(0).normal(size=(4, 2)), np.zeros((4, 2), int)
    found = measure(logits, labels, ("a", "b"), "sigmoid")
    assert found["mean_average_precision"] is found["chance_average_precision"] is None
    assert found["num_classes_without_videos"] == 2
    assert confidence_intervals(logits, labels, "sigmoid") == {}
