"""ViG: gated linear attention that scans the tokens in both directions.

Source: Liao et al., arXiv 2405.18425, and its public code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape
from lvt_ff.kernels.conv import TorchInitConv2d, depthwise
from lvt_ff.ops import in_float32

__all__ = ["VigKernel"]

_CHUNK = 16  # tokens whose pairs are compared directly
_GATE_RANK, _GATE_DIVISOR = 16, 16


class VigKernel(Kernel):
    """`S ← diag(α) S + kᵀ v; o = q S / sqrt(E)`, forth and back, the mean of both.

    The forgetting rates α come from the input, through a 3×3 convolution. Nothing is normalised:
    outputs grow with the number of tokens that are remembered.

    Args:
        shape: what it is built for.
    """

    source = "Liao et al., arXiv 2405.18425"
    uses_input = True

    def __init__(self, shape: KernelShape):
        super().__init__(shape)
        self.dwconv = TorchInitConv2d(shape.dim, shape.dim, 3, padding=1, groups=shape.dim)
        self.gate_down = nn.Linear(shape.dim, _GATE_RANK, bias=False)
        self.gate_up = nn.Linear(_GATE_RANK, 2 * shape.dim)

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return self.scan(q, k, v, self.gates(x))

    def gates(self, x: Tensor) -> Tensor:
        """The input (S, L, D) to gates (2, S, A, L, E) before their logarithm of a sigmoid."""
        x = F.silu(depthwise(self.dwconv, x.unsqueeze(1), self.shape.grid)).squeeze(1)
        gates = self.gate_up(self.gate_down(x))
        gates = gates.unflatten(-1, (2, self.shape.num_heads, -1))  # (S, L, 2, A, E)
        return gates.permute(2, 0, 3, 1, 4)

    @in_float32(restore="v")
    def scan(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        """Both scans of (S, A, L, E) with gates (2, S, A, L, E)."""
        q = self.shape.head_dim**-0.5 * q
        decay = F.logsigmoid(gates) / _GATE_DIVISOR
        forth = _gated_scan(q, k, v, decay[0])
        back = _gated_scan(*(x.flip(-2) for x in (q, k, v, decay[1]))).flip(-2)
        return (forth + back) / 2


def _gated_scan(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """`o_n = q_n S_n`, `S_n = diag(exp(decay_n)) S_{n-1} + k_nᵀ v_n` in chunks of tokens.

    Only differences of summed logarithms are exponentiated, and they are never positive.
    """
    length = q.shape[-2]
    chunk_size = min(_CHUNK, length)
    missing = -length % chunk_size
    q, k, v, decay = (F.pad(x, (0, 0, 0, missing)) for x in (q, k, v, decay))
    q, k, v, decay = (x.unflatten(-2, (-1, chunk_size)) for x in (q, k, v, decay))
    total = decay.cumsum(-2)  # (S, A, chunks, C, E)
    steps = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).tril()[..., None]
    since = total.unsqueeze(-2) - total.unsqueeze(-3)  # (S, A, chunks, C, C, E)
    since = since.masked_fill(~steps, -torch.inf).exp()
    near = torch.einsum("...ie,...je,...ije->...ij", q, k, since) @ v
    from_start = q * total.exp()
    to_end = k * (total[..., -1:, :] - total).exp()
    added, kept = to_end.transpose(-2, -1) @ v, total[..., -1, :].exp().unsqueeze(-1)
    state, far = torch.zeros_like(added[..., 0, :, :]), []
    # Not by number: the gradient of every such slice is as large as the whole.
    for queries, keep, add in zip(*(x.unbind(-3) for x in (from_start, kept, added)), strict=True):
        far.append(queries @ state)
        state = keep * state + add
    return (near + torch.stack(far, dim=-3)).flatten(-3, -2)[..., :length, :]
