"""How right scores are; rows of NaN are files that could not be read, and count as wrong."""

import numpy as np

__all__ = [
    "average_precision",
    "class_accuracy",
    "class_average_precision",
    "confusion_matrix",
    "regression_errors",
    "topk_accuracy",
]


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest scores, between 0 and 1.

    Args:
        scores: (n, K); of equal scores the lower class number ranks higher.
        labels: (n,) class numbers.
        k: ranks that count.
    """
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :k]
    hits = (order == labels[:, None]).any(axis=1) & ~np.isnan(scores).any(axis=1)
    return float(hits.mean())


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
    rows = []
    for index, name in enumerate(class_names):
        mine = labels == index
        if mine.any():
            accuracy = topk_accuracy(scores[mine], labels[mine], k=1)
            rows.append(dict(name=name, num_videos=int(mine.sum()), top1=accuracy))
    return rows


def average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Area under precision by recall, in steps, between 0 and 1.

    Args:
        scores: (n,); NaN ranks last.
        positives: (n,) bool, at least one of them true.
    """
    scores = np.nan_to_num(scores, nan=-np.inf)
    order = np.argsort(-scores, kind="stable")
    scores, positives = scores[order], positives[order]
    # Equal scores are told apart by no threshold: the last of them counts for all.
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    hits = positives.cumsum()[ends]
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (ends + 1)).sum())


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
            average_precision=average_precision(scores[:, index], labels[:, index] > 0),
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
