"""Attention, relevance and the pictures of both, against dense and known cases."""

from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from conftest import checkpointing, random_frames
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import lvt_ff
from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.explain import attention_recorder, views
from lvt_ff.explain.attention_recorder import (
    AttentionRecord,
    attention_map,
    concentration,
    core_of,
    frame_attention,
    record_attention,
)
from lvt_ff.explain.explain import explain_video
from lvt_ff.explain.figures import overlay_heatmap, upsample_token_map
from lvt_ff.explain.relevance import _before_shift, deletion_curve, relevance
from lvt_ff.inference.classifier import Classifier
from lvt_ff.kernels import KERNELS
from lvt_ff.kernels.base import Kernel

PATTERNS = ["factorized", "joint", "windowed"]
NO_SHIFT = dict(spatial_shift=0, temporal_shift_div=0)


def build(**options):
    torch.manual_seed(0)
    options = dict(num_classes=3, mlp_dwconv=False) | options
    model = timm.create_model("test_lvt_ff", **options).double().eval()
    for name, parameter in model.named_parameters():  # attention far from uniform
        if "qkv" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


# Kernels whose output is their weights times the values: no convolution beside, no norm behind.
PLAIN = sorted(KERNELS.keys() - {"focused", "inline", "rank_augmented", "castling", "vig"})


@pytest.fixture
def clips(clip):
    return clip.double()


def every_row(item):
    return torch.arange(item.q.shape[2])


