"""`lvt-ff convert`: every way in from a file, a folder or the Hub, and the way back."""

import json
import os
import re
import runpy
from pathlib import Path

import pytest
import timm
import torch
from image_models import EXACT, fill, small_vit, timm_model
from reference import load_model_run
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    DeiTConfig,
    DeiTModel,
    TimesformerConfig,
    TimesformerForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

import lvt_ff
from lvt_ff import LVTFFConfig
from lvt_ff.cli import main
from lvt_ff.hub.model_folder import build_model, load_folder
from lvt_ff.weights import lvt_ff_to_authors, vit_to_video

SMALL = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)
BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
EXACT_ARGS = json.dumps(dict(EXACT, patch_stride=16, patch_padding=0))


def convert(*args):
    return main(["convert", *map(str, args)])


def loaded(folder):
    """The model of a folder without a classifier, and the record of its conversion."""
    model = lvt_ff.LVTFFModel.from_pretrained(folder).eval()
    return model, json.loads((folder / "conversion.json").read_text())


# The authors' checkpoints.


def pyth(name, path, **extra):
    """A golden file as the authors' training code saves it."""
    config, tensors = load_model_run(name)
    state = {f"module.{k[6:]}": v for k, v in tensors.items() if k.startswith("state.")}
    state["module.new_fc.weight"] = torch.zeros(7, 3)
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    checkpoint = dict(epoch=3, model_state=state, optimizer_state=optimizer.state_dict())
    torch.save(dict(checkpoint, cfg="TRAIN:\n  DATASET: ssv2\n", **extra), path)
    return config, tensors


@pytest.mark.parametrize(
    "name, options",
    [
        ("official_ssv2_shared_gate", ["--temporal_shift_div", 4]),
        ("official_k400_separate_gates", ["--temporal_shift_div", 8]),
        ("official_baseline", ["--temporal_shift_div", 0, "--attn_kernel", "relu"]),
        ("official_softmax", ["--temporal_shift_div", 4, "--attn_kernel", "softmax"]),
    ],
)
def test_authors_checkpoint_gives_their_logits_and_goes_back_exactly(tmp_path, name, options):
    config, tensors = pyth(name, tmp_path / "checkpoint.pyth")
    options = [*options, "--img_size", config["img_size"]]
    if not config.get("gate", True) or "softmax" in name:
        options += ["--num_heads", config["num_heads"]]
    assert convert(tmp_path / "checkpoint.pyth", tmp_path / "model", *options) == 0
    clips = tensors["input"].transpose(1, 2)
    for model in (
        lvt_ff.LVTFFForVideoClassification.from_pretrained(tmp_path / "model").model,
        timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True),
    ):
        with torch.no_grad():
            assert (model.eval()(clips) - tensors["logits"]).abs().max() <= 1e-5
    processor = load_folder(tmp_path / "model")[1]
    assert set(processor.image_mean) == set(processor.image_std) == {0.5}

    assert convert(tmp_path / "model", "--to", "authors") == 0
    with safe_open(tmp_path / "model_authors.safetensors", "pt") as file:
        back = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    expected = {k[6:]: v for k, v in tensors.items() if k.startswith("state.")}
    assert set(back) == set(expected)
    assert all(torch.equal(back[key], expected[key]) for key in back)
    # The file carries what weights do not tell: no options the second time.
    assert convert(tmp_path / "model_authors.safetensors", tmp_path / "again") == 0
    for file in ("config.json", "model.safetensors", "video_preprocessor_config.json"):
        first, again = ((tmp_path / folder / file).read_bytes() for folder in ("model", "again"))
        assert first == again, file
    record = json.loads((tmp_path / "model/conversion.json").read_text())
    assert record["dropped"] == {"new_fc.weight": "dead layer of the authors' wrapper"}
    assert len(record["target"]) == record["counts"]["target"]["copied"]


