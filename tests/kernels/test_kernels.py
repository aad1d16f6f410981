"""The table of kernels: what every kernel keeps to, and that a new one is one file and one line."""

import inspect
from contextlib import nullcontext

import numpy as np
import pytest
import timm
import torch
from torch import nn

import lvt_ff
from lvt_ff import VARIANTS, LinearVideoTransformer
from lvt_ff.cli import main
from lvt_ff.data.synthetic.motion import draw_motion
from lvt_ff.kernels import KERNELS, Kernel, KernelShape, LinearKernel, build_kernel
from lvt_ff.layers import init_weights
from lvt_ff.ops import upcast
from lvt_ff.profiling import peak_memory

# Weights of these are no averages: they may be negative, or do not sum to one.
SIGNED = {"linformer", "lara", "orthoformer", "inline", "vitality", "rank_augmented", "l2vit"}
# These have no matrix of weights to show.
WITHOUT_WEIGHTS = {"castling", "vig"}
# These are 0 where a query has no positive part, so that weights do not sum to one.
VANISHING = {"relu_plain", "cosformer", "vicinity"}


# Convolutions and gates beside these attentions are in the low precision itself.
BESIDE = {"focused", "inline", "castling", "rank_augmented", "vig"}
# A value for every option that differs from the default; those that are true or false turn over.
OTHER_VALUES = dict(
    **dict(offset=1.0, eps=30.0, num_features=7, features="relu", stabilizer="joint", floor=0.1),
    **dict(seed=1, rank=5, num_landmarks=4, proposals="pool", alpha=0.5, focusing_factor=2),
    **dict(kernel_size=3, den_min=1.0, filter_size=3),
)


class Squares(LinearKernel):
    """Squares of queries and keys."""

    def feature_map(self, q, k):
        q, k = upcast(q, k)
        return q.square(), k.square()


class TwoSided(LinearKernel):
    """Positive and negative parts as separate features: F = 2·E."""

    def __init__(self, shape: KernelShape, *, power: float = 1.0):
        super().__init__(shape)
        self.power = power

    @property
    def feature_dim(self):
        return 2 * self.shape.head_dim

    def feature_map(self, q, k):
        return tuple(torch.cat([x.relu(), (-x).relu()], -1) ** self.power for x in (q, k))


# The generic tests run over the table, and over a kernel of a few lines that is added to it.
NAMES = [*KERNELS, "squares"]


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    monkeypatch.setitem(KERNELS, "squares", Squares)


def made(name, grid=(5, 3), num_heads=4, head_dim=16, init_seed=0, **options):
    torch.manual_seed(init_seed)
    kernel = build_kernel(name, KernelShape(num_heads, head_dim, grid), options)
    return kernel.apply(init_weights).eval()


def tensors(kernel, scale=1.0, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = kernel.shape
    size = (batch, shape.num_heads, shape.length, shape.head_dim)
    q, k, v = (scale * torch.randn(size, generator=generator) for _ in "qkv")
    return q, k, v, scale * torch.randn(batch, shape.length, shape.dim, generator=generator)


def attend(kernel, q, k, v, x):
    return kernel.aggregate(*kernel.feature_map(q, k), v, x)


@pytest.mark.parametrize("fixation", ["none", "qkv"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_new_kernel_is_one_line(monkeypatch, fixation, shared):
    monkeypatch.setitem(KERNELS, "two_sided", TwoSided)
    options = dict(attn_kernel="two_sided", fixation=fixation, fixation_shared=shared)
    options["kernel_options"] = dict(power=2.0)
    model = LinearVideoTransformer(**VARIANTS["test_lvt_ff"], num_classes=3, **options)
    assert model.blocks[0].attn.kernel.power == 2.0
    out = model(torch.randn(1, 4, 3, 64, 64))
    out.square().sum().backward()
    assert out.shape == (1, 3) and model.blocks[0].attn.qkv.weight.grad.isfinite().all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (5, 3), (10, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_keep_shapes_and_reach_every_parameter(name, grid):
    kernel = made(name, grid)
    q, k, v, x = (part.requires_grad_() for part in tensors(kernel))
    features = kernel.feature_map(q, k)
    assert features[0].shape[-1] == features[1].shape[-1] == kernel.feature_dim
    out = attend(kernel, q, k, v, x)
    assert out.shape == v.shape and out.dtype == v.dtype
    generator = torch.Generator().manual_seed(1)
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    for parameter_name, parameter in kernel.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert grid != (5, 3) or parameter.grad.abs().max() > 0, parameter_name
    assert v.grad.abs().max() > 0
    for part in (q, k):
        assert part.grad is None or part.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic_and_state_goes_round(name):
    kernel, other = made(name, init_seed=0), made(name, init_seed=1)
    given = tensors(kernel)
    out = attend(kernel, *given)
    assert torch.equal(out, attend(kernel, *given))
    other.load_state_dict(kernel.state_dict())
    assert torch.equal(out, attend(other, *given))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_WEIGHTS])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (8, 5)])
