"""Fused operators on a GPU against float64, and all that people do with a model there.

They run without conftest.py too, which needs a video decoder: `pytest -m gpu --noconftest`.
"""

import copy
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from kernel_cases import DEFAULT, NAMES, check, is_close, make_case  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = "cuda"
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
_PATCHES = dict(patch_size=4, patch_stride=4, patch_padding=0, mlp_ratio=1.5, batch_size=2)
# What is no power of two, each its own gate, everything from outside zero.
ODD = dict(
    _PATCHES,
    num_frames=5,
    img_size=(48, 44),
    embed_dim=72,
    num_heads=3,
    spatial_shift=1,
    shift_border="zero",
    temporal_shift_segment=2,
    fixation="qk",
    fixation_shared=False,
)
# Wide heads, all channels by groups of a few, and more frames than a program holds.
WIDE = dict(_PATCHES, num_frames=130, img_size=(8, 12), embed_dim=256, num_heads=2, spatial_shift=2)
SIZES = {
    "default": (dict(DEFAULT, batch_size=2), (FLOAT32, BFLOAT16, FLOAT16)),
    "odd": (ODD, (FLOAT32, BFLOAT16)),
    "wide": (WIDE, (FLOAT32, FLOAT16)),
}


def assert_exact(name, options, dtype):
    """Outputs and gradients against float64, and bits of two runs."""
    errors, equal_bits = check(make_case(name, options, DEVICE, dtype))
    for key, (fused, plain) in errors.items():
        assert is_close(fused, plain, dtype), f"{key}: {fused:.1e}, its modules {plain:.1e}"
    assert all(equal_bits.values()), equal_bits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "dtype"),
    [(size, dtype) for size, (_, dtypes) in SIZES.items() for dtype in dtypes],
    ids=str,
)
def test_operators_are_as_exact_as_their_modules(name, size, dtype):
    assert_exact(name, SIZES[size][0], dtype)


@pytest.mark.parametrize("kernel", ["relu_plain", "elu1", "sigmoid"])
@pytest.mark.parametrize("name", ["attention, time", "attention, space"])
def test_every_feature_map_is_as_exact_as_its_modules(name, kernel):
    assert_exact(name, dict(ODD, attn_kernel=kernel), FLOAT32)


@pytest.mark.parametrize("name", NAMES)
def test_graphs_give_the_bits_of_direct_calls(name):
    case = make_case(name, ODD, DEVICE, BFLOAT16)
    for run in case.passes.values():
        want = run()
        graph, got = captured(run)
        for value in got.values():
            value.zero_()
        graph.replay()
        for key, value in want.items():
            assert torch.equal(got[key], value), key


