"""What a run minimises."""

from typing import Literal, get_args

import numpy as np
import torch
from timm.loss import AsymmetricLossMultiLabel, BinaryCrossEntropy
from torch import Tensor, nn

from lvt_ff.data.video_list import class_counts
from lvt_ff.utils.validation import check_choice

__all__ = ["Loss", "class_weights", "hits", "make_loss", "video_chances"]

Loss = Literal["cross_entropy", "bce", "asymmetric"]


def make_loss(
    name: str,
    label_smoothing: float,
    weights: np.ndarray | None = None,
    *,
    several: bool = False,
) -> nn.Module:
    """A function of logits (B, K) and targets, class numbers (B,) or shares (B, K), to a scalar.

    It is a mean over clips, whatever their weights: that of a batch is the mean of its parts'.

    Args:
        name: "cross_entropy"; "bce", binary cross-entropy of each class, for several labels a
            video, or for one as timm has it; "asymmetric" (arXiv 2009.14119), which lets rare
            labels count for more, for several labels a video.
        label_smoothing: of the targets.
        weights: of the classes (K,); None weighs them equally.
        several: whether a video may have several labels.

    Raises:
        ValueError: an unknown name, or a loss for one label a video where there are several.
    """
    check_choice("--loss", name, get_args(Loss))
    weight = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)
    if name == "cross_entropy":
        if several:
            raise ValueError(
                "--loss cross_entropy takes one label a video, and these have several: use bce or "
                "asymmetric."
            )
        return _CrossEntropy(weight, label_smoothing=label_smoothing)
    if several:
        smoothed = dict(smoothing=label_smoothing, weight=weight)
        if name == "bce":
            return BinaryCrossEntropy(**smoothed, smooth_dense=True)
        return AsymmetricLossMultiLabel(**smoothed)
    loss = BinaryCrossEntropy(0.0, weight=weight)
    if name == "asymmetric":
        loss = AsymmetricLossMultiLabel(weight=weight)
    return _OfOneLabel(loss, label_smoothing)


class _CrossEntropy(nn.CrossEntropyLoss):
    """torch's, which divides by the weights of a batch and not by its clips."""

    def __init__(self, weight: Tensor | None, label_smoothing: float):
        super().__init__(weight, reduction="none", label_smoothing=label_smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().forward(logits, targets).mean()


class _OfOneLabel(nn.Module):
    """A loss of several labels with one for each video, or shares of two: smoothed as such."""

    def __init__(self, loss: nn.Module, label_smoothing: float):
        super().__init__()
        self.loss, self.label_smoothing = loss, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        if targets.ndim == 1:
            targets = nn.functional.one_hot(targets, num_classes)
        targets = targets.to(logits.dtype) * (1 - self.label_smoothing)
        return self.loss(logits, targets + self.label_smoothing / num_classes)


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of clips whose highest score is that of their label, or of one of several."""
    best = logits.argmax(dim=1)
    if targets.ndim == 1:
        return (best == targets).float().mean()
    highest = targets.max(dim=1).values
    return (targets.gather(1, best[:, None])[:, 0] >= highest.clamp(min=1e-6)).float().mean()


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights (K,) that let all classes that occur count alike, with mean 1 over the videos.

    Args:
        labels: class numbers (n,), or 0 or 1 for every class (n, K).
        num_classes: K.
    """
    counts = class_counts(labels, num_classes)
    weights = np.divide(1.0, counts, out=np.zeros(num_classes), where=counts > 0)
    return weights * counts.sum() / max((counts > 0).sum(), 1)


def video_chances(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Chances (n,) of the videos to be drawn so that all classes come alike often.

    Args:
        labels: class numbers (n,), or 0 or 1 for every class (n, K): a video counts for its rarest.
        num_classes: K.
    """
    weights = class_weights(labels, num_classes)
    if labels.ndim == 2:
        chances = (labels * weights).max(axis=1)
        chances = np.where(chances > 0, chances, weights[weights > 0].min(initial=1.0))
    else:
        chances = weights[labels]
    return chances / chances.sum()
