"""Whole tensors of networks and optimizers whose tensors are shards (FSDP2)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from lvt_ff.layers import FramePatchEmbed, VideoBlock

__all__ = ["empty_copy", "full_tensors", "gathered_weights", "like", "optimizer_like"]


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


def optimizer_like(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An optimizer's whole tensors, by `PARAMETER/NAME`, sharded as its parameters are.

    Args:
        network: with these parameters.
        tensors: as large as their parameter, or numbers, which stay as they are.
    """
    parameters, sharded = dict(network.named_parameters()), {}
    for name, tensor in tensors.items():
        parameter = parameters.get(name.rsplit("/", 1)[0])
        whole = parameter is None or tensor.shape != parameter.shape
        sharded[name] = tensor if whole else like(tensor, parameter)
    return sharded


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