def test_rows_are_the_weights_that_are_applied(name, grid):
    kernel = made(name, grid).double()
    q, k, v, _ = (part.double() for part in tensors(kernel))
    q, k = kernel.feature_map(q, k)
    rows = kernel.weights(q, k, torch.arange(kernel.shape.length))
    plain = getattr(kernel, "attend", kernel.aggregate)  # without convolutions beside
    expected = plain(q, k, v)
    if name == "focused":
        kernel.dwc.weight.data.zero_()
        kernel.dwc.bias.data.zero_()
        expected = kernel.aggregate(q, k, v)
    torch.testing.assert_close(rows @ v, expected)
    if name not in SIGNED:
        assert rows.min() >= -1e-12
        total = rows.sum(-1)
        assert (total <= 1 + 1e-5).all()
        if name not in VANISHING:
            torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)


def run_in(kernel, given, context):
    leaves = [part.detach().clone().requires_grad_() for part in given]
    with context:
        out = attend(kernel, *leaves)
    generator = torch.Generator().manual_seed(1)
    (out.double() * torch.randn(out.shape, generator=generator)).sum().backward()
    gradients = (leaf.grad for leaf in leaves)
    return dict(zip(("out", "dq", "dk", "dv", "dx"), [out, *gradients], strict=True))


