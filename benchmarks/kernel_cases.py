"""Fused operators with random operands, beside the modules of a model that they stand for.

Operands are drawn in the dtype at hand, so that a reference in float64 has the very same numbers.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lvt_ff.layers.attention import Attention
from lvt_ff.layers.fused import attention_spec, gate_parameters
from lvt_ff.layers.mlp import VideoMlp
from lvt_ff.model import LinearVideoTransformer, init_weights
from lvt_ff.variants import VARIANTS

__all__ = ["DEFAULT", "NAMES", "TINY", "Case", "Checked", "Pass", "check", "is_close", "make_case"]

# Options of models whose blocks are taken apart, and clips of a batch.
DEFAULT = dict(VARIANTS["lvt_ff_default"], batch_size=16)
# More than 128 tokens: short sequences over time and space, a long one over both.
TINY = dict(
    num_frames=2,
    img_size=(44, 24),
    patch_size=4,
    patch_stride=4,
    patch_padding=0,
    embed_dim=32,
    num_heads=2,
    mlp_ratio=1.0,
    batch_size=1,
)
# Relative error of an operator beside 1.25 times that of its modules.
_SLACK = {torch.float32: 1e-5, torch.bfloat16: 1e-3, torch.float16: 1e-4}


class Pass(NamedTuple):
    """A forward or backward operator.

    Args:
        operator: gives as many tensors as there are names.
        operands: its arguments.
        names: of what it gives.
        num_values: numbers that it has to read and write at least.
    """

    operator: Callable[..., Any]
    operands: tuple
    names: tuple[str, ...]
    num_values: int

    def __call__(self) -> dict[str, Tensor]:
        """Results by name."""
        found = self.operator(*self.operands)
        return dict(zip(self.names, found if type(found) is tuple else (found,), strict=True))


@dataclass(frozen=True)
class Case:
    """An operator, its gradient, and what they stand for.

    Args:
        name: operator and kind of sequence.
        module: the reference in plain torch.
        inputs: of both.
        gradients: of the outputs, for the backward pass.
        forward, backward: the operators.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    forward: Pass
    backward: Pass

    @property
    def passes(self) -> dict[str, Pass]:
        """Both operators by their direction."""
        return dict(forward=self.forward, backward=self.backward)

    def reference(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Outputs and gradients of the modules in another dtype, by the names of the operators'."""
        module = copy.deepcopy(self.module).to(dtype)
        inputs = [x.to(dtype).clone().requires_grad_() for x in self.inputs]
        outputs = module(*inputs)
        outputs = outputs if type(outputs) is tuple else (outputs,)
        torch.autograd.backward(outputs, [gradient.to(dtype) for gradient in self.gradients])
        # All inputs of a sum have the gradient of the first.
        gradients = {self.backward.names[0]: inputs[0].grad}
        for name, parameter in module.named_parameters():
            gradients[f"d_{name.rpartition('.')[2]}"] = parameter.grad
        found = dict(zip(self.forward.names, (x.detach() for x in outputs), strict=True))
        return found | {name: gradients[name] for name in self.backward.names}


class _GatedHeads(nn.Module):
    """What an attention does before it aggregates, without its linear layer."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, T, N, 3D) to (B·S, A, L, 3, E)."""
        attention, (q, k, v) = self.attention, qkv.chunk(3, dim=-1)  # 3 × (B, T, N, D)
        q, k, v = (attention.heads(x) for x in (q, attention.shift(k), attention.shift(v)))
        q, k = attention.kernel.feature_map(q, k)
        return torch.stack(attention.fix(q, k, v, size=qkv.shape[1:3]), dim=3)


class _SumAndNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (..., D) to their sum and that normed."""
        return x + y, self.norm(x + y)


class _Operands:
    """Weights and random tensors of a case.

    Args:
        options: of the model, and `batch_size`.
        changes: of the options.
        device, dtype: of all tensors.
    """

    def __init__(self, options: dict, changes: dict, device: torch.device, dtype: torch.dtype):
        torch.manual_seed(0)
        options = dict(options, **changes, depth=1, num_classes=1)
        self.batch_size = options.pop("batch_size")
        model = LinearVideoTransformer(**options).apply(init_weights)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.set_fused_attn(False)
        model.to(device, dtype).requires_grad_(False)
        self.block, self.like = model.blocks[0], dict(device=device, dtype=dtype)
        self.num_frames, self.grid = model.num_frames, tuple(model.grid)

    def tokens(self, num_channels: int) -> Tensor:
        """Random (B, T, N, channels)."""
        num_tokens = self.grid[0] * self.grid[1]
        return torch.randn(self.batch_size, self.num_frames, num_tokens, num_channels, **self.like)


def _finish(
    name: str, module: nn.Module, inputs: tuple, forward: Pass, backward: Callable[..., Pass]
) -> Case:
    """A case; `backward` makes its pass of the forward pass's outputs and their gradients."""
    outputs = tuple(forward().values())
    gradients = tuple(torch.randn_like(x) for x in outputs)
    module.requires_grad_(True)
    return Case(name, module, inputs, gradients, forward, backward(outputs, gradients))


def _of_attention(name: str, operands: _Operands, attention: Attention) -> Case:
    operator = name.partition(",")[0]
    module = attention if operator == "attention" else _GatedHeads(attention)
    qkv = operands.tokens(attention.qkv.out_features)
    attention.qkv = attention.proj = nn.Identity()
    gate = tuple(x.detach() for x in gate_parameters(attention.fixation))
    arguments = (qkv, *gate, *attention_spec(attention))
    call = torch.ops.lvt_ff
    num_outputs = qkv.numel() // (3 if operator == "attention" else 1)
    forward = Pass(getattr(call, operator), arguments, ("out",), qkv.numel() + num_outputs)

    def backward(outputs: tuple, gradients: tuple) -> Pass:
        names = ("d_qkv", "d_weight", "d_bias")
        num_values = 2 * qkv.numel() + num_outputs
        return Pass(
            getattr(call, f"{operator}_backward"), (*gradients, *arguments), names, num_values
        )

    return _finish(name, module, (qkv,), forward, backward)


def _of_convolution(name: str, operands: _Operands, mlp: VideoMlp) -> Case:
    x = operands.tokens(mlp.fc1.out_features)
    mlp.fc1 = mlp.fc2 = nn.Identity()
    arguments = (x, mlp.dwconv.weight.detach(), mlp.dwconv.bias.detach(), operands.grid)
    call, size = torch.ops.lvt_ff, x.numel()
    forward = Pass(call.dwconv_gelu, arguments, ("out",), 2 * size)

    def backward(outputs: tuple, gradients: tuple) -> Pass:
        names = ("d_x", "d_weight", "d_bias")
        return Pass(call.dwconv_gelu_backward, (*gradients, *arguments), names, 3 * size)

    return _finish(name, mlp, (x,), forward, backward)


def _of_norm(name: str, operands: _Operands, norm: nn.LayerNorm) -> Case:
    x, y = (operands.tokens(norm.normalized_shape[0]) for _ in "xy")
    layer = norm.weight.detach(), norm.bias.detach(), norm.eps
    call, size = torch.ops.lvt_ff, x.numel()
    forward = Pass(call.add_norm, (x, y, *layer, x.dtype), ("total", "normed"), 4 * size)

    def backward(outputs: tuple, gradients: tuple) -> Pass:
        names = ("d_total", "d_weight", "d_bias")
        return Pass(call.add_norm_backward, (*gradients, outputs[0], *layer), names, 4 * size)

    return _finish(name, _SumAndNorm(norm), (x, y), forward, backward)


# Name: options of the model, the part of its block, and what makes a case of it.
_CASES: dict[str, tuple[dict, str, Callable[..., Case]]] = {
    "attention, time": ({}, "temporal_attn", _of_attention),
    "attention, space": ({}, "attn", _of_attention),
    "attention, joint": ({"attn_pattern": "joint"}, "attn", _of_attention),
    "gated_heads, time": ({"attn_kernel": "softmax"}, "temporal_attn", _of_attention),
    "gated_heads, space": ({"attn_kernel": "softmax"}, "attn", _of_attention),
    "dwconv_gelu": ({}, "mlp", _of_convolution),
    "add_norm": ({}, "norm2", _of_norm),
}
NAMES = tuple(_CASES)


def make_case(name: str, options: dict, device: torch.device | str, dtype: torch.dtype) -> Case:
    """The case of a name in `NAMES`.

    Args:
        name: operator and kind of sequence.
        options: of `LinearVideoTransformer`, and `batch_size`.
        device, dtype: of all tensors.
    """
    changes, part, make = _CASES[name]
    operands = _Operands(options, changes, torch.device(device), dtype)
    return make(name, operands, getattr(operands.block, part))


class Checked(NamedTuple):
    """What a case's operators give.

    Args:
        errors: relative errors against float64 by name: of the operators, and of their modules.
        equal_bits: by direction: whether two runs give equal bits everywhere, and numbers.
    """

    errors: dict[str, tuple[float, float]]
    equal_bits: dict[str, bool]


def check(case: Case) -> Checked:
    """Run both operators of a case twice, and its modules in float64 and in the case's dtype."""
    found, equal_bits = {}, {}
    for direction, run in case.passes.items():
        with _unwritten_is_nan():
            first, second = run(), run()
        # NaN is not equal to itself.
        equal_bits[direction] = all(torch.equal(first[name], second[name]) for name in first)
        found |= first
    exact = case.reference(torch.float64)
    plain = _distances(case.reference(case.inputs[0].dtype), exact)
    fused = _distances(found, exact)
    return Checked({name: (fused[name], plain[name]) for name in exact}, equal_bits)


def _distances(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    norm = torch.linalg.vector_norm
    return {
        name: (norm(found[name].double() - value) / norm(value)).item()
        for name, value in exact.items()
    }


def is_close(fused: float, plain: float, dtype: torch.dtype) -> bool:
    """Whether an operator's error is about that of its modules; NaN is not."""
    return fused <= 1.25 * plain + _SLACK[dtype]


@contextmanager
def _unwritten_is_nan() -> Iterator[None]:
    """New memory holds NaN, so that what an operator leaves out shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
