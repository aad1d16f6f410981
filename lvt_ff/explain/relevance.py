"""Which tokens a model's score for a class rests on, and what is left of it without them.

Relevance passes through attention in blocks of rows, so memory stays linear in the tokens.
Source: Chefer et al., arXiv 2103.15679, adapted (see `relevance`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lvt_ff.explain.attention_recorder import AttentionRecord, core_of, record_attention
from lvt_ff.hf.scores import score_function, scores_from_logits
from lvt_ff.layers.fused import run_as_written
from lvt_ff.ops import upcast
from lvt_ff.utils.errors import Failure

__all__ = ["Explanation", "deletion_curve", "relevance"]


@dataclass
class Explanation:
    """A video as a model saw it.

    Args:
        clip: normalised (1, T, C, H, W).
        frames: the same as pictures, (T, H, W, 3) uint8.
        predictions: best classes, `[{"label": …, "score": …}, …]`.
        label, score: the class explained and its score.
        relevance: (T, h, w), shares that sum to 1.
        score_function: what made scores of logits, see `lvt_ff.hf.scores`.
    """

    clip: Tensor
    frames: np.ndarray
    predictions: list[dict]
    label: str
    score: float
    relevance: np.ndarray
    score_function: str = "softmax"


@torch.inference_mode(False)  # gradients are needed, whatever the caller is in
def relevance(model: nn.Module, clips: Tensor, classes: Tensor) -> Tensor:
    """How much each token counts for the score of a class: gradient-weighted rollout.

    Relevance starts at the tokens of the last block as gradient times difference from the clip's
    mean token, positive parts. Going down, every attention keeps half of a token's relevance and
    spreads half over the tokens it read: in proportion to weight times gradient of the weight,
    positive parts, all heads together. The gradient of the weight that query i gives token j is the
    product of the gradient of i's output and j's value, so no matrix of gradients is kept either.
    What a shifted key or value had from other tokens goes back to those. The MLPs' depthwise
    convolutions are left out.

    Args:
        model: of timm or transformers, in evaluation mode.
        clips: normalised (B, T, C, H, W).
        classes: one class number for each clip, (B,).

    Returns:
        (B, T, N), non-negative, with sum 1 in each clip.

    Raises:
        NotImplementedError: the kernel has no weights to show.
        Failure: gradients that are not numbers.
    """
    core, last = core_of(model), []
    handle = core.norm.register_forward_hook(lambda module, inputs, _: last.append(inputs[0]))
    try:
        with run_as_written(core), torch.enable_grad():
            # Clips and classes made in inference mode take part in gradients as copies only.
            clips, classes = clips.detach().clone().requires_grad_(True), classes.clone()
            logits, records = record_attention(core, clips)
            score = logits.gather(1, classes[:, None]).sum()
            inputs = [last[0], *(record.out for record in records)]
            gradient, *heads = _gradients(score, inputs, math.prod(records[0].size))
    finally:
        handle.remove()
    with torch.no_grad():
        gradient, tokens = upcast(gradient, last[0])
        tokens = tokens - tokens.mean(dim=(1, 2), keepdim=True)
        relevant = _shares((gradient * tokens).sum(-1).clamp(min=0))
        for item, out_gradient in zip(reversed(records), reversed(heads), strict=True):
            relevant = _shares(relevant + _pass_down(item, out_gradient, relevant))
    return relevant


def _gradients(score: Tensor, inputs: list[Tensor], num_tokens: int) -> tuple[Tensor, ...]:
    """Gradients of a score times some number: relevance has no unit."""
    # Pooling divides gradients by the tokens, too far for float16, but where a norm of attention is
    # small they grow too large for it.
    for shrink in (1, 2**6, 2**12, 2**18):
        gradients = torch.autograd.grad(score * num_tokens / shrink, inputs, retain_graph=True)
        if all(gradient.isfinite().all() for gradient in gradients):
            return gradients
    raise Failure(
        f"The gradients of the model's score are not numbers in {score.dtype}: load it in float32 "
        "to explain it."
    )


def _shares(x: Tensor) -> Tensor:
    return x / x.sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _pass_down(item: AttentionRecord, gradient: Tensor, relevant: Tensor) -> Tensor:
    """Relevance (B, T, N) of an attention's outputs to that of the tokens it read."""
    gradient, v = upcast(item.module.heads(gradient), item.v)  # (S, A, L, E)
    queries = item.positions(relevant)  # (S, L)
    passed = gradient.new_zeros(gradient.shape[:3])
    for rows in item.row_blocks():
        share = item.weights(rows) * (gradient[:, :, rows] @ v.transpose(-2, -1))
        share = share.clamp(min=0)  # (S, A, R, L)
        total = share.sum(dim=(1, 3), keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        passed += torch.einsum("sr,sarl->sal", queries[:, rows], share / total)
    return _before_shift(item, passed)


def _before_shift(item: AttentionRecord, passed: Tensor) -> Tensor:
    """Relevance (S, A, L) of shifted keys and values to the tokens they came from (B, T, N)."""
    channels = item.module.head_split[1]
    spread = item.tokens(passed / channels).repeat_interleave(channels, dim=-1)  # (B, T, N, D)
    with torch.enable_grad():
        source = torch.zeros_like(spread).requires_grad_(True)
        (moved,) = torch.autograd.grad(item.module.shift(source), source, spread)
    return moved.sum(-1)


@torch.no_grad()
def deletion_curve(
    model: nn.Module, clips: Tensor, classes: Tensor, relevant: Tensor, num_steps: int = 10
) -> Tensor:
    """Score of a class while the most relevant tokens are replaced by the mean of the others.

    Patches are replaced before positions are added. The mean of a curve is its area.

    Args:
        model: of timm or transformers, in evaluation mode.
        clips: normalised (B, T, C, H, W).
        classes: (B,).
        relevant: (B, T, N); the highest go first.
        num_steps: equal parts of the tokens, from none to all but one.

    Returns:
        (B, num_steps + 1).
    """
    core, (num_frames, num_tokens) = core_of(model), relevant.shape[1:]
    config = getattr(model, "config", None)  # timm's models have none: one class a clip
    function = score_function(config) if config is not None else "softmax"
    ranks = relevant.flatten(1).argsort(descending=True).argsort().unflatten(1, (num_frames, -1))
    curve = []
    for step in range(num_steps + 1):
        kept = ranks >= round(step / num_steps * (num_frames * num_tokens - 1))
        handle = core.patch_embed.register_forward_hook(_keep(kept.unsqueeze(-1)))
        try:
            scores = scores_from_logits(core(clips.to(core.temp_embed.dtype)), function)
        finally:
            handle.remove()
        curve.append(scores.gather(1, classes[:, None])[:, 0])
    return torch.stack(curve, dim=1)


def _keep(kept: Tensor) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
    def replace(module: nn.Module, inputs: tuple, x: Tensor) -> Tensor:
        # The mean of all tokens would still tell something of those that are gone.
        mean = (x * kept).sum(dim=(1, 2), keepdim=True) / kept.sum(dim=(1, 2), keepdim=True)
        return torch.where(kept, x, mean)

    return replace
