"""Whole runs with adapters, on shards, with chosen batch sizes, and with processes that die."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from conftest import launch, torchrun, write_two_classes
from runs import FAST, SCRIPT, rows, weights
from safetensors.torch import load_file

from lvt_ff import LVTFFForVideoClassification
from lvt_ff.training import run_setup
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.errors import UsageError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_two_classes(root, num_videos=8, num_frames=4)
    return root


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    """A model folder to adapt."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    finetune(train_data=videos, output_dir=folder, **dict(FAST, epochs=1))
    return folder


# Adapters


def test_a_run_with_adapters_leaves_a_plain_folder_and_the_adapter(videos, trained, tmp_path):
    options = dict(FAST, model=str(trained), model_args=None, train_data=videos, lora_rank=2)
    options |= dict(lora_alpha=4.0, ema_decay=0.5, lr=0.01)
    finetune(**options, output_dir=tmp_path / "run", lora_keep_adapter=True)
    before, now = weights(trained), weights(tmp_path / "run")
    assert before.keys() == now.keys()
    changed = {name for name in now if not torch.equal(before[name], now[name])}
    assert {name for name in now if "qkv.weight" in name} <= changed
    assert all("qkv" in n or "proj" in n or "fc" in n or n.startswith("head") for n in changed)
    base = LVTFFForVideoClassification.from_pretrained(trained)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "run/adapter").eval()
    merged = LVTFFForVideoClassification.from_pretrained(tmp_path / "run").eval()
    clip = torch.randn(2, 2, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = (net(pixel_values_videos=clip).logits for net in (merged, adapted))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def adapted(videos, trained, tmp_path_factory):
    """Options of a run with adapters, and the weights that it ends with."""
    options = dict(FAST, model=str(trained), model_args=None, train_data=videos, lora_rank=2)
    options |= dict(epochs=1, lr=0.01)
    folder = tmp_path_factory.mktemp("adapted") / "run"
    finetune(**options, output_dir=folder)
    return options, weights(folder)


@pytest.mark.parametrize(
    "change",
    [
        dict(lora_rank=3),
        dict(lora_alpha=8.0),
        dict(lora_dropout=0.5),
        dict(lora_targets="qkv"),
    ],
    ids=str,
)
def test_every_option_of_adapters_changes_the_result(adapted, tmp_path, change):
    options, before = adapted
    finetune(**options | change, output_dir=tmp_path / "run")
    now = weights(tmp_path / "run")
    assert any(not torch.equal(before[name], now[name]) for name in before)


def test_a_resumed_run_with_adapters_ends_with_the_same_weights(videos, trained, tmp_path):
    options = dict(FAST, model=str(trained), model_args=None, train_data=videos, epochs=1)
    options |= dict(output_dir=tmp_path / "run", lora_rank=2, lora_dropout=0.1, save_steps=1)
    finetune(**options)
    plain = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000004")
    (tmp_path / "run/model.safetensors").unlink()
    finetune(**options, resume=True)
    assert all(torch.equal(weights(tmp_path / "run")[name], plain[name]) for name in plain)
    assert len(rows(tmp_path / "run", "loss")) == 4
    with pytest.raises(UsageError, match="lora_rank was 2, is 3"):
        finetune(**dict(options, lora_rank=3), resume=True)


@pytest.mark.parametrize(
    "changes, told",
    [
        (dict(lora_rank=2), "--lora_rank adapts trained weights, and this run starts from random"),
        (dict(lora_alpha=2.0), "--lora_alpha goes with adapters: give --lora_rank too"),
        (dict(lora_keep_adapter=True), "--lora_keep_adapter goes with adapters"),
        (dict(lora_targets="qvk", lora_rank=2, trained=True), "linear layers .* got 'qvk'"),
        (dict(total_batch_size=5), "--total_batch_size 5 is not a multiple of --batch_size 2"),
        (dict(total_batch_size=4, accumulation=2), "--accumulation follows from --total_batch"),
        (dict(find_batch_size=True), "tries what the memory of a GPU holds: give --batch_size"),
        (dict(shard=True), "--shard shares a model out .* a single one"),
        (dict(shard=True, compile=True), "--shard and --compile do not go together"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(videos, trained, tmp_path, changes, told, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run")
    if changes.pop("trained", False):
        options |= dict(model=str(trained), model_args=None)
    with pytest.raises(UsageError, match=told):
        finetune(**options, **changes)
    assert not (tmp_path / "run").exists()


# Batch sizes


def test_total_batch_size_picks_the_accumulation(videos, tmp_path, capsys):
    options = dict(FAST, train_data=videos, epochs=1)
    finetune(**options, output_dir=tmp_path / "a", accumulation=2)
    finetune(**options, output_dir=tmp_path / "b", total_batch_size=4)
    assert "a step: 2 forward passes of 2 clips on 1 process" in capsys.readouterr().out
    assert rows(tmp_path / "a", "loss", "order") == rows(tmp_path / "b", "loss", "order")


def test_a_found_batch_size_is_kept_by_a_resumed_run(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(run_setup, "check_memory", lambda device: None)
    sizes = iter([1, 2])
    monkeypatch.setattr(run_setup, "find_batch_size", lambda *args, **kwargs: next(sizes))
    options = dict(FAST, train_data=videos, find_batch_size=True, accumulation=2)
    finetune(**dict(options, epochs=1), output_dir=tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["settings"]["batch_size"] == 1 and results["derived"]["global_batch"] == 4
    finetune(**dict(options, epochs=2), output_dir=tmp_path / "run", resume=True)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["settings"]["batch_size"] == 1 and next(sizes) == 2


# Processes


@pytest.fixture(scope="module")
def of_two(videos, tmp_path_factory):
    """Options of a run on two processes, and its folder."""
    options = dict(FAST, train_data=str(videos), eval_data=str(videos), epochs=2, batch_size=1)
    options |= dict(accumulation=2, ema_decay=0.5, save_steps=1)
    folder = tmp_path_factory.mktemp("two") / "run"
    launch(2, "finetune", dict(options, output_dir=str(folder)))
    return options, folder


def close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=0, msg=name)


BOTH = """
import json, sys
from lvt_ff.training.finetune import finetune
for options in json.loads(sys.argv[1]):
    finetune(**options)
"""


def test_shards_give_the_weights_and_the_folder_of_data_parallelism(of_two, tmp_path):
    """In a run of their own, with blocks computed again, and going on from the other's."""
    options, folder = of_two
    new, resumed = tmp_path / "new", tmp_path / "resumed"
    shutil.copytree(folder, resumed)
    shutil.rmtree(resumed / "checkpoints/step_00000004")
    sharded = dict(options, output_dir=str(new), shard=True, grad_checkpointing=True)
    (tmp_path / "both.py").write_text(BOTH)
    both = [sharded, dict(sharded, output_dir=str(resumed), resume=True)]
    torchrun(2, str(tmp_path / "both.py"), json.dumps(both))
    names = {path.name for path in folder.iterdir()}
    for run in (new, resumed):
        close(weights(run), weights(folder))
        assert {path.name for path in run.iterdir()} == names
        for name in ("config.json", "video_preprocessor_config.json", "lvt_ff_import.py"):
            assert (run / name).read_bytes() == (folder / name).read_bytes()
        keys = ("loss", "grad_norm", "lr", "order")
        np.testing.assert_allclose(rows(run, *keys), rows(folder, *keys), rtol=1e-4)
        for name in ("model", "average", "optimizer"):  # which go on without shards
            file = f"checkpoints/step_00000004/{name}.safetensors"
            close(load_file(run / file), load_file(folder / file))


# The second process dies, the first time; it comes back late, after the first looked for it.
SECOND_ONCE = """
import time
first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
if os.environ["RANK"] == "1" and first_time:
    {kill}
elif os.environ["RANK"] == "1":
    print("came back")
    time.sleep(2)
"""


def test_a_killed_process_comes_back_to_the_same_weights(of_two, tmp_path):
    options, folder = of_two
    options = dict(options, output_dir=str(tmp_path / "run"), resume=True)
    script = tmp_path / "killed.py"
    kill = "loop.TrainingLoop._step = counted"
    script.write_text(SCRIPT.replace(kill, SECOND_ONCE.format(kill=kill)))
    told = torchrun(2, "--max-restarts", "1", str(script), json.dumps([options, 3, 9]))
    assert "came back" in told.stdout
    ours, theirs = weights(tmp_path / "run"), weights(folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(tmp_path / "run", "order", "lr", "loss") == rows(folder, "order", "lr", "loss")
