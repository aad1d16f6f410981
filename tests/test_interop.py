"""One folder, every loader, equal logits."""

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

import lvt_ff


def logits_of(model, clip):
    with torch.no_grad():
        output = model.eval()(clip)
    return output if isinstance(output, torch.Tensor) else output.logits


def timm_folder(model, folder):
    timm.models.save_for_hf(model, folder, safe_serialization=True)


def test_folder_of_transformers_loads_in_timm(hf_model, clip, tmp_path):
    hf_model.save_pretrained(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert model.num_classes == 3
    torch.testing.assert_close(logits_of(model, clip), logits_of(hf_model, clip))


def test_weights_on_disk_have_timm_names(hf_model, tmp_path):
    from safetensors import safe_open

    hf_model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == set(timm.create_model("test_lvt_ff", num_classes=3).state_dict())
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("auto", [False, True])
def test_folder_of_timm_loads_in_transformers(auto, clip, tmp_path):
    torch.manual_seed(1)
    model = timm.create_model("test_lvt_ff", num_classes=7, attn_kernel="softmax")
    timm_folder(model, tmp_path)
    cls = AutoModelForVideoClassification if auto else lvt_ff.LVTFFForVideoClassification
    loaded = cls.from_pretrained(tmp_path)
    assert isinstance(loaded, lvt_ff.LVTFFForVideoClassification)
    assert loaded.config.num_labels == 7
    assert loaded.config.attn_kernel == "softmax"
    torch.testing.assert_close(logits_of(loaded, clip), logits_of(model, clip))


def test_other_timm_folders_stay_with_transformers(tmp_path):
    model = timm.create_model("test_convnext", pretrained=False, num_classes=4)
    timm_folder(model, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config).__name__ == "TimmWrapperConfig"


def test_head_changed_in_timm_then_transformers_then_timm(clip, tmp_path):
    torch.manual_seed(2)
    model = timm.create_model("test_lvt_ff", num_classes=7)
    model.reset_classifier(2)
    timm_folder(model, tmp_path / "a")
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "a")
    assert loaded.config.num_labels == 2
    torch.testing.assert_close(logits_of(loaded, clip), logits_of(model, clip))
    wider = AutoModelForVideoClassification.from_pretrained(
        tmp_path / "a", num_labels=5, ignore_mismatched_sizes=True
    )
    wider.save_pretrained(tmp_path / "b")
    back = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True)
    assert back.num_classes == 5
    torch.testing.assert_close(logits_of(back, clip), logits_of(wider, clip))
    other = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True, num_classes=9)
    assert logits_of(other, clip).shape == (2, 9)
    for name, tensor in other.state_dict().items():
        if not name.startswith("head.fc"):
            torch.testing.assert_close(tensor, back.state_dict()[name])


def test_new_heads_are_small_and_zero_biased(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path)
    loaded = lvt_ff.LVTFFForVideoClassification.from_pretrained(
        tmp_path, num_labels=50, ignore_mismatched_sizes=True
    )
    weight, bias = loaded.model.head.fc.weight, loaded.model.head.fc.bias
    assert weight.shape == (50, 768)
    assert 0.005 < weight.std() < 0.1
    assert bias.abs().max() == 0


def test_base_model_from_classifier_and_back(hf_model, clip, tmp_path):
    hf_model.save_pretrained(tmp_path / "a")
    base = AutoModel.from_pretrained(tmp_path / "a").eval()
    assert isinstance(base, lvt_ff.LVTFFModel)
    with torch.no_grad():
        output = base(clip)
        tokens = hf_model.model.forward_features(clip)
        features = hf_model.model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(output.last_hidden_state, tokens.flatten(1, 2))
    torch.testing.assert_close(output.pooler_output, features)
    base.save_pretrained(tmp_path / "b")
    again = AutoModelForVideoClassification.from_pretrained(tmp_path / "b", num_labels=4)
    torch.testing.assert_close(again.model.forward_features(clip), tokens)
    headless = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True)
    assert headless.num_classes == 0
    torch.testing.assert_close(logits_of(headless, clip), features)


