"""The Triton path of the operators, in Triton's interpreter, equals the CPU path in float64.

The interpreter is chosen when kernels are defined: all but one test run where TRITON_INTERPRET=1,
and that one starts a sample of the others. Every combination runs with
`TRITON_INTERPRET=1 pytest -m every_case tests/ops/test_triton.py`.
"""

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
from triton_interpreter import mend, unwritten_is_nan  # noqa: E402, F401

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")

if INTERPRETED:
    import importlib

    import timm
    from blocks import block_config
    from timm.layers import set_fused_attn

    from lvt_ff.layers.attention import (
        Attention,
        JointSequences,
        SpaceSequences,
        TimeSequences,
    )
    from lvt_ff.layers.mlp import VideoMlp
    from lvt_ff.layers.shift import SPATIAL_OFFSETS, make_shift
    from lvt_ff.model import init_weights
    from lvt_ff.ops import (
        AttentionSpec,
        add_norm_triton,
        attention_cpu,
        attention_triton,
        dwconv_cpu,
        dwconv_triton,
        launch_triton,
    )

    # The package has the function under this name.
    add_norm = importlib.import_module("lvt_ff.ops.add_norm")
    SEQUENCES = {"time": TimeSequences, "space": SpaceSequences, "joint": JointSequences}
    mend()


@pytest.mark.skipif(INTERPRETED, reason="runs the other tests")
def test_sample_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__]
    environment = dict(os.environ, TRITON_INTERPRET="1")
    root = Path(__file__).parents[2]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-5000:] + run.stderr[-2000:]


