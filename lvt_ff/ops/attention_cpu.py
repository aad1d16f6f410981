"""Attention between its linear layers on a processor: one gather, the rest in place, in parts.

Source: arXiv 2210.08164, Eq. 3-6.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lvt_ff.ops.attention_spec import AttentionSpec
from lvt_ff.ops.chunks import spans
from lvt_ff.ops.linear import divisor, queries_first
from lvt_ff.ops.precision import in_range, sum_dtype
from lvt_ff.ops.shift_table import shift_table

__all__ = [
    "FEATURE_MAPS",
    "attention",
    "attention_backward",
    "gated_heads",
    "gated_heads_backward",
]

_Place = tuple[slice, slice, slice]  # clips, sequences, heads


class _FeatureMap(NamedTuple):
    """An elementwise map, in place on inputs, and its slope at inputs."""

    apply_: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


# Elementwise maps of queries and keys to features that fused operators know.
FEATURE_MAPS = {
    "identity": _FeatureMap(lambda x: x, torch.ones_like),
    "relu": _FeatureMap(torch.relu_, lambda x: (x > 0).to(x.dtype)),
    "elu1": _FeatureMap(lambda x: F.elu_(x).add_(1), lambda x: x.clamp_max(0).exp_()),
    "sigmoid": _FeatureMap(torch.sigmoid_, lambda x: x.sigmoid() * (-x).sigmoid()),
}


class _Gate(NamedTuple):
    """A linear layer (R·E, 2E or 3E) with bias (R·E,); R is 1 where queries and keys share it."""

    weight: Tensor
    bias: Tensor

    def inputs(self, x: Tensor) -> Tensor:
        """Features and values (…, 3, E) as rows (rows, 2E or 3E), a view."""
        return x.flatten(-2).flatten(0, -2)[:, : self.weight.shape[1]]

    def ratios(self, x: Tensor) -> Tensor:
        """γ (…, R, E) of features and values (…, 3, E)."""
        ratios = F.linear(self.inputs(x), self.weight, self.bias).sigmoid_()
        return ratios.view(*x.shape[:-2], -1, x.shape[-1])


def _gate(weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> _Gate | None:
    return None if weight is None else _Gate(weight.to(dtype), bias.to(dtype))


class _Sequences:
    """The sequences of packed queries, keys and values, a part at a time.

    Args:
        qkv: (B, T, N, 3D).
        spec: of the attention.
    """

    def __init__(self, qkv: Tensor, spec: AttentionSpec):
        batch, num_frames, num_tokens, width = qkv.shape
        self.table = shift_table(spec, num_frames, width // 3)
        self.dtype = sum_dtype(qkv.dtype)
        self.source = qkv.contiguous().view(
            batch, num_frames * num_tokens * width // self.table.width, self.table.width
        )

    def shape(self, num_clips: int) -> tuple[int, ...]:
        """(B, S, A, L, 3, E)."""
        *sequences, rows = self.table.rows.shape
        return num_clips, *sequences, 3, rows * self.table.width // 3

    def clips(self) -> Iterator[slice]:
        """Clips to be worked on together."""
        return spans(len(self.source), 4 * self.table.rows.numel() * self.table.width)

    def places(self, clips: slice) -> Iterator[_Place]:
        """Parts of some clips: sequences with all heads, or some heads of one sequence."""
        num_sequences, num_heads = self.table.rows.shape[:2]
        bytes_of_head = 4 * self.table.rows[0, 0].numel() * self.table.width
        head_bytes = bytes_of_head * (clips.stop - clips.start)
        for sequences in spans(num_sequences, head_bytes * num_heads):
            for heads in spans(num_heads, head_bytes * (sequences.stop - sequences.start)):
                yield clips, sequences, heads

    def gather(self, place: _Place) -> Tensor:
        """Shifted queries, keys and values (b, s, a, L, 3, E), in float32 (or float64)."""
        clips, sequences, heads = place
        source, rows = self.source[clips], self.table.rows[sequences, heads]
        index = rows.flatten()
        if len(source) > 1:
            first = torch.arange(len(source), dtype=index.dtype) * source.shape[1]
            index = (first[:, None] + index).flatten()
        x = source.flatten(0, 1).index_select(0, index).to(self.dtype)
        zeros = self._zeros(sequences, heads)
        if len(zeros):
            x.view(len(source), -1, self.table.width).index_fill_(1, zeros, 0.0)
        return x.view(len(source), *rows.shape[:-1], 3, -1)

    def _zeros(self, sequences: slice, heads: slice) -> Tensor:
        """Rows of a part that come from outside of the frame or of the clip."""
        num_heads, rows = self.table.rows.shape[1], self.table.rows[0, 0].numel()
        start = (sequences.start * num_heads + heads.start) * rows
        stop = ((sequences.stop - 1) * num_heads + heads.stop) * rows
        low, high = self.table.zeros.searchsorted((start, stop))
        return torch.from_numpy(self.table.zeros[low:high] - start)

    def scatter(self, x: Tensor, out: Tensor) -> None:
        """What `gather` does not do to gradients: (S, A, L, 3, E) of a clip to its (T, N, 3D)."""
        rows = x.view(-1, self.table.width)
        home = rows.index_select(0, self.table.readers)
        home.index_fill_(0, self.table.unread, 0.0)
        readers, twice = self.table.again
        home[twice] += rows[readers]
        out.copy_(in_range(home, out.dtype).view(out.shape))


def _features_(x: Tensor, spec: AttentionSpec) -> Tensor:
    """Queries and keys within (…, 3, E) become features, in place."""
    both = x[..., :2, :]
    FEATURE_MAPS[spec.feature_map].apply_(both)
    if spec.offset:
        both += spec.offset
    return x


def _key_sums(k: Tensor, v: Tensor) -> Tensor:
    """kᵀv and beside it Σk, (U, E, E + 1)."""
    sums = k.new_empty(*k.shape[::2], v.shape[-1] + 1)
    sums[..., :-1] = torch.bmm(k.transpose(1, 2), v)
    sums[..., -1] = k.sum(1)
    return sums


class _Sums(NamedTuple):
    """What a division of linear attention has, of features and values (U, L, E).

    Args:
        queries_first: which product is the cheaper first one.
        inner: that product, weights (U, L, L) or `_key_sums` (U, E, E + 1).
        sums: of values (U, L, E).
        norm: sums of weights (U, L, 1).
        divide: what to divide by (U, L, 1).
    """

    queries_first: bool
    inner: Tensor
    sums: Tensor
    norm: Tensor
    divide: Tensor


def _attend(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec) -> _Sums:
    first = queries_first(q.shape[1], q.shape[2], v.shape[2])
    if first:
        inner = torch.bmm(q, k.transpose(1, 2))
        sums, norm = torch.bmm(inner, v), inner.sum(-1, keepdim=True)
    else:
        inner = _key_sums(k, v)
        both = torch.bmm(q, inner)
        sums, norm = both[..., :-1], both[..., -1:]
    return _Sums(first, inner, sums, norm, divisor(norm, spec.eps, spec.clamp))


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v (U, L, E) from that of the output (U, L, E)."""
    first, inner, sums, norm, divide = _attend(q, k, v, spec)
    d_both = grad.new_empty(*grad.shape[:2], grad.shape[2] + 1)
    d_sums, d_norm = d_both[..., :-1], d_both[..., -1:]
    torch.div(grad, divide, out=d_sums)
    d_norm.copy_((d_sums * sums).sum(-1, keepdim=True).div_(divide).neg_())
    if spec.clamp:
        d_norm.masked_fill_(norm < spec.eps, 0.0)
    if first:
        d_weights = torch.bmm(d_sums, v.transpose(1, 2)).add_(d_norm)
        d_k = torch.bmm(d_weights.transpose(1, 2), q)
        return torch.bmm(d_weights, k), d_k, torch.bmm(inner.transpose(1, 2), d_sums)
    d_key_sums = torch.bmm(q.transpose(1, 2), d_both)
    d_kv, d_k_sum = d_key_sums[..., :-1], d_key_sums[..., -1:]
    d_k = torch.baddbmm(d_k_sum.transpose(1, 2), v, d_kv.transpose(1, 2))
    return torch.bmm(d_both, inner.transpose(1, 2)), d_k, torch.bmm(k, d_kv)


