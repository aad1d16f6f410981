"""`pretrained=True`: every source of the table over HTTP, from the cache, and from a file."""

import logging
import os
import subprocess
import sys

import huggingface_hub.constants
import pytest
import timm
import torch
from image_models import timm_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import lvt_ff
from lvt_ff import LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.timm_models import SOURCES

TAGS = [f"{variant}.{tag}" for variant, tags in SOURCES.items() for tag in tags]
IMAGE_MODELS = sorted({timm.get_pretrained_cfg(name).hf_hub_id for name in TAGS})
TINY = "lvt_ff_tiny.augreg_in21k"
TINY_SOURCE = "timm/vit_tiny_patch16_224.augreg_in21k"


def publish(hub, repository, folder):
    """A random image model under the name of a public one, saved as timm publishes it."""
    name = repository.removeprefix("timm/")
    source = timm_model(name)
    timm.models.save_for_hf(source, folder, safe_serialization=True)
    hub.publish(repository, folder)
    return source


def check_weights(model, source):
    """Every parameter is the source's, or is reported as something else."""
    state, report = source.state_dict(), model.pretrained_report
    weights = model.state_dict()
    extra = state["pos_embed"].shape[1] == 197  # the class token has a position
    assert set(report.source) == set(state)
    assert set(report.target) == set(weights)
    for name, kind in report.target.items():
        if kind == "copied":
            values = state[name][:, 1:] if name == "pos_embed" and extra else state[name]
            assert torch.equal(weights[name], values), name
        elif kind == "folded":
            scale = state[
                name.replace("attn.proj", "ls1").replace("mlp.fc2", "ls2").rsplit(".", 1)[0]
                + ".gamma"
            ]
            expected = scale.reshape(-1, *[1] * (weights[name].ndim - 1)) * state[name]
            torch.testing.assert_close(weights[name], expected)
        elif kind == "resampled":
            assert name == "pos_embed"
        else:
            assert name in report.fresh and name not in state
    assert weights["temp_embed"].abs().max() == 0


@pytest.mark.parametrize("repository", IMAGE_MODELS)
def test_every_tag_loads_over_http_then_offline_then_from_a_file(
    repository, hub, tmp_path, monkeypatch
):
    source = publish(hub, repository, tmp_path / "published")
    names = [name for name in TAGS if timm.get_pretrained_cfg(name).hf_hub_id == repository]
    for name in names:
        size = dict(num_classes=174, num_frames=2)
        model = timm.create_model(name, pretrained=True, **size)
        check_weights(model, source)
        config = timm.data.resolve_model_data_config(model)
        original = timm.get_pretrained_cfg(repository.removeprefix("timm/"))
        for part in ("mean", "std", "interpolation"):
            assert config[part] == getattr(original, part)
        assert model.pretrained_cfg["license"] == original.license == "apache-2.0"
        assert ("GET", f"/{repository}/resolve/main/model.safetensors") in hub.requests
        hub.requests.clear()
        with monkeypatch.context() as offline:
            offline.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
            check_weights(timm.create_model(name, pretrained=True, **size), source)
        overlay = dict(file=str(tmp_path / "published/model.safetensors"))
        by_file = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **size)
        check_weights(by_file, source)
        assert hub.requests == []
        hub.empty_cache()


def test_offline_environment_in_a_new_process(hub, tmp_path):
    publish(hub, TINY_SOURCE, tmp_path / "published")
    code = f"import timm, lvt_ff; timm.create_model({TINY!r}, pretrained=True, num_frames=2)"
    online = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert online.returncode == 0, online.stderr
    assert "Source: 152 tensors: 149 copied, 3 dropped (1 class token; 2 " in online.stderr
    hub.repositories.clear()
    environment = os.environ | dict(HF_HUB_OFFLINE="1")
    offline = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert offline.returncode == 0, offline.stderr


def test_default_tag_and_listing():
    assert set(timm.list_pretrained("*lvt_ff*")) == set(TAGS)
    for variant, tags in SOURCES.items():
        assert timm.get_pretrained_cfg(variant).tag == next(iter(tags))


def test_classes_channels_and_features_of_a_pretrained_model(hub, tmp_path, caplog):
    source = publish(hub, TINY_SOURCE, tmp_path / "published")
    assert timm.create_model(TINY, pretrained=True).num_classes == 1000
    assert timm.create_model(TINY, pretrained=True, num_classes=0).num_classes == 0
    caplog.clear()
    gray = timm.create_model(TINY, pretrained=True, in_chans=1)
    assert "Loading unchanged" not in caplog.text  # a warning of timm's that would be untrue
    expected = source.patch_embed.proj.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(gray.patch_embed.proj.weight, expected)
    features = timm.create_model(TINY, pretrained=True, features_only=True)
    assert torch.equal(features.model.blocks[0].norm1.weight, source.blocks[0].norm1.weight)


def test_report_is_logged_in_three_lines(hub, tmp_path, caplog):
    publish(hub, TINY_SOURCE, tmp_path / "published")
    with caplog.at_level(logging.WARNING):
        model = timm.create_model(TINY, pretrained=True)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("lvt_ff")]
    assert lines == model.pretrained_report.lines() and len(lines) == 3
    assert timm.create_model(TINY).pretrained_report is None


