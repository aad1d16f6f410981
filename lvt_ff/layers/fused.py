"""When the fused operators of `lvt_ff.ops` stand for modules, and what they are told of them.

A module whose call somebody watches or has replaced (hooks, adapters, offloading, quantisation) is
called; then, and for what the operators do not cover, the modules run as they are written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lvt_ff.kernels.base import STEPS, Kernel
from lvt_ff.layers.fixation import FeatureFixation, NoFixation
from lvt_ff.layers.shift import SpatialShift, TemporalShift
from lvt_ff.ops import AttentionSpec

if TYPE_CHECKING:
    from lvt_ff.layers.attention import Attention

__all__ = ["attention_spec", "gate_parameters", "is_plain", "run_as_written"]


# Methods that somebody may have replaced in an instance: accelerate does so with `forward`.
_METHODS = frozenset({"forward", "ratios"})


def is_plain(module: nn.Module, kind: type[nn.Module] | None = None) -> bool:
    """Whether to call a module is no more than to compute what its class says.

    Args:
        module: may be watched by hooks, or be wrapped.
        kind: class that it must be of, none derived from it, with weight and bias that are torch's
            own tensors; None is any.
    """
    if kind is not None and (type(module) is not kind or not _has_plain_parameters(module)):
        return False
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    methods = STEPS if isinstance(module, Kernel) else _METHODS
    return not any(hooks) and not any(name in module.__dict__ for name in methods)


def _has_plain_parameters(module: nn.Module) -> bool:
    """Quantised weights, for instance, are of classes that have operators of their own."""
    return all(type(x) in (Tensor, nn.Parameter) for x in (module.weight, module.bias))


def _shift_fields(shift: nn.Module) -> dict[str, Any] | None:
    """The fields of `AttentionSpec` that say what a shift does; None for a module unknown here."""
    fields: dict[str, Any] = {}
    parts = list(shift) if isinstance(shift, nn.Sequential) else [shift]
    for part in parts:
        if type(part) is SpatialShift:
            fields["spatial_offsets"] = tuple(step for offset in part.offsets for step in offset)
            fields["spatial_fold"], fields["zero_groups"] = part.fold, part.zero_groups
        elif type(part) is TemporalShift:
            fields["temporal_fold"], fields["segment"] = part.fold, part.segment
        elif type(part) is not nn.Identity:
            return None
    return fields


def attention_spec(attention: "Attention") -> AttentionSpec | None:
    """What the fused operators are told of an attention as it is; None where it is not covered."""
    kernel, fixation = attention.kernel, attention.fixation
    shift = _shift_fields(attention.shift)
    unknown = shift is None or type(fixation) not in (FeatureFixation, NoFixation)
    if kernel.fused is None or attention.grid is None or attention.fix_first or unknown:
        return None
    return AttentionSpec(
        sequences=attention.sequences.name,
        grid=attention.grid,
        num_heads=attention.head_split[0],
        feature_map=kernel.fused,
        offset=kernel.offset,
        eps=kernel.eps,
        clamp=kernel.clamp,
        **shift,
    )


def gate_parameters(fixation: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of a fixation's gate; None and None where it has none."""
    gate = fixation.gate
    return (None, None) if gate is None else (gate.weight, gate.bias)


@contextmanager
def run_as_written(module: nn.Module) -> Iterator[None]:
    """Without fused operators, for what hooks see now and a later backward pass must find again."""
    before = {m: m.use_fused for m in module.modules() if hasattr(m, "use_fused")}
    try:
        for part in before:
            part.use_fused = False
        yield
    finally:
        for part, use_fused in before.items():
            part.use_fused = use_fused
