"""Feature fixation: a learned ratio per feature re-weights queries and keys.

Source: arXiv 2210.08164, Eq. 4-6; per head, one weight for all heads, as in the authors' code.
"""

import torch
from torch import Tensor, nn

__all__ = ["FIXATIONS", "FeatureFixation", "NoFixation"]


class NoFixation(nn.Module):
    """Queries and keys pass unchanged.

    Args:
        head_dim: ignored, kept so that every fixation is built alike.
        shared: ignored likewise.
    """

    def __init__(self, head_dim: int, shared: bool):
        super().__init__()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return q, k


class FeatureFixation(nn.Module):
    """γ = sigmoid(W [q, k, v] + b), evaluated once; q and k are multiplied by it.

    Args:
        head_dim: channels of one head, E.
        shared: one ratio for q and k, or one for each (both from the same input).
    """

    def __init__(self, head_dim: int, shared: bool):
        super().__init__()
        self.num_ratios = 1 if shared else 2
        self.gate = nn.Linear(3 * head_dim, self.num_ratios * head_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Features (S, A, L, E) and values (S, A, L, E) to fixed features (S, A, L, E)."""
        ratios = self.gate(torch.cat([q, k, v], dim=-1)).sigmoid()
        ratios = ratios.chunk(self.num_ratios, dim=-1)
        return q * ratios[0], k * ratios[-1]


FIXATIONS: dict[str, type[nn.Module]] = {"none": NoFixation, "qkv": FeatureFixation}
