"""Size and cost of variants and attention kernels, counted on a model without memory."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from timm.models import get_pretrained_cfg
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from lvt_ff.kernels import KERNELS, KernelShape, build_kernel
from lvt_ff.model import LinearVideoTransformer, init_weights
from lvt_ff.timm_models import SOURCES
from lvt_ff.utils.command_line import command
from lvt_ff.variants import VARIANTS

__all__ = [
    "count_macs",
    "count_parameters",
    "kernel_rows",
    "kernels",
    "models",
    "peak_bytes",
    "peak_memory",
]


def count_parameters(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: LinearVideoTransformer) -> float:
    """Multiply-accumulates of one clip: matrix products and convolutions, by torch's flop counter.

    Args:
        model: on any device; on "meta" nothing is computed.
    """
    device = model.temp_embed.device
    clip = torch.empty(1, model.num_frames, model.in_chans, *model.img_size, device=device)
    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(clip)
    model.train(training)
    return counter.get_total_flops() / 2


@command()
def models() -> None:
    """List the variants: frames, pixels, parameters, cost of one clip, and pretrained weights."""
    print(f"{'name':<16}{'frames':>7}{'pixels':>8}{'parameters':>13}{'GMACs':>9}")
    for name, sizes in VARIANTS.items():
        model = LinearVideoTransformer(**sizes, device="meta")
        parameters, macs = count_parameters(model) / 1e6, count_macs(model) / 1e9
        frames, pixels = sizes["num_frames"], sizes["img_size"]
        print(f"{name:<16}{frames:>7}{pixels:>8}{parameters:>11.2f} M{macs:>9.2f}")
    print(
        "1000 classes; GMACs of one clip by torch's flop counter; load with "
        "timm.create_model(name)\n\nImage models to start from, with "
        "timm.create_model(name, pretrained=True), the first by the variant's name alone:"
    )
    for variant, tags in SOURCES.items():
        for tag in tags:
            cfg = get_pretrained_cfg(f"{variant}.{tag}")
            print(f"{f'{variant}.{tag}':<34}{cfg.hf_hub_id} ({cfg.license})")


def kernel_rows(model: str = "lvt_ff_default") -> list[dict]:
    """A row for every kernel: `name`, `source`, `parameters`, `macs`, `fused` and `options`.

    Args:
        model: name of a variant; cost is that of a clip through it, without fixation.
    """
    rows = []
    for name, kernel in KERNELS.items():
        options = dict(attn_kernel=name, fixation="none", device="meta")
        built = LinearVideoTransformer(**VARIANTS[model], **options)
        rows.append(
            dict(
                name=name,
                source=kernel.source,
                parameters=count_parameters(built),
                macs=count_macs(built),
                fused="yes" if kernel.fused else "-",
                options=[key for key in inspect.signature(kernel).parameters if key != "shape"],
            )
        )
    return rows


@command()
def kernels(model: Literal[tuple(VARIANTS)] = "lvt_ff_default") -> None:
    """List the attention kernels: source, parameters, cost of one clip, fused path, options.

    Args:
        model: Variant whose cost is counted, without feature fixation.
    """
    print(f"{'attn_kernel':<16}{'parameters':>13}{'GMACs':>9}  {'fused path':<12}source")
    rows = kernel_rows(model)
    for row in rows:
        size = f"{row['parameters'] / 1e6:>11.2f} M{row['macs'] / 1e9:>9.2f}"
        print(f"{row['name']:<16}{size}  {row['fused']:<12}{row['source']}")
    print(f"\n{model} with fixation='none'; GMACs of one clip by torch's flop counter\n")
    print("kernel_options:")
    for row in rows:
        if row["options"]:
            print(f"  {row['name']:<16}{', '.join(row['options'])}")


def peak_memory(kernel: str, length: int, head_dim: int = 64, training: bool = False) -> int:
    """Bytes that one attention call has in memory at most, beside its inputs.

    Args:
        kernel: name in `KERNELS`.
        length: tokens of one sequence of one head, on a grid of 32 rows; a multiple of 32.
        head_dim: channels of the head.
        training: forward and backward pass in training mode; else a forward pass without gradients.

    Returns:
        What torch's allocator counted on the CPU.
    """
    shape = KernelShape(1, head_dim, (32, length // 32))
    module = build_kernel(kernel, shape, {}).apply(init_weights).train(training)
    q, k, v = (torch.randn(1, 1, length, head_dim, requires_grad=training) for _ in "qkv")
    x = torch.randn(1, length, head_dim)

    def call() -> None:
        with torch.set_grad_enabled(training):
            out = module.aggregate(*module.feature_map(q, k), v, x)
            if training:
                out.sum().backward()

    return peak_bytes(call, torch.device("cpu"))


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call has in memory at most, beside what is there before it.

    Args:
        call: what is run once; nothing else may run on the device.
        device: whose memory is counted, by torch's allocator.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as profiler:
        call()
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    # The total counts from the process's start, the first change is the call's own.
    before = changes[0]["Total Allocated"] - changes[0]["Bytes"]
    return max(change["Total Allocated"] for change in changes) - before