def test_round_trip_through_the_authors_layout_keeps_names_and_statistics(tmp_path):
    fields = dict(pos_embed=False, patch_norm=True, drop_rate=0.1, img_size=78)
    names = {0: "push", 1: "pull", 2: "lift"}
    cfg = dict(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], license="mit", interpolation="bicubic")
    config = LVTFFConfig.from_variant("test_lvt_ff", id2label=names, pretrained_cfg=cfg, **fields)
    lvt_ff.LVTFFForVideoClassification(config).save_pretrained(tmp_path / "model")
    lvt_ff.LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path / "model")
    assert convert(tmp_path / "model", "--to", "authors") == 0
    assert convert(tmp_path / "model_authors.safetensors", tmp_path / "again") == 0
    for file in ("config.json", "model.safetensors", "video_preprocessor_config.json"):
        first, again = ((tmp_path / folder / file).read_bytes() for folder in ("model", "again"))
        assert first == again, file


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pyth("official_ssv2_shared_gate", tmp_path / "bad.pyth", extra=Malicious())
    assert convert("bad.pyth", "model", "--temporal_shift_div", 4) == 2
    assert "may be code" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pyth"]


@pytest.mark.parametrize("num_frames", [8, 32])
def test_authors_checkpoint_is_resampled_loudly(tmp_path, capsys, num_frames):
    config, tensors = load_model_run("official_ssv2_shared_gate")
    state = {k[6:]: v for k, v in tensors.items() if k.startswith("state.")}
    dim = state["base_model.temp_embed"].shape[-1]
    state["base_model.temp_embed"] = (
        torch.linspace(-1, 1, 16).view(1, 16, 1, 1).expand(1, 16, 1, dim)
    )
    torch.save(dict(model_state=state), tmp_path / "checkpoint.pyth")
    options = ("--temporal_shift_div", 4, "--num_frames", num_frames, "--img_size", 64)
    assert convert(tmp_path / "checkpoint.pyth", tmp_path / "model", *options) == 0
    assert f"temp_embed from 16 to {num_frames} frames" in capsys.readouterr().out
    model, _ = load_folder(tmp_path / "model")
    assert model.config.num_frames == model.model.temp_embed.shape[1] == num_frames
    assert (model.model.temp_embed[0, 1:, 0, 0] > model.model.temp_embed[0, :-1, 0, 0]).all()


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("official_ssv2_shared_gate", [], "do not tell temporal_shift_div"),
        ("official_baseline", ["--temporal_shift_div", 0], "do not tell attn_kernel"),
        (
            "official_softmax",
            ["--temporal_shift_div", 4, "--attn_kernel", "softmax"],
            "do not tell num_heads",
        ),
        ("official_ssv2_shared_gate", ["--num_heads", 1], "do not tell temporal_shift_div"),
        (
            "official_ssv2_shared_gate",
            ["--num_heads", 1, "--temporal_shift_div", 4],
            "gates' shape tells",
        ),
        ("official_ssv2_shared_gate", ["--keep_head"], "leave out --model, --keep_head"),
        ("official_ssv2_shared_gate", ["--model_args", "{depth: 2}"], "do not take depth"),
    ],
)
def test_what_the_authors_weights_do_not_tell_is_asked_for(
    tmp_path, capsys, name, options, message
):
    pyth(name, tmp_path / "checkpoint.pyth")
    assert convert(tmp_path / "checkpoint.pyth", tmp_path / "model", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_divisor_is_told_by_the_classes_of_known_data_sets():
    _, tensors = load_model_run("official_ssv2_shared_gate")
    state = {k[6:]: v for k, v in tensors.items() if k.startswith("state.")}
    hidden = state["consensus.mlp_head.4.weight"].shape[1]
    for num_classes, divisor in ((174, 4), (400, 8), (600, 8), (157, 8)):
        state["consensus.mlp_head.4.weight"] = torch.zeros(num_classes, hidden)
        _, keywords, _ = lvt_ff.convert.authors_to_lvt_ff(state)
        assert keywords["temporal_shift_div"] == divisor and keywords["attn_kernel"] == "relu"
        assert keywords["temporal_shift_segment"] == 0  # there are no more than 8 frames
        longer = dict(state)
        for key in state:
            if key.endswith("temp_embed"):
                longer[key] = torch.zeros(1, 16, *state[key].shape[2:])
        _, keywords, _ = lvt_ff.convert.authors_to_lvt_ff(longer)
        assert keywords["temporal_shift_segment"] == (8 if divisor == 8 else 0)


def test_damaged_authors_checkpoint_is_refused(tmp_path, capsys):
    _, tensors = load_model_run("official_ssv2_shared_gate")
    state = {k[6:]: v.clone() for k, v in tensors.items() if k.startswith("state.")}
    del state["base_model.blocks.1.norm2.bias"]
    save_file(state, tmp_path / "checkpoint.safetensors")
    arguments = (tmp_path / "checkpoint.safetensors", tmp_path / "model")
    assert convert(*arguments, "--temporal_shift_div", 4) == 2
    assert "lack 1 tensors of the model, such as blocks.1.norm2.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        dict(pos_embed=True),
        dict(attn_pattern="joint"),
        dict(fixation="qk"),
        dict(shift_border="zero"),
    ],
)
def test_models_that_the_authors_code_cannot_compute_do_not_go_back(tmp_path, capsys, changes):
    fields = dict(pos_embed=False, patch_norm=True, num_labels=3)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", **{**fields, **changes})
    lvt_ff.LVTFFForVideoClassification(config).save_pretrained(tmp_path / "model")
    assert convert(tmp_path / "model", tmp_path / "back.safetensors", "--to", "authors") == 2
    (name,) = changes
    assert f"cannot hold this one: {name}=" in capsys.readouterr().err
    assert not (tmp_path / "back.safetensors").exists()


