"""Triton kernels of the attention's backward pass; features and sums are computed again.

The last arguments of each are as in the forward kernels. With o = Σ s v / d of a query, weights
s = q·k and divisor d: dq = Σ (do·v - do·o) k / d where d depends on q and k, and likewise for k.
Source: arXiv 2210.08164, Eq. 3-6.
"""

import triton
import triton.language as tl

from lvt_ff.ops.attention_device_triton import (
    divisor,
    features,
    gate_biases,
    gate_weights,
    home,
    keeps_own,
    load_shifted,
    offsets,
    place,
    ratios,
    segment,
    store_gradients,
    temporal_step,
)
from lvt_ff.ops.triton_device import in_range, narrow, product

__all__ = ["gate_gradient", "heads_backward", "long_backward", "short_backward", "unshift"]


@triton.jit
def _norm_gradient(grad, out, norm, eps, CLAMP: tl.constexpr):
    """Gradient of Σ s (rows, 1), times d."""
    d_norm = -tl.sum(grad * out, 1)[:, None]
    if CLAMP:
        d_norm = tl.where(norm < eps, 0.0, d_norm)
    return d_norm


@triton.jit
def short_backward(
    QKV,
    WEIGHT,
    BIAS,
    GRAD,
    D_QKV,
    D_KV,
    D_LOGITS,
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
    """As many whole sequences of one head as fit into a tile."""
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
    grad = tl.load(GRAD + own * D + cols, mask=real, other=0.0)
    dtype = QKV.dtype.element_ty
    qf, kf = features(q, offset, real, FEATURE), features(k, offset, real, FEATURE)
    weights = gate_weights(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    biases = gate_biases(BIAS, E, EP, NUM_RATIOS)
    q_ratio, k_ratio = ratios(qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)
    q_low, k_low = (qf * q_ratio).to(dtype), (kf * k_ratio).to(dtype)
    same = (r // L)[:, None] == (r // L)[None, :]
    scores = tl.where(same, product(q_low, tl.trans(k_low)), 0.0)  # (ROWS, ROWS)
    norm = tl.sum(scores, 1)[:, None]
    divide = divisor(norm, eps, CLAMP)
    shares = in_range(scores * divide, dtype)
    d_norm = _norm_gradient(grad.to(tl.float32), product(shares, v), norm, eps, CLAMP)
    d_v = product(tl.trans(shares), grad)
    d_scores = tl.where(same, (product(grad, tl.trans(v)) + d_norm) * divide, 0.0)
    d_scores, factor = narrow(d_scores, dtype)
    d_q = product(d_scores, k_low) * factor
    d_k = product(tl.trans(d_scores), q_low) * factor
    store_gradients(
        d_q,
        d_k,
        d_v,
        q,
        k,
        qf,
        kf,
        (q_ratio, k_ratio),
        weights,
        D_QKV,
        D_KV,
        D_LOGITS,
        own,
        source,
        present,
        head,
        cols,
        real,
        D,
        E,
        EP,
        FEATURE,
        GROUPS,
        NUM_INPUTS,
        NUM_RATIOS,
        HOIST,
    )


@triton.jit
def long_backward(  # noqa: C901 (constants decide)
    QKV,
    WEIGHT,
    BIAS,
    GRAD,
    D_QKV,
    D_KV,
    D_LOGITS,
    SUMS,
    D_SUMS,
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
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
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
    """A span of one sequence and head in three passes: sums, their gradients, all the others.

    First kᵀv and Σk, second the gradients of both and of fixed queries, which lie in `D_QKV` in
    between, third those of queries, keys and values. A program that does all has a whole sequence.
    """
    unit, span = tl.program_id(0) % num_heads_in_all, tl.program_id(0) // num_heads_in_all
    head, sequence = unit % (D // E), unit // (D // E)
    r, e = tl.arange(0, ROWS)[:, None], tl.arange(0, EP)[None, :]
    cols, in_head = head * E + e, e < E
    dtype = QKV.dtype.element_ty
    start, stop = span * SPAN, tl.minimum(span * SPAN + SPAN, L)
    # Sums of a span or, added up in between, of a sequence: (E, E), then (E,).
    of_span = (span.to(tl.int64) * num_heads_in_all + unit) * ((E + 1) * E)
    of_sequence = unit.to(tl.int64) * ((E + 1) * E)
    square = tl.arange(0, EP)[:, None] * E + e
    row = E * E + e
    in_square = (tl.arange(0, EP)[:, None] < E) & in_head
    biases = gate_biases(BIAS, E, EP, NUM_RATIOS)
    weights = gate_weights(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST)

    if FIRST:
        kv, k_sum = tl.zeros((EP, EP), tl.float32), tl.zeros((1, EP), tl.float32)
        for i0 in range(start, stop, ROWS):
            real = (i0 + r < stop) & in_head
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
            kf = features(k, offset, real, FEATURE)
            qf = features(q, offset, real, FEATURE)
            q_ratio, k_ratio = ratios(
                qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST
            )
            kf = kf * k_ratio
            k_low = kf.to(dtype)
            kv += product(tl.trans(k_low), v)
            k_sum += tl.sum(k_low.to(tl.float32), 0)[None, :]
        if not SECOND:
            tl.store(SUMS + of_span + square, kv, mask=in_square)
            tl.store(SUMS + of_span + row, k_sum, mask=in_head)

    if SECOND:
        if not FIRST:
            kv = tl.load(SUMS + of_sequence + square, mask=in_square, other=0.0)
            k_sum = tl.load(SUMS + of_sequence + row, mask=in_head, other=0.0)
        kv_low, kv_factor = narrow(kv, dtype)
        d_kv, d_k_sum = tl.zeros((EP, EP), tl.float32), tl.zeros((1, EP), tl.float32)
        for i0 in range(start, stop, ROWS):
            real = (i0 + r < stop) & in_head
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
            grad = tl.load(GRAD + own * D + cols, mask=real, other=0.0).to(tl.float32)
            qf = features(q, offset, real, FEATURE)
            kf = features(k, offset, real, FEATURE)
            q_ratio, k_ratio = ratios(
                qf, kf, v, weights, biases, E, EP, NUM_INPUTS, NUM_RATIOS, HOIST
            )
            qf = qf * q_ratio
            q_low = qf.to(dtype)
            qf = q_low.to(tl.float32)
            norm = tl.sum(qf * k_sum, 1)[:, None]
            divide = divisor(norm, eps, CLAMP)
            out = product(q_low, kv_low) * (divide * kv_factor)
            d_norm = _norm_gradient(grad, out, norm, eps, CLAMP) * divide
            d_out, factor = narrow(grad * divide, dtype)
            d_q = product(d_out, tl.trans(kv_low)) * (factor * kv_factor) + d_norm * k_sum
            tl.store(D_QKV + own * (3 * D) + cols, in_range(d_q, dtype), mask=real)
            d_kv += product(tl.trans(q_low), d_out) * factor
            d_k_sum += tl.sum(d_norm * qf, 0)[None, :]
        if not THIRD:
            tl.store(D_SUMS + of_span + square, d_kv, mask=in_square)
            tl.store(D_SUMS + of_span + row, d_k_sum, mask=in_head)

    if THIRD:
        if SECOND:
            tl.debug_barrier()  # other threads wrote the gradients of queries
        else:
            d_kv = tl.load(D_SUMS + of_sequence + square, mask=in_square, other=0.0)
            d_k_sum = tl.load(D_SUMS + of_sequence + row, mask=in_head, other=0.0)
        d_kv_low, d_kv_factor = narrow(d_kv, dtype)
        for i0 in range(start, stop, ROWS):
            real = (i0 + r < stop) & in_head
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
            d_q = tl.load(D_QKV + own * (3 * D) + cols, mask=real, other=0.0).to(tl.float32)
            d_k = product(v, tl.trans(d_kv_low)) * d_kv_factor + d_k_sum
            d_v = product((kf * k_ratio).to(dtype), d_kv_low) * d_kv_factor
            store_gradients(
                d_q,
                d_k,
                d_v,
                q,
                k,
                qf,
                kf,
                (q_ratio, k_ratio),
                weights,
                D_QKV,
                D_KV,
                D_LOGITS,
                own,
                source,
                present,
                head,
                cols,
                real,
                D,
                E,
                EP,
                FEATURE,
                GROUPS,
                NUM_INPUTS,
                NUM_RATIOS,
                HOIST,
            )


@triton.jit
def heads_backward(
    QKV,
    WEIGHT,
    BIAS,
    GRAD,
    D_QKV,
    D_KV,
    D_LOGITS,
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
    """Some tokens of one head, in the order of the sequences."""
    head, block = tl.program_id(0) % (D // E), tl.program_id(0) // (D // E)
    index = block * ROWS + tl.arange(0, ROWS)[:, None]
    sequence, i = index // L, index % L
    e = tl.arange(0, EP)[None, :]
    cols, real = head * E + e, (index < num_rows) & (e < E)
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
    grads = GRAD + ((sequence.to(tl.int64) * (D // E) + head) * L + i) * (3 * E) + e
    d_q = tl.load(grads, mask=real, other=0.0).to(tl.float32)
    d_k = tl.load(grads + E, mask=real, other=0.0).to(tl.float32)
    d_v = tl.load(grads + 2 * E, mask=real, other=0.0).to(tl.float32)
    store_gradients(
        d_q,
        d_k,
        d_v,
        q,
        k,
        qf,
        kf,
        (q_ratio, k_ratio),
        weights,
        D_QKV,
        D_KV,
        D_LOGITS,
        own,
        source,
        present,
        head,
        cols,
        real,
        D,
        E,
        EP,
        FEATURE,
        GROUPS,
        NUM_INPUTS,
        NUM_RATIOS,
        HOIST,
    )


@triton.jit
def gate_gradient(
    QKV,
    D_LOGITS,
    PARTS,
    num_rows,
    SPAN,
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
    """What a span of tokens adds, in one head, to a ratio's weights of one input, and to its bias.

    A span's part is (NUM_RATIOS, NUM_INPUTS·E + 1, E): for each input channel those of the ratio's
    channels, and the bias behind them.
    """
    pid = tl.program_id(0)
    part, pid = pid % NUM_INPUTS, pid // NUM_INPUTS
    ratio, unit = pid % NUM_RATIOS, pid // NUM_RATIOS
    head, span = unit % (D // E), unit // (D // E)
    r, e = tl.arange(0, ROWS)[:, None], tl.arange(0, EP)[None, :]
    cols, in_head = head * E + e, e < E
    dtype = QKV.dtype.element_ty
    d_weight, d_bias = tl.zeros((EP, EP), tl.float32), tl.zeros((1, EP), tl.float32)
    start, stop = span * SPAN, tl.minimum(span * SPAN + SPAN, num_rows)
    for i0 in range(start, stop, ROWS):
        index = i0 + r
        real = (index < stop) & in_head
        frame, n = index // N, index % N
        clip, t = frame // T, frame % T
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
        own = index.to(tl.int64)
        source = tl.where(part == 0, own, source)
        x = tl.load(
            QKV + source * (3 * D) + part * D + cols,
            mask=real & (present | (part == 0)),
            other=0.0,
        )
        x = tl.where(part < 2, features(x, offset, real, FEATURE), x.to(tl.float32)).to(dtype)
        at = own * (D * NUM_RATIOS) + head * (E * (NUM_RATIOS - 1)) + ratio * E + cols
        d_logits = tl.load(D_LOGITS + at, mask=real, other=0.0).to(tl.float32)
        low, factor = narrow(d_logits, dtype)
        d_weight += product(tl.trans(x), low) * factor  # (E in, E out)
        d_bias += tl.sum(d_logits, 0)[None, :]
    rows_in_all: tl.constexpr = NUM_INPUTS * E + 1
    out = PARTS + (unit.to(tl.int64) * NUM_RATIOS + ratio) * (rows_in_all * E)
    of = tl.arange(0, EP)[:, None]
    tl.store(out + (part * E + of) * E + e, d_weight, mask=(of < E) & in_head)
    tl.store(out + NUM_INPUTS * E * E + e, d_bias, mask=in_head & (part == 0))


@triton.jit
def unshift(
    D_KV,
    D_QKV,
    num_rows,
    T,
    N,
    H,
    W,
    OFFSETS: tl.constexpr,
    GROUPS: tl.constexpr,
    SPATIAL_FOLD: tl.constexpr,
    ZERO_GROUPS: tl.constexpr,
    TEMPORAL_FOLD: tl.constexpr,
    SEGMENT: tl.constexpr,
    D: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """Gradients of some channels of some tokens' keys and values, from who reads them.

    Besides a neighbour, a token whose own neighbour is outside of the frame may read itself.
    """
    blocks: tl.constexpr = (D + COLS - 1) // COLS
    index = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    cols = (tl.program_id(0) % blocks) * COLS + tl.arange(0, COLS)[None, :]
    real = (index < num_rows) & (cols < D)
    frame, n = index // N, index % N
    reader, is_read = frame, real
    if TEMPORAL_FOLD > 0:
        step = temporal_step(cols, TEMPORAL_FOLD, ALIGN)
        first, last = segment(frame % T, T, SEGMENT)
        is_read = real & (frame % T - step >= first) & (frame % T - step < last)
        reader = frame - step
    dy, dx = offsets(cols, OFFSETS, GROUPS, SPATIAL_FOLD, ALIGN)
    keeps = keeps_own(cols, GROUPS, SPATIAL_FOLD, ZERO_GROUPS, ALIGN)
    y, x = n // W, n % W
    inside = (y - dy >= 0) & (y - dy < H) & (x - dx >= 0) & (x - dx < W)
    alone = (y + dy < 0) | (y + dy >= H) | (x + dx < 0) | (x + dx >= W)
    base = reader.to(tl.int64) * N
    neighbour = D_KV + (base + (y - dy) * W + (x - dx)) * (2 * D) + cols
    itself = D_KV + (base + n) * (2 * D) + cols
    out = D_QKV + index.to(tl.int64) * (3 * D) + cols
    for part in tl.static_range(2):
        d = tl.load(neighbour + part * D, mask=is_read & inside, other=0.0).to(tl.float32)
        d += tl.load(itself + part * D, mask=is_read & alone & keeps, other=0.0).to(tl.float32)
        tl.store(out + (part + 1) * D, in_range(d, D_QKV.dtype.element_ty), mask=real)
