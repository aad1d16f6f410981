"""The core module: sizes and costs, switches, gradients, half precision, input checks."""

import inspect
import zlib
from contextlib import nullcontext

import pytest
import torch

from lvt_ff.layers import CHOICES
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.ops import linear as linear_ops
from lvt_ff.profiling import count_macs, count_parameters
from lvt_ff.variants import VARIANTS

SMALL = dict(VARIANTS["test_lvt_ff"], num_classes=5)
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(LinearVideoTransformer).parameters.items()
}
AUTHORS = dict(patch_norm=True, pos_embed=False, num_classes=174)


def small(**changes):
    torch.manual_seed(0)
    return LinearVideoTransformer(**{**SMALL, **changes})


def clips(model, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, model.num_frames, model.in_chans, *model.img_size)
    return torch.randn(shape, generator=generator)


def test_parameters_of_the_default_model():
    sizes = VARIANTS["lvt_ff_default"]
    authors = LinearVideoTransformer(**sizes, **AUTHORS, device="meta")
    assert count_parameters(authors) == 51_923_374
    ours = LinearVideoTransformer(**sizes, num_classes=174, device="meta")
    assert count_parameters(ours) == 52_070_318
    separate = LinearVideoTransformer(**sizes, **AUTHORS, fixation_shared=False, device="meta")
    assert round(count_parameters(separate) / 1e6, 2) == 52.22


@pytest.mark.parametrize(
    "name, gmacs",
    [("lvt_ff_s", 127.1), ("lvt_ff_default", 254.2), ("lvt_ff_h", 508.4), ("lvt_ff_hr", 549.8)],
)
def test_cost_of_the_papers_variants(name, gmacs, monkeypatch):
    model = LinearVideoTransformer(**VARIANTS[name], **AUTHORS, device="meta")
    cheaper = count_macs(model) / 1e9
    monkeypatch.setattr(linear_ops, "queries_first", lambda *_: False)
    linear = count_macs(model) / 1e9
    # The reference figures count five operations per element of a LayerNorm, torch's counter none.
    assert linear == pytest.approx(gmacs, rel=2e-3)
    assert linear <= gmacs
    assert 0.97 * linear < cheaper < linear


@pytest.mark.parametrize(
    "kernel, gmacs, parameters",
    [
        ("relu", 243.3, 51.6),
        ("elu1", 243.3, 51.6),
        ("cosformer", 250.6, 51.6),
        ("performer", 250.6, 51.6),
        ("linformer", 294.2, 53.5),
        ("softmax", 253.4, 51.6),
    ],
)
def test_cost_of_the_papers_other_attentions(kernel, gmacs, parameters, monkeypatch):
    monkeypatch.setattr(linear_ops, "queries_first", lambda *_: False)
    options = dict(attn_kernel=kernel, fixation="none", device="meta")
    model = LinearVideoTransformer(**VARIANTS["lvt_ff_default"], **AUTHORS, **options)
    assert count_macs(model) / 1e9 == pytest.approx(gmacs, rel=5e-3)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, abs=0.06)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_built_as_listed(name):
    model = LinearVideoTransformer(**VARIANTS[name], device="meta")
    assert len(model.blocks) == VARIANTS[name]["depth"]
    pixels, stride = VARIANTS[name]["img_size"], VARIANTS[name]["patch_stride"]
    side = pixels // 14 + 1 if stride == 14 else pixels // 16
    assert model.grid == (side, side)
    assert model(torch.empty(1, model.num_frames, 3, pixels, pixels, device="meta")).shape == (
        1,
        1000,
    )


@pytest.mark.parametrize(
    "change",
    [
        dict(patch_norm=True),
        dict(pos_embed=False),
        dict(patch_padding=0),
        dict(patch_stride=16),
        *(
            {option: value}
            for option, values in CHOICES.items()
            for value in values
            if value != DEFAULTS[option]
        ),
        dict(kernel_options=dict(offset=1.0)),
        dict(fixation_shared=False),
        dict(temporal_shift_div=0),
        dict(temporal_shift_segment=2),
        dict(local_concentration=True),
        dict(temporal_shift_div=8),
        dict(mlp_dwconv=False),
        dict(mlp_ratio=2.0),
        dict(head_hidden=0),
        dict(head_hidden=32),
    ],
    ids=str,
)
def test_every_switch_changes_the_result(change):
    model, other = small().eval(), small(**change).eval()
    with torch.no_grad():  # the same values wherever both have a parameter of that shape
        for net in (model, other):
            for name, parameter in net.named_parameters():
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.3 * values + (1 if ".norm" in name else 0))
        x = clips(model)
        a, b = model(x), other(x)
    assert a.shape != b.shape or (a - b).abs().max() > 1e-4


@pytest.mark.parametrize(
    "change", [dict(drop_rate=0.5), dict(attn_drop_rate=0.5), dict(drop_path_rate=0.9)]
)
def test_dropouts_act_in_training_only(change):
    none = dict(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
    model, plain = small(**{**none, **change}), small(**none)
    x = clips(model)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), plain.eval()(x))
        assert not torch.allclose(model.train()(x), plain.train()(x))


