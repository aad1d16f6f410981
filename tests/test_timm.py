"""timm's contract: every way its users build, load, change and train a model."""

import pytest
import timm
import torch
from timm.models import load_checkpoint
from timm.optim import create_optimizer_v2

import lvt_ff
from lvt_ff import VARIANTS
from lvt_ff.timm_models import checkpoint_filter_fn


def create(**changes):
    torch.manual_seed(0)
    return timm.create_model("test_lvt_ff", **{"num_classes": 5, **changes})


def test_all_variants_are_listed():
    assert set(timm.list_models("*lvt_ff*")) == set(VARIANTS)
    assert timm.list_models(module="timm_models") == sorted(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_create_model_by_name(name):
    model = timm.create_model(name, device="meta", num_classes=3)
    sizes = VARIANTS[name]
    clip = torch.empty(1, sizes["num_frames"], 3, *model.img_size, device="meta")
    assert model(clip).shape == (1, 3)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, sizes["img_size"], sizes["img_size"])
    source = timm.get_pretrained_cfg(name).hf_hub_id
    original = timm.get_pretrained_cfg(source.removeprefix("timm/")) if source else None
    assert config["mean"] == (original.mean if original else (0.5, 0.5, 0.5))
    assert config["crop_pct"] == 1.0


def test_pretrained_raises_timms_error_for_models_without_weights():
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("test_lvt_ff", pretrained=True)


def test_create_model_arguments_reach_the_model():
    model = create(
        num_frames=3,
        img_size=(48, 64),
        in_chans=1,
        drop_rate=0.1,
        drop_path_rate=0.2,
        global_pool="max",
        attn_kernel="softmax",
        dtype=torch.float64,
    )
    assert model(torch.randn(1, 3, 1, 48, 64, dtype=torch.float64)).shape == (1, 5)
    assert model.head.drop.p == 0.1
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.2)
    assert model.global_pool == "max"


def test_device_and_dtype_at_construction():
    model = create(device="meta", dtype=torch.bfloat16)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_forward_is_features_then_head(clip):
    model = create().eval()
    with torch.no_grad():
        tokens = model.forward_features(clip)
        assert tokens.shape == (2, 4, 25, 64)
        torch.testing.assert_close(model.forward_head(tokens), model(clip))
        features = model.forward_head(tokens, pre_logits=True)
    assert features.shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.get_classifier()(features), model(clip))


def test_forward_intermediates_in_both_layouts(clip):
    model = create().eval()
    with torch.no_grad():
        final, blocks = model.forward_intermediates(clip, output_fmt="NLC")
        torch.testing.assert_close(final, model.forward_features(clip))
        grids = model.forward_intermediates(clip, intermediates_only=True)
        normed = model.forward_intermediates(clip, [2], norm=True, intermediates_only=True)
        last = model.forward_intermediates(clip, 1, stop_early=True, intermediates_only=True)
    assert [b.shape for b in blocks] == [(2, 100, 64)] * 3
    assert [g.shape for g in grids] == [(2, 64, 4, 5, 5)] * 3
    torch.testing.assert_close(grids[1].flatten(2).transpose(1, 2), blocks[1])
    torch.testing.assert_close(normed[0].flatten(2).transpose(1, 2), final.flatten(1, 2))
    torch.testing.assert_close(last[0], grids[2])
    with pytest.raises(ValueError, match="output_fmt must be one of"):
        model.forward_intermediates(clip, output_fmt="NHWC")


