"""Accuracy of class scores; rows of NaN (files that could not be read) count as wrong."""

import numpy as np

__all__ = ["class_accuracy", "confusion_matrix", "topk_accuracy"]


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
