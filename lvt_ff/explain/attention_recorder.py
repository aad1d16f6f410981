"""What the attentions of a model computed for clips, and the weights that they never formed.

Rows of the weights are computed for the queries asked for, so memory stays linear in the tokens.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lvt_ff.layers.attention import Attention, SpaceSequences
from lvt_ff.layers.fixation import FeatureFixation
from lvt_ff.model import LinearVideoTransformer

__all__ = [
    "AttentionRecord",
    "attention_map",
    "concentration",
    "core_of",
    "frame_attention",
    "record",
    "record_attention",
]

_ELEMENTS = 2**24  # of the largest block of weights in memory


@dataclass
class AttentionRecord:
    """What one attention module computed for a batch of clips.

    Args:
        block, name: number of the block, and "attn" or "temporal_attn".
        module: the attention.
        size: (T, N) of the clips.
        plain_q, plain_k: features (S, A, L, F) before fixation.
        q, k: features (S, A, L, F) after it.
        v: values (S, A, L, E).
        out: what the heads gave (B, T, N, D), before the output projection.
        fixation_inputs: what ratios were made of: the first three, before a shift behind fixation.
    """

    block: int
    name: str
    module: Attention
    size: tuple[int, int]
    plain_q: Tensor
    plain_k: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    fixation_inputs: tuple[Tensor, Tensor, Tensor]

    @property
    def has_fixation(self) -> bool:
        """Whether features differ before and after fixation."""
        return isinstance(self.module.fixation, FeatureFixation)

    def weights(self, rows: Tensor, fixed: bool = True) -> Tensor:
        """Rows (S, A, R, L) of the attention matrix, after or before fixation.

        Raises:
            NotImplementedError: the kernel has no such matrix.
        """
        q, k = (self.q, self.k) if fixed else (self.plain_q, self.plain_k)
        return self.module.kernel.weights(q, k, rows)

    def row_blocks(self) -> tuple[Tensor, ...]:
        """All row numbers, in parts whose weights fit into memory."""
        length = self.q.shape[2]
        at_once = max(_ELEMENTS // self.q[..., 0].numel(), 1)
        return torch.arange(length, device=self.q.device).split(at_once)

    def ratios(self) -> tuple[Tensor, Tensor]:
        """Fixation ratios γ of queries and keys, mean over features, (B, T, N, A).

        Raises:
            ValueError: the model has no fixation.
        """
        if not self.has_fixation:
            raise ValueError("The model has no feature fixation (fixation='none').")
        ratios = self.module.fixation.ratios(*self.fixation_inputs)
        return tuple(self.tokens(ratio.mean(-1)) for ratio in ratios)

    def tokens(self, x: Tensor) -> Tensor:
        """A number for every position and head (S, A, L) to (B, T, N, A)."""
        return self.module.sequences.unfold(x.transpose(1, 2), *self.size)

    def positions(self, x: Tensor) -> Tensor:
        """(B, T, N) to (S, L): tokens in the sequences that attend to each other."""
        return self.module.sequences.fold(x.unsqueeze(-1)).squeeze(-1)


@contextmanager
def _recording(model: LinearVideoTransformer) -> Iterator[list[AttentionRecord]]:
    records, handles = [], []
    size = (model.num_frames, model.grid[0] * model.grid[1])

    def watch(block: int, name: str, module: Attention) -> None:
        noted = {}  # of the features, until the heads have given their outputs

        def note_features(fixation: nn.Module, inputs: tuple, outputs: tuple) -> None:
            (plain_q, plain_k, v), (q, k) = inputs, outputs
            if module.fix_first:  # what is aggregated is shifted after fixation
                plain_k, k, v = (_shifted(module, x, size) for x in (plain_k, k, v))
            noted.update(plain_q=plain_q, plain_k=plain_k, q=q, k=k, v=v, fixation_inputs=inputs)

        def note_heads(proj: nn.Module, inputs: tuple) -> None:
            records.append(AttentionRecord(block, name, module, size, out=inputs[0], **noted))

        handles.append(module.fixation.register_forward_hook(note_features))
        handles.append(module.proj.register_forward_pre_hook(note_heads))

    for number, block in enumerate(model.blocks):
        # Not only children: torch.compile and checkpointing may have wrapped a block.
        for name, module in block.named_modules():
            if isinstance(module, Attention):
                watch(number, name.rpartition(".")[2], module)
    checkpointing, model.grad_checkpointing = model.grad_checkpointing, False
    try:
        # A compiled module would not see hooks that are newer than it.
        with torch.compiler.set_stance("force_eager"):
            yield records
    finally:
        model.grad_checkpointing = checkpointing
        for handle in handles:
            handle.remove()


def _shifted(module: Attention, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Keys or values (S, A, L, E) moved between places as the attention moves them."""
    return module.heads(module.shift(module.tokens(x, *size)))


