"""Batches as they were read to what the model is given: normalised and mixed, on their device.

Sources: mixup arXiv 1710.09412, cutmix 1905.04899; pairs and shares are those of timm's `Mixup`.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from lvt_ff.data import Augmentation, EvalTransform

__all__ = ["BatchTransform"]

_MIXING = 0x317  # tells these draws from others of the same step


class BatchTransform:
    """Normalises clips, and mixes each of a micro-batch with its partner from the other end.

    Draws are a function of (seed, step, micro-batch): wherever a micro-batch is computed, it is
    mixed in the same way. Smoothing labels is left to the loss; of mixed targets
    `nn.CrossEntropyLoss` makes what timm's `Mixup` does.

    Args:
        like: the evaluation transform whose statistics to use.
        augmentation: its mixup and cutmix.
        num_classes: of the labels.
        seed: of the draws.
    """

    def __init__(
        self, like: EvalTransform, augmentation: Augmentation, num_classes: int, seed: int
    ):
        self.like = like
        self.augmentation = augmentation
        self.num_classes = num_classes
        self.seed = seed

    def __call__(
        self, clips: Tensor, labels: Tensor, step: int, micro_batch: int
    ) -> tuple[Tensor, Tensor]:
        """What the model is given, and what it should say.

        Args:
            clips: (B, T, C, H, W) uint8, in any order of memory.
            labels: class numbers (B,), or 0 or 1 for every class (B, K).
            step: of the optimizer, in the whole run.
            micro_batch: its place among those of the step, over all processes.

        Returns:
            Clips (B, T, C, H, W) float32; and labels as they were, or where clips may be mixed the
            share of every class (B, K) float32.
        """
        clips = self.like.normalize(clips.contiguous())
        options = self.augmentation
        if not options.mixes:
            return clips, labels
        shares = labels if labels.ndim == 2 else F.one_hot(labels, self.num_classes)
        shares = shares.float()
        rng = np.random.default_rng((self.seed, step, micro_batch, _MIXING))
        if rng.random() >= options.mixup_prob:
            return clips, shares
        cuts = not options.mixup
        if options.mixup and options.cutmix:
            cuts = rng.random() < options.mixup_switch_prob
        alpha = options.cutmix if cuts else options.mixup
        share = float(rng.beta(alpha, alpha))
        if cuts:
            share = _exchange_box(clips, share, rng)
        else:
            clips = clips.flip(0).mul_(1 - share).add_(clips, alpha=share)
        return clips, share * shares + (1 - share) * shares.flip(0)


def _exchange_box(clips: Tensor, share: float, rng: np.random.Generator) -> float:
    """Put a box of each clip's partner into it, in place; the share that is left of the clip."""
    ends = []
    for side in clips.shape[-2:]:
        length, middle = int(side * np.sqrt(1 - share)), int(rng.integers(side))
        ends.append((max(middle - length // 2, 0), min(middle + (length + 1) // 2, side)))
    (top, bottom), (left, right) = ends
    box = clips[..., top:bottom, left:right]
    box.copy_(box.flip(0))
    height, width = clips.shape[-2:]
    return 1 - (bottom - top) * (right - left) / (height * width)
