"""Orthoformer: attention through a few queries that differ most from each other.

Source: Patrick et al., arXiv 2106.05392 (Motionformer); the paper's authors' version, with one
softmax over all tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.ops import in_float32
from lvt_ff.utils.validation import check_at_least

__all__ = ["OrthoformerKernel"]


class OrthoformerKernel(Kernel):
    """`softmax(q Lᵀ) (softmax(L kᵀ) v)` with landmarks L chosen among the queries.

    The first landmark is random in training and the first token otherwise. Choosing takes
    `num_landmarks` steps one after the other: linear in tokens, not fast.

    Args:
        shape: what it is built for.
        num_landmarks: M; all tokens where there are no more.
    """

    source = "Patrick et al., arXiv 2106.05392 (Motionformer)"

    def __init__(self, shape: KernelShape, *, num_landmarks: int = 64):
        super().__init__(shape)
        check_at_least(1, num_landmarks=num_landmarks)
        self.num_landmarks = num_landmarks

    @in_float32(restore="v")
    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        to_landmarks, from_tokens = self._factors(q, q, k)
        return to_landmarks @ (from_tokens @ v)

    @in_float32()
    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        to_landmarks, from_tokens = self._factors(q[..., rows, :], q, k)
        return to_landmarks @ from_tokens

    def _factors(self, rows: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.shape.head_dim**-0.25
        rows, q, k = scale * rows, scale * q, scale * k
        first = None
        if self.training:
            first = torch.randint(q.shape[-2], q.shape[:-2], device=q.device)
        chosen = self.landmarks(q, first)  # (S, A, M)
        # Landmarks are constants, in the order of the tokens: as in the authors' code.
        marks = q.detach().gather(-2, chosen.unsqueeze(-1).expand(*chosen.shape, q.shape[-1]))
        return (
            (rows @ marks.transpose(-2, -1)).softmax(-1),
            (marks @ k.transpose(-2, -1)).softmax(-1),
        )

    @torch.no_grad()
    def landmarks(self, q: Tensor, first: Tensor | None = None) -> Tensor:
        """Numbers (S, A, M) of the landmarks, ascending.

        Args:
            q: (S, A, L, E).
            first: (S, A); None takes the first token.
        """
        length = q.shape[-2]
        if length <= self.num_landmarks:
            return torch.arange(length, device=q.device).expand(*q.shape[:-2], length)
        q = F.normalize(q, dim=-1)
        latest = q.new_zeros(q.shape[:-2], dtype=torch.long) if first is None else first
        taken, likeness = [latest], q.new_full(q.shape[:-1], -1.0)
        for _ in range(self.num_landmarks - 1):
            mark = q.gather(-2, latest[..., None, None].expand(*latest.shape, 1, q.shape[-1]))
            likeness = torch.maximum(likeness, (q @ mark.transpose(-2, -1)).squeeze(-1).abs())
            likeness = likeness.scatter(-1, latest.unsqueeze(-1), torch.inf)
            latest = likeness.argmin(-1)
            taken.append(latest)
        return torch.stack(taken, dim=-1).sort(-1).values
