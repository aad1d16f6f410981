"""What timm's own tests ask of every model, asked of ours."""

import pytest
import timm
import torch

import lvt_ff
from lvt_ff import VARIANTS


def small(**changes):
    return timm.create_model("test_lvt_ff", **changes)


@pytest.mark.parametrize("name", VARIANTS)
def test_default_cfg_describes_the_model(name):
    model = timm.create_model(name, device="meta").eval()
    cfg, weights = model.default_cfg, model.state_dict()
    assert cfg["input_size"] == (3, *model.img_size) and cfg["fixed_input_size"]
    assert cfg["num_classes"] == model.num_classes == 1000
    assert cfg["classifier"] + ".weight" in weights and cfg["first_conv"] + ".weight" in weights
    clip = torch.empty(1, model.num_frames, *cfg["input_size"], device="meta")
    features = model.forward_features(clip)
    assert features.shape[model.feature_dim] == model.num_features
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    model.reset_classifier(0)
    assert model(clip).shape == (1, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(clip).shape == (*features.shape[:3], model.head_hidden_size)
    bare = timm.create_model(name, num_classes=0, global_pool="", device="meta")
    assert bare(clip).shape == (*features.shape[:3], bare.head_hidden_size)


@pytest.mark.parametrize("prune_head", [True, False])
def test_head_follows_pruning(clip, prune_head):
    model = small(num_classes=5).eval()
    model.prune_intermediate_layers([0], prune_norm=True, prune_head=prune_head)
    hidden = 64 if prune_head else 768
    assert model.head_hidden_size == model.head.num_features == hidden
    model.reset_classifier(7, "avg")
    assert model.num_classes == model(clip).shape[1] == 7
    assert model.get_classifier().in_features == hidden
    features = model.forward_head(model.forward_features(clip), pre_logits=True)
    assert features.shape == (2, hidden)


def test_reset_classifier_keeps_mode_device_and_dtype():
    model = small(num_classes=5).eval().bfloat16()
    model.reset_classifier(7)
    assert not any(module.training for module in model.modules())
    assert model.head.fc.weight.dtype == torch.bfloat16
    model.train().reset_classifier(3)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("options", [{}, dict(attn_kernel="performer", local_concentration=True)])
def test_init_weights_fills_a_model_that_was_empty(clip, options):
    with torch.device("meta"):
        model = small(num_classes=5, depth=1, **options)
    model = model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(-1)
    torch.manual_seed(0)
    model.init_weights()
    expected = small(num_classes=5, depth=1, **options)
    torch.manual_seed(0)
    expected.init_weights()
    expected = expected.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_every_parameter_has_a_gradient_and_a_group(clip):
    model = small(num_classes=42).train()
    model(clip).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


def test_feature_extraction_in_every_way_timm_has(clip):
    """The getter, hooks and fx give the same block outputs."""

    def features(kind):
        torch.manual_seed(0)
        model = small(features_only=True, out_indices=(0, 2), feature_cls=kind).eval()
        assert model.feature_info.channels() == [64, 64]
        return model(clip)

    found = features("getter")
    assert [x.shape[1] for x in found] == [64, 64]
    for kind in ("hook", "fx"):
        for ours, theirs in zip(found, features(kind), strict=True):
            torch.testing.assert_close(theirs, ours.permute(0, 2, 3, 4, 1).flatten(2, 3))


def test_intermediates_agree_with_features(clip):
    model = small(num_classes=5).eval()
    last, found = model.forward_intermediates(clip)
    torch.testing.assert_close(last, model.forward_features(clip))
    assert len(found) == len(model.blocks) == len(model.feature_info)
    only = model.forward_intermediates(clip, indices=[1], intermediates_only=True, norm=True)
    assert len(only) == 1 and only[0].shape == (2, 64, 4, *model.grid)
    early = model.forward_intermediates(
        clip, indices=[0], stop_early=True, intermediates_only=True, output_fmt="NLC"
    )
    tokens = found[0].permute(0, 2, 3, 4, 1).flatten(1, 3)  # (B, T·N, D)
    torch.testing.assert_close(early[0], tokens)


def test_some_blocks_are_recomputed(clip, monkeypatch):
    counted = []

    def counting(block, x):
        counted.append(block)
        return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)

    model = small(num_classes=5, drop_rate=0.0)
    model(clip).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing(every=2, checkpoint_func=counting)
    model(clip).sum().backward()
    assert counted == [model.blocks[0], model.blocks[2]]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    model.set_grad_checkpointing(False)
    model(clip)
    assert len(counted) == 2


def test_fused_attention_follows_timms_switch(clip):
    from timm.layers import set_fused_attn, use_fused_attn

    fused = small(attn_kernel="softmax").eval()
    assert use_fused_attn() and fused.blocks[0].attn.kernel.use_fused
    set_fused_attn(False)
    try:
        plain = small(attn_kernel="softmax").eval()
    finally:
        set_fused_attn(True)
    assert not plain.blocks[0].attn.kernel.use_fused
    plain.load_state_dict(fused.state_dict())
    torch.testing.assert_close(plain(clip), fused(clip))


def test_public_package_names_are_there():
    for name in lvt_ff.__all__:
        assert getattr(lvt_ff, name) is not None
    assert set(lvt_ff.__all__) <= set(dir(lvt_ff))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        lvt_ff.Nothing  # noqa: B018
