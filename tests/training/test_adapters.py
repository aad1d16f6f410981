"""Adapters in a network: which layers have them, what trains, merging, and PEFT's folders."""

import json
import sys

import peft
import pytest
import torch
from safetensors.torch import load_file

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.training.lora import (
    adapter_state,
    add_lora,
    check_adapter,
    merge_lora,
    save_adapter,
)
from lvt_ff.training.optim import freeze_blocks, make_optimizer
from lvt_ff.utils.errors import UsageError
from lvt_ff.weights import ConversionReport

LAYERS = ("attn.qkv", "attn.proj", "temporal_attn.qkv", "temporal_attn.proj", "mlp.fc1", "mlp.fc2")


def build(**options):
    torch.manual_seed(0)
    options = dict(depth=1, num_frames=2, img_size=32, head_hidden=16, num_labels=3) | options
    return LVTFFForVideoClassification(LVTFFConfig.from_variant("test_lvt_ff", **options))


@pytest.fixture
def clip():
    return torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def train(network, clip, steps=2):
    network.train()
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        network(pixel_values_videos=clip, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


def scores(network, clip):
    with torch.no_grad():
        return network.eval()(pixel_values_videos=clip).logits


def trained(network):
    return {name for name, p in network.named_parameters() if p.requires_grad}


def test_add_lora_adapts_the_large_layers_and_trains_the_head(clip):
    network, plain = build(), build()
    layers = add_lora(network, 2)
    assert set(layers) == {f"model.blocks.0.{name}" for name in LAYERS}
    assert torch.equal(scores(network, clip), scores(plain, clip))  # nothing is added yet
    others = {name for name in trained(network) if "lora_" not in name}
    assert others == {name for name, _ in plain.named_parameters() if ".head." in name}
    train(network, clip)
    state, before = network.state_dict(), plain.state_dict()
    for name, tensor in before.items():
        place, _, leaf = name.rpartition(".")
        now = state[f"{place}.base_layer.{leaf}" if place in layers else name]
        assert torch.equal(now, tensor) != name.startswith("model.head."), name


def test_add_lora_takes_targets_by_the_end_of_their_names():
    layers = add_lora(build(depth=2), 2, targets=["proj"])
    names = {name.removeprefix("model.blocks.") for name in layers}
    assert names == {f"{i}.{part}.proj" for i in (0, 1) for part in ("attn", "temporal_attn")}
    assert add_lora(build(), 2, targets=["attn.qkv"]) == ["model.blocks.0.attn.qkv"]
    (gate, other) = add_lora(build(), 2, targets=["gate"])
    assert gate.endswith("fixation.gate") and other.endswith("fixation.gate")


@pytest.mark.parametrize("target", ["qvk", "tn.qkv", "patch_embed.proj", "head.fc"])
def test_add_lora_refuses_an_unknown_target_and_names_the_known(target):
    with pytest.raises(ValueError, match=f"{target}.*there are .*temporal_attn.qkv.*mlp.fc1"):
        add_lora(build(), 2, targets=["qkv", target])


def test_rank_alpha_and_dropout_change_what_adapters_are_and_give(clip):
    results = []
    for options in ({}, dict(rank=3), dict(alpha=8.0), dict(dropout=0.5)):
        network = build(drop_rate=0.0)
        add_lora(network, **(dict(rank=2) | options))
        train(network, clip)
        results.append(scores(network, clip))
    rank = network.state_dict()["model.blocks.0.attn.qkv.lora_A.default.weight"].shape[0]
    assert rank == 2
    assert all(not torch.equal(results[0], other) for other in results[1:])


def test_frozen_blocks_have_no_adapters():
    network = build(depth=2)
    freeze_blocks(network.model, 1)
    assert all(name.startswith("model.blocks.1.") for name in add_lora(network, 2))
    assert all(name.startswith(("model.blocks.1.", "model.head.")) for name in trained(network))
    network = build(depth=2)
    freeze_blocks(network.model, 2)
    with pytest.raises(ValueError, match="No layer is left to adapt"):
        add_lora(network, 2)


def test_what_an_image_model_left_new_trains_whole():
    network, report = build(depth=2), ConversionReport()
    for name in ("temp_embed", "blocks.0.temporal_attn.qkv.weight", "blocks.0.mlp.dwconv.weight"):
        report.leave(name, "new")
    network.model.pretrained_report = report
    layers = add_lora(network, 2)
    assert "model.blocks.0.temporal_attn.qkv" not in layers
    assert "model.blocks.1.temporal_attn.qkv" in layers
    assert {f"model.{name}" for name in report.fresh} <= trained(network)
    with pytest.raises(ValueError, match=r"parts that are new \(temp_embed, .*merged model alone"):
        check_adapter(network, network.config)


def test_merge_lora_keeps_scores_and_gives_back_the_names(clip):
    network, names = build(), build().state_dict().keys()
    add_lora(network, 2)
    before = scores(train(network, clip), clip)
    merge_lora(network)
    assert network.state_dict().keys() == names
    assert not hasattr(network, "peft_config")
    torch.testing.assert_close(scores(network, clip), before, atol=1e-5, rtol=1e-5)
    assert (before - scores(build(), clip)).abs().max() > 0.01


def test_merged_folder_is_a_plain_one(clip, tmp_path):
    network = build()
    add_lora(network, 2)
    before = scores(train(network, clip), clip)
    merge_lora(network)
    network.save_pretrained(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    loaded = LVTFFForVideoClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(scores(loaded, clip), before, atol=1e-5, rtol=1e-5)


def test_an_adapter_of_a_changed_model_cannot_be_kept():
    network = build(num_frames=4, drop_path_rate=0.1)
    add_lora(network, 2)
    with pytest.raises(ValueError, match="num_frames is another here: keep the merged model"):
        check_adapter(network, build().config)
    check_adapter(network, build(num_frames=4, num_labels=5).config)


def test_saved_adapter_loads_with_peft_on_the_base(clip, tmp_path):
    build().save_pretrained(tmp_path / "base")
    network = build(num_labels=4)
    base = build().state_dict()
    fits = {name: t for name, t in base.items() if t.shape == network.state_dict()[name].shape}
    network.load_state_dict(fits, strict=False)
    add_lora(network, 2, alpha=6.0)
    before = scores(train(network, clip), clip)
    save_adapter(network, tmp_path / "adapter", str(tmp_path / "base"))
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    assert set(load_file(tmp_path / "adapter/adapter_model.safetensors")) == set(
        adapter_state(network)
    )
    start = LVTFFForVideoClassification.from_pretrained(
        tmp_path / "base", num_labels=4, ignore_mismatched_sizes=True
    )
    loaded = peft.PeftModel.from_pretrained(start, tmp_path / "adapter")
    torch.testing.assert_close(scores(loaded, clip), before, atol=1e-6, rtol=1e-5)


def test_parameter_groups_of_timm_take_adapters():
    network = build(depth=2)
    add_lora(network, 2)
    optimizer = make_optimizer(
        network.model, "adamw", lr=1.0, weight_decay=0.1, momentum=0.9, layer_decay=0.5
    )
    scale, decay = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[parameter], decay[parameter] = group["lr_scale"], group["weight_decay"]
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert set(named.values()) == set(scale)
    rates = [
        scale[named[f"model.blocks.{i}.mlp.fc1.lora_{part}.default.weight"]]
        for part in "AB"
        for i in (0, 1)
    ]
    assert rates[0] == rates[2] == rates[1] / 2 == rates[3] / 2
    assert scale[named["model.head.fc.weight"]] == 1.0
    assert decay[named["model.blocks.0.attn.qkv.lora_A.default.weight"]] == 0.1
    assert decay[named["model.head.fc.bias"]] == 0.0


def test_gradient_checkpointing_gives_adapters_the_same_gradients(clip):
    gradients = []
    for recompute in (False, True):
        network = build(drop_path_rate=0.3)
        add_lora(network, 2, dropout=0.3)
        train(network, clip, steps=1)  # else what adapters multiply by zero has no gradient
        network.model.set_grad_checkpointing(recompute)
        network.train()
        torch.manual_seed(3)
        network(pixel_values_videos=clip, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_without_peft_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match="LoRA needs PEFT: pip install"):
        add_lora(build(), 2)
