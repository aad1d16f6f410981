"""LARA: linear randomized attention, whose proposals are pooled from queries and keys.

Source: Zheng et al., arXiv 2204.04667, and its public code. (The paper's tables misspell it RALA.)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.kernels.upcast import Float32LayerNorm, Float32Linear
from lvt_ff.ops import in_float32
from lvt_ff.utils.validation import check_at_least, check_choice

__all__ = ["LaraKernel"]

_PROPOSALS = ("pool-mixed", "pool", "adaptive-1d")


class _Proposals(nn.Module):
    """A linear layer and a norm, for every head alike."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.linear = Float32Linear(head_dim, head_dim)
        self.norm = Float32LayerNorm(head_dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) to (..., E)."""
        return self.norm(self.linear(x))


class LaraKernel(Kernel):
    """Importance sampling of the softmax kernel around pooled queries and keys.

    Args:
        shape: what it is built for.
        num_landmarks: proposals, L; pooling on a grid takes the largest square below.
        proposals: "pool" on the grid, "pool-mixed" (pooled keys attend to each other too) or
            "adaptive-1d" along the tokens; None takes the last over time, else "pool-mixed".
        alpha: strength of the reweighting between proposals.
    """

    source = "Zheng et al., arXiv 2204.04667"

    def __init__(
        self,
        shape: KernelShape,
        *,
        num_landmarks: int = 49,
        proposals: str | None = None,
        alpha: float = 2.0,
    ):
        super().__init__(shape)
        check_choice("proposals", proposals, (None, *_PROPOSALS))
        check_at_least(1, num_landmarks=num_landmarks)
        self.num_landmarks, self.alpha = num_landmarks, alpha
        self.chosen_proposals = proposals
        self.q_bar, self.k_bar = _Proposals(shape.head_dim), _Proposals(shape.head_dim)

    @property
    def proposals(self) -> str:
        """How proposals are made on the present grid."""
        if self.chosen_proposals is not None:
            return self.chosen_proposals
        return "adaptive-1d" if self.shape.grid[0] == 1 else "pool-mixed"

    @in_float32(restore="v")
    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        size = (*q.shape[:2], self._num_proposals(q.shape[2]), q.shape[3])
        noise = torch.randn(size, dtype=q.dtype, device=q.device) if self.training else None
        of_proposals, of_tokens = self.factors(q, k, noise)
        return of_proposals @ (of_tokens @ v)

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        of_proposals, of_tokens = self.factors(q, k)
        return of_proposals[..., rows, :] @ of_tokens

    def _num_proposals(self, length: int) -> int:
        if self.proposals == "adaptive-1d":
            return min(length, self.num_landmarks)
        return math.isqrt(self.num_landmarks) ** 2

    def _pooled(self, x: Tensor) -> Tensor:
        if self.proposals == "adaptive-1d":
            return _segment_means(x, self.num_landmarks)
        side = math.isqrt(self.num_landmarks)
        planes = x.flatten(0, 1).transpose(1, 2).unflatten(2, self.shape.grid)
        pooled = F.adaptive_avg_pool2d(planes, side)  # (S·A, E, r, r)
        return pooled.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])

    def factors(self, q: Tensor, k: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weights of proposals for queries (S, A, L, P) and of tokens for proposals (S, A, P, L).

        Args:
            q, k: (S, A, L, E).
            noise: added to the proposals (S, A, P, E), standard normal in training.
        """
        scale = self.shape.head_dim**-0.5
        if self.proposals == "adaptive-1d":
            q_bar, k_bar = self._pooled(self.q_bar(q)), self._pooled(self.k_bar(k))
        else:
            q_bar, k_bar = self.q_bar(self._pooled(q)), self.k_bar(self._pooled(k))
        if self.proposals == "pool-mixed":
            k_bar = (scale * k_bar @ k_bar.transpose(-2, -1)).softmax(-1) @ k_bar
        means = q_bar + k_bar  # (S, A, P, E)
        proposals = means if noise is None else means + noise

        def likelihood(x: Tensor) -> Tensor:
            squares = x.square().sum(-1).unsqueeze(-2) / 2
            return scale * (proposals @ x.transpose(-2, -1) - squares)  # (S, A, P, ·)

        of_keys, of_queries = likelihood(k), likelihood(q)
        among = likelihood(means).transpose(-2, -1)  # row: mean, column: proposal
        own = among.diagonal(dim1=-2, dim2=-1)  # (S, A, P)
        balance = (own - among.logsumexp(-2)).exp()
        chosen = (scale * q_bar @ q.transpose(-2, -1)).softmax(-1)  # over the queries
        chosen = chosen - chosen.mean(-2, keepdim=True)
        reweighting = (balance.unsqueeze(-1) + self.alpha * chosen).clamp(min=1e-8)
        scores = reweighting.log() + of_queries + of_keys.logsumexp(-1, keepdim=True)
        scores = scores - own.unsqueeze(-1)
        return scores.transpose(-2, -1).softmax(-1), of_keys.softmax(-1)


def _segment_means(x: Tensor, number: int) -> Tensor:
    """Means (S, A, P, E) of equal parts of (S, A, L, E); the later ones are a token longer."""
    length = x.shape[-2]
    if length <= number:
        return x
    short = length // number
    num_short = (short + 1) * number - length
    first, rest = x.split([num_short * short, length - num_short * short], dim=-2)
    parts = [first.unflatten(-2, (num_short, short)).mean(-2)]
    if num_short < number:
        parts.append(rest.unflatten(-2, (number - num_short, short + 1)).mean(-2))
    return torch.cat(parts, dim=-2)
