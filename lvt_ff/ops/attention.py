"""What lies between an attention's two linear layers, as operators on the layers' own layout.

The modules of `lvt_ff.layers` are the reference in plain torch; `attention_cpu` and
`attention_triton` have the same functions. Source: arXiv 2210.08164, Eq. 3-6.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef
from torch.utils.flop_counter import register_flop_formula

from lvt_ff.ops import attention_cpu
from lvt_ff.ops.attention_spec import AttentionSpec
from lvt_ff.ops.linear import queries_first
from lvt_ff.ops.registry import on_demand, operator

__all__ = ["attention", "gated_heads"]

_INPUTS = f"Tensor qkv, Tensor? weight, Tensor? bias, {AttentionSpec.SCHEMA}"


def _with_spec(function: Callable[..., Any], num_tensors: int) -> Callable[..., Any]:
    """A function of tensors and an `AttentionSpec`, as one of tensors and its fields."""

    def run(*args: Any) -> Any:
        return function(*args[:num_tensors], AttentionSpec(*args[num_tensors:]))

    return run


def _operator(name: str, schema: str, num_tensors: int, fake: Callable[..., Any]) -> CustomOpDef:
    return operator(
        f"{name}{schema}",
        cpu=_with_spec(getattr(attention_cpu, name), num_tensors),
        triton=_with_spec(on_demand("attention_triton", name), num_tensors),
        fake=fake,
    )


def _gradients_like(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    qkv = inputs[0]
    return qkv.new_empty(qkv.shape), *(
        qkv.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs[1:3]
    )


def _register(name: str, fake: Callable[..., Tensor]) -> CustomOpDef:
    """A forward and a backward operator, with the functions of this name on each device."""
    forward = _operator(name, f"({_INPUTS}) -> Tensor", 3, fake)
    schema = f"(Tensor grad, {_INPUTS}) -> (Tensor, Tensor, Tensor)"
    backward = _operator(f"{name}_backward", schema, 4, _gradients_like)

    def keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.spec = inputs[3:]

    def gradients(ctx: Any, grad: Tensor) -> tuple:
        qkv, weight, bias = ctx.saved_tensors
        found = backward(grad.contiguous(), qkv, weight, bias, *ctx.spec)
        of_gate = found[1:] if weight is not None else (None, None)
        return found[0], *of_gate, *(None for _ in ctx.spec)

    forward.register_autograd(gradients, setup_context=keep)
    return forward


def _empty_tokens(qkv: Tensor, weight: Any, bias: Any, *spec: Any) -> Tensor:
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


def _empty_heads(qkv: Tensor, weight: Any, bias: Any, *spec: Any) -> Tensor:
    batch, num_frames, num_tokens, width = qkv.shape
    spec = AttentionSpec(*spec)
    length, heads = spec.length(num_frames), spec.num_heads
    num_sequences = batch * num_frames * num_tokens // length
    return qkv.new_empty(num_sequences, heads, length, 3, width // 3 // heads)


_attention = _register("attention", _empty_tokens)
_gated_heads = _register("gated_heads", _empty_heads)


def attention(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """Shifted, fixed and normalised linear attention.

    Args:
        qkv: packed queries, keys and values (B, T, N, 3D) as a linear layer gives them.
        weight: of the gate (E, 2E) or (E, 3E), or twice as many rows where queries and keys have
            one each; None is no fixation. Two inputs are queries and keys, three values too.
        bias: of the gate.
        spec: everything else.

    Returns:
        (B, T, N, D) in the dtype of `qkv`; sums over tokens in float32 (or float64).
    """
    return _attention(qkv, weight, bias, *spec)


def gated_heads(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, spec: AttentionSpec
) -> Tensor:
    """What `attention` aggregates, for other kernels than linear ones.

    Args:
        qkv, weight, bias, spec: as of `attention`.

    Returns:
        Fixed features of queries and keys, and values (B·S, A, L, 3, E).
    """
    return _gated_heads(qkv, weight, bias, *spec)


def _gate_macs(qkv: tuple, weight: tuple | None, num_heads: int) -> int:
    return 0 if weight is None else prod(qkv[:-1]) * num_heads * prod(weight)


def _count(qkv: tuple, weight: tuple | None, bias: Any, *spec: Any, **out: Any) -> int:
    """Operations of `attention`, as the reference has them."""
    spec = AttentionSpec(*spec)
    length, head_dim = spec.length(qkv[1]), qkv[-1] // 3 // spec.num_heads
    products = length if queries_first(length, head_dim, head_dim) else head_dim
    macs = prod(qkv[:-1]) * spec.num_heads * head_dim * (2 * products + 1)
    return 2 * (macs + _gate_macs(qkv, weight, spec.num_heads))


def _count_heads(qkv: tuple, weight: tuple | None, bias: Any, *spec: Any, **out: Any) -> int:
    return 2 * _gate_macs(qkv, weight, AttentionSpec(*spec).num_heads)


def _with_recomputation(count: Callable[..., int]) -> Callable[..., int]:
    def backward(grad: tuple, *inputs: Any, **out: Any) -> int:
        return 3 * count(*inputs)

    return backward


for _name, _operations in {"attention": _count, "gated_heads": _count_heads}.items():
    register_flop_formula(getattr(torch.ops.lvt_ff, _name))(_operations)
    register_flop_formula(getattr(torch.ops.lvt_ff, f"{_name}_backward"))(
        _with_recomputation(_operations)
    )