def record_attention(model: nn.Module, clips: Tensor) -> tuple[Tensor, list[AttentionRecord]]:
    """Logits (B, K) of clips (B, T, C, H, W), and what every attention computed, in its order.

    Args:
        model: of timm or transformers, in evaluation mode; compiled ones run uncompiled.
        clips: normalised, on the model's device.
    """
    core = core_of(model)
    with _recording(core) as records:
        return core(clips.to(core.temp_embed.dtype)), records


record = record_attention  # its former name


def core_of(model: nn.Module) -> LinearVideoTransformer:
    """The transformer within a model of either library.

    Raises:
        ValueError: another kind of model.
    """
    for part in model.modules():
        if isinstance(part, LinearVideoTransformer):
            return part
    raise ValueError(f"Expected a model of lvt_ff, got {type(model).__name__}.")


def attention_map(
    item: AttentionRecord, query: tuple[int, int], head: int | None = None, fixed: bool = True
) -> Tensor:
    """Weights that one token gives all tokens of its clip, (B, T, N); 0 where it cannot look.

    Args:
        item: an attention.
        query: frame and token within the frame.
        head: None takes the mean of all.
        fixed: after fixation, not before.
    """
    marked = item.out.new_zeros(item.out.shape[0], *item.size)
    marked[:, query[0], query[1]] = 1
    marked = item.positions(marked)  # (S, L)
    sequence, position = marked.nonzero().T
    weights = item.weights(position[:1], fixed)[sequence, :, 0]  # (B, A, L)
    weights = weights.mean(1) if head is None else weights[:, head]
    everywhere = torch.zeros_like(marked, dtype=weights.dtype)
    everywhere[sequence] = weights
    return item.tokens(everywhere[:, None])[..., 0]


def frame_attention(item: AttentionRecord, head: int | None = None) -> Tensor:
    """Weight that tokens of one frame give tokens of another, mean over places, (B, T, T).

    Raises:
        ValueError: an attention within frames.
    """
    if item.module.sequences is SpaceSequences:
        raise ValueError("This attention stays within each frame: it has no weights over time.")
    num_frames, per_frame = item.size[0], item.q.shape[2] // item.size[0]
    table = 0
    for rows in item.row_blocks():
        weights = item.weights(rows)  # (S, A, R, L)
        weights = weights.mean(1) if head is None else weights[:, head]
        weights = weights.unflatten(-1, (num_frames, per_frame)).sum(-1)  # (S, R, T)
        part = weights.new_zeros(len(weights), num_frames, num_frames)
        table = table + part.index_add_(1, rows // per_frame, weights / per_frame)
    return table.unflatten(0, (item.out.shape[0], -1)).mean(1)


def concentration(weights: Tensor) -> tuple[float, float]:
    """How sharp rows (..., L) are: entropy (1 for a uniform row), share of the top tenth of tokens.

    Means over the rows; negative weights count as 0.
    """
    weights = weights.detach().float().clamp(min=0)
    length = weights.shape[-1]
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    entropy = torch.special.entr(weights).sum(-1) / math.log(length) if length > 1 else weights
    # A tenth of the tokens is no whole number of them: a part of the last one counts.
    counted = (length / 10 - torch.arange(length, device=weights.device)).clamp(0, 1)
    top = (weights.sort(dim=-1, descending=True).values * counted).sum(-1)
    return entropy.mean().item(), top.mean().item()