@pytest.mark.parametrize("scale, grid", [(1, (17, 17)), (10, (68, 68))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_autocast_is_finite_and_close_to_double(name, dtype, scale, grid):
    # 68 × 68 = 4,624 tokens: 16 frames of 17 × 17 in one sequence, whose sums overflow.
    options = dict(stabilizer="joint") if name == "performer" else {}
    kernel = made(name, grid, num_heads=1, head_dim=64, **options)
    half = [part.to(dtype) for part in tensors(kernel, scale, batch=1)]
    got = run_in(kernel, half, torch.autocast("cpu", dtype))
    want = run_in(kernel.double(), [part.double() for part in half], nullcontext())
    for part, expected in want.items():
        if expected is None:  # a kernel that does not look at the input
            assert got[part] is None
            continue
        assert got[part].dtype == dtype and got[part].isfinite().all(), part
        error = (got[part].double() - expected).abs().max() / expected.abs().max()
        if part == "out" and name not in BESIDE:  # sums in bfloat16 alone cost more than 8e-3
            assert error < 6e-3, f"{part}: {error:.1e}"
        # Convolutions and gates beside an attention are computed in the low precision itself.
        assert error < (2e-2 if dtype == torch.float16 else 3e-2), f"{part}: {error:.1e}"


@pytest.mark.parametrize("size, is_mean", [(0.5, False), (2.0, True)])
def test_performer_of_the_source_forgets_large_inputs(size, is_mean):
    for stabilizer, expected in (("reference", is_mean), ("joint", False)):
        kernel = made("performer", (17, 17), num_heads=1, head_dim=64, stabilizer=stabilizer)
        q, k, v, x = tensors(kernel, scale=size)
        away = (attend(kernel, q, k, v, x) - v.mean(-2, keepdim=True)).abs().max()
        assert (away < 1e-3 * v.abs().max()) == expected


@pytest.mark.parametrize("which", ["queries", "keys", "both", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_dead_features_are_finite_forth_and_back(name, which):
    kernel = made(name)
    q, k, v, x = tensors(kernel)
    if which in ("queries", "both"):
        q = -q.abs()
    if which in ("keys", "both"):
        k = -k.abs()
    if which == "zero":
        q, k = torch.zeros_like(q), torch.zeros_like(k)
    leaves = [part.requires_grad_() for part in (q, k, v)]
    out = attend(kernel, *leaves, x)
    assert out.isfinite().all()
    for gradient in torch.autograd.grad(out.sum(), leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@pytest.fixture(scope="module")
def motion():
    """Clips (4, 4, 3, 40, 40) of four classes of the synthetic motion data, and their labels."""
    clips = [draw_motion(4 * label, np.random.default_rng(label))[::4] for label in range(4)]
    clips = torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)
    return clips / 127.5 - 1, torch.arange(4)


def losses_of_training(model, scores_of, clips, labels):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(30):
        torch.manual_seed(step)  # some kernels draw in training
        loss = nn.functional.cross_entropy(scores_of(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_models_of_every_kernel_train_and_load_alike(name, tmp_path, motion):
    torch.manual_seed(0)
    options = dict(depth=1, attn_kernel=name, drop_rate=0.0, img_size=40, patch_size=8)
    options |= dict(patch_stride=8, patch_padding=0)
    model = timm.create_model("test_lvt_ff", num_classes=4, **options)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", num_labels=4, **options)
    wrapper = lvt_ff.LVTFFForVideoClassification(config)
    wrapper.model.load_state_dict(model.state_dict())
    losses = losses_of_training(model.train(), model, *motion)
    assert losses[-1] < 0.5 * losses[0]
    wrapped = losses_of_training(wrapper.train(), lambda clips: wrapper(clips).logits, *motion)
    torch.testing.assert_close(wrapped, losses, atol=1e-4, rtol=1e-3)
    wrapper.save_pretrained(tmp_path)
    again = lvt_ff.LVTFFForVideoClassification.from_pretrained(tmp_path).eval()
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        expected = wrapper.eval()(motion[0]).logits
        torch.testing.assert_close(again(motion[0]).logits, expected)
        torch.testing.assert_close(by_timm(motion[0]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_models_of_every_kernel_change_size(name):
    torch.manual_seed(0)
    model = timm.create_model("test_lvt_ff", num_classes=2, depth=1, attn_kernel=name).eval()
    model.set_input_size(img_size=(64, 80), num_frames=6)
    with torch.no_grad():
        assert model(torch.randn(1, 6, 3, 64, 80)).isfinite().all()


@pytest.mark.parametrize(
    "name, option",
    [
        (name, option)
        for name, kernel in KERNELS.items()
        for option in inspect.signature(kernel).parameters
        if option not in ("shape", "redraw_interval")
    ],
)
def test_every_option_changes_the_result(name, option):
    # A bound acts on some denominators where it is as large as they are, a clip on large sums.
    more = dict(eps=0.5 if name == "performer" else 20.0) if option == "clamp" else {}
    default = inspect.signature(KERNELS[name]).parameters[option].default
    value = not default if isinstance(default, bool) else OTHER_VALUES[option]
    plain, other = made(name, **more), made(name, **more, **{option: value})
    given = tensors(plain, scale=30 if option == "clip" else 1)
    expected = attend(plain, *given)
    assert (attend(other, *given) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_features_are_drawn_again_in_training(tmp_path):
    kernel = made("performer", redraw_interval=10)
    draws = []
    for step in range(0, 25):
        kernel.start_step(step)
        draws.append(kernel.projection.clone())
    changes = [step for step in range(1, 25) if not torch.equal(draws[step], draws[step - 1])]
    assert changes == [10, 20]
    # A function of the step: a run that goes on from step 15 has the same.
    later = made("performer", redraw_interval=10)
    later.load_state_dict(dict(projection=draws[15]))
    later.start_step(20)
    assert torch.equal(later.projection, draws[20])
    never = made("performer", redraw_interval=0)
    before = never.projection.clone()
    never.start_step(1000)
    assert torch.equal(never.projection, before)
    rows = kernel.projection.double()
    unit = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit @ unit.T, torch.eye(16, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_compile_whole_and_export_for_any_batch(name):
    kernel = made(name, (8, 8), num_heads=2)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = kernel

        def forward(self, q, k, v, x):
            return attend(self.kernel, q, k, v, x)

    given, more = tensors(kernel), tensors(kernel, batch=3, seed=1)
    torch._dynamo.reset()
    compiled = torch.compile(Whole(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*given), attend(kernel, *given))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(Whole(), given, dynamic_shapes=(batch,) * 4)
    torch.testing.assert_close(program.module()(*more), attend(kernel, *more))


def test_resampled_projections_sum_as_before():
    model = timm.create_model("test_lvt_ff", depth=1, attn_kernel="linformer").eval()
    kernel = model.blocks[0].attn.kernel
    before = kernel.proj_v.sum(0)
    model.set_input_size(img_size=128, num_frames=7)
    assert kernel.proj_v.shape[0] == 100
    torch.testing.assert_close(kernel.proj_v.sum(0), before, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("size", [dict(num_frames=1), dict(img_size=(64, 80)), {}])
@pytest.mark.parametrize("pattern", ["factorized", "joint", "windowed"])
@pytest.mark.parametrize("pos_embed", [True, False])
def test_tables_of_any_pattern_change_size(size, pattern, pos_embed, tmp_path):
    options = dict(depth=1, attn_kernel="linformer", attn_pattern=pattern, pos_embed=pos_embed)
    model = timm.create_model("test_lvt_ff", num_classes=2, **options, **size).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    overlay = dict(file=str(tmp_path / "weights.pth"))
    same = timm.create_model(
        "test_lvt_ff",
        num_classes=2,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        **options,
        **size,
    ).eval()
    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    with torch.no_grad():
        torch.testing.assert_close(same.forward_features(clip), model.forward_features(clip))
        model.set_input_size(num_frames=4, img_size=(92, 64))
        assert model(torch.randn(1, 4, 3, 92, 64)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_keys_that_a_shift_has_made_0_and_gates_that_are_shut_give_finite_results(name):
    options = dict(attn_kernel=name, fixation_order="before", temporal_shift_div=2, depth=1)
    model = timm.create_model("test_lvt_ff", num_classes=2, **options)
    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    for bias in (0.0, -60.0):  # exp(-60)² is no float32
        with torch.no_grad():
            for block in model.blocks:
                for gate in (block.attn.fixation.gate, block.temporal_attn.fixation.gate):
                    gate.bias.fill_(bias)
        out = model(clip)
        gradients = torch.autograd.grad(out.sum(), [*model.parameters()])
        assert out.isfinite().all() and all(grad.isfinite().all() for grad in gradients)


@pytest.mark.parametrize("fixation", ["own", "qkv"])
def test_gates_begin_with_their_bias_in_both_libraries_and_where_weights_are_missing(
    fixation, tmp_path
):
    options = dict(depth=1, fixation=fixation)
    plain = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", depth=1, fixation="none")
    lvt_ff.LVTFFForVideoClassification(plain).save_pretrained(tmp_path / "plain")
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", **options, fixation_bias=3.0)
    load = lvt_ff.LVTFFForVideoClassification.from_pretrained
    found = lvt_ff.LVTFFForVideoClassification(config)
    for model in (
        timm.create_model("test_lvt_ff", **options, fixation_bias=3.0),
        found,
        load(tmp_path / "plain", fixation=fixation, fixation_bias=3.0),
    ):
        biases = [value for name, value in model.state_dict().items() if "gate.bias" in name]
        assert len(biases) == 2 and all((bias == 3.0).all() for bias in biases)
    with torch.no_grad():
        found.model.blocks[0].attn.fixation.gate.bias.fill_(1.5)
    found.save_pretrained(tmp_path / "trained")
    again = load(tmp_path / "trained").model.blocks[0]
    assert (again.attn.fixation.gate.bias == 1.5).all()
    assert (again.temporal_attn.fixation.gate.bias == 3.0).all()


def test_order_of_fixation_and_shift_is_nothing_without_fixation():
    outputs = []
    for order in ("before", "after"):
        torch.manual_seed(0)
        options = dict(fixation="none", fixation_order=order, depth=1)
        model = timm.create_model("test_lvt_ff", num_classes=2, **options).eval()
        outputs.append(model(torch.ones(1, model.num_frames, 3, *model.img_size)))
    assert outputs[0].equal(outputs[1])


def test_attentions_have_random_features_of_their_own():
    for build in (
        lambda: timm.create_model("test_lvt_ff", num_classes=2, attn_kernel="performer"),
        lambda: lvt_ff.LVTFFForVideoClassification(
            lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", attn_kernel="performer")
        ),
    ):
        kernels = [part for part in build().modules() if isinstance(part, Kernel)]
        draws = [kernel.projection.clone() for kernel in kernels]
        for kernel in kernels:
            kernel.redraw(3)
        draws += [kernel.projection for kernel in kernels]
        assert len({draw.sum().item() for draw in draws}) == 2 * 2 * 3  # blocks of 2 attentions


def test_fixation_of_a_performer_with_other_features_is_of_queries_and_keys():
    options = dict(attn_kernel="performer", kernel_options=dict(num_features=44))
    for more in (dict(fixation_aggregate="add"), dict(fixation_order="before"), {}):
        model = timm.create_model("test_lvt_ff", num_classes=2, depth=1, **options, **more)
        gate = model.blocks[0].attn.fixation.gate
        assert gate.weight.shape == (16, 16 if "fixation_aggregate" in more else 48)
        assert model(torch.ones(1, model.num_frames, 3, *model.img_size)).isfinite().all()


def test_lara_takes_the_proposals_of_the_present_grid():
    flat = made("lara", (1, 15))
    assert flat.proposals == "adaptive-1d"
    flat.set_grid((5, 3))
    square = made("lara", (5, 3))
    assert flat.proposals == square.proposals == "pool-mixed"
    assert made("lara", (5, 3), proposals="pool").proposals == "pool"


@pytest.mark.parametrize(
    "kernel, parameter, mean, std",
    [
        ("l2vit", "temperature", 16**-0.5, 0.0),
        ("linformer", "proj_k", 0.0, 256**-0.5 / 3**0.5),
        ("linformer", "proj_v", 0.0, 256**-0.5 / 3**0.5),
        ("focused", "scale", 0.0, 0.0),
        ("focused", "positional_encoding", 0.0, 0.0),
        ("rank_augmented", "lepe.weight", 0.0, 0.02),
        ("rank_augmented", "lepe.bias", 0.0, 0.0),
    ],
)
def test_first_values_are_the_sources(kernel, parameter, mean, std):
    values = made(kernel, (20, 20)).get_parameter(parameter).detach()
    torch.testing.assert_close(values.mean().item(), mean, rtol=1e-5, atol=std / 5)
    torch.testing.assert_close(values.std().item(), std, rtol=0.1, atol=1e-8)


def statistics_of(model):
    return {
        name: tensor.float().std(unbiased=False)
        for name, tensor in model.state_dict().items()
        if ".kernel." in name or ".local." in name
    }


@pytest.mark.parametrize("name", NAMES)
def test_first_values_are_alike_in_both_libraries_and_for_missing_weights(name, tmp_path):
    torch.manual_seed(0)
    options = dict(depth=1, attn_kernel=name, local_concentration=True)
    core = timm.create_model("test_lvt_ff", num_classes=2, **options)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", num_labels=2, **options)
    lvt_ff.LVTFFForVideoClassification(
        lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", num_labels=2, depth=1)
    ).save_pretrained(tmp_path)
    load = lvt_ff.LVTFFForVideoClassification.from_pretrained
    expected = statistics_of(core)
    for other in (lvt_ff.LVTFFForVideoClassification(config), load(tmp_path, **options)):
        found = statistics_of(other.model)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0.35, atol=2e-2, msg=key)


@pytest.mark.parametrize("pattern", ["factorized", "joint"])
@pytest.mark.parametrize("name", ["linformer", "focused"])
def test_kernels_tied_to_a_length_are_resampled_at_loading(name, pattern, tmp_path, caplog):
    torch.manual_seed(0)
    options = dict(depth=1, attn_kernel=name, attn_pattern=pattern, num_labels=2)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", **options)
    model = lvt_ff.LVTFFForVideoClassification(config).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("positional_encoding"):
            nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    size = dict(num_frames=6, img_size=92)
    with caplog.at_level("INFO"):
        by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **size).eval()
    table = "proj_k" if name == "linformer" else "positional_encoding"
    assert f"kernel.{table} from" in caplog.text
    again = lvt_ff.LVTFFForVideoClassification.from_pretrained(tmp_path, **size).eval()
    model.model.set_input_size(**size)
    clips = torch.randn(1, 6, 3, 92, 92)
    with torch.no_grad():
        expected = model(clips).logits
        torch.testing.assert_close(by_timm(clips), expected)
        torch.testing.assert_close(again(clips).logits, expected)


def test_tables_and_temperatures_do_not_decay():
    from lvt_ff.training.optim import make_optimizer

    for name, leaves in (
        ("focused", ("scale", "positional_encoding")),
        ("l2vit", ("temperature",)),
    ):
        model = timm.create_model("test_lvt_ff", depth=1, attn_kernel=name)
        options = dict(lr=1e-3, weight_decay=0.1, momentum=0.9, layer_decay=1.0)
        optimizer = make_optimizer(model, "adamw", **options)
        decays = {
            id(parameter): group["weight_decay"]
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for leaf in leaves:
            assert decays[id(getattr(model.blocks[0].attn.kernel, leaf))] == 0
        assert decays[id(model.blocks[0].attn.qkv.weight)] == 0.1


def test_resampled_tables_follow_the_grid():
    model = timm.create_model("test_lvt_ff", depth=1, attn_kernel="focused", img_size=(64, 64))
    table = model.blocks[0].attn.kernel.positional_encoding
    rows = torch.arange(5.0).repeat_interleave(5)  # the row of each token of the 5 × 5 grid
    with torch.no_grad():
        table.copy_(rows[None, :, None].expand_as(table))
    model.set_input_size(img_size=(120, 64))
    taller = model.blocks[0].attn.kernel.positional_encoding[0, :, 0].unflatten(0, model.grid)
    assert model.grid == (9, 5)
    assert (taller.std(1) < 1e-4).all() and (taller[:, 0].diff() > 0).all()


def test_options_of_a_kernel_are_checked():
    with pytest.raises(ValueError, match="Kernel 'softmax' has no option 'rank': it has none"):
        timm.create_model("test_lvt_ff", attn_kernel="softmax", kernel_options=dict(rank=3))
    with pytest.raises(ValueError, match=r"no option 'ranks': choose from \['rank'\]"):
        timm.create_model("test_lvt_ff", attn_kernel="linformer", kernel_options=dict(ranks=3))
    assert isinstance(made("performer", num_features=7), Kernel)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "softmax"])
def test_memory_grows_with_the_tokens_and_not_with_their_square(name, training):
    short, long = (peak_memory(name, length, training=training) for length in (1024, 8192))
    assert short > 0 and long / short < 1.1 * 8


def test_memory_of_training_is_that_of_both_passes():
    assert peak_memory("relu", 1024, training=True) > 1.5 * peak_memory("relu", 1024)


def test_memory_of_a_square_matrix_is_counted(monkeypatch):
    class Square(Kernel):
        def aggregate(self, q, k, v, x=None):
            return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    monkeypatch.setitem(KERNELS, "square", Square)
    assert peak_memory("square", 2048) >= 2 * 4 * 2048**2
    assert peak_memory("square", 4096) > 3.5 * peak_memory("square", 2048)


def test_a_new_kernel_is_in_lists_and_choices(capsys, tmp_path):
    assert main(["kernels", "--model", "lvt_ff_tiny"]) == 0
    assert "\nsquares " in capsys.readouterr().out
    assert main(["ablate", "--tables", "1", "--dry_run"]) == 0
    assert "attn_kernel=squares," in capsys.readouterr().out
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "clip.mp4").write_bytes(b"")
    arguments = ["--model", "test_lvt_ff", "--train_data", str(tmp_path / "data")]
    arguments += ["--output_dir", str(tmp_path / "out")]
    assert main(["finetune", *arguments, "--model_args", '{"attn_kernel": "square"}']) == 2
    assert "'vig', 'squares', got 'square'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("linformer", dict(rank=0), "rank must be at least 1, got 0"),
        ("linformer", dict(rank="many"), "'rank' of kernel 'linformer' must be int, got 'many'"),
        ("linformer", dict(rank=True), "must be int, got True"),
        ("relu", dict(eps=-1.0), "eps must be at least 0"),
        ("relu", dict(clamp=1), "must be bool, got 1"),
        ("orthoformer", dict(num_landmarks=0), "num_landmarks must be at least 1"),
        ("lara", dict(proposals="grid"), r"proposals must be one of \[None, 'pool-mixed'"),
        ("performer", dict(num_features=0), "num_features must be at least 1"),
        ("performer", dict(features="cos"), "features must be one of"),
        ("performer", dict(redraw_interval=-1), "redraw_interval must be at least 0"),
        ("focused", dict(focusing_factor=7), "focusing_factor must be one of"),
        ("castling", dict(filter_size=4), "filter_size must be odd"),
    ],
)
def test_wrong_values_of_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        made(name, **options)
    made("relu", eps=1)  # a whole number is a number
