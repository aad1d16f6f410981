"""Which launches and engines are refused; what tensors of shards become."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.training.sharding import (
    check_engine,
    check_launch,
    empty_copy,
    full_tensors,
    like,
    sharding_plugin,
)
from lvt_ff.utils.errors import UsageError


@pytest.mark.parametrize(
    "changes, refused",
    [
        ({}, True),
        ({"WORLD_SIZE": "2"}, False),
        ({"PMI_SIZE": "2"}, False),
        ({"ACCELERATE_USE_CPU": "False"}, False),
        ({"MASTER_ADDR": None}, False),
    ],
)
def test_a_launch_of_several_processes_that_started_one_is_refused(changes, refused, monkeypatch):
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # What `accelerate launch --cpu --num_processes 2` leaves.
    env = dict(ACCELERATE_USE_CPU="True", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500") | changes
    for name, value in env.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if refused:
        with pytest.raises(UsageError, match="single process on the CPU.*torchrun --nproc_per_n"):
            check_launch()
    else:
        check_launch()


def engine(kind, fsdp2=False, **plugin):
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(**plugin))
    kinds = dict(distributed_type=kind, is_fsdp2=fsdp2, mixed_precision="bf16")
    return SimpleNamespace(state=state, **kinds)


@pytest.mark.parametrize("kind", ["DEEPSPEED", "MEGATRON_LM", "XLA", "FSDP"])
def test_engines_that_do_not_train_the_model_are_refused(kind):
    told = "FSDP1" if kind == "FSDP" else kind
    with pytest.raises(UsageError, match=f"with FSDP2, got {told}: .*--shard"):
        check_engine(engine(DistributedType[kind]))


@pytest.mark.parametrize("kind", ["NO", "MULTI_GPU", "MULTI_CPU"])
def test_other_engines_are_taken_as_they_are(kind):
    check_engine(engine(DistributedType[kind]))


def test_checkpointing_of_the_plugin_is_refused_and_its_precision_replaced():
    with pytest.raises(UsageError, match="does not keep the random state.*--grad_checkpointing"):
        check_engine(engine(DistributedType.FSDP, fsdp2=True, activation_checkpointing=True))
    taken = engine(DistributedType.FSDP, fsdp2=True, activation_checkpointing=False)
    check_engine(taken)
    policy = taken.state.fsdp_plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert not taken.state.fsdp_plugin.cpu_ram_efficient_loading


def test_one_process_has_nobody_to_share_with(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match="--shard shares .* a single one: start them with"):
        sharding_plugin()


def test_an_empty_copy_takes_all_weights_and_no_memory(clip):
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", depth=1, attn_kernel="performer", num_labels=3)
    network = LVTFFForVideoClassification(config).eval()
    network.model.temp_embed.requires_grad_(False)
    copied = empty_copy(network)
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert not copied.model.temp_embed.requires_grad and copied.model.norm.weight.requires_grad
    copied.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(*(net(pixel_values_videos=clip).logits for net in (copied, network)))


def test_whole_tensors_stay_what_they_are():
    tensors = dict(a=torch.arange(6.0).reshape(2, 3).T, b=torch.tensor(3))
    whole = full_tensors(tensors, keep=True)
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors.items())
    assert all(tensor.is_contiguous() for tensor in whole.values())  # safetensors refuses others
    assert full_tensors(tensors, keep=False) == {}
    assert like(tensors["a"], torch.zeros(3, 2)) is tensors["a"]
