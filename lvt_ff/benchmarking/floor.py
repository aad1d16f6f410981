"""The floor under a model's time: its own linear layers, and nothing between them.

All video transformers have these products, whatever their attention, and libraries run them about
as fast as a machine can. What a model takes beyond them is what better code could save.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["LinearCall", "floor_macs", "floor_step", "linear_calls"]


class LinearCall(NamedTuple):
    """A call of a linear layer: names of its parameters, and the shape of its input."""

    weight: str
    bias: str | None
    shape: tuple[int, ...]


class _Recorder(TorchFunctionMode):
    """Notes calls of `linear` with a parameter for weight, also those outside of `nn.Linear`."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self.names = names
        self.calls: list[LinearCall] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            weight, bias = (self.names.get(id(given.get(key))) for key in ("weight", "bias"))
            if weight is not None:
                self.calls.append(LinearCall(weight, bias, tuple(given["input"].shape)))
        return func(*args, **kwargs)


def linear_calls(model: nn.Module, clips: Tensor) -> list[LinearCall]:
    """The linear layers that a forward pass calls, in order.

    Gates of feature fixation are left out: they belong to attention, and what fuses them with it
    calls no layer.

    Args:
        model: on any device; on "meta" nothing is computed.
        clips: (B, T, 3, H, W).
    """
    names = {
        id(parameter): name
        for name, parameter in model.named_parameters()
        if "gate" not in name.split(".")
    }
    with torch.no_grad(), _Recorder(names) as recorder:
        model(clips)
    return recorder.calls


def floor_macs(model: nn.Module, calls: list[LinearCall]) -> int:
    """Multiply-accumulates of linear layers."""
    rows = [torch.Size(call.shape[:-1]).numel() for call in calls]
    weights = [model.get_parameter(call.weight).numel() for call in calls]
    return sum(map(int.__mul__, rows, weights))


def floor_step(
    model: nn.Module, calls: list[LinearCall], dtype: torch.dtype, training: bool
) -> Callable[[], None]:
    """A function that calls linear layers on random inputs; training adds all gradients.

    Args:
        model: that has their parameters.
        calls: of `linear_calls`.
        dtype: of the inputs.
        training: whether gradients of inputs, weights and biases are computed too.
    """
    device = next(model.parameters()).device

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    # One tensor for all inputs of a shape: what is read from memory is as large, what is held not.
    inputs = {call.shape: random(call.shape).requires_grad_(training) for call in calls}
    layers = []
    for call in calls:
        weight = model.get_parameter(call.weight)
        bias = None if call.bias is None else model.get_parameter(call.bias)
        layers.append((inputs[call.shape], weight, bias))
    grads: dict[tuple[int, ...], Tensor] = {}

    def forward() -> None:
        for x, weight, bias in layers:
            F.linear(x, weight, bias)

    def forward_backward() -> None:
        for x, weight, bias in layers:
            y = F.linear(x, weight, bias)
            if y.shape not in grads:
                grads[y.shape] = torch.randn_like(y)
            wanted = [tensor for tensor in (x, weight, bias) if tensor is not None]
            torch.autograd.grad(y, wanted, grads[y.shape])

    return forward_backward if training else forward