@pytest.mark.parametrize("fixation", ["qkv", "none"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kernel", PLAIN)
def test_rows_are_the_weights_that_the_model_applies(clips, kernel, pattern, fixation):
    model = build(attn_kernel=kernel, attn_pattern=pattern, fixation=fixation)
    scores, records = record_attention(model, clips)
    torch.testing.assert_close(scores, model(clips))
    assert len(records) == 3 * (2 if pattern == "factorized" else 1)
    for item in records:
        expected = item.module.heads(item.out)
        torch.testing.assert_close(item.weights(every_row(item)) @ item.v, expected)
        some = torch.tensor([2, 0])
        torch.testing.assert_close(item.weights(some), item.weights(every_row(item))[:, :, some])
        unlike = (item.weights(some, fixed=False) - item.weights(some)).abs().max()
        assert (unlike > 1e-3) == item.has_fixation


def test_records_are_of_what_is_applied_in_its_order(clips):
    model = build(fixation_order="before", block_order="space_first")
    scores, records = record_attention(model, clips)
    torch.testing.assert_close(scores, model(clips))
    assert [item.name for item in records] == ["attn", "temporal_attn"] * 3
    for item in records:
        expected = item.module.heads(item.out)
        torch.testing.assert_close(item.weights(every_row(item)) @ item.v, expected)
        for ratio in item.ratios():
            assert ratio.shape == (*item.out.shape[:3], 4)
            assert ratio.min() > 0 and ratio.max() < 1


def test_records_hold_what_their_annotations_say(clips):
    for options in ({}, dict(fixation="none"), dict(fixation_order="before")):
        for item in record_attention(build(**options), clips)[1]:
            for name, kind in get_type_hints(AttentionRecord).items():
                value = getattr(item, name)
                if get_origin(kind) is tuple:
                    assert [type(part) for part in value] == list(get_args(kind)), name
                else:
                    assert isinstance(value, kind), name
    with pytest.raises(TypeError, match="missing"):
        AttentionRecord(0, "attn", item.module, item.size)


def dense_relevance(model, clips, classes, monkeypatch):
    """The definition with every matrix formed, and its gradient from autograd."""
    model.set_fused_attn(False)  # or kernels' methods are not called
    matrices, last = [], []

    def aggregate(self, q, k, v, x=None):
        matrices.append(self.weights(q, k, torch.arange(q.shape[2])))
        return matrices[-1] @ v

    with monkeypatch.context() as patch:
        patch.setattr(type(model.blocks[0].attn.kernel), "aggregate", aggregate)
        handle = model.norm.register_forward_hook(lambda m, inputs, _: last.append(inputs[0]))
        scores = model(clips)
        handle.remove()
    score = scores.gather(1, classes[:, None]).sum()
    gradient, *gradients = torch.autograd.grad(score, [last[0], *matrices])
    mean = last[0].mean((1, 2), keepdim=True)
    relevant = ((last[0] - mean) * gradient).sum(-1).clamp(min=0)
    relevant = relevant / relevant.sum((1, 2), keepdim=True)
    modules = [
        module
        for block in model.blocks
        for module in (block.temporal_attn, block.attn)[:: -1 if block.space_first else 1]
        if module is not None
    ]
    for module, matrix, matrix_gradient in zip(
        reversed(modules), reversed(matrices), reversed(gradients), strict=True
    ):
        share = (matrix * matrix_gradient).clamp(min=0)
        share = (share.sum(1) / share.sum((1, 3))[..., None]).nan_to_num()  # (S, L, L)
        queries = module.sequences.fold(relevant[..., None])  # (S, L, 1)
        keys = share.transpose(1, 2) @ queries
        passed = module.sequences.unfold(keys, *relevant.shape[1:])[..., 0]
        relevant = relevant + passed
        relevant = relevant / relevant.sum((1, 2), keepdim=True)
    return relevant


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kernel", PLAIN)
def test_relevance_is_the_dense_definition(clips, kernel, pattern, monkeypatch):
    order = "space_first" if pattern == "factorized" and kernel == "elu1" else "time_first"
    model = build(attn_kernel=kernel, attn_pattern=pattern, block_order=order, **NO_SHIFT)
    classes = torch.tensor([0, 2])
    expected = dense_relevance(model, clips, classes, monkeypatch)
    found = relevance(model, clips, classes)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-4)
    monkeypatch.setattr(attention_recorder, "_ELEMENTS", 1)  # one row of weights at a time
    torch.testing.assert_close(relevance(model, clips, classes), found)


def test_relevance_is_shares_of_each_clip_and_leaves_the_model_alone(clips):
    model = build()
    model.requires_grad_(False)
    classes = torch.tensor([1, 0])
    found = relevance(model, clips, classes)
    assert found.shape == (2, 4, 25) and found.min() >= 0
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(2, dtype=found.dtype))
    torch.testing.assert_close(
        relevance(model, clips[1:], classes[1:])[0], found[1], atol=1e-6, rtol=1e-4
    )
    assert (relevance(model, clips, 1 - classes) - found).abs().max() > 1e-3
    model.set_grad_checkpointing()
    torch.testing.assert_close(relevance(model, clips, classes), found)
    assert model.grad_checkpointing
    assert not any(module._forward_hooks for module in model.modules())
    wrapper = LVTFFForVideoClassification(LVTFFConfig.from_variant("test_lvt_ff")).eval()
    with torch.no_grad():
        assert relevance(wrapper, clips.float(), classes).shape == (2, 4, 25)


def test_relevance_goes_back_to_where_shifted_keys_came_from(clips):
    model = build(attn_pattern="windowed", temporal_shift_div=2)
    item = record_attention(model, clips)[1][0]
    passed = torch.zeros(8, 4, 25, dtype=torch.float64)  # (S, A, L)
    passed[1, 0, 7] = 1  # the first head has all its channels from the next frame
    moved = _before_shift(item, passed)
    assert moved[0, 2, 7] == 1 and moved.sum() == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_attention_map_is_one_query_s_row(clips, pattern):
    item = record_attention(build(attn_pattern=pattern), clips)[1][-1]
    found = attention_map(item, (2, 7))
    torch.testing.assert_close(found.sum((1, 2)), torch.ones_like(found[:, 0, 0]))
    elsewhere = found[:, [0, 1, 3]].abs().max()
    assert (elsewhere > 0) == (pattern == "joint")
    row = 2 * 25 + 7 if pattern == "joint" else 7
    sequence = 1 if pattern == "joint" else 4 + 2
    expected = item.weights(torch.tensor([row]))[sequence, 3, 0]
    one_head = attention_map(item, (2, 7), head=3)[1]
    one_head = one_head.flatten() if pattern == "joint" else one_head[2]
    torch.testing.assert_close(one_head.double(), expected, atol=1e-6, rtol=1e-5)


