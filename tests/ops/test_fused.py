"""Fused operators against the modules that they stand for, in values, gradients and behaviour."""

import copy
import itertools
import random
import socket
from typing import NamedTuple

import pytest
import timm
import torch
from blocks import block_config
from torch import nn
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from lvt_ff import ops
from lvt_ff.kernels import KERNELS
from lvt_ff.kernels.relu import ReluKernel
from lvt_ff.layers.attention import Attention, JointSequences, SpaceSequences, TimeSequences
from lvt_ff.layers.block import VideoBlock
from lvt_ff.layers.mlp import DepthwiseConv, VideoMlp
from lvt_ff.layers.shift import SPATIAL_OFFSETS, make_shift
from lvt_ff.model import LinearVideoTransformer, init_weights
from lvt_ff.ops.shift_table import shift_table
from lvt_ff.profiling import count_macs, peak_bytes

SEQUENCES = dict(time=TimeSequences, space=SpaceSequences, joint=JointSequences)
GATES = [("none", True), ("qk", True), ("qk", False), ("qkv", True), ("qkv", False)]
GRIDS = [(3, 4), (1, 1), (1, 5), (4, 1)]
LENGTHS = [1, 2, 5, 16, 17, 96, 130]
HEAD_DIMS = [16, 32, 64, 128]
FUSED = ["relu", "relu_plain", "elu1", "sigmoid", "softmax"]


class Case(NamedTuple):
    """An attention to compare."""

    spatial: int
    temporal: int
    border: str
    segment: int
    grid: tuple[int, int]
    num_frames: int
    head_dim: int


CASES = [
    Case(*values)
    for values in itertools.product(
        SPATIAL_OFFSETS, (0, 4), ("authors", "zero"), (0, 3), GRIDS, LENGTHS, HEAD_DIMS
    )
    # Where a shift is off its border or segment makes no case of its own.
    if (values[0] or values[2] == "authors") and (values[1] or not values[3])
]


