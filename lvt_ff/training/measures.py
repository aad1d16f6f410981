"""The figures of an evaluation: from logits and labels to what results and reports tell."""

from functools import partial

import numpy as np
import torch

from lvt_ff.hf.scores import scores_from_logits
from lvt_ff.training import bootstrap
from lvt_ff.training.metrics import (
    average_precision,
    binary_cross_entropy,
    calibration_error,
    class_accuracy,
    class_average_precision,
    cross_entropy,
    majority,
    mean_class_accuracy,
    regression_errors,
    topk_accuracy,
    topk_hits,
)

__all__ = ["class_rows", "confidence_intervals", "measure", "scores_of"]


def scores_of(logits: np.ndarray, function: str) -> np.ndarray:
    """Scores (n, K) float64 of logits (n, K); rows of NaN stay."""
    return scores_from_logits(torch.from_numpy(logits).double(), function).numpy()


def measure(
    logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], function: str
) -> dict:
    """How right logits are, by the kind of problem; nothing where no video was read.

    Args:
        logits: (n, K); a row of NaN is a video that could not be read. It counts as wrong for
            accuracy, ranks last for average precision, and is left out of all else.
        labels: class numbers (n,), 0 or 1 (n, K), or numbers to predict (n,).
        class_names: in order.
        function: "softmax", "sigmoid" or "none", see `lvt_ff.hf.scores`.
    """
    if np.isnan(logits).any(axis=1).all():  # or there are none
        return {}
    scores = scores_of(logits, function)
    if function == "none":
        return regression_errors(scores[:, 0], labels)
    if function == "softmax":
        largest, share = majority(labels)
        return dict(
            top1=topk_accuracy(scores, labels, 1),
            top5=topk_accuracy(scores, labels, 5),
            mean_class_accuracy=mean_class_accuracy(scores, labels),
            loss=cross_entropy(logits, labels),
            calibration_error=calibration_error(scores, labels),
            majority_share=share,
            majority_class=class_names[largest],
        )
    rows = class_average_precision(scores, labels, class_names)
    return dict(
        mean_average_precision=(
            float(np.mean([row["average_precision"] for row in rows])) if rows else None
        ),
        loss=binary_cross_entropy(logits, labels),
        # What scores without any meaning get.
        chance_average_precision=(
            float(labels.mean(axis=0)[labels.any(axis=0)].mean()) if rows else None
        ),
        num_classes_without_videos=len(class_names) - len(rows),
    )


def class_rows(
    logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], function: str
) -> list[dict]:
    """A row for each class that occurs; none of a regression, which has no classes."""
    tables = {"softmax": class_accuracy, "sigmoid": class_average_precision}
    if function not in tables:
        return []
    return tables[function](scores_of(logits, function), labels, class_names)


def confidence_intervals(
    logits: np.ndarray, labels: np.ndarray, function: str
) -> dict[str, list[float]]:
    """95 % intervals, by bootstrap over videos, of the figures that compare models."""
    scores = scores_of(logits, function)
    if function == "softmax":
        hits = {k: topk_hits(scores, labels, k) for k in (1, 5)}
        figures = {f"top{k}": bootstrap.means(hit) for k, hit in hits.items()}
        figures["mean_class_accuracy"] = bootstrap.class_means(hits[1], labels)
    elif function == "sigmoid":
        precisions = [
            partial(average_precision, scores[:, number], labels[:, number] > 0)
            for number in np.flatnonzero(labels.any(axis=0))
        ]
        figures = {}
        if precisions:  # else no video has a label
            figures = dict(mean_average_precision=bootstrap.mean_of_defined(precisions))
    else:
        read = ~np.isnan(scores[:, 0])
        scores, labels = scores[read], labels[read]
        difference = scores[:, 0] - labels
        figures = dict(
            mean_absolute_error=bootstrap.means(abs(difference)),
            root_mean_square_error=bootstrap.root_mean(difference**2),
        )
    return bootstrap.intervals(figures, len(labels))
