"""Times of what runs on a GPU, without the processor's share."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

__all__ = ["copy_tb_s", "tb_s", "time_ms"]

_CALLS = 10  # in a graph: a launch of it is short against them
_COPIED = 2**30  # bytes, far more than any cache


def time_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of a call on the current GPU, by events around CUDA graphs of several.

    From Python, short kernels would wait for their next call, and that would be measured.

    Args:
        call: warm already, or else it is here; it may not ask the GPU for values.
        repeats: launches of the graph.
    """
    stream = torch.cuda.Stream()  # as torch's manual has it: not on the stream that captures
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_CALLS):
            call()
    graph.replay()
    samples = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) / _CALLS)
    return median(samples)


def tb_s(num_bytes: int, ms: float) -> float:
    """Terabytes a second."""
    return num_bytes / ms / 1e9


def copy_tb_s(repeats: int) -> float:
    """What the current GPU's memory gives a copy, bytes read and written, in TB/s."""
    x = torch.zeros(_COPIED, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return tb_s(2 * _COPIED, time_ms(lambda: y.copy_(x), repeats))
