"""FLatten: features sharpened by a power, and a depthwise convolution of the values.

Source: Han et al., arXiv 2308.00442, and its public code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvt_ff.kernels.base import Kernel, KernelShape, LengthTable
from lvt_ff.kernels.conv import TorchInitConv2d, depthwise
from lvt_ff.ops import in_float32, linear_attention, linear_weights
from lvt_ff.utils.validation import check_choice, check_odd

__all__ = ["FocusedKernel"]


class FocusedKernel(Kernel):
    """Linear attention with `‖x‖ x³ / ‖x³‖` of positive features, plus a 5×5 convolution of v.

    Tied to the number of tokens by the positions added to keys: loading a model of another size
    resamples them.

    Args:
        shape: what it is built for.
        focusing_factor: the power, 1 to 6.
        kernel_size: of the convolution.
        per_head: norms over the channels of a head instead of all.
    """

    source = "Han et al., arXiv 2308.00442"
    no_weight_decay = ("scale", "positional_encoding")
    length_tables = {"positional_encoding": LengthTable(axis=1)}
    image_start = {"dwc.weight": 0.0, "dwc.bias": 0.0}

    def __init__(
        self,
        shape: KernelShape,
        *,
        focusing_factor: int = 3,
        kernel_size: int = 5,
        per_head: bool = False,
    ):
        super().__init__(shape)
        check_choice("focusing_factor", focusing_factor, range(1, 7))
        check_odd(kernel_size=kernel_size)
        self.focusing_factor, self.per_head = focusing_factor, per_head
        self.scale = nn.Parameter(torch.empty(1, 1, shape.dim))
        self.positional_encoding = nn.Parameter(torch.empty(1, shape.length, shape.dim))
        self.dwc = TorchInitConv2d(
            shape.head_dim,
            shape.head_dim,
            kernel_size,
            padding=kernel_size // 2,
            groups=shape.head_dim,
        )

    def init_weights(self) -> None:
        nn.init.zeros_(self.scale)
        nn.init.zeros_(self.positional_encoding)

    @in_float32()
    def feature_map(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        k = k + self._heads(self.positional_encoding.to(k.dtype))
        return self._focus(q), self._focus(k)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.shape.num_heads, -1)).transpose(1, 2)

    def _focus(self, x: Tensor) -> Tensor:
        dim = -1 if self.per_head else (1, 3)
        x = (x.relu() + 1e-6) / F.softplus(self._heads(self.scale.to(x.dtype)))
        # The map is the same for a multiple of x, whose powers stay in range.
        largest = x.amax(dim, keepdim=True).detach()
        x = x / largest
        power = x**self.focusing_factor
        norms = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
        return power * norms * largest / torch.linalg.vector_norm(power, dim=dim, keepdim=True)

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        out = linear_attention(q, k, v, eps=self._eps(k))
        return out + depthwise(self.dwc, v, self.shape.grid)

    def weights(self, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
        return linear_weights(q[..., rows, :], k, eps=self._eps(k))

    @staticmethod
    def _eps(k: Tensor) -> float:
        return 1e-6 * k.shape[-2]  # the source adds it to a mean
