"""How processes were started, and which engine of accelerate trains."""

import os
import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

from lvt_ff.utils.errors import UsageError

__all__ = ["check_engine", "check_launch", "shard_on_cpu", "sharding_plugin"]

_WHOLE = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What launchers of several processes tell each of them.
_WORLDS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_launch() -> None:
    """Raise UsageError where `accelerate launch` was asked for several processes and started one.

    On processors it always does; what it leaves in the environment tells what it was asked for.
    """
    env = os.environ
    on_cpu = env.get("ACCELERATE_USE_CPU", "").lower() == "true"
    several = "MASTER_ADDR" in env and "MASTER_PORT" in env
    if on_cpu and several and not any(name in env for name in _WORLDS):
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
    """Raise UsageError for engines that do not train this model; set FSDP2 up for it."""
    kind = accelerator.distributed_type
    if kind in _WHOLE:
        return
    if kind != DistributedType.FSDP or not accelerator.is_fsdp2:
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
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UsageError(
            "fsdp_offload_params is not supported: switch it off with `accelerate config`; "
            "--grad_checkpointing and a lower --batch_size save memory."
        )
    # The stem's tokens are added to, not in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .*FramePatchEmbed")
    # Every process has loaded the weights already.
    plugin.cpu_ram_efficient_loading = False
    if accelerator.mixed_precision in _DTYPES:
        # accelerate's own would sum gradients and return scores in half precision too.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=_DTYPES[accelerator.mixed_precision],
            reduce_dtype=torch.float32,
            output_dtype=torch.float32,
        )
