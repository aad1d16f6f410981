"""Triton kernels of the attention's forward pass.

The last arguments of each, up to `ALIGN`, are `AttentionSpec` and sizes as constants: tokens shifts
read, features, the gate. Source: arXiv 2210.08164, Eq. 3-6.
"""

import triton
import triton.language as tl

from lvt_ff.ops.attention_device_triton import (
    divisor,
    features,
    gate_biases,
    gate_weights,
    home,
    load_shifted,
    place,
    ratios,
)
from lvt_ff.ops.triton_device import in_range, narrow, product

__all__ = ["heads_forward", "long_forward", "short_forward"]


@triton.jit
def short_forward(
    QKV,
    WEIGHT,
    BIAS,
    OUT,
    num_sequences,
    L,
    T,
    N,
    H,
    W,
    offset,
    eps,
    ROWS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    FEATURE: tl.constexpr,
    CLAMP: tl.constexpr,
    OFFSETS: tl.constexpr,
    GROUPS: tl.constexpr,
    SPATIAL_FOLD: tl.constexpr,
    ZERO_GROUPS: tl.constexpr,
    TEMPORAL_FOLD: tl.constexpr,
    SEGMENT: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """As many whole sequences of one head as fit into a tile, by their weights q kᵀ."""
    head, block = tl.program_id(0) % (D // E), tl.program_id(0) // (D // E)
    count = ROWS // L
    r = tl.arange(0, ROWS)
    sequence, i = block * count + r[:, None] // L, r[:, None] % L
    inside = (r[:, None] < count * L) & (sequence < num_sequences)
    e = tl.arange(0, EP)[None, :]
    cols, real = head * E + e, inside & (e < E)
    clip, t, n = place(sequence, i, T, N, SEQUENCES)
    own = (clip.to(tl.int64) * T + t) * N + n
    source, present = home(
        clip,
        t,
        n,
        cols,
        T,
        N,
        H,
        W,
        OFFSETS,
        GROUPS,
        SPATIAL_FOLD,
        ZERO_GROUPS,
        TEMPORAL_FOLD,
        SEGMENT,
        ALIGN,
    )
    q, k, v = load_shifted(QKV, own, source, present, cols, real, D)
    qf, kf = features(q, offset, real, FEATURE), features(k, offset, real, FEATURE)
    weights = gate_weights(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    biases = gate_biases(BIAS, E, EP, NUM_RATIOS)
    q_ratio, k_ratio = ratios(qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    qf, kf = qf * q_ratio, kf * k_ratio
    scores = product(qf.to(v.dtype), tl.trans(kf.to(v.dtype)))  # (ROWS, ROWS)
    scores = tl.where((r // L)[:, None] == (r // L)[None, :], scores, 0.0)
    divide = divisor(tl.sum(scores, 1)[:, None], eps, CLAMP)
    out = product(in_range(scores * divide, v.dtype), v)
    tl.store(OUT + own * D + cols, out.to(OUT.dtype.element_ty), mask=real)


@triton.jit
def long_forward(
    QKV,
    WEIGHT,
    BIAS,
    OUT,
    SUMS,
    num_heads_in_all,
    L,
    SPAN,
    T,
    N,
    H,
    W,
    offset,
    eps,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    FEATURE: tl.constexpr,
    CLAMP: tl.constexpr,
    OFFSETS: tl.constexpr,
    GROUPS: tl.constexpr,
    SPATIAL_FOLD: tl.constexpr,
    ZERO_GROUPS: tl.constexpr,
    TEMPORAL_FOLD: tl.constexpr,
    SEGMENT: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """A span of one sequence and head: first its sums kᵀv and Σk, last the queries' results.

    A program that does both has the whole sequence. Fixed queries lie in `OUT` in between.
    """
    unit, span = tl.program_id(0) % num_heads_in_all, tl.program_id(0) // num_heads_in_all
    head, sequence = unit % (D // E), unit // (D // E)
    r, e = tl.arange(0, ROWS)[:, None], tl.arange(0, EP)[None, :]
    cols, in_head = head * E + e, e < E
    dtype = QKV.dtype.element_ty
    start, stop = span * SPAN, tl.minimum(span * SPAN + SPAN, L)
    # Sums of a span: kᵀv (E, E), then Σk (E,).
    sums = SUMS + (span.to(tl.int64) * num_heads_in_all + unit) * ((E + 1) * E)
    square = tl.arange(0, EP)[:, None] * E + e
    in_square = (tl.arange(0, EP)[:, None] < E) & in_head
    if FIRST:
        kv, k_sum = tl.zeros((EP, EP), tl.float32), tl.zeros((1, EP), tl.float32)
        biases = gate_biases(BIAS, E, EP, NUM_RATIOS)
        weights = gate_weights(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
        for i0 in range(start, stop, ROWS):
            inside = i0 + r < stop
            real = inside & in_head
            clip, t, n = place(sequence, i0 + r, T, N, SEQUENCES)
            own = (clip.to(tl.int64) * T + t) * N + n
            source, present = home(
                clip,
                t,
                n,
                cols,
                T,
                N,
                H,
                W,
                OFFSETS,
                GROUPS,
                SPATIAL_FOLD,
                ZERO_GROUPS,
                TEMPORAL_FOLD,
                SEGMENT,
                ALIGN,
            )
            q, k, v = load_shifted(QKV, own, source, present, cols, real, D)
            qf, kf = features(q, offset, real, FEATURE), features(k, offset, real, FEATURE)
            q_ratio, k_ratio = ratios(
                qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST
            )
            qf, kf = qf * q_ratio, kf * k_ratio
            k_low = kf.to(dtype)
            kv += product(tl.trans(k_low), v)
            k_sum += tl.sum(k_low.to(tl.float32), 0)[None, :]
            tl.store(OUT + own * D + cols, qf.to(dtype), mask=real)
        if not LAST:
            tl.store(sums + square, kv, mask=in_square)
            tl.store(sums + E * E + e, k_sum, mask=in_head)
    if LAST:
        if FIRST:
            tl.debug_barrier()  # other threads wrote the queries
        else:
            # Of the whole sequence, added up in between.
            sums = SUMS + unit.to(tl.int64) * ((E + 1) * E)
            kv = tl.load(sums + square, mask=in_square, other=0.0)
            k_sum = tl.load(sums + E * E + e, mask=in_head, other=0.0)
        kv_low, factor = narrow(kv, dtype)
        for i0 in range(start, stop, ROWS):
            real = (i0 + r < stop) & in_head
            clip, t, n = place(sequence, i0 + r, T, N, SEQUENCES)
            pointers = OUT + ((clip.to(tl.int64) * T + t) * N + n) * D + cols
            qf = tl.load(pointers, mask=real, other=0.0)
            norm = tl.sum(qf.to(tl.float32) * k_sum, 1)[:, None]
            out = product(qf, kv_low) * (divisor(norm, eps, CLAMP) * factor)
            tl.store(pointers, out.to(dtype), mask=real)


@triton.jit
def heads_forward(
    QKV,
    WEIGHT,
    BIAS,
    OUT,
    num_rows,
    L,
    T,
    N,
    H,
    W,
    offset,
    ROWS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    FEATURE: tl.constexpr,
    OFFSETS: tl.constexpr,
    GROUPS: tl.constexpr,
    SPATIAL_FOLD: tl.constexpr,
    ZERO_GROUPS: tl.constexpr,
    TEMPORAL_FOLD: tl.constexpr,
    SEGMENT: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Some tokens of one head, in the order of the sequences: features, fixed, and values."""
    head, block = tl.program_id(0) % (D // E), tl.program_id(0) // (D // E)
    row = block * ROWS + tl.arange(0, ROWS)[:, None]
    sequence, i = row // L, row % L
    e = tl.arange(0, EP)[None, :]
    cols, real = head * E + e, (row < num_rows) & (e < E)
    clip, t, n = place(sequence, i, T, N, SEQUENCES)
    own = (clip.to(tl.int64) * T + t) * N + n
    source, present = home(
        clip,
        t,
        n,
        cols,
        T,
        N,
        H,
        W,
        OFFSETS,
        GROUPS,
        SPATIAL_FOLD,
        ZERO_GROUPS,
        TEMPORAL_FOLD,
        SEGMENT,
        ALIGN,
    )
    q, k, v = load_shifted(QKV, own, source, present, cols, real, D)
    qf, kf = features(q, offset, real, FEATURE), features(k, offset, real, FEATURE)
    weights = gate_weights(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    biases = gate_biases(BIAS, E, EP, NUM_RATIOS)
    q_ratio, k_ratio = ratios(qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    qf, kf = qf * q_ratio, kf * k_ratio
    pointers = OUT + ((sequence.to(tl.int64) * (D // E) + head) * L + i) * (3 * E) + e
    dtype = OUT.dtype.element_ty
    tl.store(pointers, qf.to(dtype), mask=real)
    tl.store(pointers + E, kf.to(dtype), mask=real)
    tl.store(pointers + 2 * E, v.to(dtype), mask=real)