def test_transformers_twin_has_the_same_weights_and_statistics(hub, tmp_path):
    name = "lvt_ff_small.fb_in22k_ft_in1k"
    source = publish(hub, "timm/deit3_small_patch16_224.fb_in22k_ft_in1k", tmp_path / "published")
    twin = LVTFFForVideoClassification.from_timm(name, num_labels=174, num_frames=4)
    model = timm.create_model(name, pretrained=True, num_classes=174, num_frames=4)
    check_weights(twin.model, source)
    assert twin.pretrained_report.target == model.pretrained_report.target
    assert not twin.training and twin.config.num_labels == 174
    mine, theirs = twin.model.state_dict(), model.state_dict()
    loaded = [name for name, kind in twin.pretrained_report.target.items() if kind != "fresh"]
    assert all(torch.equal(mine[name], theirs[name]) for name in loaded)
    processor = LVTFFVideoProcessor.from_timm(name, num_frames=4)
    assert tuple(processor.image_mean) == model.pretrained_cfg["mean"] != (0.5, 0.5, 0.5)
    assert tuple(processor.image_std) == model.pretrained_cfg["std"]
    assert processor.resample == 3 and processor.num_frames == 4

    # What belongs to the weights stays with them, through either library's folder.
    twin.save_pretrained(tmp_path / "a")
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True)
    timm.models.save_for_hf(by_timm, tmp_path / "b", safe_serialization=True)
    for folder in ("a", "b"):
        config = lvt_ff.LVTFFConfig.from_pretrained(tmp_path / folder)
        assert config.pretrained_cfg["tag"] == "fb_in22k_ft_in1k"
        assert config.pretrained_cfg["license"] == "apache-2.0"
        again = LVTFFVideoProcessor.from_config(config)
        assert tuple(again.image_mean) == model.pretrained_cfg["mean"]
    assert by_timm.pretrained_cfg["mean"] == list(model.pretrained_cfg["mean"])


def test_twin_keeps_what_belongs_to_its_weights(hub, tmp_path):
    publish(hub, TINY_SOURCE, tmp_path / "published")
    stem = dict(patch_stride=14, patch_padding=8, num_frames=2)
    untagged = LVTFFForVideoClassification.from_timm("lvt_ff_tiny", **stem)
    untagged.save_pretrained(tmp_path / "a")
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True)
    assert by_timm.pretrained_cfg["mean"] == [0.5, 0.5, 0.5]
    assert by_timm.pretrained_cfg["architecture"] == "lvt_ff_tiny"
    assert untagged.config.pretrained_cfg["tag"] == "augreg_in21k"
    processor = LVTFFVideoProcessor.from_timm("lvt_ff_tiny", **stem)
    assert tuple(processor.image_mean) == (0.5, 0.5, 0.5)

    overlay = dict(mean=(0.1, 0.2, 0.3), license="mit")
    changed = LVTFFForVideoClassification.from_timm(TINY, pretrained_cfg_overlay=overlay)
    assert changed.config.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert changed.config.pretrained_cfg["license"] == "mit"
    half = LVTFFForVideoClassification.from_timm(TINY, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 == half.config.dtype


@pytest.mark.parametrize("name", ["token", "num_frame", "revision"])
def test_arguments_that_are_no_fields_are_refused_and_not_written(name):
    with pytest.raises(ValueError, match=f"Unknown configuration field '{name}'"):
        LVTFFForVideoClassification.from_timm(TINY, **{name: "secret"})


def test_temporal_init_reaches_the_twin(hub, tmp_path):
    publish(hub, TINY_SOURCE, tmp_path / "published")
    twin = LVTFFForVideoClassification.from_timm(TINY, temporal_init="spatial", num_frames=2)
    block = twin.model.blocks[3]
    assert torch.equal(block.temporal_attn.qkv.weight, block.attn.qkv.weight)


def test_unknown_tags_are_refused():
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("lvt_ff_s.openai", pretrained=True)
    with pytest.raises(ValueError, match="no weights 'openai'.*fb_in22k_ft_in1k.*sw_in12k"):
        LVTFFForVideoClassification.from_timm("lvt_ff_s.openai")


def test_truncated_and_wrong_files_are_refused_before_anything_changes(hub, tmp_path):
    publish(hub, TINY_SOURCE, tmp_path / "published")
    file = tmp_path / "published/model.safetensors"
    weights = load_file(file)  # mapped: the file itself must stay as it is
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/model.safetensors").write_bytes(file.read_bytes()[:-1000])
    hub.publish(TINY_SOURCE, tmp_path / "damaged")
    model = timm.create_model(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SafetensorError):
        lvt_ff.timm_models.load_image_weights(model, TINY)
    weights["blocks.3.mlp.fc1.weight"] = weights["blocks.3.mlp.fc1.weight"][:-1].clone()
    save_file(weights, tmp_path / "wrong.safetensors")
    overlay = dict(file=str(tmp_path / "wrong.safetensors"))
    with pytest.raises(ValueError, match=r"found \(767, 192\), needed \(768, 192\)"):
        lvt_ff.timm_models.load_image_weights(model, TINY, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        lvt_ff.timm_models.load_image_weights(timm.create_model("test_lvt_ff"), "test_lvt_ff")
