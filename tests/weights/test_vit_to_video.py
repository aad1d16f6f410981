"""Image models become video models that start as the same function, every tensor reported."""

import pytest
import timm
import torch
from image_models import EXACT, fill, small_vit, timm_model, tokens_without_extras

from lvt_ff import VARIANTS, LinearVideoTransformer
from lvt_ff.timm_models import SOURCES
from lvt_ff.weights import vit_to_video

SMALL = {**VARIANTS["test_lvt_ff"], "num_classes": 5}
SAME_GRID = dict(patch_stride=16, patch_padding=0)


def small_model(**changes):
    torch.manual_seed(0)
    return LinearVideoTransformer(**{**SMALL, **changes}).eval()


def video_features(model, clips):
    with torch.no_grad():
        return model.forward_features(clips).mean(dim=2)  # (B, T, D)


@pytest.fixture(scope="module")
def gap_240():
    return timm_model("vit_medium_patch16_gap_240.sw_in12k")


def test_static_clip_gives_the_image_models_features_on_every_frame(gap_240):
    sizes = {**VARIANTS["lvt_ff_default"], **SAME_GRID, **EXACT, "num_frames": 4, "img_size": 240}
    model = LinearVideoTransformer(**sizes).eval()
    weights, report = vit_to_video(gap_240.state_dict(), model)
    model.load_state_dict(weights)
    image = torch.randn(1, 3, 240, 240, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = gap_240.forward_head(gap_240.forward_features(image), pre_logits=True)  # (1, D)
    got = video_features(model, image[:, None].expand(1, 4, 3, 240, 240))
    assert expected.std() > 0.1
    assert (got - expected[:, None]).abs().max() <= 1e-5
    assert report.notes == []
    assert report.target["pos_embed"] == "copied"


def test_stride_14_runs_on_resampled_positions_and_says_so(gap_240):
    model = LinearVideoTransformer(**VARIANTS["lvt_ff_default"]).eval()
    weights, report = vit_to_video(gap_240.state_dict(), model)
    assert weights["pos_embed"].shape == (1, 17 * 17, 512)
    assert report.target["pos_embed"] == report.source["pos_embed"] == "resampled"
    assert "pos_embed from (15, 15) to (17, 17) tokens (bicubic)" in report.lines()[2]


@pytest.mark.parametrize(
    "options",
    [
        dict(init_values=1e-5),  # timm's usual: positions of the class token too
        dict(init_values=1e-5, no_embed_class=True),  # DeiT III
        dict(class_token=False, global_pool="avg", fc_norm=False, qkv_bias=False),
        dict(reg_tokens=4, class_token=False, no_embed_class=True, global_pool="avg"),
        dict(class_token=True, reg_tokens=2, proj_bias=False),
    ],
    ids=["class_token", "no_embed_class", "gap", "registers", "both_and_no_biases"],
)
def test_first_forward_is_the_image_model_without_its_extra_tokens(options):
    source = small_vit(**options)
    model = small_model(**SAME_GRID, **EXACT)
    weights, report = vit_to_video(source.state_dict(), model)
    model.load_state_dict(weights)
    clips = torch.randn(2, 4, 3, 64, 64)
    with torch.no_grad():
        expected = tokens_without_extras(source, clips.flatten(0, 1))
        if "norm" not in dict(source.named_children()) or isinstance(
            source.norm, torch.nn.Identity
        ):
            expected = source.fc_norm(expected)
        got = model.forward_features(clips).flatten(0, 1)
    assert (got - expected).abs().max() <= 1e-5
    assert set(report.source) == set(source.state_dict())
    assert set(report.target) == set(model.state_dict()) == set(weights)


def test_deit3_as_the_default_variant_equals_the_image_model():
    source = timm_model("deit3_medium_patch16_224.fb_in22k_ft_in1k")
    sizes = {**VARIANTS["lvt_ff_default"], **SAME_GRID, **EXACT, "num_frames": 2}
    model = LinearVideoTransformer(**sizes).eval()
    weights, report = vit_to_video(source.state_dict(), model)
    model.load_state_dict(weights)
    clips = torch.randn(1, 2, 3, 224, 224)
    with torch.no_grad():
        expected = tokens_without_extras(source, clips[0])
        got = model.forward_features(clips)[0]
    assert (got - expected).abs().max() <= 1e-5
    assert report.dropped["cls_token"] == "class token"
    assert report.counts()["source"] == dict(copied=101, dropped=3, folded=72)


def test_first_values_of_what_an_image_model_does_not_have():
    model = small_model()
    torch.nn.init.normal_(model.blocks[0].mlp.dwconv.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights, report = vit_to_video(small_vit().state_dict(), model)
    assert (weights["temp_embed"] == 0).all()
    assert (weights["blocks.1.temporal_attn.proj.weight"] == 0).all()
    assert (weights["blocks.1.temporal_attn.proj.bias"] == 0).all()
    identity = torch.zeros(256, 1, 3, 3)
    identity[:, :, 1, 1] = 1
    assert torch.equal(weights["blocks.0.mlp.dwconv.weight"], identity)
    for name in ("blocks.0.temporal_attn.qkv.weight", "blocks.2.attn.fixation.gate.weight"):
        assert torch.equal(weights[name], before[name])
    assert torch.equal(weights["head.fc.weight"], before["head.fc.weight"])
    assert report.fresh["blocks.2.attn.fixation.gate.weight"] == "of fixation as initialised"
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_temporal_attention_can_copy_the_spatial():
    source = small_vit(init_values=0.5).state_dict()
    weights, report = vit_to_video(source, small_model(), temporal_init="spatial")
    for block in range(3):
        for part in ("attn.qkv.weight", "attn.proj.weight", "attn.proj.bias", "norm1.bias"):
            copy, original = (f"blocks.{block}.{prefix}{part}" for prefix in ("temporal_", ""))
            assert torch.equal(weights[copy], weights[original])
            assert report.target[copy] == report.target[original] != "fresh"
    with pytest.raises(ValueError, match="temporal_init must be"):
        vit_to_video(source, small_model(), temporal_init="copy")
    with pytest.raises(ValueError, match="no temporal attention is without a source"):
        vit_to_video(source, small_model(attn_pattern="joint"), temporal_init="spatial")


def test_classifier_is_kept_only_where_asked_and_fitting():
    source = small_vit(num_classes=5).state_dict()
    model = small_model(head_hidden=0)
    weights, report = vit_to_video(source, model)
    assert torch.equal(weights["head.fc.weight"], model.head.fc.weight)
    assert report.dropped["head.weight"] == "of the head"
    weights, report = vit_to_video(source, model, keep_head=True)
    assert torch.equal(weights["head.fc.weight"], source["head.weight"])
    assert report.target["head.fc.bias"] == report.source["head.bias"] == "copied"
    for other in (small_model(), small_model(head_hidden=0, num_classes=7)):
        with pytest.raises(ValueError, match=r"keep_head.*\(5, 64\).*head_hidden=0"):
            vit_to_video(source, other, keep_head=True)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_other_channels_are_adapted_as_timm_does(in_chans):
    source = small_vit()
    weights, report = vit_to_video(source.state_dict(), small_model(in_chans=in_chans))
    expected = timm.models.adapt_input_conv(in_chans, source.patch_embed.proj.weight.detach())
    assert torch.equal(weights["patch_embed.proj.weight"], expected)
    assert f"from 3 to {in_chans} channels" in report.lines()[2]


def test_models_without_positions_or_time_take_what_fits():
    source = small_vit().state_dict()
    model = small_model(pos_embed=False, patch_norm=True, attn_pattern="joint", mlp_dwconv=False)
    weights, report = vit_to_video(source, model)
    model.load_state_dict(weights)
    assert "position embedding" in report.dropped["pos_embed"]
    assert report.fresh["patch_embed.norm.weight"] == "of patch_embed as initialised"


def test_square_positions_are_resampled_to_a_grid_of_as_many_tokens():
    model = small_model(**SAME_GRID, img_size=(32, 128))
    source = small_vit().state_dict()
    weights, report = vit_to_video(source, model)
    assert report.target["pos_embed"] == "resampled"
    assert "from (4, 4) to (2, 8) tokens" in report.lines()[2]


def test_half_precision_sources_and_training_wrappers():
    source = small_vit(init_values=0.5)
    wrapped = {f"module.{name}": tensor.half() for name, tensor in source.state_dict().items()}
    model = small_model()
    weights, _ = vit_to_video({"state_dict": wrapped, "epoch": 3}, model)
    model.load_state_dict(weights)
    exact, _ = vit_to_video(source.state_dict(), small_model())
    difference = (
        model.state_dict()["blocks.0.attn.proj.weight"] - exact["blocks.0.attn.proj.weight"]
    )
    assert difference.abs().max() < 2e-3


BROKEN = {
    "other_width": (lambda s: small_vit(embed_dim=192, num_heads=3).state_dict(), "width 192"),
    "other_depth": (lambda s: small_vit(depth=2).state_dict(), "depth 2.*model needs.*depth 3"),
    "other_patch": (
        lambda s: small_vit(patch_size=8).state_dict(),
        "patches of 8 pixels.*patch_size=8, patch_stride=8 would fit",
    ),
    "lacks_a_tensor": (lambda s: drop(s, "blocks.1.norm2.bias"), "lacks blocks.1.norm2.bias"),
    "lacks_a_bias": (lambda s: drop(s, "blocks.1.attn.qkv.bias"), "lacks.*blocks.1.attn.qkv.bias"),
    "lacks_positions": (lambda s: drop(s, "pos_embed"), "pos_embed.*pos_embed=False"),
    "lacks_scaled_layer": (lambda s: drop(s, "blocks.1.attn.proj.weight"), "blocks.1.attn.proj"),
    "lacks_a_scale": (lambda s: drop(s, "blocks.2.ls2.gamma"), "lacks blocks.2.ls2.gamma"),
    "lacks_a_norm": (lambda s: drop(s, "norm.bias"), "lacks 1 tensors.*norm.bias"),
    "flat_positions": (lambda s: s | {"pos_embed": s["pos_embed"][0]}, "pos_embed of 3 dimensions"),
    "flat_token": (lambda s: s | {"cls_token": torch.ones(64)}, "cls_token of 3 dimensions"),
    "short_scale": (
        lambda s: s | {"blocks.0.ls1.gamma": torch.ones(63)},
        "ls1.gamma.*does not fit",
    ),
    "surplus": (lambda s: s | {"norm_pre.weight": torch.ones(64)}, "no place.*norm_pre"),
    "normed_queries": (
        lambda s: s | {f"blocks.{i}.attn.q_norm.weight": torch.ones(16) for i in range(3)},
        "no place.*q_norm",
    ),
    "wrong_shape": (
        lambda s: s | {"blocks.2.mlp.fc1.bias": torch.ones(3)},
        r"found \(3,\).*\(256,\)",
    ),
    "not_square": (lambda s: s | {"pos_embed": torch.ones(1, 7, 64)}, "token grid"),
    "unknown": (lambda s: {"conv1.weight": torch.ones(1)}, "unknown kind.*conv1.weight"),
}


def drop(state_dict, name):
    return {key: tensor for key, tensor in state_dict.items() if key != name}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused_before_anything_changes(case):
    change, message = BROKEN[case]
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        vit_to_video(change(small_vit(init_values=0.5).state_dict()), model)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_a_fitting_variant_is_named():
    with pytest.raises(ValueError, match="width 192, depth 12.*lvt_ff_tiny would fit"):
        vit_to_video(
            timm_model("vit_tiny_patch16_224").state_dict(),
            LinearVideoTransformer(**VARIANTS["lvt_ff_small"], device="meta"),
        )


@pytest.mark.parametrize("name", SOURCES)
def test_sources_have_the_heads_and_widths_of_their_variants(name):
    sizes = VARIANTS[name]
    for tag, architecture in SOURCES[name].items():
        source = timm.create_model(f"{architecture}.{tag}", device="meta")
        assert source.embed_dim == sizes["embed_dim"] and len(source.blocks) == sizes["depth"]
        assert source.blocks[0].attn.num_heads == sizes["num_heads"]


def test_report_is_data():
    import json

    _, report = vit_to_video(fill(small_vit()).state_dict(), small_model())
    data = json.loads(json.dumps(report.as_dict()))
    assert data["source"]["cls_token"] == "dropped"
    assert sum(data["counts"]["target"].values()) == len(small_model().state_dict())
    assert len(report.lines()) == 3
