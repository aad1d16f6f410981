"""Operators with an implementation for each device, which torch sees as one opaque node."""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import is_exportable
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import CustomOpDef, custom_op
from torch.nn.modules import module as nn_module

from lvt_ff.ops.precision import autocast_off

__all__ = ["may_fuse", "may_overwrite", "on_demand", "operator"]

# What torch runs around every module; the dictionaries stay, whatever is registered.
_GLOBAL_HOOKS = (
    nn_module._global_backward_pre_hooks,
    nn_module._global_backward_hooks,
    nn_module._global_forward_pre_hooks,
    nn_module._global_forward_hooks,
)

# Triton's interpreter runs its kernels on a processor.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TRITON_DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def on_demand(module: str, name: str) -> Callable[..., Any]:
    """A function of a module of `lvt_ff.ops` that is imported when it is called.

    Triton, which some import, may not be installed.
    """

    def run(*args: Any) -> Any:
        return getattr(importlib.import_module(f"lvt_ff.ops.{module}"), name)(*args)

    return run


def _without_autocast(function: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """Autocast would lower the precision of what an implementation is made of, sums included."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with autocast_off(device_type):
            return function(*args)

    return run


def _refuse(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError(
        "Gradients of lvt_ff's fused operators have no gradients themselves: for those, call "
        "set_fused_attn(False) of the model (attn_implementation='eager' in transformers)."
    )


def operator(
    schema: str,
    cpu: Callable[..., Any],
    triton: Callable[..., Any],
    fake: Callable[..., Any],
) -> CustomOpDef:
    """An operator of the namespace `lvt_ff`.

    Args:
        schema: name, arguments and results, in torch's language of schemas.
        cpu: runs it on a processor.
        triton: runs it on a GPU, and on a processor where `TRITON_INTERPRET=1`.
        fake: gives empty results, for tracing.
    """
    name, signature = schema.split("(", 1)
    on_cpu = _without_autocast(triton if _INTERPRETED else cpu, "cpu")
    made = custom_op(
        f"lvt_ff::{name}", on_cpu, mutates_args=(), device_types="cpu", schema=f"({signature}"
    )
    if name.endswith("_backward"):
        made.register_autograd(_refuse)
    made.register_kernel("cuda")(_without_autocast(triton, "cuda"))
    made.register_fake(fake)
    return made


def _is_traced_for_export() -> bool:
    return is_exportable() or torch.jit.is_tracing() or torch.compiler.is_exporting()


def _is_transformed() -> bool:
    """Within torch.func's transformations or forward-mode differentiation; hooks on all modules."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return forward_ad._current_level >= 0 or any(_GLOBAL_HOOKS)


def may_fuse(x: Tensor) -> bool:
    """Whether the operators here can work on a tensor, or else the modules' own torch must.

    What is exported must run without this package; other tensors than torch's own (of tensor
    parallelism, for instance) have operators of their own.
    """
    if type(x) is not Tensor or _is_traced_for_export() or _is_transformed():
        return False
    if x.device.type == "cuda":
        return _has_triton() and x.dtype in _TRITON_DTYPES
    return x.device.type == "cpu"


def may_overwrite(*inputs: Tensor) -> bool:
    """Whether a processor may put a result in the memory of an input that is not needed again.

    New memory costs more time than to fill it. With gradients inputs are needed again, and a
    compiler orders operations anew.
    """
    if torch.compiler.is_compiling() or inputs[0].device.type != "cpu":
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs))
