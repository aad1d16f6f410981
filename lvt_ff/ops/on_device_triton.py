"""Kernels run on the device of their tensors, which need not be the current one."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["on_device"]


def on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the first argument's GPU is the current one within."""

    @functools.wraps(function)
    def run(x: Tensor, *args: Any) -> Any:
        if x.device.type != "cuda":  # the interpreter's
            return function(x, *args)
        with torch.cuda.device(x.device):
            return function(x, *args)

    return run
