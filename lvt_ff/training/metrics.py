"""How right scores are; rows of NaN are files that could not be read, and count as wrong."""

import numpy as np

__all__ = [
    "CALIBRATION_BINS",
    "average_precision",
    "binary_cross_entropy",
    "calibration_error",
    "class_accuracy",
    "class_average_precision",
    "confusion_matrix",
    "cross_entropy",
    "majority",
    "mean_class_accuracy",
    "regression_errors",
    "topk_accuracy",
    "topk_hits",
]

CALIBRATION_BINS = 15  # of Guo et al., arXiv 1706.04599


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each row's label is among the k highest scores, (n,) bool.

    Args:
        scores: (n, K); of equal scores the lower class number ranks higher.
        labels: (n,) class numbers.
        k: ranks that count.
    """
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :k]
    return (order == labels[:, None]).any(axis=1) & ~np.isnan(scores).any(axis=1)


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest scores; see `topk_hits`."""
    return float(topk_hits(scores, labels, k).mean())


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of each class that occurs, averaged: small classes count as large ones do."""
    hits = np.bincount(labels, weights=topk_hits(scores, labels, 1))
    counts = np.bincount(labels)
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def majority(labels: np.ndarray) -> tuple[int, float]:
    """The class with the most rows, and its share of them: what always naming it would get."""
    counts = np.bincount(labels)
    return int(counts.argmax()), float(counts.max() / len(labels))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (K, K): true class by predicted class, without the rows of NaN."""
    num_classes = scores.shape[1]
    valid = ~np.isnan(scores).any(axis=1)
    predicted = scores[valid].argmax(axis=1)
    flat = np.bincount(labels[valid] * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def class_accuracy(
    scores: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> list[dict]:
    """One row per class that occurs: its name, number of videos, and top-1 accuracy."""
    hits = topk_hits(scores, labels, 1)
    rows = []
    for index, name in enumerate(class_names):
        mine = labels == index
        if mine.any():
            rows.append(dict(name=name, num_videos=int(mine.sum()), top1=float(hits[mine].mean())))
    return rows


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean of -log of the label's probability over the rows that are not NaN; None where all are.

    Args:
        logits: (n, K), computed with in float64.
        labels: (n,) class numbers.
    """
    read = ~np.isnan(logits).any(axis=1)
    if not read.any():
        return None
    logits, labels = logits[read].astype(np.float64), labels[read]
    logits = logits - logits.max(axis=1, keepdims=True)
    of_label = logits[np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(axis=1)) - of_label).mean())


def binary_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over rows that are not NaN, and over classes, of the loss of a yes or no each.

    Args:
        logits: (n, K), computed with in float64.
        labels: (n, K), 0 or 1.
    """
    read = ~np.isnan(logits).any(axis=1)
    if not read.any():
        return None
    logits, labels = logits[read].astype(np.float64), labels[read]
    return float((np.logaddexp(0, logits) - labels * logits).mean())


def calibration_error(
    scores: np.ndarray, labels: np.ndarray, num_bins: int = CALIBRATION_BINS
) -> float | None:
    """Expected calibration error: how far probabilities of best classes are from being true.

    Rows are put into bins of equal width by the probability of their best class; in each bin its
    mean is compared with the share of rows that are right. Source: arXiv 1706.04599, Eq. 3.

    Args:
        scores: probabilities (n, K); rows of NaN are left out.
        labels: (n,) class numbers.
        num_bins: between 0 and 1; an upper bound belongs to its bin.

    Returns:
        Between 0 and 1; None where no row was read.
    """
    read = ~np.isnan(scores).any(axis=1)
    if not read.any():
        return None
    scores, labels = scores[read].astype(np.float64), labels[read]
    sure = scores.max(axis=1)
    right = topk_hits(scores, labels, 1)
    bins = np.clip(np.ceil(sure * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def average_precision(
    scores: np.ndarray, positives: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Area under precision by recall, in steps, between 0 and 1; NaN without a positive.

    Args:
        scores: (n,); NaN ranks last.
        positives: (n,) bool.
        weights: how often each counts, (..., n); None counts each once.

    Returns:
        One number, or (...) with weights.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    scores = np.nan_to_num(scores, nan=-np.inf)
    order = np.argsort(-scores, kind="stable")
    scores, weights = scores[order], weights[..., order].astype(np.float64)
    # Equal scores are told apart by no threshold: the last of them counts for all.
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    found = weights.cumsum(axis=-1)[..., ends]
    hits = (weights * positives[order]).cumsum(axis=-1)[..., ends]
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    areas = (np.diff(hits, prepend=0.0, axis=-1) * precision).sum(axis=-1)
    total = hits[..., -1]
    return np.divide(areas, total, out=np.full_like(areas, np.nan), where=total > 0)


def class_average_precision(
    scores: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> list[dict]:
    """One row per class that occurs: its name, number of videos, and average precision.

    Args:
        scores: (n, K).
        labels: (n, K), 0 or 1.
        class_names: in order.
    """
    return [
        dict(
            name=name,
            num_videos=int(labels[:, index].sum()),
            average_precision=float(average_precision(scores[:, index], labels[:, index] > 0)),
        )
        for index, name in enumerate(class_names)
        if labels[:, index].any()
    ]


def regression_errors(predicted: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
    """Mean absolute and root mean square difference of what is not NaN; None where all is.

    Args:
        predicted, values: (n,).
    """
    difference = (predicted - values)[~np.isnan(predicted)]
    if not len(difference):
        return dict(mean_absolute_error=None, root_mean_square_error=None)
    return dict(
        mean_absolute_error=float(abs(difference).mean()),
        root_mean_square_error=float(np.sqrt((difference**2).mean())),
    )
