"""How a step's clips are shared out: processes, forward passes, what memory holds."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from lvt_ff.utils.command_line import is_out_of_memory
from lvt_ff.utils.errors import Failure
from lvt_ff.utils.short_text import counted

__all__ = [
    "LrScaling",
    "check_memory",
    "find_batch_size",
    "largest_batch",
    "scaled_lr",
    "split_batch",
]

LrScaling = Literal["none", "linear", "sqrt"]

_SPARE = 0.05  # of a GPU's memory: for fragments, and for what other libraries allocate


def split_batch(total: int, batch_size: int, num_processes: int) -> int:
    """The forward passes of a process that make a step of exactly `total` clips.

    Args:
        total: clips of a step, on all processes.
        batch_size: clips of a forward pass of one process.
        num_processes: of the run.

    Raises:
        ValueError: it cannot be; names the nearest numbers that can.
    """
    at_once = batch_size * num_processes
    accumulation, rest = divmod(total, at_once)
    if not rest and accumulation:
        return accumulation
    near = [number for number in (total - rest, total - rest + at_once) if number]
    fits = [size for size in _batch_sizes(total, num_processes) if size <= batch_size]
    lower = f", or --batch_size {fits[0]}" if fits else ""
    raise ValueError(
        f"--total_batch_size {total} is not a multiple of --batch_size {batch_size} on "
        f"{counted(num_processes, 'process', 'processes')}: give "
        f"{' or '.join(map(str, near))}{lower}."
    )


def _batch_sizes(total: int, num_processes: int) -> list[int]:
    """All sizes of a forward pass that make a step of `total` clips, largest first."""
    share, rest = divmod(total, num_processes)
    return [] if rest else [size for size in range(share, 0, -1) if share % size == 0]


def largest_batch(sizes: list[int], fits: Callable[[int], bool]) -> int | None:
    """The first of `sizes`, largest first, that fits; None where none does."""
    return next((size for size in sizes if fits(size)), None)


def check_memory(device: torch.device) -> None:
    """Raise ValueError where a forward pass that is too large does not end in an error.

    Systems promise processors more memory than there is, and end a process that takes it.
    """
    if device.type == "cpu":
        raise ValueError(
            "--find_batch_size tries what the memory of a GPU holds: give --batch_size on the CPU."
        )


def find_batch_size(
    network: nn.Module,
    accelerator: Accelerator,
    total: int,
    *,
    clip_shape: tuple[int, int, int, int],
    copies: int = 2,
) -> int:
    """The largest forward pass that memory holds on every process, of those that make up a step.

    Each is tried on a copy of the network: forward and backward pass on clips of noise, beside as
    much memory as training takes besides. The network itself stays as it is.

    Args:
        network: with an output `logits`, not yet prepared.
        accelerator: device, precision and processes.
        total: clips of a step, on all processes.
        clip_shape: of one clip, (T, C, H, W).
        copies: of the trained parameters that training keeps beside them and their gradients: two
            of AdamW, one of an average.

    Raises:
        ValueError: processes cannot share `total` clips.
        Failure: not even one clip fits.
    """
    sizes = _batch_sizes(total, accelerator.num_processes)
    if not sizes:
        raise ValueError(
            f"{accelerator.num_processes} processes cannot share the {total} clips of a step: "
            "choose a multiple of their number with --total_batch_size."
        )

    def fits(size: int) -> bool:
        # The smallest machine decides, and all of them go on to the same size.
        return all(gather_object([_fits(network, accelerator, (size, *clip_shape), copies)]))

    found = largest_batch(sizes, fits)
    if found is None:
        raise Failure(
            "out of memory with one clip at a time: use --grad_checkpointing, lower --num_frames "
            "or --img_size, or use a smaller model"
        )
    return found


def _fits(
    network: nn.Module, accelerator: Accelerator, shape: tuple[int, ...], copies: int
) -> bool:
    """Whether a step on clips of a shape (B, T, C, H, W) ends for any other cause than memory."""
    try:
        _try_step(network, accelerator, shape, copies)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fitted = False
    else:
        fitted = True
    # Only here, where the error no longer holds the tensors of its frames.
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return fitted


def _try_step(
    network: nn.Module, accelerator: Accelerator, shape: tuple[int, ...], copies: int
) -> None:
    device = accelerator.device
    trial = copy.deepcopy(network).to(device).train()
    trained = [parameter for parameter in trial.parameters() if parameter.requires_grad]
    # Data parallelism has another copy of the gradients, in its buckets.
    copies += accelerator.num_processes > 1
    held: list[Tensor] = [torch.empty_like(p) for p in trained for _ in range(copies)]
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        held.append(torch.empty(int(_SPARE * total), dtype=torch.uint8, device=device))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        clips = torch.rand(shape, device=device)
        mixed = accelerator.mixed_precision != "no"
        with accelerator.autocast() if mixed else nullcontext():
            logits = trial(pixel_values_videos=clips).logits
        logits.float().logsumexp(dim=1).mean().backward()


def scaled_lr(
    lr: float, total: int, *, scaling: LrScaling, reference: int = 256
) -> tuple[float, str]:
    """A learning rate for steps of `total` clips, and how it came about.

    Args:
        lr: for steps of `reference` clips; with "none" for those of this run.
        total: clips of a step.
        scaling: "linear" in the clips of a step, with their square root ("sqrt"), or "none".
        reference: clips of a step that `lr` is meant for.
    """
    if scaling == "none":
        return lr, f"{lr:g}"
    factor = total / reference
    shown = f"{total} / {reference}"
    if scaling == "sqrt":
        return lr * factor**0.5, f"{lr * factor**0.5:g} ({lr:g} × √({shown}))"
    return lr * factor, f"{lr * factor:g} ({lr:g} × {shown})"
