"""Files of other models as they come: in shards, with names twice, damaged, of other numbers."""

import json

import pytest
import torch
from image_models import fill, small_vit
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import lvt_ff
from lvt_ff.cli import main
from lvt_ff.weights import lvt_ff_to_authors

SMALL = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)
KEEP_HEAD = ("--keep_head", "--model_args", '{"head_hidden": 0}')


@pytest.fixture
def vit(tmp_path):
    model = fill(ViTForImageClassification(ViTConfig(**SMALL, image_size=64, num_labels=3)))
    model.config.id2label = {0: "crane", 1: "dog", 2: "crane"}
    model.save_pretrained(tmp_path / "vit")
    ViTImageProcessor().save_pretrained(tmp_path / "vit")
    return model


def convert(*args):
    return main(["convert", *map(str, args)])


def refused(capsys, *words):
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lvt-ff convert: error: "), error
    assert all(word in error for word in words), error


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_shards_convert_as_one_file_does(vit, tmp_path):
    vit.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    for name in ("vit", "shards"):
        assert convert(tmp_path / name, tmp_path / f"from_{name}") == 0
    whole, shards = (
        load_file(tmp_path / f"from_{name}/model.safetensors") for name in ("vit", "shards")
    )
    assert whole.keys() == shards.keys()
    assert all(torch.equal(whole[name], shards[name]) for name in whole)


def test_an_index_that_leads_elsewhere_is_refused(vit, tmp_path, capsys):
    vit.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    index = tmp_path / "shards/model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map=places | {"vit.layernorm.bias": "../vit/model.safetensors"})
    assert convert(tmp_path / "shards", tmp_path / "new") == 2
    refused(capsys, str(index), "must name safetensors files beside it")


def test_names_that_come_twice_are_told_apart(vit, tmp_path):
    assert convert(tmp_path / "vit", tmp_path / "new", *KEEP_HEAD) == 0
    config = lvt_ff.LVTFFConfig.from_pretrained(tmp_path / "new")
    assert config.class_names == ("crane", "dog", "crane (2)")


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(id2label={"0": "a", "1": "b"}), ("expected names of 3 classes, got 2",)),
        (dict(id2label={"0": None, "1": "b", "2": "c"}), ("printable names, got None",)),
        (dict(id2label=7), ("an object from numbers to names, got 7",)),
        (dict(num_attention_heads="4"), ("num_attention_heads must be int, got '4'",)),
        (dict(hidden_act=["gelu"]), ("activation ['gelu']",)),
    ],
)
def test_configurations_of_sources_are_checked(vit, tmp_path, capsys, changes, words):
    edit(tmp_path / "vit/config.json", **changes)
    assert convert(tmp_path / "vit", tmp_path / "new", *KEEP_HEAD) == 2
    refused(capsys, *words)
    if "id2label" in changes:  # which matters for the classifier alone
        assert convert(tmp_path / "vit", tmp_path / "new") == 0


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(image_mean="x"), "mean must be a list of numbers"),
        (dict(image_std=[0, 0, 0]), "std must be a list of numbers between"),
        (dict(image_mean=[1e30] * 3), "mean must be a list of numbers between"),
    ],
)
def test_statistics_of_sources_are_checked(vit, tmp_path, capsys, changes, word):
    edit(tmp_path / "vit/preprocessor_config.json", **changes)
    assert convert(tmp_path / "vit", tmp_path / "new") == 2
    refused(capsys, str(tmp_path / "vit/preprocessor_config.json"), word)


@pytest.mark.parametrize(
    "args",
    [dict(pretrained=True), dict(checkpoint_path="/etc/passwd"), dict(depth=10**6), dict(a=1)],
)
def test_arguments_of_timm_that_lead_elsewhere_are_refused(tmp_path, capsys, args):
    save_file(small_vit().state_dict(), tmp_path / "model.safetensors")
    config = dict(architecture="vit_tiny_patch16_224", pretrained_cfg={}, model_args=args)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert convert(tmp_path, tmp_path / "new") == 2
    refused(capsys, "vit_tiny_patch16_224", next(iter(args)))


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("blocks.1.mlp.fc1.weight", float("nan"), ("NaN or infinity in 1 of",)),
        ("norm.bias", float("inf"), ("NaN or infinity in 1 of 64 places",)),
        ("blocks.1.mlp.fc1.weight", torch.int64, ("another kind of numbers", "torch.int64")),
        ("blocks.1.attn.qkv.weight", torch.bool, ("another kind of numbers", "torch.bool")),
    ],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, capsys, name, value, words):
    state = {key: tensor.clone() for key, tensor in small_vit().state_dict().items()}
    if isinstance(value, float):
        state[name].view(-1)[3] = value
    else:
        state[name] = state[name].to(value)
    save_file(state, tmp_path / "vit.safetensors")
    assert convert(tmp_path / "vit.safetensors", tmp_path / "new") == 2
    refused(capsys, str(tmp_path / "vit.safetensors"), name, *words)


def test_the_authors_layout_of_wrong_numbers_and_damaged_metadata(tmp_path, capsys):
    changes = dict(pos_embed=False, patch_norm=True, depth=1)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", num_labels=174, **changes)
    theirs = lvt_ff.LVTFFForVideoClassification(config)
    theirs.save_pretrained(tmp_path / "ours")
    file = tmp_path / "authors.safetensors"
    assert convert(tmp_path / "ours", file, "--to", "authors") == 0
    with safe_open(file, "pt") as handle:
        stored = json.loads(handle.metadata()["lvt_ff_config"])
    weights = lvt_ff_to_authors(theirs.model.state_dict(), config.core_kwargs())
    weights = {name: tensor.clone() for name, tensor in weights.items()}

    def refuse(metadata, *words, **tensors):
        save_file(weights | tensors, file, metadata={"lvt_ff_config": metadata})
        assert convert(file, tmp_path / "new") == 2
        refused(capsys, str(file), *words)

    refuse("{", "its metadata are damaged")
    refuse("[]", "its metadata are damaged")
    refuse(json.dumps(stored | dict(head_hidden="x")), "head_hidden must be an integer")
    refuse(json.dumps(stored | dict(core_kwargs=1)), "Unknown configuration field 'core_kwargs'")
    refuse(json.dumps(stored | dict(class_names=[None] * 174)), "printable names, got None")
    name = "base_model.blocks.0.attn.proj.weight"
    whole = json.dumps(stored)
    refuse(whole, "another kind of numbers", **{name: torch.ones(64, 64, dtype=torch.int64)})
    refuse(whole, "blocks.0.attn.proj.weight", **{name: torch.ones(64, 63)})
    refuse(whole, "without a place", **{"base_model.blocks.0.attn.more": torch.ones(1)})
    save_file(weights, file, metadata={"lvt_ff_config": whole})
    assert convert(file, tmp_path / "new") == 0