# TimeSformer.


def timesformer(**changes):
    config = TimesformerConfig(**{**SMALL, "image_size": 64, "num_frames": 4, **changes})
    return fill(TimesformerForVideoClassification(config))


def patch_tokens_without_class_token(model, clips):
    """Block outputs (B, T, N, D) of a TimeSformer whose class token never existed."""
    core, frames = model.timesformer, clips.shape[1]
    x = core.embeddings.patch_embeddings(clips)[0]  # (B·T, N, D)
    x = (x + core.embeddings.position_embeddings[:, 1:]).unflatten(0, (-1, frames))
    x = x + core.embeddings.time_embeddings[:, :, None]
    outputs = []
    for layer in core.encoder.layer:
        times = layer.temporal_layernorm(x).transpose(1, 2).flatten(0, 1)  # (B·N, T, D)
        times = layer.temporal_dense(layer.temporal_attention(times)[0])
        x = x + times.unflatten(0, (len(x), -1)).transpose(1, 2)
        frame = layer.attention(layer.layernorm_before(x).flatten(0, 1))[0]
        x = x + frame.view_as(x)
        x = x + layer.output(layer.intermediate(layer.layernorm_after(x)))
        outputs.append(x)
    return outputs


def test_timesformer_without_its_class_token_gives_the_same_blocks(tmp_path):
    source = timesformer(**BASE, num_frames=3)
    for layer in source.timesformer.encoder.layer:  # a random stack of 12 grows without bound
        for part in (layer.attention, layer.temporal_attention):
            part.output.dense.weight.data.mul_(0.3)
        layer.output.dense.weight.data.mul_(0.3)
    source.save_pretrained(tmp_path / "source")
    options = ("--model_args", EXACT_ARGS, "--img_size", 64)
    assert convert(tmp_path / "source", tmp_path / "model", *options) == 0
    model, record = loaded(tmp_path / "model")
    assert model.config.architecture == "lvt_ff_base" and model.config.num_frames == 3
    clips = torch.randn(1, 3, 3, 64, 64)
    with torch.no_grad():
        expected = patch_tokens_without_class_token(source, clips)
        _, blocks = model.model.forward_intermediates(clips, output_fmt="NLC")
    for got, wanted in zip(blocks, expected, strict=True):
        assert (got - wanted.flatten(1, 2)).abs().max() <= 1e-4
    assert set(record["source"]) == set(source.state_dict())
    assert set(record["target"]) == set(model.model.state_dict())
    assert record["source"].keys() == source.state_dict().keys()
    fresh = {why for name, why in record["fresh"].items()}
    assert fresh == {"identity depthwise convolutions", "of head as initialised"}