@pytest.mark.parametrize("size", [dict(num_frames=6), dict(img_size=(64, 96)), dict(img_size=92)])
def test_clip_size_changed_at_loading_is_equal_in_both_and_loud(hf_model, size, tmp_path, caplog):
    hf_model.save_pretrained(tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **size).eval()
    assert "Resampled" in caplog.text
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path, **size).eval()
    height, width = model.img_size
    clip = torch.randn(1, model.num_frames, 3, height, width)
    torch.testing.assert_close(logits_of(loaded, clip), logits_of(model, clip))
    loaded.save_pretrained(tmp_path / "again")
    for again in (
        timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True),
        AutoModelForVideoClassification.from_pretrained(tmp_path / "again"),
    ):
        torch.testing.assert_close(logits_of(again, clip), logits_of(model, clip))


def test_non_square_grid_is_resampled_from_its_own_shape(tmp_path):
    torch.manual_seed(0)
    wide = timm.create_model("test_lvt_ff", num_classes=3, img_size=(64, 96))
    timm_folder(wide, tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=(96, 64))
    wide.set_input_size(img_size=(96, 64))
    clip = torch.randn(1, 4, 3, 96, 64)
    torch.testing.assert_close(logits_of(loaded, clip), logits_of(wide, clip))


def test_config_json_serves_both_and_is_derived(hf_model, tmp_path):
    hf_model.config.id2label = {0: "a", 1: "b", 2: "c"}
    hf_model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "lvt_ff"
    assert stored["architecture"] == "test_lvt_ff"
    assert stored["num_classes"] == 3
    assert stored["label_names"] == ["a", "b", "c"]
    assert stored["pretrained_cfg"]["input_size"] == [3, 64, 64]
    config = AutoConfig.from_pretrained(tmp_path)
    assert not hasattr(config, "model_args")
    config.num_frames = 9
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_args"]["num_frames"] == 9


def test_offline_with_sockets_blocked(hf_model, clip, tmp_path):
    hf_model.save_pretrained(tmp_path / "m")
    lvt_ff.LVTFFVideoProcessor(num_frames=4).save_pretrained(tmp_path / "m")
    torch.save(clip, tmp_path / "clip.pt")
    script = f"""
import socket
def blocked(*args, **kwargs):
    raise RuntimeError("network use")
socket.socket.connect = blocked
socket.create_connection = blocked
import torch, timm, lvt_ff
from transformers import AutoModelForVideoClassification, AutoVideoProcessor
folder = {str(tmp_path / "m")!r}
clip = torch.load({str(tmp_path / "clip.pt")!r}, weights_only=True)
a = timm.create_model("local-dir:" + folder, pretrained=True).eval()
b = AutoModelForVideoClassification.from_pretrained(folder).eval()
AutoVideoProcessor.from_pretrained(folder)
c = timm.create_model("local-dir:" + folder, pretrained=True, num_frames=6).eval()
d = AutoModelForVideoClassification.from_pretrained(folder, num_frames=6).eval()
for model in (c, d.model):
    torch.manual_seed(0)
    model.reset_classifier(5)
longer = torch.cat([clip, clip[:, :2]], dim=1)
with torch.no_grad():
    outputs = (a(clip), b(clip).logits, c(longer), d(longer).logits)
torch.save(outputs, {str(tmp_path / "out.pt")!r})
"""
    env = dict(os.environ, HF_HUB_OFFLINE="1")
    subprocess.run([sys.executable, "-c", script], check=True, env=env)
    a, b, c, d = torch.load(tmp_path / "out.pt", weights_only=True)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(a, logits_of(hf_model, clip))
    torch.testing.assert_close(c, d)
    assert c.shape == (2, 5)


def test_auto_classes_know_the_folder(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path)
    lvt_ff.LVTFFVideoProcessor(num_frames=4).save_pretrained(tmp_path)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(processor) is lvt_ff.LVTFFVideoProcessor
    assert processor.num_frames == 4
    assert type(AutoConfig.from_pretrained(tmp_path)) is lvt_ff.LVTFFConfig
