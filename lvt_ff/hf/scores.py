"""From logits to the scores that people see, by the kind of problem a model was trained for.

Source: transformers' video-classification pipeline, whose default `function_to_apply` this is.
"""

import torch
from torch import Tensor
from transformers import PreTrainedConfig

__all__ = ["format_score", "score_function", "scores_from_logits"]

_FUNCTIONS = {"regression": "none", "multi_label_classification": "sigmoid"}


def score_function(config: PreTrainedConfig) -> str:
    """ "softmax", "sigmoid" (several labels a clip) or "none" (regression)."""
    return _FUNCTIONS.get(config.problem_type, "softmax")


def scores_from_logits(logits: Tensor, function: str) -> Tensor:
    """Scores (..., K) of logits (..., K): probabilities, or with "none" the values themselves.

    At least in float32, whatever the model computes in.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if function == "softmax":
        return logits.softmax(dim=-1)
    return logits.sigmoid() if function == "sigmoid" else logits


def format_score(score: float, function: str) -> str:
    """A probability in percent, or a value that a regression gives."""
    return f"{score:.4g}" if function == "none" else f"{100 * score:.1f} %"