def test_joint_timesformer_becomes_a_joint_model(tmp_path, capsys):
    source = timesformer(attention_type="joint_space_time")
    source.save_pretrained(tmp_path / "source")
    exact = {**json.loads(EXACT_ARGS)}
    options = ("--model_args", json.dumps(exact), "--img_size", 64)
    assert convert(tmp_path / "source", tmp_path / "model", *options) == 0
    model, _ = loaded(tmp_path / "model")
    assert model.config.attn_pattern == "joint"
    core, clips = source.timesformer, torch.randn(1, 4, 3, 64, 64)
    x = core.embeddings.patch_embeddings(clips)[0] + core.embeddings.position_embeddings[:, 1:]
    x = (x.unflatten(0, (1, 4)) + core.embeddings.time_embeddings[:, :, None]).flatten(1, 2)
    with torch.no_grad():
        for layer in core.encoder.layer:
            x = layer(x)[0]
        got = model.model.forward_features(clips).flatten(1, 2)
    assert (got - core.layernorm(x)).abs().max() <= 1e-4
    options = ("--model_args", json.dumps(dict(exact, attn_pattern="factorized")))
    assert convert(tmp_path / "source", tmp_path / "other", *options) == 2
    assert "needs {'attn_pattern': 'joint'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["embeddings.time_embeddings", "encoder.layer.1.temporal_dense.weight"]
)
def test_incomplete_timesformers_are_refused(tmp_path, capsys, name):
    state = timesformer().state_dict()
    del state[f"timesformer.{name}"]
    save_file(state, tmp_path / "weights.safetensors")
    assert convert(tmp_path / "weights.safetensors", tmp_path / "model") == 2
    assert "The source lacks" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_timesformer_is_resampled_to_the_asked_frames(tmp_path, capsys):
    timesformer().save_pretrained(tmp_path / "source")
    options = ("--num_frames", 8, "--img_size", 92)
    assert convert(tmp_path / "source", tmp_path / "model", *options) == 0
    printed = capsys.readouterr().out
    assert "temp_embed from 4 to 8 frames" in printed
    assert "pos_embed from (4, 4) to (7, 7) tokens" in printed
    assert loaded(tmp_path / "model")[0].model.temp_embed.shape == (1, 8, 1, 64)


# transformers' and timm's image models.


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification", "DeiTModel"])
@pytest.mark.parametrize("layout", ["of the Hub's files", "of transformers 5"])
def test_transformers_vit_gives_its_tokens(tmp_path, kind, layout):
    cls = dict(ViTModel=ViTModel, DeiTModel=DeiTModel).get(kind, ViTForImageClassification)
    config = (DeiTConfig if kind == "DeiTModel" else ViTConfig)(**SMALL, image_size=64)
    source = fill(cls(config))
    core = source.vit if hasattr(source, "vit") else source
    core.embeddings.cls_token.data.zero_()
    state = source.state_dict()
    if layout == "of the Hub's files":
        state = {to_hub_name(name): tensor for name, tensor in state.items()}
    model = lvt_ff.LinearVideoTransformer(
        **{**lvt_ff.VARIANTS["test_lvt_ff"], **EXACT, "patch_stride": 16, "patch_padding": 0}
    ).eval()
    weights, report = vit_to_video(state, model)
    model.load_state_dict(weights)
    clips = torch.randn(1, 4, 3, 64, 64)
    number = 2 if kind == "DeiTModel" else 1
    with torch.no_grad():
        embedded = core.embeddings(clips[0])[:, number:]
        for block in core.layers:
            embedded = block(embedded)
        expected = core.layernorm(embedded[0] if isinstance(embedded, tuple) else embedded)
        got = model.forward_features(clips)[0]
    assert (got - expected).abs().max() <= 1e-5
    assert set(report.source) == set(state)
    assert report.dropped[next(name for name in state if name.endswith("cls_token"))]


def to_hub_name(name):
    """transformers 5 names its layers otherwise than the files that were published before it."""
    for new, old in (
        ("layers.", "encoder.layer."),
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):
        name = name.replace(new, old)
    return name


