"""What Triton's interpreter lacks, and memory that shows what was not written."""

import math

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

__all__ = ["mend", "unwritten_is_nan"]


def _from_bfloat16(bits):
    """Numbers of bfloat16's bits, which are the first half of a float32's."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(x):
    """The nearest number's bits."""
    nearest = torch.from_numpy(np.ascontiguousarray(x)).to(torch.bfloat16)
    return nearest.view(torch.int16).numpy().view(np.uint16).reshape(x.shape)


def _with_bfloat16(convert):
    """The interpreter's own conversion cuts digits off."""

    def run(x, source, target, rounding):
        if source == tl.float32 and target == tl.bfloat16:
            return _to_bfloat16(x)
        if source == tl.bfloat16 and target == tl.float32:
            return _from_bfloat16(x)
        return convert(x, source, target, rounding)

    return run


def _product_of_bfloat16(create_dot):
    """The interpreter's own product multiplies the bits as whole numbers."""

    def as_float32(handle):
        if handle.dtype != tl.bfloat16:
            return handle
        return interpreter.TensorHandle(_from_bfloat16(handle.data), tl.float32)

    def run(self, a, b, *args):
        return create_dot(self, as_float32(a), as_float32(b), *args)

    return run


def _index_of_one_number(patch):
    """Loops up to a number from memory, which numpy 2.4 refuses before triton 3.8."""

    def run(tensor, *scope):
        patch(tensor, *scope)
        if not scope:
            tensor.__index__ = lambda self: int(self.handle.data.item())

    return run


def mend() -> None:
    """Let the interpreter know bfloat16, which numpy does not, and loop with new numpy versions."""
    builder = type(interpreter.interpreter_builder)
    builder.create_dot = _product_of_bfloat16(builder.create_dot)
    interpreter._convert_float = _with_bfloat16(interpreter._convert_float)
    interpreter._patch_lang_tensor = _index_of_one_number(interpreter._patch_lang_tensor)


@pytest.fixture
def unwritten_is_nan(monkeypatch):
    """New memory holds NaN."""

    def filled(make):
        def run(*args, **kwargs):
            return make(*args, **kwargs).fill_(math.nan)

        return run

    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, filled(getattr(place, name)))
