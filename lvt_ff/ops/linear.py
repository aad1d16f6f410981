"""Linear attention over one sequence axis, in float32, in the cheaper of its two product orders.

Source: arXiv 2210.08164, Eq. 2-3; float32 because half-precision sums over tokens overflow.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocast_off", "linear_attention", "linear_weights", "product", "upcast"]

_EPS = 1e-6


def autocast_off(device_type: str) -> AbstractContextManager:
    """Context in which autocast does not lower the precision of a matrix product."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def upcast(*tensors: Tensor) -> list[Tensor]:
    """Half-precision tensors in float32, others as they are."""
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]


def _queries_first(seq_len: int, head_dim: int) -> bool:
    """Whether (q kᵀ) v costs fewer operations than q (kᵀ v): 2·L²·E against 2·L·E²."""
    return seq_len < head_dim


def _divisor(norm: Tensor, eps: float, clamp: bool) -> Tensor:
    return norm.clamp(min=eps) if clamp else norm + eps


@torch.fx.wrap
def _normalised_products(q: Tensor, k: Tensor, v: Tensor, eps: float, clamp: bool) -> Tensor:
    with autocast_off(q.device.type):
        dtype = v.dtype
        q, k, v = upcast(q, k, v)
        norm = q @ k.sum(-2).unsqueeze(-1)  # (..., L, 1)
        return (product(q, k, v) / _divisor(norm, eps, clamp)).to(dtype)


def product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`q kᵀ v` of (..., L, F), (..., L, F), (..., L, E) in the cheaper order, (..., L, E)."""
    if _queries_first(k.shape[-2], v.shape[-1]):
        return (q @ k.transpose(-2, -1)) @ v
    return q @ (k.transpose(-2, -1) @ v)


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
        (..., L, E) in the dtype of `v`; computed in float32 (or float64), autocast off.
    """
    return _normalised_products(q, k, v, eps, clamp)


def linear_weights(q: Tensor, k: Tensor, eps: float = _EPS, clamp: bool = False) -> Tensor:
    """Weights of `linear_attention`: queries (..., R, F), keys (..., L, F) to (..., R, L)."""
    with autocast_off(q.device.type):
        q, k = upcast(q, k)
        norm = q @ k.sum(-2).unsqueeze(-1)  # (..., R, 1)
        return q @ k.transpose(-2, -1) / _divisor(norm, eps, clamp)