def test_features_only(clip):
    whole = create().eval()
    model = timm.create_model("test_lvt_ff", features_only=True, out_indices=(0, 1)).eval()
    model.model.load_state_dict(whole.state_dict(), strict=False)
    with torch.no_grad():
        features = model(clip)
        expected = whole.forward_intermediates(clip, [0, 1], intermediates_only=True)
    assert model.feature_info.channels() == [64, 64]
    assert model.feature_info.reduction() == [14, 14]
    assert len(model.model.blocks) == 2
    for a, b in zip(features, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_prune_intermediate_layers(clip):
    model = create().eval()
    with torch.no_grad():
        expected = model.forward_intermediates(clip, [1], intermediates_only=True)
        assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
        got = model.forward_intermediates(clip, [1], intermediates_only=True)
    assert len(model.blocks) == 2
    torch.testing.assert_close(got, expected)


def test_pruned_model_still_runs(clip):
    model = create()
    model.prune_intermediate_layers([1])
    assert model(clip).shape == (2, 4, 25, 64)
    assert model.global_pool == "" and model.num_classes == 0


def test_size_set_later_is_saved_and_loaded(tmp_path):
    model = create().eval()
    model.set_input_size(img_size=92, num_frames=6)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    clip = torch.randn(1, 6, 3, 92, 92)
    torch.testing.assert_close(loaded(clip), model(clip))


def test_reset_classifier(clip):
    model = create().double()
    model.reset_classifier(11)
    assert model.num_classes == 11
    assert model(clip.double()).shape == (2, 11)
    model.reset_classifier(0, "max")
    assert model.global_pool == "max"
    assert model(clip.double()).shape == (2, 768)


def test_layer_decay_orders_stem_blocks_head():
    model = create()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[names[id(parameter)]] = group["lr_scale"]
            if names[id(parameter)] in ("pos_embed", "temp_embed"):
                assert group["weight_decay"] == 0
    assert scale["head.fc.weight"] == 1.0
    stages = ("patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.mlp.fc1", "blocks.2.mlp.fc1")
    stages = [scale[f"{name}.weight"] for name in stages]
    assert stages == sorted(stages) and len(set(stages)) == 4
    assert scale["temp_embed"] == scale["pos_embed"] == stages[0]


def test_set_grad_checkpointing_runs_every_block_again_in_the_backward_pass(clip):
    model, calls = create().train(), []
    for number, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    model.set_grad_checkpointing()
    model(clip).sum().backward()
    assert calls == [0, 1, 2, 2, 1, 0]
    calls.clear()
    model.set_grad_checkpointing(False)
    model(clip).sum().backward()
    assert calls == [0, 1, 2]


def save(model, path):
    torch.save({"state_dict": model.state_dict()}, path)
    return str(path)


def test_pretrained_cfg_overlay_file(clip, tmp_path):
    model = create().eval()
    overlay = dict(file=save(model, tmp_path / "weights.pth"), num_classes=5)
    loaded = create(pretrained=True, pretrained_cfg_overlay=overlay).eval()
    torch.testing.assert_close(loaded(clip), model(clip))


def test_in_chans_are_adapted_from_rgb_weights(tmp_path):
    model = create().eval()
    overlay = dict(file=save(model, tmp_path / "weights.pth"), num_classes=5)
    gray = create(pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1).eval()
    weight = model.patch_embed.proj.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(gray.patch_embed.proj.weight, weight)


def test_load_checkpoint_resamples_with_the_filter(tmp_path, caplog):
    model = create().eval()
    path = save(model, tmp_path / "weights.pth")
    same = create()
    load_checkpoint(same, path)
    torch.testing.assert_close(same.state_dict(), model.state_dict())
    longer = create(num_frames=8, img_size=92)
    load_checkpoint(longer, path, filter_fn=checkpoint_filter_fn)
    assert "temp_embed from 4 to 8 frames" in caplog.text
    assert "pos_embed from (5, 5) to (7, 7)" in caplog.text
    model.set_input_size(img_size=92, num_frames=8)
    torch.testing.assert_close(longer.temp_embed, model.temp_embed)
    torch.testing.assert_close(longer.pos_embed, model.pos_embed)


def test_incomplete_weights_are_refused_whatever_the_number_of_classes(tmp_path):
    weights = create().state_dict()
    del weights["blocks.1.norm2.bias"]
    torch.save(weights, tmp_path / "weights.pth")
    overlay = dict(file=str(tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match="lack 1 tensors of the model, such as blocks.1.norm2"):
        create(pretrained=True, pretrained_cfg_overlay=overlay, num_classes=9)


@pytest.mark.parametrize("attn_kernel", ["relu", "relu_plain", "l2vit", "softmax"])
def test_fx_tracing(clip, attn_kernel):
    model = create(attn_kernel=attn_kernel).eval()
    traced = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(traced(clip), model(clip))
    fx = timm.models.FeatureGraphNet(model, out_indices=(0, 2))
    expected = model.forward_intermediates(clip, [0, 2], output_fmt="NLC", intermediates_only=True)
    for a, b in zip(fx(clip), expected, strict=True):
        torch.testing.assert_close(a.flatten(1, 2), b)


def test_model_ema_and_freeze(clip):
    from timm.utils import ModelEmaV3, freeze

    model = create()
    ema = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        model.temp_embed.add_(1.0)
    ema.update(model)
    torch.testing.assert_close(ema.module.temp_embed, model.temp_embed - 0.5)
    freeze(model, "blocks.0")
    assert not model.blocks[0].attn.qkv.weight.requires_grad


def test_importing_twice_is_harmless():
    import importlib

    before = set(timm.list_models("*lvt_ff*"))
    importlib.reload(lvt_ff.hf)
    with pytest.warns(UserWarning, match="Overwriting"):
        importlib.reload(lvt_ff.timm_models)
    assert set(timm.list_models("*lvt_ff*")) == before
