"""What the attention kernels share: where tokens lie, what they read, features and the gate.

Tiles are (rows, EP): tokens of one head, whose E channels are padded to a power of two, EP.
Positions are (rows, 1) or (1, 1), what depends on channels is (1, EP).
Source: arXiv 2210.08164, Sec. 4.
"""

import triton
import triton.language as tl

from lvt_ff.ops.triton_device import in_range, narrow, product, sigmoid

__all__ = [
    "divisor",
    "features",
    "gate_biases",
    "gate_weights",
    "home",
    "keeps_own",
    "load_shifted",
    "offsets",
    "place",
    "ratios",
    "segment",
    "store_gradients",
    "temporal_step",
]


@triton.jit
def place(sequence, i, T, N, SEQUENCES: tl.constexpr):
    """Clip, frame and token of the frame at position i of a sequence."""
    if SEQUENCES == "time":
        return sequence // N, i, sequence % N
    elif SEQUENCES == "space":
        return sequence // T, sequence % T, i
    else:
        return sequence, i // N, i % N


@triton.jit
def offsets(
    cols, OFFSETS: tl.constexpr, GROUPS: tl.constexpr, FOLD: tl.constexpr, ALIGN: tl.constexpr
):
    """Rows and columns from a token to the one that a channel reads."""
    group = tl.minimum(cols // FOLD, GROUPS)  # (1, EP)
    dy, dx = 0 * cols, 0 * cols
    for g in tl.static_range(GROUPS):
        dy = tl.where(group == g, ((OFFSETS >> (32 * g)) & 0xFFFF) - 0x8000, dy)
        dx = tl.where(group == g, ((OFFSETS >> (32 * g + 16)) & 0xFFFF) - 0x8000, dx)
    return tl.max_constancy(dy, [1, ALIGN]), tl.max_constancy(dx, [1, ALIGN])


@triton.jit
def keeps_own(
    cols, GROUPS: tl.constexpr, FOLD: tl.constexpr, ZERO_GROUPS: tl.constexpr, ALIGN: tl.constexpr
):
    """Whether a channel keeps its own value where it would read one outside of the frame."""
    group = tl.minimum(cols // FOLD, GROUPS)
    return tl.max_constancy((group >= ZERO_GROUPS).to(tl.int32), [1, ALIGN]) > 0


@triton.jit
def temporal_step(cols, FOLD: tl.constexpr, ALIGN: tl.constexpr):
    """Frames from a token's to the one that a channel reads."""
    step = tl.where(cols < FOLD, 1, tl.where(cols < 2 * FOLD, -1, 0))
    return tl.max_constancy(step, [1, ALIGN])


@triton.jit
def segment(t, T, SEGMENT: tl.constexpr):
    """First frame of those that exchange channels with a frame, and the one behind the last."""
    first, last = 0 * t, 0 * t + T
    if SEGMENT > 0:
        first = t - t % SEGMENT
        last = tl.minimum(first + SEGMENT, T)
    return first, last


@triton.jit
def home(
    clip,
    t,
    n,
    cols,
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
    ALIGN: tl.constexpr,
):
    """Row of tokens that keys and values of each token and channel come from, and where not 0.

    Frames wrap around: what no frame reads is then the place where one reads 0, and each place
    stands once among the rows.
    """
    present = cols >= 0  # (1, EP)
    frame, token = t, n
    if TEMPORAL_FOLD > 0:
        frame = t + temporal_step(cols, TEMPORAL_FOLD, ALIGN)
        first, last = segment(t, T, SEGMENT)
        present = (frame >= first) & (frame < last)
        frame = tl.where(frame >= last, first, tl.where(frame < first, last - 1, frame))
    if GROUPS > 0:
        dy, dx = offsets(cols, OFFSETS, GROUPS, SPATIAL_FOLD, ALIGN)
        y, x = n // W + dy, n % W + dx  # (rows, EP)
        inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
        token = tl.where(inside, y * W + x, n)
        keeps = keeps_own(cols, GROUPS, SPATIAL_FOLD, ZERO_GROUPS, ALIGN)
        present = present & (inside | keeps)
    return (clip.to(tl.int64) * T + frame) * N + token, present


@triton.jit
def load_shifted(QKV, own, source, present, cols, real, D: tl.constexpr):
    """Queries (rows, EP) of the own rows, keys and values of the source rows."""
    q = tl.load(QKV + own * (3 * D) + cols, mask=real, other=0.0)
    pointers = QKV + source * (3 * D) + cols
    k = tl.load(pointers + D, mask=real & present, other=0.0)
    v = tl.load(pointers + 2 * D, mask=real & present, other=0.0)
    return q, k, v


@triton.jit
def features(x, offset, real, FEATURE: tl.constexpr):
    """Features of queries or keys, in float32; 0 where no token or channel is."""
    x = x.to(tl.float32)
    if FEATURE == "relu":
        x = tl.where(x <= 0, 0.0, x)  # not maximum, which loses NaN
    elif FEATURE == "elu1":
        x = tl.where(x > 0, x + 1.0, tl.exp(x))
    elif FEATURE == "sigmoid":
        x = sigmoid(x)
    return tl.where(real, x + offset, 0.0)


@triton.jit
def _slope(x, FEATURE: tl.constexpr):
    """Derivative of the feature map."""
    x = x.to(tl.float32)
    if FEATURE == "relu":
        return tl.where(x > 0, 1.0, 0.0)
    elif FEATURE == "elu1":
        return tl.where(x > 0, 1.0, tl.exp(x))
    elif FEATURE == "sigmoid":
        return sigmoid(x) * sigmoid(-x)
    else:
        return tl.full(x.shape, 1.0, tl.float32)


@triton.jit
def divisor(norm, eps, CLAMP: tl.constexpr):
    """1 / (norm + eps), or 1 / max(norm, eps); 0 where a query meets no key."""
    below = tl.maximum(norm, eps) if CLAMP else norm + eps
    return tl.where(norm == 0, 0.0, 1.0 / below)


@triton.jit
def _gate_tile(WEIGHT, ratio, part, E: tl.constexpr, EP: tl.constexpr, NUM_INPUTS: tl.constexpr):
    """Weights (EP in, EP out) of a ratio from one of its inputs."""
    e = tl.arange(0, EP)
    to, of = e[None, :], e[:, None]
    pointers = WEIGHT + (ratio * E + to) * (NUM_INPUTS * E) + part * E + of
    return tl.load(pointers, mask=(to < E) & (of < E), other=0.0)


@triton.jit
def _gate_tiles(
    WEIGHT, E: tl.constexpr, EP: tl.constexpr, NUM_INPUTS: tl.constexpr, NUM_RATIOS: tl.constexpr
):
    """Weights of the first ratio from q, k, v, then of the last; those not there are repeats."""
    of_q = _gate_tile(WEIGHT, 0, 0, E, EP, NUM_INPUTS)
    of_k = _gate_tile(WEIGHT, 0, 1, E, EP, NUM_INPUTS)
    of_v = of_k
    if NUM_INPUTS == 3:
        of_v = _gate_tile(WEIGHT, 0, 2, E, EP, NUM_INPUTS)
    last_of_q, last_of_k, last_of_v = of_q, of_k, of_v
    if NUM_RATIOS == 2:
        last_of_q = _gate_tile(WEIGHT, 1, 0, E, EP, NUM_INPUTS)
        last_of_k = _gate_tile(WEIGHT, 1, 1, E, EP, NUM_INPUTS)
        if NUM_INPUTS == 3:
            last_of_v = _gate_tile(WEIGHT, 1, 2, E, EP, NUM_INPUTS)
    return of_q, of_k, of_v, last_of_q, last_of_k, last_of_v


@triton.jit
def gate_weights(
    WEIGHT,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """The gate's weights, or where they are if they are too many to hold."""
    if NUM_INPUTS == 0:
        return 0
    elif HOIST:
        return _gate_tiles(WEIGHT, E, EP, NUM_INPUTS, NUM_RATIOS)
    else:
        return WEIGHT


@triton.jit
def _bias(BIAS, ratio: tl.constexpr, E: tl.constexpr, EP: tl.constexpr):
    """Bias (1, EP) of a ratio."""
    e = tl.arange(0, EP)[None, :]
    return tl.load(BIAS + ratio * E + e, mask=e < E, other=0.0).to(tl.float32)


@triton.jit
def gate_biases(BIAS, E: tl.constexpr, EP: tl.constexpr, NUM_RATIOS: tl.constexpr):
    """Biases (1, EP) of the first and the last ratio."""
    if NUM_RATIOS == 0:
        return 0.0, 0.0
    else:
        return _bias(BIAS, 0, E, EP), _bias(BIAS, NUM_RATIOS - 1, E, EP)


@triton.jit
def _logits(
    q,
    k,
    v,
    weights,
    bias,
    ratio: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """A ratio before its sigmoid; q and k are features in float32."""
    dtype = v.dtype
    if HOIST:
        out = product(q.to(dtype), weights[3 * ratio]) + bias
        out += product(k.to(dtype), weights[3 * ratio + 1])
        if NUM_INPUTS == 3:
            out += product(v, weights[3 * ratio + 2])
    else:
        out = tl.zeros(q.shape, tl.float32) + bias
        for part in range(NUM_INPUTS):  # not unrolled: one tile of weights at a time
            x = tl.where(part == 0, q, tl.where(part == 1, k, v.to(tl.float32)))
            out += product(x.to(dtype), _gate_tile(weights, ratio, part, E, EP, NUM_INPUTS))
    return out


@triton.jit
def ratios(
    q,
    k,
    v,
    weights,
    biases,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """γ of queries and of keys (rows, EP) from features and values, the same where shared."""
    if NUM_INPUTS == 0:
        return 1.0, 1.0
    else:
        first = sigmoid(_logits(q, k, v, weights, biases[0], 0, E, EP, NUM_INPUTS, HOIST))
        last = first
        if NUM_RATIOS == 2:
            last = sigmoid(_logits(q, k, v, weights, biases[1], 1, E, EP, NUM_INPUTS, HOIST))
        return first, last


@triton.jit
def _through_logits(
    d_q,
    d_k,
    d_v,
    d_logits,
    weights,
    ratio: tl.constexpr,
    dtype: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """Adds to gradients of a gate's inputs what comes from its logits."""
    low, factor = narrow(d_logits, dtype)
    if HOIST:
        d_q += product(low, tl.trans(weights[3 * ratio])) * factor
        d_k += product(low, tl.trans(weights[3 * ratio + 1])) * factor
        if NUM_INPUTS == 3:
            d_v += product(low, tl.trans(weights[3 * ratio + 2])) * factor
    else:
        for part in range(NUM_INPUTS):
            tile = _gate_tile(weights, ratio, part, E, EP, NUM_INPUTS)
            d_x = product(low, tl.trans(tile)) * factor
            d_q += tl.where(part == 0, d_x, 0.0)
            d_k += tl.where(part == 1, d_x, 0.0)
            d_v += tl.where(part == 2, d_x, 0.0)
    return d_q, d_k, d_v


@triton.jit
def _gate_backward(
    d_q,
    d_k,
    d_v,
    qf,
    kf,
    fixed_by,
    weights,
    D_LOGITS,
    at,
    real,
    dtype: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """Gradients at fixed features to those at features; keeps the ones of logits for the gate."""
    q_ratio, k_ratio = fixed_by
    d_q_ratio, d_k_ratio = d_q * qf, d_k * kf
    d_q, d_k = d_q * q_ratio, d_k * k_ratio
    if NUM_RATIOS == 1:
        d_first = (d_q_ratio + d_k_ratio) * q_ratio * (1.0 - q_ratio)
    else:
        d_first = d_q_ratio * q_ratio * (1.0 - q_ratio)
    tl.store(D_LOGITS + at, d_first.to(D_LOGITS.dtype.element_ty), mask=real)
    d_q, d_k, d_v = _through_logits(
        d_q, d_k, d_v, d_first, weights, 0, dtype, E, EP, NUM_INPUTS, HOIST
    )
    if NUM_RATIOS == 2:
        d_last = d_k_ratio * k_ratio * (1.0 - k_ratio)
        tl.store(D_LOGITS + at + E, d_last.to(D_LOGITS.dtype.element_ty), mask=real)
        d_q, d_k, d_v = _through_logits(
            d_q, d_k, d_v, d_last, weights, 1, dtype, E, EP, NUM_INPUTS, HOIST
        )
    return d_q, d_k, d_v


@triton.jit
def store_gradients(
    d_q,
    d_k,
    d_v,
    q,
    k,
    qf,
    kf,
    fixed_by,
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
    D: tl.constexpr,
    E: tl.constexpr,
    EP: tl.constexpr,
    FEATURE: tl.constexpr,
    GROUPS: tl.constexpr,
    NUM_INPUTS: tl.constexpr,
    NUM_RATIOS: tl.constexpr,
    HOIST: tl.constexpr,
):
    """From gradients at fixed features and at values to those of the packed tensor."""
    dtype: tl.constexpr = D_QKV.dtype.element_ty
    if NUM_INPUTS > 0:
        at = own * (D * NUM_RATIOS) + head * (E * (NUM_RATIOS - 1)) + cols
        d_q, d_k, d_v = _gate_backward(
            d_q,
            d_k,
            d_v,
            qf,
            kf,
            fixed_by,
            weights,
            D_LOGITS,
            at,
            real,
            dtype,
            E,
            EP,
            NUM_INPUTS,
            NUM_RATIOS,
            HOIST,
        )
    d_q = in_range(d_q * _slope(q, FEATURE), dtype)
    d_k = in_range(tl.where(present, d_k * _slope(k, FEATURE), 0.0), dtype)
    d_v = in_range(tl.where(present, d_v, 0.0), dtype)
    tl.store(D_QKV + own * (3 * D) + cols, d_q, mask=real)
    if GROUPS > 0:
        # A token may have two readers: these are at the reader, and `unshift` brings them home.
        pointers = D_KV + own * (2 * D) + cols
        tl.store(pointers, d_k, mask=real)
        tl.store(pointers + D, d_v, mask=real)
    else:
        pointers = D_QKV + source * (3 * D) + cols + D
        tl.store(pointers, d_k, mask=real)
        tl.store(pointers + D, d_v, mask=real)