def _fix_(x: Tensor, ratios: Tensor) -> None:
    """Queries and keys within (…, 3, E) times their ratios (…, R, E), in place."""
    # One after the other: torch multiplies a broadcast axis three times slower.
    x[..., 0, :] *= ratios[..., 0, :]
    x[..., 1, :] *= ratios[..., -1, :]


def _prepared(x: Tensor, gate: _Gate | None, spec: AttentionSpec) -> Tensor:
    """Shifted (…, 3, E) to fixed features and values, in place."""
    x = _features_(x, spec)
    if gate is not None:
        _fix_(x, gate.ratios(x))
    return x


def attention(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """See `lvt_ff.ops.attention.attention`."""
    sequences, gate = _Sequences(qkv, spec), _gate(weight, bias, sum_dtype(qkv.dtype))
    out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
    heads = spec.heads(out)  # (B, S, A, L, E)
    for clips in sequences.clips():
        for place in sequences.places(clips):
            x = _prepared(sequences.gather(place), gate, spec)
            found = _attend(*x.flatten(0, 2).unbind(2), spec)
            shape = x.shape[:4]
            torch.div(found.sums.view(*shape, -1), found.divide.view(*shape, 1), out=heads[place])
    return out


def gated_heads(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """See `lvt_ff.ops.attention.gated_heads`."""
    sequences, gate = _Sequences(qkv, spec), _gate(weight, bias, sum_dtype(qkv.dtype))
    out = qkv.new_empty(sequences.shape(len(qkv)))
    for clips in sequences.clips():
        for place in sequences.places(clips):
            out[place] = _prepared(sequences.gather(place), gate, spec)
    return out.flatten(0, 1)


class _Gradients:
    """Gradients of an operator's inputs, summed up part by part.

    Args:
        qkv: (B, T, N, 3D).
        weight, bias: of the gate, or None.
        spec: of the attention.
    """

    def __init__(
        self, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
    ):
        self.qkv, self.spec = qkv, spec
        self.sequences = _Sequences(qkv, spec)
        self.gate = _gate(weight, bias, self.sequences.dtype)
        self.d_gate = None if self.gate is None else _Gate(*map(torch.zeros_like, self.gate))
        self.dtypes = None if weight is None else (weight.dtype, bias.dtype)

    def run(self, fixed: Callable[[_Place, Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of qkv, weight and bias; the last two are empty without a gate.

        Args:
            fixed: gives a part's gradients (…, 3, E) at fixed features and values, which it gets.
        """
        d_qkv = torch.empty_like(self.qkv, memory_format=torch.contiguous_format)
        buffer = None
        for clips in self.sequences.clips():
            if buffer is None or len(buffer) != clips.stop - clips.start:
                shape = self.sequences.shape(clips.stop - clips.start)
                buffer = torch.empty(shape, dtype=self.sequences.dtype)
            for place in self.sequences.places(clips):
                buffer[:, place[1], place[2]] = self._part(place, fixed)
            for x, out in zip(buffer, d_qkv[clips], strict=True):
                self.sequences.scatter(x, out)
        if self.d_gate is None:
            return d_qkv, self.qkv.new_empty(0), self.qkv.new_empty(0)
        return d_qkv, *(x.to(dtype) for x, dtype in zip(self.d_gate, self.dtypes, strict=True))

    def _part(self, place: _Place, fixed: Callable[[_Place, Tensor], Tensor]) -> Tensor:
        """Gradients (…, 3, E) of a part's shifted queries, keys and values."""
        x = self.sequences.gather(place)
        slope = FEATURE_MAPS[self.spec.feature_map].slope(x[..., :2, :])
        x = _features_(x, self.spec)
        if self.gate is None:
            grad = fixed(place, x)
        else:
            ratios = self.gate.ratios(x)
            fixed_x = x.clone()
            _fix_(fixed_x, ratios)
            grad = fixed(place, fixed_x)
            self._gate_backward(x, ratios, grad)
        grad[..., :2, :] *= slope
        return grad

    def _gate_backward(self, x: Tensor, ratios: Tensor, grad: Tensor) -> None:
        """Gradients at fixed features (…, 3, E) become those before the gate, in place."""
        d_ratios = grad[..., :2, :] * x[..., :2, :]  # (…, 2, E)
        if ratios.shape[-2] == 1:
            d_ratios = d_ratios.sum(-2, keepdim=True)
        _fix_(grad, ratios)
        d_logits = torch.ops.aten.sigmoid_backward(d_ratios, ratios).flatten(-2).flatten(0, -2)
        self.d_gate.weight.addmm_(d_logits.t(), self.gate.inputs(x))
        self.d_gate.bias.add_(d_logits.sum(0))
        self.gate.inputs(grad).addmm_(d_logits, self.gate.weight)


def attention_backward(
    grad: Tensor, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, weight and bias of `attention` from that of its output (B, T, N, D)."""
    heads = spec.heads(grad)

    def fixed(place: _Place, x: Tensor) -> Tensor:
        of_out = heads[place].to(x.dtype).flatten(0, 2)  # (U, L, E)
        parts = _attend_backward(of_out, *x.flatten(0, 2).unbind(2), spec)
        return torch.stack(parts, dim=2).view(x.shape)

    return _Gradients(qkv, weight, bias, spec).run(fixed)


def gated_heads_backward(
    grad: Tensor, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, weight and bias of `gated_heads` from that of its output."""
    heads = grad.unflatten(0, (len(qkv), -1))  # (B, S, A, L, 3, E)

    def fixed(place: _Place, x: Tensor) -> Tensor:
        return heads[place].to(x.dtype, copy=True)

    return _Gradients(qkv, weight, bias, spec).run(fixed)
