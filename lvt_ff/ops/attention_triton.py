"""Attention between its linear layers on a GPU.

Nothing but the packed queries, keys and values is read or kept: kernels shift when they load, and
backward passes compute features again. Sums are made in a fixed order, without atomics.
Source: arXiv 2210.08164, Eq. 3-6.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from lvt_ff.ops import attention_backward_triton as backward
from lvt_ff.ops import attention_forward_triton as forward
from lvt_ff.ops.attention_spec import AttentionSpec
from lvt_ff.ops.launch_triton import NUM_PROGRAMS, attention_launch, is_short, num_spans
from lvt_ff.ops.on_device_triton import on_device
from lvt_ff.ops.precision import in_range

__all__ = ["attention", "attention_backward", "gated_heads", "gated_heads_backward"]


def _packed_offsets(offsets: tuple[int, ...]) -> int:
    """Offsets as one number, 16 bits each: a constant of a kernel, so that nothing is copied."""
    limited = (min(max(offset, -(2**15)), 2**15 - 1) for offset in offsets)
    return sum((offset + 2**15) << (16 * i) for i, offset in enumerate(limited))


class _Problem:
    """Arguments that an attention's kernels have in common.

    Args:
        qkv: (B, T, N, 3D).
        weight, bias: of the gate, or None.
        spec: of the attention.
    """

    def __init__(
        self, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
    ):
        self.qkv, self.spec = qkv.contiguous(), spec
        self.batch, self.num_frames, self.num_tokens, width = qkv.shape
        self.dim = width // 3
        self.head_dim = self.dim // spec.num_heads
        self.padded = max(16, triton.next_power_of_2(self.head_dim))  # tl.dot wants 16
        self.length = spec.length(self.num_frames)
        self.num_rows = self.batch * self.num_frames * self.num_tokens
        self.num_sequences = self.num_rows // max(self.length, 1)
        self.num_inputs = self.num_ratios = 0
        self.weight = self.bias = self.qkv  # not read
        if weight is not None:
            self.weight, self.bias = (x.to(qkv.dtype).contiguous() for x in (weight, bias))
            self.num_ratios, self.num_inputs = (size // self.head_dim for size in weight.shape)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tensors that every kernel reads."""
        return self.qkv, self.weight, self.bias

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """T, N, h, w."""
        return self.num_frames, self.num_tokens, *self.spec.grid

    @property
    def division(self) -> dict[str, Any]:
        """Constants of kernels that divide."""
        return {"CLAMP": self.spec.clamp}

    @property
    def shifts(self) -> dict[str, Any]:
        """Constants of kernels that know which token reads which."""
        spec = self.spec
        num_groups = len(spec.spatial_offsets) // 2 if spec.spatial_fold else 0
        folds = self.head_dim, spec.spatial_fold if num_groups else 0, spec.temporal_fold
        return {
            "OFFSETS": _packed_offsets(tuple(spec.spatial_offsets)) if num_groups else 0,
            "GROUPS": num_groups,
            "SPATIAL_FOLD": spec.spatial_fold,
            "ZERO_GROUPS": spec.zero_groups,
            "TEMPORAL_FOLD": spec.temporal_fold,
            "SEGMENT": spec.segment,
            "D": self.dim,
            # So many channels side by side read the same token, and are loaded together.
            "ALIGN": math.gcd(8, *folds),
        }

    @property
    def constants(self) -> dict[str, Any]:
        """Constants of kernels that compute features."""
        return {
            **self.shifts,
            "SEQUENCES": self.spec.sequences,
            "FEATURE": self.spec.feature_map,
            "E": self.head_dim,
            "EP": self.padded,
            "NUM_INPUTS": self.num_inputs,
            "NUM_RATIOS": self.num_ratios,
            "HOIST": self.hoist,
        }

    def empty_sums(self, num_spans: int) -> Tensor:
        """Room for the sums kᵀv and Σk of every span and head."""
        units = self.num_sequences * self.spec.num_heads
        shape = num_spans, units, self.head_dim + 1, self.head_dim
        return self.qkv.new_empty(shape, dtype=torch.float32)

    @property
    def is_short(self) -> bool:
        """Whether a program holds whole sequences."""
        return is_short(self.length, self.padded, self.qkv.dtype)

    @property
    def hoist(self) -> bool:
        """Whether a program holds all weights of the gate at once."""
        tiles = self.num_inputs * self.num_ratios
        return tiles * self.padded**2 * self.qkv.element_size() <= 6 * 64 * 64 * 2

    def launch(self, kernel: str, length: int | None = None) -> Any:
        """Settings of a kernel."""
        return attention_launch(kernel, self.padded, self.qkv.dtype, length)

    def spans(self, rows: int) -> tuple[int, int]:
        """Spans that a long sequence is cut into, and tokens of each."""
        count = num_spans(self.num_sequences * self.spec.num_heads, self.length)
        span = triton.cdiv(triton.cdiv(self.length, count), rows) * rows
        return triton.cdiv(self.length, span), span