def test_frame_attention_is_the_mean_over_places(clips):
    item = record_attention(build(), clips)[1][0]
    expected = item.weights(every_row(item)).mean(1).unflatten(0, (2, 25)).mean(1)
    torch.testing.assert_close(frame_attention(item).double(), expected, atol=1e-6, rtol=1e-5)
    joint = record_attention(build(attn_pattern="joint"), clips)[1][0]
    weights = joint.weights(every_row(joint))[:, 1].unflatten(1, (4, 25)).unflatten(3, (4, 25))
    found = frame_attention(joint, head=1).double()
    torch.testing.assert_close(found, weights.sum(4).mean(2), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="stays within each frame"):
        frame_attention(record_attention(build(), clips)[1][1])


def test_ratios_are_what_features_are_multiplied_by(clips):
    item = record_attention(build(fixation_shared=False), clips)[1][1]
    gate = item.module.fixation.gate(torch.cat([item.plain_q, item.plain_k, item.v], -1)).sigmoid()
    q_ratios, k_ratios = gate.chunk(2, dim=-1)
    torch.testing.assert_close(item.plain_q * q_ratios, item.q)
    torch.testing.assert_close(item.plain_k * k_ratios, item.k)
    for found, expected in zip(item.ratios(), (q_ratios, k_ratios), strict=True):
        torch.testing.assert_close(found[1, 2, :, 3], expected.mean(-1)[4 + 2, 3])
    with pytest.raises(ValueError, match="no feature fixation"):
        record_attention(build(fixation="none"), clips)[1][0].ratios()


def test_concentration_of_known_rows():
    uniform, one = torch.full((2, 50), 0.02), torch.eye(50)[:2]
    assert concentration(uniform) == pytest.approx((1.0, 0.1), abs=1e-5)
    assert concentration(one) == pytest.approx((0.0, 1.0), abs=1e-5)
    half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert concentration(half) == pytest.approx((0.5, 0.2), abs=1e-5)  # a tenth of four is 0.4
    for length in (1, 4, 16):
        assert concentration(torch.ones(length))[1] == pytest.approx(0.1)