def test_transformers_vit_from_the_hub_with_its_statistics_and_head(hub, tmp_path):
    source = fill(ViTForImageClassification(ViTConfig(**SMALL, image_size=64, num_labels=3)))
    source.config.id2label = {0: "cat", 1: "dog", 2: "cow"}
    source.save_pretrained(tmp_path / "published")
    statistics = dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3)
    ViTImageProcessor(**statistics).save_pretrained(tmp_path / "published")
    (tmp_path / "published/README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\nA ViT.\n")
    hub.publish("someone/small-vit", tmp_path / "published")
    assert convert("someone/small-vit", tmp_path / "model") == 0
    config = lvt_ff.LVTFFConfig.from_pretrained(tmp_path / "model")
    assert config.pretrained_cfg["mean"] == statistics["image_mean"]
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True, num_classes=4)
    found = timm.data.resolve_model_data_config(by_timm)
    assert list(found["std"]) == statistics["image_std"] and found["interpolation"] == "bicubic"
    processor = lvt_ff.LVTFFVideoProcessor.from_pretrained(tmp_path / "model")
    assert list(processor.image_mean) == statistics["image_mean"] and processor.resample == 3
    card = (tmp_path / "model/README.md").read_text()
    assert "license: cc-by-nc-4.0" in card
    stored = json.loads((tmp_path / "model/config.json").read_text())
    assert stored["pretrained_cfg"]["license"] == "cc-by-nc-4.0"
    assert "someone/small-vit" in card and "tensors: " in card and "fine-tune it" in card

    options = ("--keep_head", "--model_args", '{"head_hidden": 0}')
    assert convert("someone/small-vit", tmp_path / "headed", *options) == 0
    model, _ = load_folder(tmp_path / "headed")
    assert model.config.class_names == ("cat", "dog", "cow")
    assert torch.equal(model.model.head.fc.weight, source.classifier.weight)
    assert convert("someone/small-vit", tmp_path / "no", "--keep_head") == 2


def test_a_revision_of_a_repository_is_converted(hub, tmp_path, capsys):
    source = fill(ViTForImageClassification(ViTConfig(**SMALL, image_size=64)))
    source.save_pretrained(tmp_path / "published")
    hub.publish("someone/small-vit", tmp_path / "published")
    repository = hub.repositories["someone/small-vit"]
    repository.tags["v1"] = repository.refs["main"]
    repository.commit({"README.md": b"the weights are gone"})
    for revision in ("v1", repository.tags["v1"]):
        name = f"someone/small-vit@{revision}"
        assert convert(name, tmp_path / revision) == 0
        assert json.loads((tmp_path / revision / "conversion.json").read_text())["origin"] == name
    assert convert("someone/small-vit", tmp_path / "main") == 2
    assert "holds neither model.safetensors" in capsys.readouterr().err
    assert convert("someone/small-vit@v2", tmp_path / "none") == 2
    assert "someone/small-vit has no revision 'v2'" in capsys.readouterr().err


def test_timm_models_by_name_file_and_folder(hub, tmp_path, capsys):
    name = "vit_tiny_patch16_224.augreg_in21k"
    source = timm_model(name)
    timm.models.save_for_hf(source, tmp_path / "published", safe_serialization=True)
    hub.publish(f"timm/{name}", tmp_path / "published")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    assert convert(name, tmp_path / "by_name") == 0
    assert "does not tell pixel statistics" not in capsys.readouterr().out
    assert convert(tmp_path / "published", tmp_path / "by_folder") == 0
    options = ("--mean", "[0.1, 0.2, 0.3]", "--temporal_init", "spatial")
    assert convert(tmp_path / "weights.pth", tmp_path / "by_file", *options) == 0
    assert "does not tell pixel statistics" in capsys.readouterr().out
    named, foldered, filed = (
        loaded(tmp_path / folder)[0] for folder in ("by_name", "by_folder", "by_file")
    )
    states = [model.state_dict() for model in (named, foldered)]
    assert all(map(torch.equal, states[0].values(), states[1].values()))
    assert named.config.architecture == "lvt_ff_tiny"
    assert list(filed.config.pretrained_cfg["mean"]) == [0.1, 0.2, 0.3]
    block = filed.model.blocks[0]
    assert torch.equal(block.temporal_attn.proj.weight, block.attn.proj.weight)


README = (Path(__file__).parents[2] / "docs/imagenet.md").read_text()
COMMANDS = re.findall(r"`lvt-ff (convert [^-`][^`]+)`", README)