@pytest.fixture(autouse=True)
def unwritten_is_nan():
    """Memory that an operator does not write holds NaN, not by luck the right number."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


class Called(TorchDispatchMode):
    """Names of the operators that run, and the most elements that one of them returns."""

    def __init__(self):
        super().__init__()
        self.names, self.most = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.add(func.name())
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return out

    @property
    def fused(self):
        return {name for name in self.names if name.startswith("lvt_ff::")}


def attention_layer(case, sequences="space", kernel="relu", fixation="qkv", shared=True):
    """An attention of random weights and its float64 reference."""
    torch.manual_seed(0)
    heads = 3 if case.head_dim == 16 else 2  # 24 channel groups are half of the channels
    dim = heads * case.head_dim
    shift = make_shift(
        dim,
        case.grid,
        spatial=case.spatial,
        border=case.border,
        temporal_div=case.temporal,
        segment=case.segment,
    )
    config = block_config(attn_kernel=kernel, fixation=fixation, fixation_shared=shared)
    size = case.num_frames, case.grid
    layer = Attention(dim, heads, size, SEQUENCES[sequences], shift, config).apply(init_weights)
    for bias in (p for name, p in layer.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias, std=0.2)
    return layer, reference_of(layer).double()


def reference_of(module):
    """The same module without fused operators."""
    other = copy.deepcopy(module)
    for part in other.modules():
        if hasattr(part, "use_fused"):
            part.use_fused = False
    return other


def results(module, x, fused, autocast=None):
    """Output and every gradient by name, in float64."""
    x = x.clone().requires_grad_()
    with Called() as called:
        if autocast:
            with torch.autocast("cpu", autocast):
                out = module(x)
        else:
            out = module(x)
    assert bool(called.fused) == fused, called.fused
    weight = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape)
    (out.double() * weight).sum().backward()
    gradients = {name: p.grad.double() for name, p in module.named_parameters()}
    return dict(out=out.detach().double(), x=x.grad.double(), **gradients)


def assert_equal(got, want, what):
    error = (got["out"] - want["out"]).abs().max().item()
    assert error <= 1e-5 * max(1, want["out"].abs().max().item()), f"{what}: {error:.1e}"
    # The bias of keys, for instance, may have no influence: then its gradient is rounding.
    least = 1e-6 * max(gradient.norm().item() for gradient in want.values())
    for name, gradient in want.items():
        error = (got[name] - gradient).norm().item()
        assert error <= 1e-4 * gradient.norm().item() + least, f"{what}, {name}: {error:.1e}"


def compare(case, sequences, kernel="relu", fixation="qkv", shared=True):
    layer, exact = attention_layer(case, sequences, kernel, fixation, shared)
    num_tokens = case.grid[0] * case.grid[1]
    x = torch.randn(2, case.num_frames, num_tokens, layer.proj.out_features)
    got, want = results(layer, x, True), results(exact, x.double(), False)
    assert_equal(got, want, f"{case} {sequences} {kernel} {fixation} {shared}")


@pytest.mark.parametrize("sequences", SEQUENCES)
@pytest.mark.parametrize(("fixation", "shared"), GATES)
def test_attention_equals_its_modules(sequences, fixation, shared):
    for case in random.Random(f"{sequences} {fixation} {shared}").sample(CASES, 25):
        compare(case, sequences, fixation=fixation, shared=shared)


@pytest.mark.every_case
@pytest.mark.parametrize("sequences", SEQUENCES)
@pytest.mark.parametrize(("fixation", "shared"), GATES)
@pytest.mark.parametrize("num_frames", LENGTHS)
def test_attention_equals_its_modules_in_every_case(sequences, fixation, shared, num_frames):
    for case in CASES:
        if case.num_frames == num_frames:
            compare(case, sequences, fixation=fixation, shared=shared)


@pytest.mark.parametrize("kernel", FUSED)
@pytest.mark.parametrize("sequences", SEQUENCES)
def test_every_fused_kernel_equals_its_modules(kernel, sequences):
    for case in (Case(1, 4, "authors", 0, (3, 4), 5, 16), Case(2, 4, "zero", 3, (2, 3), 40, 32)):
        for fixation, shared in (("qkv", True), ("qk", False), ("none", True)):
            compare(case, sequences, kernel, fixation, shared)


@pytest.mark.parametrize("dim", [8, 24, 36, 96])
def test_channel_groups_need_not_fit_heads(dim):
    """Groups of shifts end within a head, and heads have other sizes than powers of two."""
    for sequences in SEQUENCES:
        compare(Case(1 if dim < 24 else 2, 3, "authors", 0, (3, 4), 5, dim), sequences)


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (1, 5), (17, 3)])
def test_dwconv_gelu_equals_its_modules(size):
    torch.manual_seed(0)
    mlp = VideoMlp(12, 48, size, dwconv=True).apply(init_weights)
    nn.init.normal_(mlp.dwconv.weight)
    nn.init.normal_(mlp.dwconv.bias)
    x = torch.randn(2, 3, size[0] * size[1], 12)
    want = results(reference_of(mlp).double(), x.double(), False)
    assert_equal(results(mlp, x, True), want, size)
    with torch.inference_mode():
        torch.testing.assert_close(mlp(x).double(), want["out"], atol=1e-5, rtol=1e-5)


OPTIONS = [
    dict(),
    dict(attn_pattern="joint", spatial_shift=2, shift_border="zero"),
    dict(attn_pattern="windowed", fixation="qk", fixation_shared=False),
    dict(block_order="space_first", local_concentration=True, img_size=(48, 96), num_frames=5),
    dict(attn_kernel="softmax", temporal_shift_segment=2),
    dict(attn_kernel="sigmoid", mlp_dwconv=False, num_frames=1),
    dict(attn_kernel="elu1", drop_path_rate=0.3),
]


def whole_model(**options):
    """A small model that has learned something everywhere, and clips."""
    torch.manual_seed(0)
    model = timm.create_model("test_lvt_ff", num_classes=5, drop_rate=0.0, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, torch.randn(2, model.num_frames, 3, *model.img_size)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_whole_models_equal_their_reference(options):
    model, clip = whole_model(**options)
    model.eval()
    want = results(reference_of(model).double(), clip.double(), False)
    assert_equal(results(model, clip, True), want, options)
    with torch.inference_mode():
        got = model(clip).double()
    torch.testing.assert_close(got, want["out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("under_autocast", [False, True])
@pytest.mark.parametrize("sequences", SEQUENCES)
@pytest.mark.parametrize("kernel", ["relu", "elu1", "softmax"])
def test_half_precision_is_no_further_from_float64_than_the_reference(
    dtype, under_autocast, sequences, kernel
):
    case = Case(1, 4, "authors", 0, (6, 7), 24, 32)
    layer, exact = attention_layer(case, sequences, kernel)
    x = torch.randn(2, 24, 42, 64)
    if not under_autocast:
        layer, x = layer.to(dtype), x.to(dtype)
        exact.load_state_dict(layer.state_dict())
    autocast = dtype if under_autocast else None
    want = results(exact, x.double(), False)
    fused = results(layer, x, True, autocast)
    plain = results(reference_of(layer), x, False, autocast)
    for name, value in want.items():
        least = 1e-3 * value.norm()  # of gradients that are rounding only
        got, usual = ((found[name] - value).norm() for found in (fused, plain))
        assert got <= 1.1 * usual + least, f"{name}: {got:.1e}, the reference {usual:.1e}"


def across(x):
    """The same numbers with channels apart in memory, as after a convolution."""
    return x.detach().transpose(-2, -1).contiguous().transpose(-2, -1).requires_grad_()


def operator_calls():
    torch.manual_seed(0)
    spec = ops.AttentionSpec(
        "time", (2, 3), 2, "relu", 0.25, spatial_offsets=(1, 0, 0, -1), spatial_fold=4
    )
    qkv = torch.randn(2, 3, 6, 48, requires_grad=True)
    gate = torch.randn(8, 24, requires_grad=True), torch.randn(8, requires_grad=True)
    x = torch.randn(2, 3, 6, 8, requires_grad=True)
    filters = torch.randn(8, 1, 3, 3, requires_grad=True), torch.randn(8, requires_grad=True)
    norm = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    grad = torch.randn(2, 3, 6, 16)
    heads = torch.randn(12, 2, 3, 3, 8)
    call = torch.ops.lvt_ff
    plain = [t.detach() for t in (qkv, *gate)]
    return {
        "attention": (call.attention, (qkv, *gate, *spec)),
        "attention without gate": (call.attention, (qkv, None, None, *spec)),
        "attention_backward": (call.attention_backward, (grad, *plain, *spec)),
        "gated_heads": (call.gated_heads, (qkv, *gate, *spec)),
        "gated_heads_backward": (call.gated_heads_backward, (heads, *plain, *spec)),
        "dwconv_gelu": (call.dwconv_gelu, (x, *filters, (2, 3))),
        "add_norm": (call.add_norm, (x, x.detach(), *norm, 1e-6, torch.float32)),
        "add_norm of other layouts": (
            call.add_norm,
            (across(x), across(x.detach()), *norm, 1e-6, torch.float32),
        ),
        "dwconv_gelu of another layout": (call.dwconv_gelu, (across(x), *filters, (2, 3))),
        "attention of another layout": (call.attention, (across(qkv), *gate, *spec)),
    }


@pytest.mark.parametrize("name", operator_calls())
def test_operators_are_registered_as_torch_wants_them(name):
    operator, args = operator_calls()[name]
    if name == "attention without gate":  # None is no input to be differentiated
        args = (args[0].detach(), *args[1:])
    opcheck(operator, args)


def test_tables_read_every_row_and_bring_it_home():
    """What a gather reads, the scatter of gradients knows: as often, and from there."""
    offsets = tuple(step for offset in SPATIAL_OFFSETS[2] for step in offset)
    for sequences, (zeros, segment) in itertools.product(SEQUENCES, ((4, 0), (24, 2))):
        spec = ops.AttentionSpec(sequences, (3, 4), 2, "relu", spatial_offsets=offsets)
        spec = spec._replace(spatial_fold=1, zero_groups=zeros, temporal_fold=12, segment=segment)
        table = shift_table(spec, 5, 48)
        rows = table.rows.flatten().long()
        read = torch.ones(len(rows), dtype=torch.bool)
        read[torch.from_numpy(table.zeros)] = False
        times = torch.bincount(rows[read], minlength=len(rows))
        assert (times == 0).nonzero()[:, 0].equal(table.unread)
        places, again = table.again
        assert rows[places].equal(again) and (times[again] == 2).all()
        assert times.sum() == read.sum() and len(again) == (times == 2).sum()


def watch(module):
    seen = []
    module.register_forward_hook(lambda module, inputs, out: seen.append((module, out)))
    return seen


def gradient_penalty(model, clip):
    clip.requires_grad_()
    (gradient,) = torch.autograd.grad(model(clip).square().sum(), clip, create_graph=True)
    gradient.square().sum().backward()


def test_gradients_of_gradients_need_plain_torch_and_say_so():
    model, clip = whole_model()
    with pytest.raises(RuntimeError, match=r"set_fused_attn\(False\)"):
        gradient_penalty(model, clip)
    model.set_fused_attn(False)
    gradient_penalty(model, clip)


def test_transformations_of_torch_func_run_the_modules():
    model, clip = whole_model()
    model.eval()
    plain = reference_of(model)
    for run in (
        lambda m: torch.func.jvp(m, (clip,), (clip + 1,))[1],
        lambda m: torch.func.grad(lambda x: m(x).sum())(clip),
    ):
        torch.testing.assert_close(run(model), run(plain), atol=1e-5, rtol=1e-4)


def test_global_hooks_see_every_module():
    model, clip = whole_model()
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, out: seen.append((m, out)))
    try:
        with torch.no_grad():
            model(clip)
    finally:
        handle.remove()
    assert {type(m).__name__ for m, _ in seen} >= {"GELU", "SpatialShift", "ReluKernel"}


CHANGES = {
    "kernel": lambda block: setattr(block.attn, "kernel", KERNELS["elu1"](block.attn.kernel.shape)),
    "shift": lambda block: setattr(block.attn, "shift", nn.Identity()),
    "segment": lambda block: setattr(block.attn.shift, "segment", 2),
    "offset": lambda block: setattr(block.attn.kernel, "offset", 1.0),
    "method": lambda block: setattr(
        block.attn.kernel, "feature_map", lambda q, k: (q.exp(), k.exp())
    ),
    "GELU": lambda block: setattr(block.mlp, "act", nn.GELU(approximate="tanh")),
    "padding": lambda block: setattr(
        block.mlp, "dwconv", changed(block.mlp.dwconv, padding_mode="circular")
    ),
    "norm": lambda block: setattr(block, "norm2", nn.LayerNorm(64, elementwise_affine=False)),
    "gate": lambda block: setattr(block.attn.fixation.gate, "bias", None),
    "bias": lambda block: setattr(block.mlp.dwconv, "bias", None),
}


def changed(conv, padding_mode):
    other = DepthwiseConv(conv.in_channels, conv.grid)
    other.padding_mode = padding_mode
    other._reversed_padding_repeated_twice = [1, 1, 1, 1]
    return other.apply(init_weights)


@pytest.mark.parametrize("what", CHANGES)
def test_modules_changed_later_are_what_runs(what):
    model, clip = whole_model()
    before = model(clip)
    for block in model.blocks:
        CHANGES[what](block)
    got = model(clip)
    model.set_fused_attn(False)
    want = model(clip)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert (want - before).abs().max() > 1e-5


def test_autocast_leaves_float64_alone():
    model, clip = whole_model()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.double()(clip.double()).dtype == torch.float64


@pytest.mark.parametrize(("kernel", "expected"), [("relu", torch.bfloat16), ("vig", torch.float32)])
def test_what_is_normed_for_linear_layers_is_in_autocasts_dtype_at_once(kernel, expected):
    """Kernels that look at their input get it as the norm gives it."""
    model, clip = whole_model(attn_kernel=kernel)
    seen = []
    model.blocks[0].attn.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(clip)
    assert seen == [expected]


def test_fixations_of_others_run_as_they_are():
    class Halved(nn.Module):
        def forward(self, q, k, v):
            return q / 2, k / 2

    model, clip = whole_model(attn_kernel="softmax")
    before = model(clip)
    for block in model.blocks:
        block.attn.fixation = Halved()
    assert (model(clip) - before).abs().max() > 1e-5


def test_models_that_were_pickled_without_what_fusing_needs_run():
    model, clip = whole_model()
    expected = model(clip)
    for module in model.modules():
        for name in ("grid", "use_fused"):
            if isinstance(module, Attention | VideoMlp | VideoBlock):
                module.__dict__.pop(name, None)
    torch.testing.assert_close(model(clip), expected, atol=1e-5, rtol=1e-5)


def test_overwriting_asks_for_memory_in_order():
    conv = torch.randn(8, 1, 3, 3), torch.randn(8)
    x = torch.randn(2, 6, 4, 8).transpose(1, 2)
    want = ops.dwconv_gelu(x, *conv, (2, 3))
    torch.testing.assert_close(ops.dwconv_gelu(x, *conv, (2, 3), overwrite=True), want)


WATCHED = [
    *("attn.qkv", "attn.proj", "attn.shift", "attn.kernel", "attn.fixation", "attn.fixation.gate"),
    *("attn.attn_drop", "mlp.fc1", "mlp.dwconv", "mlp.act", "mlp.fc2", "norm2", "mlp", "attn"),
    *("drop_path", "temporal_attn", "norm1"),
]


@pytest.mark.parametrize("name", WATCHED)
def test_hooks_see_what_modules_give(name):
    """A module that somebody watches is called, and what it gave stays as it was."""
    model, clip = whole_model()
    plain = reference_of(model)
    kept = watch(model.blocks[1].get_submodule(name))
    expected = watch(plain.blocks[1].get_submodule(name))
    with torch.inference_mode():
        model(clip), plain(clip)
    assert len(kept) == len(expected) > 0
    got, want = (seen[0][1] for seen in (kept, expected))
    for a, b in zip(*((t if isinstance(t, tuple) else (t,)) for t in (got, want)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_empty_batches_pass():
    model, clip = whole_model()
    assert model(clip[:0]).shape == (0, 5)
    model(clip[:0]).sum().backward()
    with torch.inference_mode():
        assert model(clip[:0]).shape == (0, 5)


def test_blocks_leave_their_input_alone():
    model, clip = whole_model(local_concentration=True)
    with torch.inference_mode():
        x = model.embed(clip)
        before = x.clone()
        model.blocks[0].eval()(x)
        assert torch.equal(x, before)


def test_replaced_methods_of_an_instance_are_called():
    model, clip = whole_model()
    gate = model.blocks[0].attn.fixation.gate
    calls, real = [], gate.forward
    gate.forward = lambda x: calls.append(1) or real(x)  # what accelerate does to offload weights
    model(clip)
    assert calls


def test_fused_operators_are_switched_as_both_libraries_do():
    from timm.layers import set_exportable, set_fused_attn

    def names(model):
        with Called() as called, torch.no_grad():
            model(clip)
        return called.fused

    model, clip = whole_model()
    assert names(model) == {"lvt_ff::attention"}  # the others work in place without gradients
    with Called() as called:
        model(clip)
    assert called.fused == {"lvt_ff::attention", "lvt_ff::dwconv_gelu", "lvt_ff::add_norm"}
    model.set_fused_attn(False)
    with Called() as called:
        model(clip)
    assert not called.fused
    set_fused_attn(False)
    try:
        assert not names(whole_model()[0])
    finally:
        set_fused_attn(True)
    model.set_fused_attn(True)
    set_exportable(True)
    try:
        assert not names(model)
    finally:
        set_exportable(False)
    assert names(model)


def test_exports_hold_no_operator_of_ours():
    model, clip = whole_model()
    model.eval()
    graphs = [
        torch.export.export(model, (clip,)).graph_module.code,
        str(torch.jit.trace(model, clip, check_trace=False).inlined_graph),
        torch.fx.symbolic_trace(model).code,
    ]
    for code in graphs:
        assert "lvt_ff::" not in code and "ops.lvt_ff" not in code


@pytest.mark.parametrize("options", [dict(), dict(attn_kernel="softmax", attn_pattern="joint")])
def test_one_graph_for_every_batch(options):
    """Forward and backward, and from the second batch size on no other compilation."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model, clip = whole_model(**options)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    frames = set()
    # torch 2.7 chooses a convolution's implementation by whether a batch has 4.
    for batch in (4, 5, 7) if torch.__version__.startswith("2.7") else (2, 3, 5):
        x = clip[:1].expand(batch, *clip.shape[1:]) + torch.randn(batch, *clip.shape[1:])
        want = model(x)
        want_grad = torch.autograd.grad(want.square().sum(), model.blocks[0].attn.qkv.weight)[0]
        got = compiled(x)
        got_grad = torch.autograd.grad(got.square().sum(), model.blocks[0].attn.qkv.weight)[0]
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(got_grad, want_grad)
        frames.add(counter.frame_count)
    assert len(frames) == 1
    (graph,) = (graph.graph for graph in counter.graphs if graph.graph.nodes)
    assert any("lvt_ff." in str(node.target) for node in graph.nodes)


