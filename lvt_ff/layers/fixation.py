"""Feature fixation: a learned ratio per feature re-weights queries and keys.

Source: arXiv 2210.08164, Eq. 4-6 and Table 4; per head, one weight for all heads, as in the
authors' code.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lvt_ff.kernels.upcast import Float32Linear
from lvt_ff.ops import upcast

__all__ = [
    "FIXATIONS",
    "FIXATION_AGGREGATES",
    "FIXATION_ORDERS",
    "FeatureFixation",
    "NoFixation",
    "build_fixation",
]


def _concat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=-1)


def _add(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


def _multiply(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).prod(0)


# How features (S, A, L, F) and values (S, A, L, E) become a gate's input.
FIXATION_AGGREGATES: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "concat": _concat,
    "add": _add,
    "mul": _multiply,
}
FIXATION_ORDERS = ("after", "before")


class NoFixation(nn.Module):
    """Queries and keys pass unchanged."""

    gate = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class FeatureFixation(nn.Module):
    """γ = sigmoid(W u + b) with u from queries, keys and values together; q and k times γ.

    Args:
        input_dim: channels of u.
        feature_dim: channels of a query's or key's feature, F.
        shared: one ratio for q and k, or one for each (both from the same input).
        with_values: values are part of u.
        aggregate: name in `FIXATION_AGGREGATES`.
        first_bias: b to begin with; 0 halves queries and keys.
    """

    def __init__(
        self,
        input_dim: int,
        feature_dim: int,
        shared: bool,
        with_values: bool,
        aggregate: str,
        first_bias: float,
    ):
        super().__init__()
        self.num_ratios = 1 if shared else 2
        self.with_values = with_values
        self.aggregate = FIXATION_AGGREGATES[aggregate]
        self.in_float32 = aggregate != "concat"  # sums and products leave half precision's range
        linear = Float32Linear if self.in_float32 else nn.Linear
        self.gate = linear(input_dim, self.num_ratios * feature_dim)
        self.gate.first_bias = first_bias  # for init_weights

    def ratios(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """γ (S, A, L, F) of queries and of keys, the same where it is shared."""
        parts = [q, k, v] if self.with_values else [q, k]
        # Features may be in float32 where weights are not.
        parts = upcast(*parts) if self.in_float32 else [part.to(v.dtype) for part in parts]
        ratios = self.gate(self.aggregate(parts)).sigmoid().to(v.dtype)
        ratios = ratios.chunk(self.num_ratios, dim=-1)
        return ratios[0], ratios[-1]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Features (S, A, L, F) and values (S, A, L, E) to fixed features (S, A, L, F)."""
        q_ratios, k_ratios = self.ratios(q, k, v)
        return q * q_ratios, k * k_ratios


class OwnFixation(FeatureFixation):
    """γ of queries from queries alone, of keys from keys alone (Eq. 4-5); shared is one W."""

    def __init__(self, feature_dim: int, shared: bool, first_bias: float):
        super().__init__(feature_dim, feature_dim, shared, False, "concat", first_bias)

    def ratios(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """γ (S, A, L, F) of queries and of keys."""
        # The layer is called for both, not cut in two: hooks and LoRA act on calls.
        of_q, of_k = (self.gate(x.to(v.dtype)).sigmoid().chunk(self.num_ratios, -1) for x in (q, k))
        return of_q[0], of_k[-1]


FIXATIONS = ("none", "own", "qk", "qkv")


def build_fixation(
    name: str,
    feature_dim: int,
    head_dim: int,
    shared: bool,
    aggregate: str,
    first_bias: float = 0.0,
) -> nn.Module:
    """The fixation of an attention.

    Args:
        name: "none"; "own" (each from itself); "qk" or "qkv" (from both, or values too).
        feature_dim: channels of a query's or key's feature, F.
        head_dim: channels of a value, E.
        shared: one ratio for q and k, or one for each; one weight for both if `name` is "own".
        aggregate: how the parts become one input: "concat", "add" or "mul".
        first_bias: of the gate, to begin with.

    Raises:
        ValueError: parts of different size cannot be added or multiplied, or there is one only.
    """
    if name == "none":
        return NoFixation()
    if name == "own":
        if aggregate != "concat":
            raise ValueError(
                "fixation='own' has nothing to aggregate: leave out fixation_aggregate."
            )
        return OwnFixation(feature_dim, shared, first_bias)
    with_values = name == "qkv"
    if aggregate == "concat":
        input_dim = 2 * feature_dim + (head_dim if with_values else 0)
    else:
        input_dim = feature_dim
        if with_values and feature_dim != head_dim:
            raise ValueError(
                f"fixation_aggregate={aggregate!r} needs features as many as a head's {head_dim} "
                f"channels, got {feature_dim}: use 'concat'."
            )
    return FeatureFixation(input_dim, feature_dim, shared, with_values, aggregate, first_bias)
