"""Linear attention over one sequence axis, in float32, in the cheaper of its two product orders.

Source: arXiv 2210.08164, Eq. 2-3.
"""

import torch
from torch import Tensor

from lvt_ff.ops.precision import in_float32

__all__ = ["divisor", "linear_attention", "linear_weights", "product", "queries_first"]

_EPS = 1e-6


def queries_first(length: int, feature_dim: int, head_dim: int) -> bool:
    """Whether (q kᵀ) v costs fewer operations than q (kᵀ v): L²·(F + E) against 2·L·F·E."""
    return length * (feature_dim + head_dim) < 2 * feature_dim * head_dim


def product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`q kᵀ v` of (..., L, F), (..., L, F), (..., L, E) in the cheaper order, (..., L, E)."""
    if queries_first(k.shape[-2], k.shape[-1], v.shape[-1]):
        return (q @ k.transpose(-2, -1)) @ v
    return q @ (k.transpose(-2, -1) @ v)


def divisor(norm: Tensor, eps: float, clamp: bool) -> Tensor:
    """What to divide sums of values by, from the sums of their weights (..., L, 1)."""
    out = norm.clamp(min=eps) if clamp else norm + eps
    # A query that meets no key gives 0. Dividing by eps would make its gradient 1e6 times too
    # large for float16, and a gate before it would then give infinity times zero.
    return out.masked_fill(norm == 0, torch.inf)


def _norm(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.sum(-2).unsqueeze(-1)


@torch.fx.wrap
@in_float32(restore="v")
def _normalised_products(q: Tensor, k: Tensor, v: Tensor, eps: float, clamp: bool) -> Tensor:
    return product(q, k, v) / divisor(_norm(q, k), eps, clamp)


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, eps: float = _EPS, clamp: bool = False
) -> Tensor:
    """Non-causal attention with weights `q_i · k_j / (Σ_j q_i · k_j + eps)`.

    Args:
        q: query features (..., L, F), non-negative for weights between 0 and 1.
        k: key features (..., L, F).
        v: values (..., L, E).
        eps: added to the denominator, which is a sum over the L tokens.
        clamp: the denominator is at least `eps` instead.

    Returns:
        (..., L, E) in the dtype of `v`; computed in float32 (or float64), autocast off. Rows whose
        denominator is 0 without `eps` are 0.
    """
    return _normalised_products(q, k, v, eps, clamp)


@in_float32()
def _normalised_weights(q: Tensor, k: Tensor, eps: float, clamp: bool) -> Tensor:
    return q @ k.transpose(-2, -1) / divisor(_norm(q, k), eps, clamp)


def linear_weights(q: Tensor, k: Tensor, eps: float = _EPS, clamp: bool = False) -> Tensor:
    """Weights of `linear_attention`: queries (..., R, F), keys (..., L, F) to (..., R, L)."""
    return _normalised_weights(q, k, eps, clamp)
