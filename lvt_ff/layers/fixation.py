"""Feature fixation: a learned ratio per feature re-weights queries and keys.

Source: arXiv 2210.08164, Eq. 4-6; per head, one weight for all heads, as in the authors' code.
"""

import torch
from torch import Tensor, nn

__all__ = ["FIXATIONS", "FeatureFixation", "NoFixation"]


class NoFixation(nn.Module):
    """Queries and keys pass unchanged.

    Args:
        feature_dim, head_dim, shared: of no effect, so that every fixation is built alike.
    """

    def __init__(self, feature_dim: int, head_dim: int, shared: bool):
        super().__init__()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class FeatureFixation(nn.Module):
    """γ = sigmoid(W [q, k, v] + b), evaluated once; q and k are multiplied by it.

    Args:
        feature_dim: channels of a query's or key's feature, F.
        head_dim: channels of a value, E.
        shared: one ratio for q and k, or one for each (both from the same input).
    """

    def __init__(self, feature_dim: int, head_dim: int, shared: bool):
        super().__init__()
        self.num_ratios = 1 if shared else 2
        self.gate = nn.Linear(2 * feature_dim + head_dim, self.num_ratios * feature_dim)

    def ratios(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """γ (S, A, L, F) of queries and of keys, the same where it is shared."""
        ratios = self.gate(torch.cat([q, k, v], dim=-1)).sigmoid()
        ratios = ratios.chunk(self.num_ratios, dim=-1)
        return ratios[0], ratios[-1]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Features (S, A, L, F) and values (S, A, L, E) to fixed features (S, A, L, F)."""
        q_ratios, k_ratios = self.ratios(q, k, v)
        return q * q_ratios, k * k_ratios


FIXATIONS: dict[str, type[nn.Module]] = {"none": NoFixation, "qkv": FeatureFixation}
