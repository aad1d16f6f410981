"""Image and video weights load into a model with any option, and the report names what is fresh."""

import pytest
import timm
import torch
from image_models import EXACT, fill, small_vit, timm_model
from transformers import (
    DeiTConfig,
    DeiTModel,
    TimesformerConfig,
    TimesformerModel,
    ViTConfig,
    ViTForImageClassification,
)

import lvt_ff
from lvt_ff import VARIANTS, LinearVideoTransformer
from lvt_ff.cli import main
from lvt_ff.kernels import KERNELS
from lvt_ff.layers import CHOICES
from lvt_ff.weights import vit_to_video

SIZES = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)
SIZES |= dict(image_size=64, patch_size=16)


def sources():
    """State dicts by kind of model."""
    times = TimesformerModel(TimesformerConfig(**SIZES, num_frames=4))
    return {
        "timm": small_vit(init_values=1e-5).state_dict(),
        "vit": fill(ViTForImageClassification(ViTConfig(**SIZES))).state_dict(),
        "deit": fill(DeiTModel(DeiTConfig(**SIZES))).state_dict(),
        "timesformer": fill(times).state_dict(),
    }


SOURCES = sources()
OPTIONS = [
    *({name: value} for name, values in CHOICES.items() for value in values),
    dict(local_concentration=True),
    dict(fixation="qk", fixation_aggregate="add", fixation_shared=False),
    dict(mlp_dwconv=False),
    dict(pos_embed=False),
    dict(patch_norm=True),
    dict(head_hidden=0),
    dict(in_chans=1),
    dict(num_frames=6, img_size=80),
]


def built(**options):
    torch.manual_seed(0)
    return LinearVideoTransformer(**{**VARIANTS["test_lvt_ff"], "num_classes": 5, **options}).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_loads_into_every_model(source, options):
    model = built(**options)
    if source == "timesformer" and options.get("attn_pattern") in ("joint", "windowed"):
        with pytest.raises(ValueError, match="no place in the model"):
            vit_to_video(SOURCES[source], model)
        return
    weights, report = vit_to_video(SOURCES[source], model)
    model.load_state_dict(weights)
    assert set(report.target) == set(weights)
    fresh = {name for name, kind in report.target.items() if kind == "fresh"}
    assert fresh == set(report.fresh)
    new = [name for name in weights if ".kernel." in name or ".local" in name]
    assert set(new) <= fresh and all(
        "initialised" not in report.fresh[n] or "of " in report.fresh[n] for n in new
    )
    clip = torch.randn(1, model.num_frames, model.in_chans, *model.img_size)
    with torch.no_grad():
        assert model(clip).isfinite().all()


@pytest.mark.parametrize("name", ["castling", "focused", "inline", "rank_augmented"])
def test_what_a_kernel_has_beside_its_attention_adds_nothing_at_first(name):
    model = built(attn_kernel=name)
    weights, report = vit_to_video(SOURCES["timm"], model)
    model.load_state_dict(weights)
    kernel = model.blocks[0].attn.kernel
    q, k, v = (torch.randn(2, 4, kernel.shape.length, 16) for _ in "qkv")
    x = torch.randn(2, kernel.shape.length, 64)
    q, k = kernel.feature_map(q, k)
    alone = {
        "castling": lambda: kernel.aggregate(q, k, v) - kernel.dconv(v),
        "focused": lambda: kernel.aggregate(q, k, v),
        "inline": lambda: kernel.attend(q, k, v),
        "rank_augmented": lambda: kernel.attend(q, k, v),
    }[name]()
    if name == "focused":  # the attention is what its rows of weights give
        alone = kernel.weights(q, k, torch.arange(kernel.shape.length)) @ v
    torch.testing.assert_close(kernel.aggregate(q, k, v, x), alone)
    assert report.fresh[f"blocks.0.attn.kernel.{next(iter(kernel.image_start))}"] == (
        "of the kernel, adding nothing"
    )


def test_local_concentration_adds_nothing_at_first():
    """With it, the first forward is still the image model's."""
    plain, more = (
        built(**EXACT, patch_stride=16, patch_padding=0, local_concentration=on)
        for on in (False, True)
    )
    for model in (plain, more):
        model.load_state_dict(vit_to_video(SOURCES["timm"], model)[0])
    clip = torch.randn(1, 4, 3, 64, 64)
    with torch.no_grad():
        found, expected = more.forward_features(clip), plain.forward_features(clip)
    assert torch.equal(found, expected)


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    """timm's folder of the image model behind `lvt_ff_tiny`, with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    timm.models.save_for_hf(timm_model("vit_tiny_patch16_224"), folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize("name", [n for n in KERNELS if KERNELS[n].image_start or n == "linformer"])
def test_libraries_and_commands_start_from_image_weights(name, tiny_vit, tmp_path, capsys):
    overlay = dict(file=str(tiny_vit / "model.safetensors"), hf_hub_id=None)
    options = dict(attn_kernel=name, num_frames=2, img_size=64, local_concentration=True)
    by_timm = timm.create_model(
        "lvt_ff_tiny", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, **options
    )
    by_class = lvt_ff.LVTFFForVideoClassification.from_timm(
        "lvt_ff_tiny", pretrained_cfg_overlay=overlay, num_labels=3, **options
    )
    args = [
        "--attn_kernel",
        name,
        "--num_frames",
        "2",
        "--img_size",
        "64",
        "--model",
        "lvt_ff_tiny",
    ]
    args += ["--model_args", "{local_concentration: true}"]
    assert main(["convert", str(tiny_vit), str(tmp_path / "start"), *args]) == 0
    converted = lvt_ff.LVTFFModel.from_pretrained(tmp_path / "start").model
    assert "adding nothing" in capsys.readouterr().out or not KERNELS[name].image_start
    expected = by_timm.state_dict()
    image_names = [n for n, kind in by_timm.pretrained_report.target.items() if kind != "fresh"]
    assert len(image_names) > 140
    for model in (by_class.model, converted):
        for tensor_name in image_names:
            assert torch.equal(model.state_dict()[tensor_name], expected[tensor_name])