@pytest.fixture
def every_source(hub, tmp_path, monkeypatch):
    """A folder and a Hub with every source that docs/imagenet.md names."""
    monkeypatch.chdir(tmp_path)
    gap = "vit_medium_patch16_reg4_gap_256.sbb_in12k"
    timm.models.save_for_hf(timm_model(gap), "gap", safe_serialization=True)
    fill(ViTModel(ViTConfig())).save_pretrained("vit")
    timesformer(**{**BASE, "image_size": 32, "num_frames": 2}).save_pretrained("timesformer")
    repositories = {
        f"timm/{gap}": "gap",
        "google/vit-base-patch16-224-in21k": "vit",
        "facebook/timesformer-base-finetuned-k400": "timesformer",
    }
    for name, folder in repositories.items():
        hub.publish(name, tmp_path / folder)
    save_file(timm_model("vit_small_patch16_224").state_dict(), "weights.safetensors")
    config = dict(pos_embed=False, patch_norm=True, depth=2, num_labels=174)
    ours = lvt_ff.LVTFFForVideoClassification(LVTFFConfig.from_variant("test_lvt_ff", **config))
    ours.save_pretrained("my_model")
    weights = lvt_ff_to_authors(ours.model.state_dict(), ours.config.core_kwargs())
    torch.save(dict(model_state=weights), "checkpoint.pyth")
    return tmp_path


def test_commands_of_the_readme_run(every_source, capsys):
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        arguments = command.split()
        if arguments[-1] != "authors":
            arguments[2] = f"{len(os.listdir())}_{arguments[2]}"  # a new folder for each
        assert main(arguments) == 0, command
    for folder in every_source.glob("*_my_start"):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
        lvt_ff.LVTFFModel.from_pretrained(folder)
    assert len(list(every_source.glob("*_my_start"))) == 4


def test_scripts_write_a_folder_for_each_of_their_sources(every_source, monkeypatch, hub):
    scripts = Path(__file__).parents[2] / "conversion"
    script = runpy.run_path(str(scripts / "timesformer.py"))
    name = "facebook/timesformer-base-finetuned-k400"
    assert len(script["SOURCES"]) == 6
    script["SOURCES"].clear()
    script["SOURCES"][name] = (2, 32)
    script["main"]("starts")
    model, _ = loaded(every_source / "starts/timesformer-base-finetuned-k400")
    assert model.config.attn_kernel == "softmax" and model.config.num_frames == 2

    timm.models.save_for_hf(timm_model("vit_tiny_patch16_224"), "tiny", safe_serialization=True)
    hub.publish("timm/vit_tiny_patch16_224.augreg_in21k", every_source / "tiny")
    script = runpy.run_path(str(scripts / "image_models.py"))
    for variant in [name for name in script["SOURCES"] if name != "lvt_ff_tiny"]:
        monkeypatch.delitem(script["SOURCES"], variant)
    for _ in range(2):  # the second time everything is there
        script["main"]("starts")
    model, _ = loaded(every_source / "starts/lvt_ff_tiny.augreg_in21k")
    assert model.config.architecture == "lvt_ff_tiny"


def test_converted_folder_starts_a_fine_tuning(tmp_path):
    save_file(small_vit().state_dict(), tmp_path / "vit.safetensors")
    assert convert(tmp_path / "vit.safetensors", tmp_path / "model") == 0
    model, _, origin = build_model(str(tmp_path / "model"), ["a", "b", "c"])
    assert f"(from {tmp_path / 'vit.safetensors'})" in origin
    assert model.config.class_names == ("a", "b", "c") and "new classifier for 3" in origin
    assert torch.equal(model.model.norm.weight, small_vit().norm.weight)
    classes = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True, num_classes=9)
    assert torch.equal(classes.norm.weight, small_vit().norm.weight)