def test_pixels_lie_where_their_patches_are():
    maps = np.zeros((1, 3, 4))
    maps[0, 1, 2] = 1
    for patch, stride, padding, size in ((16, 16, 0, (48, 64)), (16, 14, 8, (29, 43))):
        pixels = upsample_token_map(maps, size, (patch, stride, padding))[0]
        centre = [place * stride + patch // 2 - padding for place in (1, 2)]
        assert pixels.shape == size and pixels[centre[0], centre[1]] > 0.9
        assert pixels[0, 0] == pixels[-1, -1] == 0


def marked_clips(number, seed):
    """Noise with one striped patch at some place in both frames; its direction is the class."""
    random = torch.Generator().manual_seed(seed)
    clips = 0.5 * torch.randn(number, 2, 3, 40, 40, generator=random)
    classes = torch.randint(4, (number,), generator=random)
    rows, columns = torch.randint(5, (2, number), generator=random)
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    for index, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        along = (x, y, x + y, x - y)[classes[index]]
        stripes = 2.0 - 4.0 * (along % 4 < 2)
        clips[index, ..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += stripes
    return clips, classes, 5 * rows + columns


@pytest.fixture
def one_thread():
    """Threads that wait for each other take minutes where something else runs too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_relevant_tokens_are_the_ones_that_the_score_needs(one_thread):
    torch.manual_seed(0)
    stem = dict(patch_size=8, patch_stride=8, patch_padding=0, depth=1, drop_rate=0.0)
    model = timm.create_model("test_lvt_ff", num_classes=4, num_frames=2, img_size=40, **stem)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(100):
        clips, classes, _ = marked_clips(16, step)
        loss = F.cross_entropy(model(clips), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clips, classes, places = marked_clips(40, 10**6)
    model.eval()
    assert (model(clips).argmax(-1) == classes).float().mean() > 0.95
    relevant = relevance(model, clips, classes)
    assert (relevant.sum(1).argmax(-1) == places).float().mean() > 0.15  # chance 0.04
    random = torch.rand(relevant.shape, generator=torch.Generator().manual_seed(0))
    curves = [deletion_curve(model, clips, classes, order) for order in (relevant, random)]
    expected = model(clips).softmax(-1).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(curves[0][:, 0], expected)
    assert curves[0].mean() < curves[1].mean() - 0.1


@pytest.fixture
def folder(tmp_path):
    """A model folder and a video, and what explains them."""

    def write(**fields):
        torch.manual_seed(0)
        labels = {0: "push", 1: "pull", 2: "lift"}
        config = LVTFFConfig.from_variant("test_lvt_ff", id2label=labels, **fields)
        LVTFFForVideoClassification(config).save_pretrained(tmp_path / "model")
        LVTFFVideoProcessor.from_config(config).save_pretrained(tmp_path / "model")
        write_video(tmp_path / "clip.mp4", random_frames(10, 80, 96))
        return tmp_path

    return write


def explain(folder, output, *options):
    files = (str(folder / "clip.mp4"), "--model", str(folder / "model"))
    return main(["explain", *files, "--output", str(folder / output), *options])


@pytest.fixture
def drawn(monkeypatch):
    """The maps and matrices that pictures are made of, as they are drawn."""
    found = []

    def heatmap_overlay(core, frames, token_map, low, high):
        found.append(token_map)
        return plain_overlay(core, frames, token_map, low, high)

    def matrix_figure(path, matrices, *rest):
        found.extend(matrix for by_kind in matrices for matrix in by_kind.values())
        plain_figure(path, matrices, *rest)

    plain_overlay, plain_figure = views.heatmap_overlay, views.figures.matrix_figure
    monkeypatch.setattr(views, "heatmap_overlay", heatmap_overlay)
    monkeypatch.setattr(views.figures, "matrix_figure", matrix_figure)
    return found


@pytest.mark.parametrize("view", ["relevance", "attention", "fixation", "time", "layers"])
@pytest.mark.parametrize("pattern", ["factorized", "joint"])
def test_every_view_draws_a_picture(folder, drawn, view, pattern):
    place = folder(attn_pattern=pattern, fixation_shared=pattern == "joint")
    assert explain(place, "a.png", "--view", view) == 0
    assert drawn and all(part.std() > 0 for part in drawn)
    with Image.open(place / "a.png") as picture:
        assert min(picture.size) > 300
    assert sorted(path.name for path in place.iterdir()) == ["a.png", "clip.mp4", "model"]


def test_heatmaps_lie_over_the_frames_where_they_are_high():
    frames = np.full((1, 32, 32, 3), 100, dtype=np.uint8)
    maps = np.zeros((1, 32, 32))
    maps[0, :16] = 1
    warm = overlay_heatmap(frames, maps)[0].astype(int)
    assert (warm[:16, :, 0] > 200).all() and (warm[16:].max(-1) <= 100).all()
    assert (warm[:16, :, 0] > warm[:16, :, 2]).all()


def test_pictures_show_the_maps(folder, monkeypatch):
    place, sheets = folder(), []
    plain = views.figures.contact_sheet

    def contact_sheet(path, frames, overlays, *rest):
        sheets.append((frames, overlays))
        plain(path, frames, overlays, *rest)

    monkeypatch.setattr(views.figures, "contact_sheet", contact_sheet)
    assert explain(place, "a.png") == 0
    ((frames, overlays),) = sheets
    colours = overlays["relevance"]
    assert (colours.max(-1) != colours.min(-1)).any()  # over grey
    assert frames.shape == colours.shape


@pytest.mark.parametrize("view", ["relevance", "attention", "fixation"])
def test_animations_show_every_frame(folder, view):
    place = folder()
    assert explain(place, "a.gif", "--view", view) == 0
    with Image.open(place / "a.gif") as picture:
        assert picture.n_frames == 4
    assert explain(place, "a.mp4", "--view", view) == 0
    frames = lvt_ff.read_clip(place / "a.mp4", lambda total: range(total))
    assert len(frames) == 4 and frames.std() > 20


@pytest.mark.parametrize(
    ("pattern", "view", "options"),
    [
        ("factorized", "relevance", ["--label", "lift"]),
        ("factorized", "attention", ["--layer", "0"]),
        ("factorized", "attention", ["--head", "2"]),
        ("factorized", "attention", ["--query", "[4,0]"]),
        ("joint", "attention", ["--query", "[3,4,0]"]),
        ("factorized", "fixation", ["--layer", "1"]),
        ("factorized", "fixation", ["--head", "1"]),
        ("factorized", "time", ["--head", "1"]),
        ("factorized", "layers", ["--head", "1"]),
    ],
)
def test_options_change_what_is_drawn(folder, drawn, pattern, view, options):
    place = folder(attn_pattern=pattern)
    before = ["--label", "push"] if "--label" in options else []
    assert explain(place, "a.png", "--view", view, *before) == 0
    first = [np.array(part) for part in drawn]
    drawn.clear()
    assert explain(place, "b.png", "--view", view, *options) == 0
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(first, drawn, strict=True))


def test_concentration_is_that_of_the_head(folder, monkeypatch):
    place, rows = folder(), []
    monkeypatch.setattr(views, "concentration", lambda weights: rows.append(weights) or (0.5, 0.5))
    assert explain(place, "a.png", "--view", "layers", "--head", "1") == 0
    assert rows and all(weights.shape[-3] == 1 for weights in rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("view", ["relevance", "attention", "fixation", "time", "layers"])
def test_half_precision_models_are_explained(folder, dtype, view, drawn):
    place = folder()
    assert explain(place, "a.png", "--view", view) == 0
    model = LVTFFForVideoClassification.from_pretrained(place / "model").to(dtype)
    model.save_pretrained(place / "model")
    full = np.concatenate([part.flatten() for part in drawn])
    drawn.clear()
    assert explain(place, "b.png", "--view", view) == 0
    half = np.concatenate([part.flatten() for part in drawn])
    assert np.corrcoef(full, half)[0, 1] > 0.95


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_explained_in_half_precision_or_says_why_not(clip, kernel, dtype):
    torch.manual_seed(0)
    model = timm.create_model("test_lvt_ff", num_classes=3, attn_kernel=kernel).eval()
    classes = torch.tensor([1, 2])
    if kernel in ("castling", "vig"):
        with pytest.raises(NotImplementedError, match="Kernel has no attention weights"):
            relevance(model.to(dtype), clip, classes)
        return
    expected = relevance(model, clip, classes)
    found = relevance(model.to(dtype), clip, classes)
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert np.corrcoef(expected.flatten(), found.flatten())[0, 1] > 0.9


def test_gradients_that_are_never_numbers_are_told(folder, capsys, monkeypatch):
    place = folder()
    plain = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: [torch.nan * part for part in plain(*a, **k)]
    )
    assert explain(place, "a.png") == 1
    error = capsys.readouterr().err
    assert "load it in float32" in error and "Traceback" not in error


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_core(model):
    model.model.compile(backend="eager")
    return model


def compiled_blocks(model):
    for number, block in enumerate(model.model.blocks):
        model.model.blocks[number] = torch.compile(block, backend="eager")
    return model


def checkpointed_blocks(model):
    for number, block in enumerate(model.model.blocks):
        model.model.blocks[number] = checkpoint_wrapper(block)
    return model


def checkpointed(model):
    checkpointing(model, "enable")()
    return model


def offloaded(model):
    return cpu_offload(model, execution_device=torch.device("cpu"))


def with_adapter(model):
    return get_peft_model(model, LoraConfig(target_modules=["qkv", "proj"], r=2)).eval()


WRAPPERS = [
    *(compiled_whole, compiled_core, compiled_blocks, checkpointed_blocks, checkpointed),
    *(offloaded, with_adapter, torch.nn.DataParallel),
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
def test_wrapped_models_are_explained_like_plain_ones(hf_model, clip, wrap):
    classes = torch.tensor([1, 0])
    expected = relevance(hf_model, clip, classes)
    logits, records = record_attention(hf_model, clip)
    wrapped = wrap(hf_model)
    wrapped(clip)  # what is compiled is compiled before the hooks come
    torch.testing.assert_close(relevance(wrapped, clip, classes), expected)
    found, in_wrapper = record_attention(wrapped, clip)
    torch.testing.assert_close(found, logits)
    names = [(item.block, item.name) for item in in_wrapper]
    assert names == [(item.block, item.name) for item in records] and len(names) == 6


def test_explaining_works_in_inference_mode(folder, clip, hf_model):
    place = folder()
    expected = relevance(hf_model, clip, torch.tensor([1, 0]))
    with torch.inference_mode():
        found = relevance(hf_model, clip.clone(), torch.tensor([1, 0]))
        torch.testing.assert_close(found, expected)
        classify = Classifier(place / "model", "cpu")
        inside = explain_video(classify, place / "clip.mp4")
    outside = explain_video(Classifier(place / "model", "cpu"), place / "clip.mp4")
    np.testing.assert_allclose(inside.relevance, outside.relevance, rtol=1e-5)
    assert inside.predictions == outside.predictions


def test_other_models_are_named():
    with pytest.raises(ValueError, match="Expected a model of lvt_ff, got Linear"):
        core_of(torch.nn.Linear(1, 1))


def test_names_may_have_dollar_signs(folder):
    place = folder()
    config = LVTFFConfig.from_pretrained(place / "model")
    config.id2label = {0: "cost $5_$", 1: "a $x_$ b", 2: "$"}
    config.label2id = {name: number for number, name in config.id2label.items()}
    config.save_pretrained(place / "model")
    (place / "clip.mp4").rename(place / "c $y_$.mp4")
    for view in ("relevance", "layers"):
        files = (str(place / "c $y_$.mp4"), "--model", str(place / "model"), "--view", view)
        assert main(["explain", *files, "--output", str(place / "a.png")]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "pusch"], "did you mean 'push'"),
        (["--layer", "0"], "--layer has no effect on the view relevance"),
        (["--view", "attention", "--layer", "3"], "--layer must be between 0 and 2"),
        (["--view", "attention", "--head", "4"], "--head must be between 0 and 3"),
        (["--view", "attention", "--query", "[5,0]"], "below [5, 5], got [5, 0]"),
        (
            ["--view", "attention", "--query", "[0,4,0]"],
            "row and column of this model",
        ),
        (["--view", "attention", "--query", "[0,0]", "--label", "push"], "leave one out"),
        (["--output", "clip.mp4"], "--output is the video itself"),
        (["--view", "layers", "--output", "a.gif"], "must end with .png"),
        (["--output", "none/a.png"], "There is no folder"),
    ],
)
def test_wrong_requests_are_one_line_and_leave_nothing(
    folder, capsys, monkeypatch, options, message
):
    place = folder()
    monkeypatch.chdir(place)
    assert explain(place, "a.png", *options) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert sorted(path.name for path in place.iterdir()) == ["clip.mp4", "model"]


def test_what_a_model_does_not_have_is_said(folder, capsys, monkeypatch):
    place = folder(fixation="none", attn_pattern="windowed")
    assert explain(place, "a.png", "--view", "fixation") == 2
    assert "no feature fixation" in capsys.readouterr().err
    assert explain(place, "a.png", "--view", "time") == 2
    assert "no weights over time" in capsys.readouterr().err
    monkeypatch.setattr(KERNELS["relu"], "weights", Kernel.weights)
    assert explain(place, "a.png") == 2
    assert "ReluKernel has no attention weights" in capsys.readouterr().err
    model = LVTFFForVideoClassification.from_pretrained(place / "model")
    model.config.global_pool = ""
    model.config.save_pretrained(place / "model")
    assert explain(place, "a.png") == 2
    assert "no classes to explain" in capsys.readouterr().err
    model.config.global_pool = "avg"
    model.config.save_pretrained(place / "model")
    (place / "clip.mp4").write_bytes(b"not a video")
    assert explain(place, "a.png") == 1
    assert "Cannot read video" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == ["clip.mp4", "model"]