def captured(call):
    """A CUDA graph of a call, and what it writes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    return graph, found


class Called(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def whole_model(**options):
    """A small model that has learned something everywhere, and clips."""
    torch.manual_seed(0)
    model = timm.create_model("test_lvt_ff", num_classes=5, drop_rate=0.0, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    clip = torch.randn(2, model.num_frames, 3, *model.img_size)
    return model.to(DEVICE), clip.to(DEVICE)


def reference_of(model):
    """The same model without fused operators."""
    other = copy.deepcopy(model)
    other.set_fused_attn(False)
    return other


def results(model, clip, autocast=None):
    """Output and every gradient by name, in float64."""
    model.zero_grad()
    clip = clip.clone().requires_grad_()
    with torch.autocast(DEVICE, autocast or BFLOAT16, enabled=autocast is not None):
        out = model(clip)
    weight = torch.linspace(-1, 2, out.numel(), dtype=torch.float64, device=DEVICE).view(out.shape)
    (out.double() * weight).sum().backward()
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    return dict(out=out.detach().double(), clip=clip.grad.double(), **gradients)


def assert_close(got, want, tolerance):
    """Output and gradients by name, by their norms."""
    least = 1e-2 * max(value.norm().item() for value in want.values())
    for name, value in want.items():
        error = (got[name] - value).norm().item()
        assert error <= tolerance * (value.norm().item() + least), f"{name}: {error:.1e}"


MODELS = [
    dict(),
    dict(attn_pattern="joint", spatial_shift=2, shift_border="zero"),
    dict(attn_kernel="softmax", temporal_shift_segment=2, fixation="qk", fixation_shared=False),
    dict(attn_kernel="elu1", block_order="space_first", img_size=(48, 96), num_frames=5),
]


@pytest.fixture
def exact_products(monkeypatch):
    """No TF32 in convolutions, and none of cuDNN's algorithms whose bits change."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_whole_models_equal_their_reference(options):
    model, clip = whole_model(**options)
    with Called() as called:
        got = results(model, clip)
    operator = "gated_heads" if options.get("attn_kernel") == "softmax" else "attention"
    names = {operator, f"{operator}_backward", "dwconv_gelu", "dwconv_gelu_backward", "add_norm"}
    assert {f"lvt_ff::{name}" for name in names} <= called.names
    want = results(reference_of(model).double(), clip.double())
    assert_close(got, want, 1e-4)
    with torch.inference_mode():
        out = model(clip).double()
    torch.testing.assert_close(out, want["out"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_autocast_is_no_further_from_float64_than_the_reference(dtype):
    model, clip = whole_model()
    want = results(reference_of(model).double(), clip.double())
    fused = results(model, clip, dtype)
    plain = results(reference_of(model), clip, dtype)
    least = 1e-3 * max(value.norm() for value in want.values())  # of what is rounding only
    for name, value in want.items():
        got, usual = ((found[name] - value).norm() for found in (fused, plain))
        assert got <= 1.25 * usual + least, f"{name}: {got:.1e}, the reference {usual:.1e}"


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("options", MODELS[:3:2], ids=str)
def test_one_compiled_graph_for_every_batch(options):
    """Forward and backward, and from the second batch size on no other compilation."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model, clip = whole_model(**options)
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    frames, weight = set(), model.blocks[0].attn.qkv.weight
    for batch in (2, 3, 5):
        x = clip[:1] + torch.randn(batch, *clip.shape[1:], device=DEVICE)
        (want,) = torch.autograd.grad(model(x).square().sum(), weight)
        out = compiled(x)
        (got,) = torch.autograd.grad(out.square().sum(), weight)
        torch.testing.assert_close(out, model(x), atol=1e-4, rtol=1e-4)
        assert (got - want).norm() <= 1e-4 * want.norm()
        frames.add(counter.frame_count)
    assert len(frames) == 1


def test_a_graph_of_a_model_takes_new_clips():
    model, clip = whole_model()
    model.eval().to(BFLOAT16)
    static = clip.to(BFLOAT16)
    with torch.inference_mode():
        model(static)
        graph, got = captured(lambda: model(static))
        for _ in range(2):
            static.copy_(torch.randn_like(static))
            graph.replay()
            torch.testing.assert_close(got, model(static), atol=1e-2, rtol=1e-2)


def test_a_training_step_is_a_graph():
    model, clip = whole_model()
    names = dict(model.named_parameters())

    def step():
        # As torch's manual has it: gradients are made within the graph.
        model.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, BFLOAT16):
            loss = model(clip).square().mean()
        loss.backward()
        return {name: parameter.grad for name, parameter in names.items()}

    want = {name: gradient.clone() for name, gradient in step().items()}
    graph, got = captured(step)
    graph.replay()
    assert_close(got, want, 1e-2)


@pytest.mark.usefixtures("exact_products")
def test_checkpointed_activations_give_the_same_gradients():
    model, clip = whole_model()
    plain = results(model, clip)
    model.set_grad_checkpointing()
    assert_close(results(model, clip), plain, 1e-6)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("autocast", [None, BFLOAT16], ids=str)
def test_equal_runs_give_equal_bits(autocast):
    model, clip = whole_model(spatial_shift=2, embed_dim=96, num_heads=2)
    first = results(model, clip, autocast)
    for name, value in results(model, clip, autocast).items():
        assert torch.equal(value, first[name]), name