@pytest.mark.parametrize(
    "source, options, message",
    [
        ("nothing", [], "not a file or folder here, a model of timm, or a repository"),
        ("someone/nothing", [], "someone/nothing.*not a file or folder here"),
        ("checkpoints/vit.pth", [], "not a file or folder here"),
        ("lvt_ff_s.sw_in12k", [], "needs no conversion"),
        ("vit_base_patch16_rpn_224.sw_in1k", [], "is not a plain ViT.*ResPostBlock"),
        ("numbers.pth", [], "unknown kind"),
        ("array", [], r"array.config.json is damaged: expected a JSON object, got \[\]"),
        ("unnamed", [], "unknown kind|No variant fits"),
        ("odd_args", [], "timm cannot build vit_tiny_patch16_224 with"),
        ("gateless.pth", ["--temporal_shift_div", 4], "no counterpart of .*mlp.fc1.weight"),
        ("vit.safetensors", ["--model_args", "{fixaton: none}"], "did you mean 'fixation'"),
        (
            "vit.safetensors",
            ["--model_args", "{pretrained_cfg: {}}"],
            "Unknown configuration field",
        ),
        ("vit.safetensors", ["--num_frames", "0"], "--num_frames must be at least 1, got 0"),
        ("vit.safetensors", ["--std", "[0, 0, 0]"], "--std must be above 0, got"),
        ("vit_tiny_patch16_224.nothing", [], "timm has no weights"),
        ("wide.safetensors", [], "No variant fits width 128, depth 3.*lvt_ff_tiny 192, 12, 3"),
        ("vit.safetensors", ["--model", "lvt_ff_tiny"], "width 64, depth 3.*test_lvt_ff would fit"),
        ("vit.safetensors", ["--num_heads", 2], "No variant fits width 64, depth 3, heads 2"),
        ("vit.safetensors", ["--model", "lvt_ff_xl"], "Unknown variant"),
        ("vit.safetensors", ["--model", "lvt_ff_tiny.augreg_in21k"], "without a tag"),
        ("fine.safetensors", [], "patches of 8 pixels.*patch_size=8, patch_stride=8 would fit"),
        ("vit.safetensors", ["--to", "authors"], "name ending in .safetensors"),
        ("vit.safetensors", ["--to", "authors", "--keep_head"], "takes no other option"),
        ("cut.safetensors", [], "cannot be read as a checkpoint"),
        ("text.pth", [], "refused|cannot be read"),
        ("list.pth", [], "holds a list"),
        ("ours", [], "holds an lvt_ff model already"),
        ("empty", [], "holds neither model.safetensors nor pytorch_model.bin"),
        ("quick", [], "activation 'quick_gelu'"),
    ],
)
def test_sources_that_do_not_fit_end_in_one_line(
    hub, hf_model, tmp_path, monkeypatch, capsys, source, options, message
):
    monkeypatch.chdir(tmp_path)
    save_file(small_vit().state_dict(), "vit.safetensors")
    save_file(small_vit(embed_dim=128).state_dict(), "wide.safetensors")
    save_file(small_vit(patch_size=8).state_dict(), "fine.safetensors")
    with open("vit.safetensors", "rb") as whole, open("cut.safetensors", "wb") as cut:
        cut.write(whole.read(5000))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save([1, 2], "list.pth")
    (tmp_path / "empty").mkdir()
    torch.save({1: torch.ones(2)}, "numbers.pth")
    config = dict(pos_embed=False, patch_norm=True, depth=1)
    theirs = lvt_ff.LinearVideoTransformer(**{**lvt_ff.VARIANTS["test_lvt_ff"], **config})
    keywords = LVTFFConfig.from_variant("test_lvt_ff", **config).core_kwargs()
    weights = lvt_ff_to_authors(theirs.state_dict(), keywords)
    torch.save({k: v for k, v in weights.items() if ".fc1." not in k}, "gateless.pth")
    timm_cfg = dict(architecture="vit_tiny_patch16_224", pretrained_cfg={}, model_args={"a": 1})
    folders = dict(array=[], unnamed=dict(pretrained_cfg={}), odd_args=timm_cfg)
    for folder, content in folders.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(content))
        save_file({"a": torch.ones(1)}, tmp_path / folder / "model.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "rpn.safetensors")
    (tmp_path / "rpn").mkdir()
    os.rename("rpn.safetensors", "rpn/model.safetensors")
    hub.publish("timm/vit_base_patch16_rpn_224.sw_in1k", tmp_path / "rpn")
    hf_model.save_pretrained("ours")
    ViTModel(ViTConfig(**SMALL, hidden_act="quick_gelu")).save_pretrained("quick")
    before = set(tmp_path.rglob("*"))
    assert convert(source, "model", *options) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error
    assert set(tmp_path.rglob("*")) == before


def test_only_model_folders_go_back(tmp_path, capsys):
    assert convert(tmp_path / "nothing", "--to", "authors") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_destinations_are_not_overwritten(tmp_path, capsys):
    save_file(small_vit().state_dict(), tmp_path / "vit.safetensors")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("mine")
    assert convert(tmp_path / "vit.safetensors", tmp_path / "model") == 2
    assert "exists already" in capsys.readouterr().err
    assert convert(tmp_path / "vit.safetensors") == 2
    assert "Give a folder to write" in capsys.readouterr().err
