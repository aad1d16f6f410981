"""Launches and engines that are refused, and why."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed import TCPStore
from torch.distributed.rendezvous import rendezvous

from lvt_ff.training.engine import check_engine, check_launch, sharding_plugin, start_handlers
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


def engine(kind, fsdp2=False, plugin=None):
    state = SimpleNamespace(fsdp_plugin=plugin)
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


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(activation_checkpointing=True), "random state of dropout.*--grad_checkpointing"),
        (dict(cpu_offload=True), "fsdp_offload_params is not supported"),
    ],
)
def test_options_of_the_plugin_that_do_not_fit_are_refused(options, told):
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **options)
    with pytest.raises(UsageError, match=told):
        check_engine(engine(DistributedType.FSDP, True, plugin))


def test_the_plugin_sums_gradients_in_float32_and_loads_nothing():
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.cpu_ram_efficient_loading = True  # what `accelerate launch` asks for
    taken = engine(DistributedType.FSDP, True, plugin)
    check_engine(taken)
    policy = taken.state.fsdp_plugin.mixed_precision_policy
    assert policy.output_dtype is None  # the stem's and the blocks' too, where layers go on
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert not taken.state.fsdp_plugin.cpu_ram_efficient_loading


@pytest.mark.parametrize("count, machines, handled", [("0", "1", 0), ("1", "1", 1), ("1", "2", 0)])
def test_processes_started_anew_meet_in_a_store_of_their_own(count, machines, handled, monkeypatch):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(store.port), RANK="1", WORLD_SIZE="2")
    env |= dict(TORCHELASTIC_RESTART_COUNT=count, GROUP_WORLD_SIZE=machines)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    handlers = start_handlers()
    assert len(handlers) == handled
    if handled:
        start_handlers()  # for a second Accelerator
        address = handlers[0].to_kwargs()["init_method"]
        found, rank, world = next(rendezvous(address, 1, 2))
        store.set("address", "of an ended process")
        assert (rank, world) == (1, 2) and not found.check(["address"])
        found.set("address", "new")
        assert store.get("address") == b"of an ended process"


def test_one_process_has_nobody_to_share_with(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match="--shard shares .* a single one: start them with"):
        sharding_plugin()
