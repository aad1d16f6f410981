"""Engines of accelerate: which of them train this model, and whole tensors of FSDP2's shards."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from lvt_ff.layers import FramePatchEmbed, VideoBlock
from lvt_ff.utils.errors import UsageError

__all__ = [
    "check_engine",
    "check_launch",
    "empty_copy",
    "full_tensors",
    "gathered_weights",
    "like",
    "shard_on_cpu",
    "sharding_plugin",
]

_WHOLE = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What other launchers of several processes tell each of them, instead of WORLD_SIZE.
_OTHER_WORLDS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_launch() -> None:
    """Raise UsageError where `accelerate launch` was asked for several processes and started one.

    On processors it always does; what it leaves in the environment tells what it was asked for.
    """
    env = os.environ
    on_cpu = env.get("ACCELERATE_USE_CPU", "").lower() == "true"
    several = "MASTER_ADDR" in env and "MASTER_PORT" in env
    if on_cpu and several and not any(name in env for name in ("WORLD_SIZE", *_OTHER_WORLDS)):
        raise UsageError(
            "`accelerate launch` starts a single process on the CPU, whatever --num_processes "
            "says. For two: `torchrun --nproc_per_node 2 -m lvt_ff finetune … --cpu`; for one: "
            "`lvt-ff finetune … --cpu`, without MASTER_ADDR in the environment."
        )


def sharding_plugin() -> FullyShardedDataParallelPlugin:
    """accelerate's plugin for FSDP2 as this model wants it: a unit for each block.

    Raises:
        UsageError: a single process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise UsageError(
            "--shard shares a model out among several processes, this is a single one: start "
            "them with `torchrun --nproc_per_node 2 -m lvt_ff finetune …` or `accelerate launch`."
        )
    return FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True
    )


def shard_on_cpu(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Let accelerate go its way of FSDP2 on processors too, for which it has no switch."""
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP


def check_engine(accelerator: Accelerator) -> None:
    """Raise UsageError for engines that do not train this model; prepare FSDP2 for it."""
    kind = accelerator.distributed_type
    if kind in _WHOLE:
        return
    if not accelerator.is_fsdp2:
        name = "FSDP1" if kind == DistributedType.FSDP else kind.value
        raise UsageError(
            f"Fine-tuning runs on one device, with data parallelism (DDP) or with FSDP2, got "
            f"{name}: change it with `accelerate config`, or start with torchrun (--shard is "
            "FSDP2)."
        )
    plugin = accelerator.state.fsdp_plugin
    if plugin.activation_checkpointing:
        raise UsageError(
            "fsdp_activation_checkpointing does not keep the random state of dropout: switch it "
            "off with `accelerate config` and use --grad_checkpointing."
        )
    # Every process has loaded the weights already.
    plugin.cpu_ram_efficient_loading = False
    if accelerator.mixed_precision in _DTYPES:
        # accelerate's own would sum gradients and return scores in half precision too.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=_DTYPES[accelerator.mixed_precision],
            reduce_dtype=torch.float32,
            output_dtype=torch.float32,
        )


def full_tensors(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, gathered one after the other; all processes must take part.

    Args:
        tensors: shards, or whole ones; the same names in the same order on every process.
        keep: whether this process wants them; else it gets none.
    """
    whole = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if keep:
            whole[name] = tensor.cpu().contiguous()
    return whole


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, the same on every process, sharded as another one is, if that is."""
    if not isinstance(model, DTensor):
        return tensor
    mesh, placements = model.device_mesh, model.placements
    # Everybody has all of it: nothing needs to be sent.
    return distribute_tensor(tensor.to(mesh.device_type), mesh, placements, src_data_rank=None)


def empty_copy(network: nn.Module) -> nn.Module:
    """A copy whose tensors have sizes and no memory, for `load_state_dict(…, assign=True)`."""
    memo = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    return copy.deepcopy(network, memo)


@contextmanager
def gathered_weights(network: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Within this block a sharded network has its weights whole; all processes must enter it.

    Its forward passes do not wait for other processes, so that each may have as many as it likes.
    Another network stays as it is.
    """
    units = [module for module in network.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # As accelerate has it: what a backward pass begins with stays whole until then.
            blocks = isinstance(unit, VideoBlock | FramePatchEmbed)
            again = blocks and accelerator.state.fsdp_plugin.reshard_after_forward
            unit.set_reshard_after_forward(again, recurse=False)
