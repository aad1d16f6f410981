"""Where numbers stopped being finite: the first layer, and the clips that it happened with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lvt_ff.utils.errors import Failure
from lvt_ff.utils.short_text import listed

__all__ = ["Diverged", "first_bad_gradient", "first_bad_layer", "told_divergence"]


class Diverged(Failure):
    """A loss or gradients that are not finite."""


def first_bad_layer(network: nn.Module, forward: Callable[[], Tensor]) -> str | None:
    """The first module, in the order of computation, whose output is not finite.

    Args:
        network: whose modules to look at.
        forward: computes its output again, with the same random draws.

    Returns:
        The module's name, with what is wrong with its weights if anything is; None where all
        outputs are finite.
    """
    found: list[str] = []

    def look(name: str, module: nn.Module) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and not found and not _finite(output):
                found.append(name + _about_weights(module))

        return hook

    leaves = [(name, part) for name, part in network.named_modules() if not any(part.children())]
    handles = [part.register_forward_hook(look(name, part)) for name, part in leaves]
    try:
        with torch.no_grad():
            output = forward()
    finally:
        for handle in handles:
            handle.remove()
    if not found and not _finite(output):
        found.append("what follows the last layer")
    return found[0] if found else None


def first_bad_gradient(network: nn.Module) -> str | None:
    """The parameter nearest to the loss, from which backpropagation starts, of those whose
    gradient is not finite; None where all gradients are."""
    named = [(name, p) for name, p in network.named_parameters() if p.grad is not None]
    for name, parameter in reversed(named):
        if not _finite(parameter.grad):
            return name
    return None


def told_divergence(step: int, what: str, layer: str | None, paths: Sequence[str]) -> str:
    """The message of a run that stops before the optimizer takes in what is not finite.

    Args:
        step: its number, from 1.
        what: "the loss is" or "gradients are".
        layer: the first bad layer or gradient, where one was found.
        paths: of the clips.
    """
    where = f"; first in {layer}" if layer else ""
    return (
        f"{what} not a finite number at step {step}{where}. Clips: {listed(list(paths), 8, 200)}. "
        "The last checkpoint is from before it: look at these clips, or go on from it with "
        "`--resume --allow_changes` and a lower --lr, --clip_grad, or --mixed_precision bf16 "
        "instead of fp16. If it stops there at once, delete the newest step_* folder too."
    )


def _finite(values: Tensor) -> bool:
    if isinstance(values, DTensor):  # other processes may not ask
        values = values.to_local()
    return bool(torch.isfinite(values).all())


def _about_weights(module: nn.Module) -> str:
    bad = [name for name, value in module.named_parameters() if not _finite(value)]
    return (
        f" (its {' and '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite)" if bad else ""
    )
