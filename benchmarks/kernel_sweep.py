"""Other launch settings of the Triton kernels, tried one kernel at a time; nothing is kept.

What is better goes into the table of `lvt_ff/ops/launch_triton.py` by hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
import triton
from kernel_cases import Case, Pass
from kernel_times import time_ms

from lvt_ff.ops import add_norm_triton, dwconv_triton, launch_triton
from lvt_ff.ops.launch_triton import Launch

__all__ = ["sweep"]

# By case and direction: kernels that take a share of the time.
_SWEPT: dict[str, dict[str, tuple[str, ...]]] = {
    "attention, time": dict(
        forward=("short_forward",), backward=("short_backward", "gate_gradient", "unshift")
    ),
    "attention, space": dict(
        forward=("long_forward",), backward=("long_backward", "gate_gradient")
    ),
    "attention, joint": dict(
        forward=("long_forward",), backward=("long_backward", "gate_gradient", "unshift")
    ),
    "gated_heads, time": dict(forward=("heads_forward",), backward=("heads_backward",)),
    "gated_heads, space": dict(forward=("heads_forward",), backward=("heads_backward",)),
    "dwconv_gelu": dict(forward=("convolve",), backward=("convolve", "convolve_backward")),
    "add_norm": dict(forward=("add_and_norm",), backward=("norm_backward",)),
}
# Rows, warps and stages; for convolutions also channels.
_CHOICES: dict[str, tuple[tuple[int, ...], ...]] = {
    "long_forward": ((32, 64, 128), (4, 8), (1, 2, 3)),
    "short_forward": ((32, 64, 128), (2, 4, 8), (1,)),
    "heads_forward": ((32, 64, 128), (4, 8), (1,)),
    "long_backward": ((32, 64), (4, 8), (1, 2)),
    "short_backward": ((32, 64), (4, 8), (1,)),
    "heads_backward": ((32, 64), (4, 8), (1,)),
    "gate_gradient": ((32, 64, 128), (4, 8), (1, 2, 3)),
    "unshift": ((8, 16, 32), (2, 4, 8), (1,)),
    "convolve": ((8, 16, 32), (2, 4, 8), (1,), (32, 64, 128)),
    "convolve_backward": ((8, 16, 32), (4, 8), (1,), (32, 64)),
    "add_and_norm": ((1, 2, 4, 8), (1, 2, 4, 8), (1,)),
    "norm_backward": ((1, 2, 4, 8), (1, 2, 4, 8), (1,)),
}


@contextmanager
def _launched(kernel: str, setting: tuple[int, ...]) -> Iterator[None]:
    """Within this block a kernel has other settings."""
    launch, table = Launch(*setting[:3]), launch_triton._ATTENTION
    if kernel in table:
        place, name, former = table, kernel, table[kernel]
        now: Any = (launch, launch)
    elif kernel.startswith("convolve"):
        place, name, former = vars(dwconv_triton), "conv_launch", dwconv_triton.conv_launch
        of_backward = kernel == "convolve_backward"

        def now(backward: bool) -> tuple[Launch, int]:
            return (launch, setting[3]) if backward == of_backward else former(backward)
    else:
        place, name, former = vars(add_norm_triton), "norm_launch", add_norm_triton.norm_launch

        def now(dim: int) -> Launch:
            return launch

    place[name] = now
    try:
        yield
    finally:
        place[name] = former


def sweep(case: Case, direction: str, repeats: int) -> list[dict]:
    """Milliseconds of a pass with each setting of each of its kernels, the best first.

    Args:
        case: whose pass is timed.
        direction: "forward" or "backward".
        repeats: of every timing.
    """
    run, found = case.passes[direction], []
    for kernel in _SWEPT[case.name][direction]:
        rows = [_tried(run, kernel, setting, repeats) for setting in product(*_CHOICES[kernel])]
        found += sorted(rows, key=lambda row: row.get("ms", float("inf")))
    return found


def _tried(run: Pass, kernel: str, setting: tuple[int, ...], repeats: int) -> dict:
    row: dict = dict(kernel=kernel, setting=setting)
    want = run()
    with _launched(kernel, setting):
        try:
            got = run()
            row["ms"] = time_ms(run, repeats)
        # Too little shared memory, or a tile that this version cannot compile.
        except (RuntimeError, ValueError, triton.errors.TritonError) as error:
            return row | dict(failed=f"{type(error).__name__}: {error}".splitlines()[0][:100])
    norm = torch.linalg.vector_norm
    row["difference"] = max(
        (norm((got[name] - x).double()) / norm(x.double())).item() for name, x in want.items()
    )
    return row
