"""Performer: positive random features of the softmax kernel (FAVOR+).

Source: Choromanski et al., arXiv 2009.14794; lucidrains/performer-pytorch.
"""

import torch
from torch import Tensor

from lvt_ff.kernels.base import KernelShape, LinearKernel
from lvt_ff.ops import in_float32
from lvt_ff.utils.validation import check_at_least, check_choice

__all__ = ["PerformerKernel"]


# Added to features; the sources' values.
_FLOORS = {"exp": 1e-4, "relu": 1e-3}


def random_features(num_features: int, head_dim: int, seed: int) -> Tensor:
    """Rows (m, E) that are orthogonal in blocks of E and as long as normal vectors."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device="cpu", dtype=torch.float64)

    blocks = [
        torch.linalg.qr(normal(head_dim, head_dim)).Q.T for _ in range(-(-num_features // head_dim))
    ]
    lengths = normal(num_features, head_dim).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:num_features] * lengths).float()


class PerformerKernel(LinearKernel):
    """Random features of `exp(q · k / sqrt(E))`.

    Args:
        shape: what it is built for.
        num_features: m; None takes as many as a head has channels, as the paper's cost tells.
        features: "exp" of the projections, or their "relu" (the source's generalized attention).
        stabilizer: of "exp". "reference" subtracts the largest projection before the exponential:
            for inputs of root mean square above 1.5 all features vanish and the output is the mean
            of the values. "joint" subtracts the largest exponent: exact for queries, no such limit.
        floor: added to the features; None takes 1e-4 for "exp" and 1e-3 for "relu".
        per_head: a projection for each head instead of one for all.
        redraw_interval: steps of fine-tuning after which new features are drawn; 0 never.
        seed: of the features; each attention of a model has its own.
        eps, clamp: see `LinearKernel`; the floor keeps the reference's denominators above these,
            but for keys that a shift or a gate has made 0.

    With as many features as channels, feature fixation acts on features, else on q and k.
    """

    source = "Choromanski et al., arXiv 2009.14794"

    def __init__(
        self,
        shape: KernelShape,
        *,
        num_features: int | None = None,
        features: str = "exp",
        stabilizer: str = "reference",
        floor: float | None = None,
        per_head: bool = False,
        redraw_interval: int = 1000,
        seed: int = 0,
        eps: float = 1e-12,
        clamp: bool = True,
    ):
        super().__init__(shape, eps=eps, clamp=clamp)
        check_choice("features", features, _FLOORS)
        check_choice("stabilizer", stabilizer, ("reference", "joint"))
        self.num_features = shape.head_dim if num_features is None else num_features
        check_at_least(1, num_features=self.num_features)
        check_at_least(0, redraw_interval=redraw_interval, seed=seed)
        self.features, self.stabilizer = features, stabilizer
        self.floor = _FLOORS[features] if floor is None else floor
        self.redraw_interval, self.seed = redraw_interval, seed
        # An empty tensor tells the device that is being built on, "meta" included.
        size = (self.num_features, shape.head_dim)
        size = (shape.num_heads, *size) if per_head else size
        self.register_buffer("projection", torch.empty(size))

    def init_weights(self) -> None:
        # transformers marks what it has loaded; its own initialisers respect that mark too.
        if not getattr(self.projection, "_is_hf_initialized", False):
            self.redraw(0)

    @torch.no_grad()
    def redraw(self, number: int) -> None:
        """Replace the features by the draw of this number, the same on every process."""
        if self.projection.is_meta:
            return
        size = (self.num_features, self.shape.head_dim)
        for head, projection in enumerate(self.projection.view(-1, *size)):
            seed = self.seed + 1_000_003 * number + 10_007 * head + 100_000_007 * self.number
            projection.copy_(random_features(*size, seed))

    def start_step(self, step: int) -> None:
        if self.redraw_interval and step and step % self.redraw_interval == 0:
            self.redraw(step // self.redraw_interval)

    @property
    def maps_in_aggregate(self) -> bool:
        """Whether `aggregate` makes the features, as a gate's size is that of q and k."""
        return self.num_features != self.shape.head_dim

    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (q, k) if self.maps_in_aggregate else self._all_features(q, k)

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return super().aggregate(*self._mapped(q, k), v, x)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return super().weights(*self._mapped(q, k), rows)

    def _mapped(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self._all_features(q, k) if self.maps_in_aggregate else (q, k)

    def _all_features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self._features(q, -1), self._features(k, (-2, -1))

    @in_float32()
    def _features(self, x: Tensor, dim: int | tuple[int, int]) -> Tensor:
        x = x * self.shape.head_dim**-0.25
        projected = x @ self.projection.to(x.dtype).transpose(-2, -1)  # (S, A, L, m)
        if self.features == "relu":
            return projected.relu() + self.floor
        half = x.square().sum(-1, keepdim=True) / 2
        if self.stabilizer == "joint":
            exponent = projected - half
            exponent = exponent - exponent.amax(dim, keepdim=True).detach()
        else:
            exponent = projected - half - projected.amax(dim, keepdim=True).detach()
        return self.num_features**-0.5 * (exponent.exp() + self.floor)
