"""Which parts of a model take its time, by torch's profiler."""

from collections.abc import Callable

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

__all__ = ["PARTS", "part_of", "time_shares"]

# Part: how names of its operators begin. What is called within one of them counts as the
# outermost's: a copy that a convolution makes is the convolution's.
PARTS: dict[str, tuple[str, ...]] = {
    "optimizer": ("Optimizer.",),
    "attention": (
        "lvt_ff::attention",
        "lvt_ff::gated_heads",
        "aten::scaled_dot_product",
        "aten::_scaled_dot_product",
    ),
    "convolutions": (
        "lvt_ff::dwconv",
        "aten::conv",
        "aten::_conv",
        "aten::cudnn_conv",
        "aten::mkldnn_conv",
        "aten::thnn_conv",
    ),
    "norms": (
        "lvt_ff::add_norm",
        "aten::layer_norm",
        "aten::native_layer_norm",
        "aten::_fused_layer_norm",
    ),
    "matrix products": (
        "aten::linear",
        "aten::addmm",
        "aten::mm",
        "aten::matmul",
        "aten::bmm",
        "aten::baddbmm",
        "aten::einsum",
        "aten::mkldnn_linear",
    ),
    "copies and layout": (
        "aten::cat",
        "aten::clone",
        "aten::contiguous",
        "aten::copy_",
        "aten::_to_copy",
        "aten::reshape",
        "aten::flatten",
        "aten::pad",
        "aten::constant_pad",
        "aten::roll",
        "aten::index",
        "aten::gather",
        "aten::stack",
        "aten::narrow",
        "aten::slice",
        "aten::select",
        "aten::view",
        "aten::permute",
        "aten::transpose",
    ),
    "elementwise": ("aten::",),
    # What torch.compile made of several of these.
    "compiled": ("Torch-Compiled Region", "## Call CompiledFxGraph", "triton_"),
}
# Parts that count only where no other one calls or is called.
_MINOR = ("copies and layout", "elementwise", "compiled")
_STEPS = 3


def part_of(names: list[str]) -> str:
    """The part that an operator counts as.

    Args:
        names: of the operator and those that called it, the outermost first.
    """
    parts = [part for name in names if (part := _named_part(name)) is not None]
    # A product may copy within, and a copy may be called by what is no part of its own.
    major = [part for part in parts if part not in _MINOR]
    return next(iter(major), next((part for part in _MINOR if part in parts), "other"))


def _named_part(name: str) -> str | None:
    for part, beginnings in PARTS.items():
        if name.startswith(beginnings):
            return part
    return None


def time_shares(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Share of time by part, the largest first; they add up to 1.

    Args:
        step: what is profiled, warm.
        device: whose time counts: kernels on a GPU, operators on the CPU.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_STEPS):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in profiler.events():
        # Kernels are also events of their own: those are told from the operators by their device.
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        part = part_of(_callers(event))
        times[part] = times.get(part, 0.0) + spent
    total = sum(times.values()) or 1.0
    shares = {part: spent / total for part, spent in times.items() if spent > 0}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _callers(event: FunctionEvent) -> list[str]:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return names[::-1]