@pytest.mark.parametrize(
    "change",
    [{}, dict(fixation_shared=False), dict(attn_kernel="softmax"), dict(attn_pattern="joint")],
    ids=str,
)
def test_gradients_of_every_parameter_are_finite_and_not_zero(change):
    model = small(patch_norm=True, spatial_shift=2, drop_rate=0.0, **change).double()
    model(clips(model).double()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gate_is_evaluated_once():
    model, calls = small(depth=2), []
    for block in model.blocks:
        for attention in (block.attn, block.temporal_attn):
            attention.fixation.gate.register_forward_hook(lambda *_: calls.append(1))
    model(clips(model))
    assert len(calls) == 4


@pytest.mark.parametrize("pattern", CHOICES["attn_pattern"])
@pytest.mark.parametrize("frames, img_size", [(1, 64), (3, (48, 80)), (5, 30), (4, (20, 100))])
def test_any_frame_count_and_resolution(pattern, frames, img_size):
    model = small(num_frames=frames, img_size=img_size, attn_pattern=pattern)
    out = model(clips(model))
    assert out.shape == (2, 5)
    assert out.isfinite().all()


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_training_steps_stay_finite_and_lower_the_loss(kernel, dtype):
    model = small(attn_kernel=kernel, drop_rate=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, labels, losses = clips(model, batch=4), torch.tensor([0, 1, 2, 3]), []
    scale = 1024.0 if dtype == torch.float16 else 1.0
    for _ in range(12):
        context = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
        with context:
            loss = torch.nn.functional.cross_entropy(model(x).float(), labels)
        optimizer.zero_grad()
        (loss * scale).backward()
        for parameter in model.parameters():
            parameter.grad.div_(scale)
            assert parameter.grad.isfinite().all()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("pattern", CHOICES["attn_pattern"])
def test_gradient_checkpointing_changes_nothing(pattern):
    grads = []
    for enable in (False, True):
        model = small(attn_pattern=pattern, drop_rate=0.0)
        model.set_grad_checkpointing(enable)
        model(clips(model)).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], msg=name)


def test_sizes_differ_between_frames_of_a_batch_independently():
    model = small().eval()
    x = clips(model, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-5)


def test_first_values_tell_places_and_times_apart():
    model = small(num_frames=8)
    for embedding in (model.temp_embed[0, :, 0], model.pos_embed[0]):
        distances = torch.cdist(embedding, embedding) + 1e9 * torch.eye(len(embedding))
        assert distances.min() > 0.3
    weight = model.blocks[0].mlp.dwconv.weight
    x = torch.randn(1, 4, model.grid[0] * model.grid[1], weight.shape[0])
    torch.testing.assert_close(model.blocks[0].mlp.dwconv(x), x)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((3, 64, 64), "3 dimensions.*one image is T = 1"),
        ((2, 3, 64, 64), "4 dimensions.*one image is T = 1"),
        ((1, 3, 4, 64, 64), r"looks like \(B, C, T, H, W\): use clip.transpose\(1, 2\)"),
        ((1, 4, 1, 64, 64), "in_chans=1"),
        ((1, 8, 3, 64, 64), r"pass num_frames=8, img_size=\(64, 64\) to create_model"),
        ((1, 4, 3, 64, 96), r"pass num_frames=4, img_size=\(64, 96\) to create_model"),
    ],
)
def test_wrong_clips_are_refused_with_the_way_out(shape, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape))


def test_uint8_frames_are_refused():
    with pytest.raises(ValueError, match="uint8.*processor"):
        small()(torch.zeros(1, 4, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(attn_kernel="relu6"),
            r"attn_kernel must be one of \['relu', 'softmax', .*'vig'\], got 'relu6'",
        ),
        (dict(fixation="kv"), "fixation must be one of"),
        (dict(spatial_shift=3), r"spatial_shift must be one of \[0, 1, 2\]"),
        (dict(global_pool="token"), "global_pool must be one of"),
        (dict(attn_pattern="axial"), "attn_pattern must be one of"),
        (
            dict(attn_pattern="joint", block_order="space_first"),
            "block_order='space_first' needs attn_pattern='factorized', got 'joint'",
        ),
        (dict(temporal_shift_segment=-1), "temporal_shift_segment must be at least 0"),
        (dict(num_heads=5), "num_heads must divide embed_dim"),
        (dict(num_frames=0), "num_frames must be at least 1"),
        (dict(img_size=3, patch_padding=0), "smaller than one patch"),
    ],
)
def test_wrong_constructor_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small(**change)


def test_misspelt_options_are_refused():
    with pytest.raises(TypeError, match="spatial_shifts"):
        small(spatial_shifts=1)


def test_set_input_size_resamples_linearly_and_bicubically():
    model = small(num_frames=4, img_size=64)
    with torch.no_grad():
        model.temp_embed.copy_(torch.arange(4.0)[None, :, None, None].expand_as(model.temp_embed))
    changes = model.set_input_size(img_size=(64, 96), num_frames=8)
    assert [change.split()[0] for change in changes] == ["temp_embed", "pos_embed"]
    times = model.temp_embed[0, :, 0, 0]
    assert times[0] == 0 and times[-1] == 3
    torch.testing.assert_close(times[1:7].diff(), torch.full((5,), 0.5))
    assert model(clips(model)).shape == (2, 5)
    assert model.set_input_size(img_size=(64, 96), num_frames=8) == []
