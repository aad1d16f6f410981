"""Weights that wait elsewhere until they are used: accelerate's offloading changes no result."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from safetensors.torch import load_file

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel
from lvt_ff.kernels import KERNELS

FIXATIONS = (
    dict(fixation="own"),
    dict(fixation="own", fixation_shared=False),
    dict(fixation_aggregate="add"),
    dict(fixation_aggregate="mul", fixation_shared=False),
    dict(fixation="qk", fixation_order="before"),
)
OTHERS = (dict(local_concentration=True), dict(attn_pattern="joint"), dict(patch_norm=True))
OPTIONS = (*(dict(attn_kernel=name) for name in KERNELS), *FIXATIONS, *OTHERS)


def built(options, holder=LVTFFForVideoClassification):
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", depth=2, num_labels=3, **options)
    return holder(config).eval()


def hand_made_map(model):
    """Embeddings and the first block on the CPU, the second block on disk, the head on the CPU."""
    places = {name: "cpu" for name, _ in model.named_parameters() if name.count(".") == 1}
    places |= {"model.patch_embed": "cpu", "model.norm": "cpu", "model.head": "cpu"}
    return places | {"model.blocks.0": "cpu", "model.blocks.1": "disk"}


def assert_close(got, expected, name=None):
    """Equal but for rounding: modules with hooks run as they are written, not fused."""
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_offloaded_models_give_the_same(options, clip, tmp_path):
    expected = built(options)(clip, output_hidden_states=True)
    offloaded = {
        "cpu": cpu_offload(built(options), execution_device="cpu"),
        "disk": disk_offload(built(options), str(tmp_path / "disk"), execution_device="cpu"),
    }
    model = built(options)
    offloaded["map"] = dispatch_model(
        model, hand_made_map(model), main_device="cpu", offload_dir=str(tmp_path / "map")
    )
    assert next(offloaded["cpu"].parameters()).is_meta
    for name, other in offloaded.items():
        for with_states in (False, True):
            found = other(clip, output_hidden_states=with_states)
            assert_close(found.logits, expected.logits, name)
        for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
            assert_close(ours, theirs, name)


@pytest.mark.parametrize("kernel", ["relu", "linformer"])
def test_offloaded_backbone_gives_the_same(kernel, clip, tmp_path):
    options = dict(attn_kernel=kernel)
    expected = built(options, LVTFFModel)(clip)
    for other in (
        cpu_offload(built(options, LVTFFModel), execution_device="cpu"),
        disk_offload(built(options, LVTFFModel), str(tmp_path), execution_device="cpu"),
    ):
        found = other(clip, output_hidden_states=True)
        assert_close(found.last_hidden_state, expected.last_hidden_state)
        assert_close(found.pooler_output, expected.pooler_output)
        assert len(found.hidden_states) == 3


def test_folder_loads_onto_a_hand_made_map(clip, tmp_path):
    model = built({})
    model.save_pretrained(tmp_path / "model")
    expected = model(clip).logits
    loaded = LVTFFForVideoClassification.from_pretrained(
        tmp_path / "model", device_map=hand_made_map(model), offload_folder=str(tmp_path / "disk")
    )
    assert_close(loaded.eval()(clip).logits, expected)


def test_offloaded_models_are_saved_whole(clip, tmp_path):
    model = built({})
    model.save_pretrained(tmp_path / "model")
    loaded = LVTFFForVideoClassification.from_pretrained(
        tmp_path / "model", device_map=hand_made_map(model), offload_folder=str(tmp_path / "disk")
    )
    loaded.save_pretrained(tmp_path / "again")
    ours, expected = (
        load_file(tmp_path / name / "model.safetensors") for name in ("again", "model")
    )
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_another_clip_size_of_offloaded_weights_is_refused(tmp_path):
    model = built({})
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot be changed while weights are offloaded"):
        LVTFFForVideoClassification.from_pretrained(
            tmp_path / "model",
            num_frames=2,
            device_map=hand_made_map(model),
            offload_folder=str(tmp_path / "disk"),
        )
