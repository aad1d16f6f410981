"""How processes were started, and which engine of accelerate trains."""

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    KwargsHandler,
)
from torch.distributed import PrefixStore, Store
from torch.distributed.constants import default_pg_timeout
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from lvt_ff.utils.errors import UsageError

__all__ = ["check_engine", "check_launch", "shard_on_cpu", "sharding_plugin", "start_handlers"]

_WHOLE = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SCHEME = "lvtff"  # of the addresses by which processes find each other
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


def start_handlers() -> list[KwargsHandler]:
    """What an Accelerator is told of processes that torchrun has started anew.

    On one machine it keeps the store by which they find each other, with the addresses of the
    ended ones in it, for which the new ones would wait for ever. On several, its machines do not
    count alike: there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 keeps torchrun from it.
    """
    env = os.environ
    if env.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or env.get("GROUP_WORLD_SIZE") != "1":
        return []
    with suppress(RuntimeError):  # it is registered already
        register_rendezvous_handler(_SCHEME, _meet_anew)
    return [InitProcessGroupKwargs(init_method=f"{_SCHEME}://")]


def _meet_anew(
    _url: str, timeout: timedelta = default_pg_timeout, **_: Any
) -> Iterator[tuple[Store, int, int]]:
    """A store of this start's own within torchrun's, rank, and number of processes."""
    start = os.environ["TORCHELASTIC_RESTART_COUNT"]
    for store, rank, num_processes in rendezvous("env://", timeout=timeout):
        yield PrefixStore(f"start_{start}", store), rank, num_processes


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
        # accelerate's own would sum gradients over processes in half precision too.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=_DTYPES[accelerator.mixed_precision], reduce_dtype=torch.float32
        )