def test_checkpointed_activations_give_the_same_gradients():
    model, clip = whole_model()
    plain = results(model, clip, True)
    model.zero_grad()
    model.set_grad_checkpointing()
    for name, value in results(model, clip, True).items():
        torch.testing.assert_close(value, plain[name], msg=name)


def gradients_of_a_process(rank, port, results):
    """One of two processes, each with a clip of its own."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=2)
    model, clips = whole_model()
    parallel = nn.parallel.DistributedDataParallel(model)
    parallel(clips[rank : rank + 1]).square().sum().backward()
    torch.save([p.grad for p in model.parameters()], f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(gradients_of_a_process, (port, str(tmp_path)), nprocs=2)
    model, clips = whole_model()
    (model(clips).square().sum() / 2).backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for parameter, one, other in zip(model.parameters(), first, second, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, parameter.grad)


def test_equal_runs_give_equal_bits():
    model, clip = whole_model(spatial_shift=2, embed_dim=96, num_heads=2)
    first = results(model, clip, True)
    model.zero_grad()
    for name, value in results(model, clip, True).items():
        assert torch.equal(value, first[name]), name


def tokens_and_cost(options):
    """Operations and peak memory of a training step of a one-block model, beside its size."""
    torch.manual_seed(0)
    model = LinearVideoTransformer(
        embed_dim=32, num_heads=2, depth=1, num_classes=2, patch_size=4, patch_stride=4,
        patch_padding=0, **options,
    )  # fmt: skip
    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    with Called() as called:
        model(clip)
    tokens = model.num_frames * model.grid[0] * model.grid[1]
    peak = peak_bytes(lambda: model(clip).sum().backward(), clip.device)
    return tokens, count_macs(model), peak, called.most


@pytest.mark.parametrize("pattern", ["factorized", "joint"])
@pytest.mark.parametrize("grow", [dict(num_frames=256), dict(img_size=128)])
def test_cost_grows_with_the_tokens_and_no_faster(pattern, grow):
    base = dict(attn_pattern=pattern, num_frames=64, img_size=64)
    small, large = tokens_and_cost(base), tokens_and_cost(dict(base, **grow))
    assert large[0] == 4 * small[0]
    for few, many in zip(small[1:], large[1:], strict=True):
        assert many <= 4.2 * few
    assert large[3] <= 4 * 32 * large[0]  # the MLP's hidden features are the largest of all


def kept_for_backward(depth, fused=True):
    """Numbers that a training step keeps, beside parameters."""
    torch.manual_seed(0)
    model = timm.create_model("test_lvt_ff", depth=depth, drop_rate=0.0)
    model.set_fused_attn(fused)
    storages = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes() // 4
        return x

    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = model(clip)
    assert out.requires_grad  # or else what was kept would be gone already
    return sum(storages.values())


def test_a_block_keeps_what_its_linear_layers_need_and_little_else():
    """Three sums and three norms of D channels, packed 3D and D twice, hidden 4D twice."""
    tokens = 4 * 25
    block = kept_for_backward(4) - kept_for_backward(3)
    assert 22 * 64 * tokens <= block <= 22.5 * 64 * tokens
    assert block < 0.5 * (kept_for_backward(4, fused=False) - kept_for_backward(3, fused=False))


@pytest.mark.parametrize("options", [dict(), dict(attn_pattern="joint", fixation="none")])
def test_operations_are_counted_in_fused_operators_too(options):
    model, _ = whole_model(**options)
    plain = count_macs(reference_of(model))
    assert count_macs(model) == plain == count_macs(copy.deepcopy(model).to("meta"))


def test_subclasses_with_methods_of_their_own_are_not_fused():
    class Squared(ReluKernel):
        def feature_map(self, q, k):
            return q.relu().square(), k.relu().square()

    class Renamed(ReluKernel):
        source = "nowhere"

    class Mixin:
        def feature_map(self, q, k):
            return q, k

    class Mixed(Mixin, ReluKernel):
        pass

    assert Squared.fused is None and Mixed.fused is None and Renamed.fused == "relu"
    assert {name for name, kernel in KERNELS.items() if kernel.fused} == set(FUSED)