_MENDED = """
import sys
sys.path.append(sys.argv.pop(1))
from triton_interpreter import mend
mend()
import pytest
raise SystemExit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.skipif(INTERPRETED, reason="runs the other tests")
def test_authors_outputs_are_reproduced_in_the_interpreter():
    place = Path(__file__).parent
    golden = place.parent / "weights" / "test_golden.py"
    chosen = ["-q", "-k", "reproduced and True and dtype1", str(golden)]  # fused, float32
    command = [sys.executable, "-c", _MENDED, str(place), *chosen]
    environment = dict(os.environ, TRITON_INTERPRET="1")
    run = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)
    assert run.returncode == 0 and "4 passed" in run.stdout, run.stdout[-5000:] + run.stderr[-2000:]


def spec_of(sequences, grid, num_heads, head_dim, shift=(), **changes):
    """An attention's arguments; `shift` has "spatial", "wide", "zero", "temporal", "segment"."""
    dim, fields = num_heads * head_dim, {"feature_map": "relu", "offset": 0.25}
    if "spatial" in shift or "wide" in shift:
        offsets = SPATIAL_OFFSETS[2 if "wide" in shift else 1]
        fields["spatial_offsets"] = tuple(step for offset in offsets for step in offset)
        fields["spatial_fold"] = max(1, dim // (2 * len(offsets)))
        fields["zero_groups"] = len(offsets) if "zero" in shift else 4
    if "temporal" in shift:
        fields["temporal_fold"] = dim // 4
    if "segment" in shift:
        fields["segment"] = 2
    return AttentionSpec(sequences, grid, num_heads, **{**fields, **changes})


def inputs_of(spec, batch, num_frames, head_dim, gate, seed=0):
    """qkv, weight and bias in float32; `gate` is inputs and ratios, (0, 0) for none."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    num_inputs, num_ratios = gate
    qkv = draw(batch, num_frames, spec.grid[0] * spec.grid[1], 3 * spec.num_heads * head_dim)
    if num_inputs == 0:
        return qkv, None, None
    weight = 0.3 * draw(num_ratios * head_dim, num_inputs * head_dim)
    return qkv, weight, draw(num_ratios * head_dim)


def error(got, want, least=1e-2):
    """Largest difference, as a part of the largest number, or of `least` if that is larger."""
    assert got.isfinite().all() and got.shape == want.shape
    if want.numel() == 0:
        return 0.0
    return ((got.double() - want).abs().max() / want.abs().max().clamp(min=least)).item()


def check_gradients(got, want, names, least=1e-2):
    for name, a, b in zip(names, got, want, strict=True):
        assert error(a, b, least) < 1e-4, f"{name}: {error(a, b, least):.1e}"


def check_attention(spec, batch, num_frames, head_dim, gate, name="attention"):
    inputs = inputs_of(spec, batch, num_frames, head_dim, gate)
    exact = [None if x is None else x.double() for x in inputs]
    got = getattr(attention_triton, name)(*inputs, spec)
    want = getattr(attention_cpu, name)(*exact, spec)
    assert error(got, want) < 1e-5, f"{error(got, want):.1e}"
    grad = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    got = getattr(attention_triton, f"{name}_backward")(grad, *inputs, spec)
    want = getattr(attention_cpu, f"{name}_backward")(grad.double(), *exact, spec)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
    # The result of a sequence of one token is its value: nothing is learnt but rounding errors.
    least = 1.0 if spec.length(num_frames) == 1 else 1e-2
    check_gradients(got, want, ("qkv", "weight", "bias"), least)


# sequences, frames, grid, heads, head_dim, gate, shift, changes of the specification
SAMPLE = [
    ("time", 1, (1, 1), 1, 16, (3, 1), ("spatial",), {}),
    ("time", 5, (2, 3), 2, 16, (3, 2), ("spatial",), {}),
    ("time", 16, (1, 3), 1, 24, (2, 1), ("spatial", "zero"), {"feature_map": "elu1"}),
    ("time", 17, (1, 2), 2, 16, (0, 0), (), {"feature_map": "sigmoid"}),
    ("time", 3, (5, 5), 3, 16, (2, 2), ("wide",), {"clamp": True, "eps": 20.0}),
    ("time", 130, (1, 1), 1, 16, (3, 1), ("spatial",), {}),
    ("time", 2, (2, 2), 1, 128, (3, 1), ("spatial",), {}),
    ("space", 3, (3, 4), 2, 16, (3, 1), ("temporal",), {}),
    ("space", 3, (12, 11), 1, 20, (2, 2), ("temporal", "segment"), {"feature_map": "elu1"}),
    ("space", 1, (9, 15), 1, 16, (0, 0), ("temporal",), {"clamp": True, "eps": 200.0}),
    ("space", 1, (7, 5), 1, 128, (3, 2), ("temporal",), {"feature_map": "sigmoid"}),
    ("joint", 5, (3, 3), 2, 16, (3, 1), ("spatial", "temporal"), {}),
    ("joint", 7, (3, 2), 3, 16, (3, 2), ("wide", "zero", "temporal", "segment"), {}),
    ("joint", 6, (5, 5), 1, 16, (3, 1), ("spatial", "temporal"), {}),
    ("joint", 4, (3, 3), 1, 16, (2, 1), ("temporal",), {"feature_map": "identity", "offset": 3.0}),
]


@interpreted
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: f"{case[0]}-{case[1]}-{case[4]}")
def test_attention_equals_the_cpu_path(case):
    sequences, num_frames, grid, num_heads, head_dim, gate, shift, changes = case
    spec = spec_of(sequences, grid, num_heads, head_dim, shift, **changes)
    check_attention(spec, 2 if num_frames < 8 else 1, num_frames, head_dim, gate)


@pytest.fixture
def small_spans(monkeypatch):
    """Sequences are shared by several programs although they are not long."""
    monkeypatch.setattr(launch_triton, "_LEAST_SPAN", 64)


@interpreted
@pytest.mark.usefixtures("unwritten_is_nan", "small_spans")
@pytest.mark.parametrize("changes", [{}, {"feature_map": "sigmoid", "clamp": True, "eps": 900.0}])
def test_sequences_shared_by_programs_equal_the_cpu_path(changes):
    spec = spec_of("joint", (5, 5), 1, 16, ("spatial", "temporal"), **changes)
    assert launch_triton.num_spans(1, 150) == 2
    check_attention(spec, 1, 6, 16, (3, 1))


@interpreted
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("case", SAMPLE[1:-1:3], ids=lambda case: f"{case[0]}-{case[1]}-{case[4]}")
def test_gated_heads_equal_the_cpu_path(case):
    sequences, num_frames, grid, num_heads, head_dim, gate, shift, changes = case
    spec = spec_of(sequences, grid, num_heads, head_dim, shift, **changes)
    check_attention(spec, 2, num_frames, head_dim, gate, "gated_heads")


@interpreted
@pytest.mark.every_case
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("head_dim", [16, 24, 64])
@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (3, 4), (12, 11)], ids=str)
@pytest.mark.parametrize("num_frames", [1, 2, 5, 16, 17, 130])
@pytest.mark.parametrize("sequences", ["time", "space", "joint"])
def test_attention_equals_the_cpu_path_in_every_combination(sequences, num_frames, grid, head_dim):
    gates = [(0, 0), *itertools.product((2, 3), (1, 2))]
    shifts = [(), ("spatial",), ("spatial", "zero"), ("wide",), ("temporal",)]
    shifts += [("temporal", "segment"), ("spatial", "temporal"), ("wide", "temporal", "segment")]
    # All gates meet all shifts, small sizes only: the interpreter has 1e5 operations a second.
    pairs = list(itertools.product(gates, shifts))
    if num_frames * grid[0] * grid[1] > 100 or head_dim > 16:
        pairs = pairs[(num_frames + grid[1] + head_dim) % 7 :: 13]
    for gate, shift in pairs:
        spec = spec_of(sequences, grid, 2, head_dim, shift)
        check_attention(spec, 1, num_frames, head_dim, gate)
        check_attention(spec, 1, num_frames, head_dim, gate, "gated_heads")


@interpreted
@pytest.mark.parametrize("name", ["attention", "gated_heads"])
def test_views_and_empty_batches_are_taken(name):
    spec = spec_of("space", (3, 3), 2, 16, ("spatial", "temporal"))
    qkv, weight, bias = inputs_of(spec, 2, 3, 16, (3, 1))
    view = qkv.transpose(1, 2).contiguous().transpose(1, 2)
    forward = getattr(attention_triton, name)
    backward = getattr(attention_triton, f"{name}_backward")
    out = forward(qkv, weight, bias, spec)
    assert not view.is_contiguous() and torch.equal(forward(view, weight, bias, spec), out)
    gradients = backward(out, qkv, weight, bias, spec), backward(out, view, weight, bias, spec)
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    nothing = forward(qkv[:0], weight, bias, spec)
    assert nothing.shape == (0, *out.shape[1:])
    of_nothing = backward(nothing, qkv[:0], weight, bias, spec)
    assert of_nothing[0].shape == qkv[:0].shape and not of_nothing[1].any()


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("grid", [(3, 3), (12, 11)], ids=str)
def test_queries_that_meet_no_key_give_nothing_and_learn_nothing(grid, dtype):
    spec = spec_of("space", grid, 1, 16, offset=0.0)
    qkv, weight, bias = (x.to(dtype) for x in inputs_of(spec, 1, 1, 16, (3, 1)))
    qkv[0, 0, 2, :16] = -1
    out = attention_triton.attention(qkv, weight, bias, spec)
    assert (out[0, 0, 2] == 0).all() and out.isfinite().all()
    gradients = attention_triton.attention_backward(out, qkv, weight, bias, spec)
    assert all(x.isfinite().all() for x in gradients)
    assert (gradients[0][0, 0, 2, :16] == 0).all()


def errors_of(layer, x, grad, exact_layer, dtype):
    """Errors of output and gradients under autocast, by name."""
    exact_input, x = x.double().requires_grad_(), x.clone().requires_grad_()
    exact = exact_layer(exact_input)
    exact.backward(grad.double())
    with torch.autocast("cpu", dtype):
        out = layer(x)
    out.backward(grad.to(out.dtype))
    pairs = {"out": (out, exact), "x": (x.grad, exact_input.grad)}
    for (name, p), q in zip(layer.named_parameters(), exact_layer.parameters(), strict=True):
        pairs[name] = (p.grad, q.grad)
    norm = torch.linalg.vector_norm
    return {name: (norm(a.double() - b) / norm(b)).item() for name, (a, b) in pairs.items()}


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sequences", ["time", "space", "joint"])
def test_half_precision_is_as_exact_as_the_reference(sequences, dtype):
    torch.manual_seed(0)
    sizes = {"time": ((3, 5), 5), "space": ((12, 11), 1), "joint": ((3, 5), 9)}
    grid, num_frames = sizes[sequences]
    shift = make_shift(32, grid, spatial=1, border="authors", temporal_div=4, segment=0)
    size = num_frames, grid
    layer = Attention(32, 2, size, SEQUENCES[sequences], shift, block_config())
    layer.apply(init_weights)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, grad = torch.randn(2, 1, num_frames, grid[0] * grid[1], 32)
    reference, exact = copy.deepcopy(layer), copy.deepcopy(layer).double()
    reference.kernel.use_fused = exact.kernel.use_fused = False
    fused = errors_of(layer, x, grad, exact, dtype)
    exact.zero_grad()
    eager = errors_of(reference, x, grad, exact, dtype)
    for name, part in fused.items():
        assert part <= 1.25 * eager[name], f"{name}: {part:.1e}, reference {eager[name]:.1e}"


@interpreted
@pytest.mark.parametrize("scale", [1e-4, 300.0])
@pytest.mark.parametrize("length", [9, 200])
def test_float16_keeps_its_range(length, scale):
    """Sums of products beyond 65504, and gradients far below 6e-8 before the last product."""
    spec = spec_of("space", (1, length), 1, 16, ("temporal",), offset=0.0)
    inputs = [x.half() for x in inputs_of(spec, 1, 2, 16, (3, 1))]
    inputs[0] *= torch.tensor([scale, scale, 1.0]).repeat_interleave(16).half()
    inputs[1] /= max(scale, 1)  # ratios would be 0 or 1
    exact = [x.double() for x in inputs]
    out = attention_triton.attention(*inputs, spec)
    assert error(out, attention_cpu.attention(*exact, spec)) < 1e-2
    grad = torch.randn(out.shape).half()
    got = attention_triton.attention_backward(grad, *inputs, spec)
    want = attention_cpu.attention_backward(grad.double(), *exact, spec)
    limited = [x.clamp(-65504, 65504) for x in want]
    for name, a, b in zip(("qkv", "weight", "bias"), got, limited, strict=True):
        assert error(a, b) < 2e-2, f"{name}: {error(a, b):.1e}"


@interpreted
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 1), (4, 5)], ids=str)
@pytest.mark.parametrize("num_channels", [8, 70])
def test_convolution_equals_the_cpu_path(grid, num_channels):
    generator = torch.Generator().manual_seed(0)
    shape = 2, 3, grid[0] * grid[1], num_channels
    x, grad = torch.randn(2, *shape, generator=generator)
    weight = torch.randn(num_channels, 1, 3, 3, generator=generator)
    inputs = x, weight, torch.randn(num_channels, generator=generator)
    exact = [x.double() for x in inputs]
    got = dwconv_triton.dwconv_gelu(*inputs, grid)
    assert error(got, dwconv_cpu.dwconv_gelu(*exact, grid)) < 1e-5
    got = dwconv_triton.dwconv_gelu_backward(grad, *inputs, grid)
    want = dwconv_cpu.dwconv_gelu_backward(grad.double(), *exact, grid)
    check_gradients(got, want, ("x", "weight", "bias"))


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_convolution_in_half_precision_is_as_exact_as_the_reference(dtype):
    torch.manual_seed(0)
    layer = VideoMlp(8, 32, (4, 5), dwconv=True)
    x, grad = torch.randn(2, 1, 2, 20, 8)
    reference, exact = copy.deepcopy(layer), copy.deepcopy(layer).double()
    reference.use_fused = exact.use_fused = False
    fused = errors_of(layer, x, grad, exact, dtype)
    exact.zero_grad()
    eager = errors_of(reference, x, grad, exact, dtype)
    for name, part in fused.items():
        assert part <= 1.25 * eager[name], f"{name}: {part:.1e}, reference {eager[name]:.1e}"


@interpreted
@pytest.mark.usefixtures("unwritten_is_nan")
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 96), (41, 8)], ids=str)
def test_sum_and_norm_equal_the_cpu_path(shape, monkeypatch):
    monkeypatch.setattr(add_norm_triton, "NUM_PROGRAMS", 3)
    generator = torch.Generator().manual_seed(0)
    x, y, grad_total, grad_normed = torch.randn(4, *shape, generator=generator)
    weight, bias = torch.randn(2, shape[-1], generator=generator)
    got = add_norm_triton.add_norm(x, y, weight, bias, 1e-6, torch.float32)
    exact = [tensor.double() for tensor in (x, y, weight, bias)]
    want = add_norm._on_cpu(*exact, 1e-6, torch.float64)
    for a, b in zip(got, want, strict=True):
        assert error(a, b) < 1e-5
    gradients = add_norm_triton.add_norm_backward(
        grad_total, grad_normed, got[0], weight, bias, 1e-6
    )
    want = add_norm._on_cpu_backward(
        grad_total.double(), grad_normed.double(), want[0], *exact[2:], 1e-6
    )
    check_gradients(gradients, want, ("total", "weight", "bias"))


@interpreted
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_sum_and_norm_of_a_float32_residual_and_a_half_precision_branch(low):
    x, y = torch.randn(2, 6, 16)
    weight, bias = torch.randn(2, 16)
    total, normed = add_norm_triton.add_norm(x, y.to(low), weight, bias, 1e-6, low)
    want = x + y.to(low).float()
    assert total.dtype == torch.float32 and torch.equal(total, want)
    assert normed.dtype == low
    layer = torch.nn.functional.layer_norm(
        want.double(), (16,), weight.double(), bias.double(), 1e-6
    )
    assert error(normed, layer) < 4 * torch.finfo(low).eps
    grad = torch.randn(6, 16).to(low)
    got = add_norm_triton.add_norm_backward(total, grad, total, weight, bias, 1e-6)
    exact = [tensor.double() for tensor in (total, grad, total, weight, bias)]
    check_gradients(got, add_norm._on_cpu_backward(*exact, 1e-6), ("total", "weight", "bias"))


@interpreted
@pytest.mark.usefixtures("small_spans")
def test_equal_runs_give_equal_bits():
    spec = spec_of("joint", (5, 5), 1, 16, ("spatial", "temporal"))
    inputs = inputs_of(spec, 1, 6, 16, (3, 1))
    grad = torch.randn(1, 6, 25, 16)
    first, second = (attention_triton.attention_backward(grad, *inputs, spec) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@interpreted
def test_operators_are_registered_as_torch_wants():
    spec = spec_of("time", (2, 2), 1, 16, ("spatial",))
    inputs = [x.requires_grad_() for x in inputs_of(spec, 1, 2, 16, (3, 1))]
    torch.library.opcheck(torch.ops.lvt_ff.attention.default, (*inputs, *spec))
    x = torch.randn(1, 1, 4, 8, requires_grad=True)
    conv = torch.randn(8, 1, 3, 3, requires_grad=True), torch.randn(8, requires_grad=True)
    torch.library.opcheck(torch.ops.lvt_ff.dwconv_gelu.default, (x, *conv, [2, 2]))
    norm = torch.randn(2, 8, requires_grad=True).unbind()
    torch.library.opcheck(
        torch.ops.lvt_ff.add_norm.default, (x, x.detach(), *norm, 1e-6, torch.float32)
    )


@interpreted
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"attn_pattern": "joint", "fixation": "qk", "fixation_shared": False},
            marks=pytest.mark.every_case,
        ),
    ],
    ids=["factorized", "joint"],
)
def test_whole_model_equals_the_reference_in_float64(options, monkeypatch):
    torch.manual_seed(0)
    options = {**options, "depth": 1, "img_size": 32, "mlp_ratio": 2.0}
    model = timm.create_model("test_lvt_ff", **options)
    set_fused_attn(False)
    try:
        exact = timm.create_model("test_lvt_ff", **options).double()
    finally:
        set_fused_attn(True)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    exact.load_state_dict(model.state_dict())
    called = []
    run = attention_triton.attention
    monkeypatch.setattr(attention_triton, "attention", lambda *a: called.append(1) or run(*a))
    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    got, want = model.eval()(clip), exact.eval()(clip.double())
    assert called and error(got, want) < 1e-5
    grad = torch.randn(want.shape)
    got.backward(grad)
    want.backward(grad.double())
    for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert error(p.grad, q.grad) < 1e-4, f"{name}: {error(p.grad, q.grad):.1e}"
