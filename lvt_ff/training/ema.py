"""An exponential moving average of a model's weights, in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lvt_ff.training.sharding import like

__all__ = ["WeightAverage"]


class WeightAverage:
    """Averages the parameters that train, whole or sharded; all else is the model's own.

    Own code, as timm's ModelEmaV3 copies the module, which sharded and wrapped ones do not bear.

    Args:
        network: whose parameters to average; they keep their identity.
        decay: of the average in a step, once warm: it starts lower, at (1 + step) / (10 + step), as
            in TensorFlow, so that short runs forget their start.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self._own = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().float().clone() for name, p in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the present weights, after step number `step`, from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        own = [parameter.detach().float() for parameter in self._own.values()]
        torch._foreach_lerp_(list(self.average.values()), own, weight)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Within this block the network has the averaged weights."""
        kept = {name: parameter.detach().clone() for name, parameter in self._own.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a stored `average`.

        Raises:
            ValueError: it has other parameters.
        """
        if state.keys() != self.average.keys():
            raise ValueError("the averaged weights are of another model")
        for name, value in self.average.items():
            value.copy_(like(state[name], value))

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._own.items():
            parameter.copy_(values[name])
