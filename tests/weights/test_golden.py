"""The authors' outputs reproduced through the public converter, block by block."""

import pytest
import torch
from reference import load_model_run

from lvt_ff.model import LinearVideoTransformer
from lvt_ff.weights import authors_to_lvt_ff

FILES = (
    "official_ssv2_shared_gate",
    "official_k400_separate_gates",
    "official_baseline",
    "official_softmax",
)


def converted(config, tensors):
    weights = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    return authors_to_lvt_ff(
        weights,
        temporal_shift_div=config.get("tdiv", 4) if config.get("shift", True) else 0,
        attn_kernel=config.get("linear_type", "relu"),
        num_heads=config["num_heads"],
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fused", [True, False])
def test_authors_outputs_are_reproduced(name, dtype, tolerance, fused):
    config, tensors = load_model_run(name)
    weights, keywords, _ = converted(config, tensors)
    model = LinearVideoTransformer(**keywords, img_size=config["img_size"]).to(dtype).eval()
    model.load_state_dict(weights)
    model.set_fused_attn(fused)
    clips = tensors["input"].transpose(1, 2).to(dtype)  # ours is (B, T, C, H, W)
    with torch.no_grad():
        logits = model(clips)
        _, blocks = model.forward_intermediates(clips, output_fmt="NLC")
    assert len(blocks) == config["depth"]
    for index, tokens in enumerate(blocks):
        expected = tensors[f"feat.block{index}"]
        assert (tokens.reshape(expected.shape) - expected).abs().max() < tolerance
    assert (logits - tensors["logits"]).abs().max() < tolerance


def test_authors_to_lvt_ff_reads_keywords_from_shapes():
    config, tensors = load_model_run("official_k400_separate_gates")
    _, keywords, _ = converted(config, tensors)
    for name in ("num_frames", "embed_dim", "depth", "num_heads", "head_hidden", "num_classes"):
        assert keywords[name] == config[name]
    assert keywords["fixation"] == "qkv"
    assert not keywords["fixation_shared"]
    assert keywords["patch_norm"] and not keywords["pos_embed"]


def test_authors_to_lvt_ff_takes_wrapped_checkpoints():
    config, tensors = load_model_run("official_ssv2_shared_gate")
    plain, keywords, _ = converted(config, tensors)
    wrapped = {
        f"module.{k.removeprefix('state.')}": v
        for k, v in tensors.items()
        if k.startswith("state.")
    }
    wrapped["module.new_fc.weight"] = torch.zeros(3, 3)
    again, same, report = authors_to_lvt_ff(
        {"model_state": wrapped, "epoch": 3}, temporal_shift_div=4
    )
    assert same == keywords
    assert report.dropped == {"new_fc.weight": "dead layer of the authors' wrapper"}
    assert set(report.target) == set(again) and set(report.source) == {
        name.removeprefix("module.") for name in wrapped
    }
    assert set(again) == set(plain)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_authors_to_lvt_ff_refuses_other_weights():
    with pytest.raises(ValueError, match="authors' checkpoint layout.*model_state"):
        authors_to_lvt_ff({"conv1.weight": torch.zeros(1)})
