"""One prediction of several: of the views of a video, or of several models."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lvt_ff.utils.validation import check_choice

__all__ = ["Pooling", "default_pooling", "pool_logits"]

Pooling = Literal["mean", "max"]


def default_pooling(function: str) -> Pooling:
    """What a kind of problem is evaluated with, by the function that makes its scores.

    Of several labels a video, each may be seen in one view only: SlowFast takes the maximum too.
    """
    return "max" if function == "sigmoid" else "mean"


def pool_logits(
    logits: Tensor, function: str, pooling: Pooling, weights: Tensor | None = None
) -> Tensor:
    """Logits (..., K) whose scores are those of logits (..., V, K), averaged or their largest.

    Probabilities are averaged, not logits. They are handled by their logarithms, so that a loss can
    be computed of the result. The largest probabilities of classes that exclude each other are
    scaled to a sum of 1.

    Args:
        logits: at least float32; computed with in float64. A single view is given back as it is.
        function: "softmax", "sigmoid" or "none", see `lvt_ff.hf.scores`.
        pooling: over V.
        weights: (V,) of a mean; equal if not given.
    """
    check_choice("pooling", pooling, ("mean", "max"))
    count = logits.shape[-2]
    if count == 1:
        return logits[..., 0, :].double()
    logits = logits.double()
    weights = torch.ones(count) if weights is None else weights
    shares = (weights.double() / weights.sum()).unsqueeze(-1)  # (V, 1)
    if function == "softmax":
        logs = logits.log_softmax(dim=-1)
        return logs.amax(-2) if pooling == "max" else _log_of_mean(logs, shares)
    if pooling == "max":
        return logits.amax(-2)
    if function == "none":
        return (logits * shares).sum(-2)
    yes, no = (_log_of_mean(logsigmoid(sign * logits), shares) for sign in (1, -1))
    return yes - no


def _log_of_mean(logs: Tensor, shares: Tensor) -> Tensor:
    return (logs + shares.log()).logsumexp(-2)