@on_device
def attention(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """See `lvt_ff.ops.attention.attention`."""
    problem = _Problem(qkv, weight, bias, spec)
    out = qkv.new_empty(*qkv.shape[:-1], problem.dim)
    if out.numel() == 0:
        return out
    run = _short if problem.is_short else _long
    run(problem, out)
    return out


def _short(problem: _Problem, out: Tensor) -> None:
    launch = problem.launch("short_forward", problem.length)
    blocks = triton.cdiv(problem.num_sequences, launch.rows // problem.length)
    forward.short_forward[(blocks * problem.spec.num_heads,)](
        *problem.inputs,
        out,
        problem.num_sequences,
        problem.length,
        *problem.sizes,
        problem.spec.offset,
        problem.spec.eps,
        ROWS=launch.rows,
        **problem.division,
        **problem.constants,
        **launch.options,
    )


def _long(problem: _Problem, out: Tensor) -> None:
    launch = problem.launch("long_forward")
    count, span = problem.spans(launch.rows)
    units = problem.num_sequences * problem.spec.num_heads

    def run(sums: Tensor, first: bool, last: bool) -> None:
        forward.long_forward[(count * units,)](
            *problem.inputs,
            out,
            sums,
            units,
            problem.length,
            span,
            *problem.sizes,
            problem.spec.offset,
            problem.spec.eps,
            FIRST=first,
            LAST=last,
            ROWS=launch.rows,
            **problem.division,
            **problem.constants,
            **launch.options,
        )

    if count == 1:
        run(out, True, True)
    else:
        sums = problem.empty_sums(count)
        run(sums, True, False)
        run(sums.sum(0), False, True)


@on_device
def gated_heads(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """See `lvt_ff.ops.attention.gated_heads`."""
    problem = _Problem(qkv, weight, bias, spec)
    heads, head_dim = spec.num_heads, problem.head_dim
    out = qkv.new_empty(problem.num_sequences, heads, problem.length, 3, head_dim)
    if out.numel() == 0:
        return out
    launch = problem.launch("heads_forward")
    forward.heads_forward[(triton.cdiv(problem.num_rows, launch.rows) * heads,)](
        *problem.inputs,
        out,
        problem.num_rows,
        problem.length,
        *problem.sizes,
        spec.offset,
        ROWS=launch.rows,
        **problem.constants,
        **launch.options,
    )
    return out


class _Gradients:
    """What backward kernels write, and the passes that finish it.

    Args:
        problem: of the forward pass.
        weight, bias: of the gate, or None.
    """

    def __init__(self, problem: _Problem, weight: Tensor | None, bias: Tensor | None):
        self.problem, self.gate = problem, (weight, bias)
        qkv, dim = problem.qkv, problem.dim
        self.qkv = torch.empty_like(qkv)
        # At the tokens that read them, where a token can have two readers.
        self.readers = self.qkv
        if problem.shifts["GROUPS"]:
            self.readers = qkv.new_empty(problem.num_rows, 2 * dim)
        self.logits = self.qkv
        if weight is not None:
            # float16 has no range for them; they are no output, which would be clamped.
            dtype = torch.float32 if qkv.dtype == torch.float16 else qkv.dtype
            self.logits = qkv.new_empty(problem.num_rows, dim * problem.num_ratios, dtype=dtype)

    @property
    def outputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tensors that every kernel writes."""
        return self.qkv, self.readers, self.logits

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of qkv, weight and bias; the last two are empty without a gate."""
        if self.problem.shifts["GROUPS"] and self.qkv.numel():
            self._unshift()
        weight, bias = self.gate
        if weight is None:
            return self.qkv, self.qkv.new_empty(0), self.qkv.new_empty(0)
        if self.qkv.numel() == 0:
            return self.qkv, torch.zeros_like(weight), torch.zeros_like(bias)
        return self.qkv, *self._of_gate()

    def _unshift(self) -> None:
        problem, launch = self.problem, self.problem.launch("unshift")
        cols = min(triton.next_power_of_2(problem.dim), 256)
        blocks = triton.cdiv(problem.num_rows, launch.rows) * triton.cdiv(problem.dim, cols)
        backward.unshift[(blocks,)](
            self.readers,
            self.qkv,
            problem.num_rows,
            *problem.sizes,
            ROWS=launch.rows,
            COLS=cols,
            **problem.shifts,
            **launch.options,
        )

    def _of_gate(self) -> tuple[Tensor, Tensor]:
        problem, launch = self.problem, self.problem.launch("gate_gradient")
        inputs, num_ratios = problem.num_inputs, problem.num_ratios
        heads, head_dim = problem.spec.num_heads, problem.head_dim
        blocks = triton.cdiv(problem.num_rows, launch.rows)
        count = max(1, min(blocks, NUM_PROGRAMS // (heads * inputs * num_ratios)))
        span = triton.cdiv(blocks, count) * launch.rows
        count = triton.cdiv(problem.num_rows, span)
        parts = problem.qkv.new_empty(
            count * heads, num_ratios, inputs * head_dim + 1, head_dim, dtype=torch.float32
        )
        backward.gate_gradient[(count * heads * num_ratios * inputs,)](
            problem.qkv,
            self.logits,
            parts,
            problem.num_rows,
            span,
            *problem.sizes,
            problem.spec.offset,
            ROWS=launch.rows,
            **problem.constants,
            **launch.options,
        )
        d_weight = parts[:, :, :-1].sum(0).transpose(1, 2).flatten(0, 1)  # (R·E, I·E)
        d_bias = parts[:, :, -1].sum(0).flatten()
        weight, bias = self.gate
        return in_range(d_weight, weight.dtype), in_range(d_bias, bias.dtype)


@on_device
def attention_backward(
    grad: Tensor, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, weight and bias of `attention` from that of its output (B, T, N, D)."""
    problem = _Problem(qkv, weight, bias, spec)
    gradients = _Gradients(problem, weight, bias)
    if qkv.numel():
        run = _short_backward if problem.is_short else _long_backward
        run(problem, grad.contiguous(), gradients)
    return gradients.finish()


def _short_backward(problem: _Problem, grad: Tensor, gradients: _Gradients) -> None:
    launch = problem.launch("short_backward", problem.length)
    blocks = triton.cdiv(problem.num_sequences, launch.rows // problem.length)
    backward.short_backward[(blocks * problem.spec.num_heads,)](
        *problem.inputs,
        grad,
        *gradients.outputs,
        problem.num_sequences,
        problem.length,
        *problem.sizes,
        problem.spec.offset,
        problem.spec.eps,
        ROWS=launch.rows,
        **problem.division,
        **problem.constants,
        **launch.options,
    )


def _long_backward(problem: _Problem, grad: Tensor, gradients: _Gradients) -> None:
    launch = problem.launch("long_backward")
    count, span = problem.spans(launch.rows)
    units = problem.num_sequences * problem.spec.num_heads

    def run(sums: Tensor, d_sums: Tensor, *passes: bool) -> None:
        first, second, third = passes
        backward.long_backward[(count * units,)](
            *problem.inputs,
            grad,
            *gradients.outputs,
            sums,
            d_sums,
            units,
            problem.length,
            span,
            *problem.sizes,
            problem.spec.offset,
            problem.spec.eps,
            FIRST=first,
            SECOND=second,
            THIRD=third,
            ROWS=launch.rows,
            **problem.division,
            **problem.constants,
            **launch.options,
        )

    if count == 1:
        run(grad, grad, True, True, True)
        return
    parts = problem.empty_sums(count)
    run(parts, parts, True, False, False)
    sums = parts.sum(0)
    run(sums, parts, False, True, False)
    run(sums, parts.sum(0), False, False, True)


@on_device
def gated_heads_backward(
    grad: Tensor, qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, weight and bias of `gated_heads` from that of its output."""
    problem = _Problem(qkv, weight, bias, spec)
    gradients = _Gradients(problem, weight, bias)
    if qkv.numel():
        launch = problem.launch("heads_backward")
        blocks = triton.cdiv(problem.num_rows, launch.rows)
        backward.heads_backward[(blocks * spec.num_heads,)](
            *problem.inputs,
            grad.contiguous(),
            *gradients.outputs,
            problem.num_rows,
            problem.length,
            *problem.sizes,
            spec.offset,
            ROWS=launch.rows,
            **problem.constants,
            **launch.options,
        )
    return gradients.finish()
