"""Every kernel against runs of its published code: outputs and gradients, double and single."""

import pytest
import torch
from blocks import block_config
from reference import attention_tensors
from torch import nn

from lvt_ff.kernels import KERNELS, KernelShape
from lvt_ff.kernels.lara import LaraKernel
from lvt_ff.layers.attention import Attention, JointSequences, SpaceSequences, TimeSequences
from lvt_ff.layers.block import LocalConcentration
from lvt_ff.layers.fixation import build_fixation
from lvt_ff.layers.shift import SpatialShift, TemporalShift

GRIDS = {"s49": (7, 7), "t8": (1, 8), "r8": (2, 4)}
RENAMED = {"projection_matrix": "projection"}
HKUNLP = dict(offset=0.1, eps=1e-2, clamp=True)
# Golden file: kernel, options, names of its parameters by ours.
FILES = {
    "softmax": ("softmax", {}),
    "relu_lvt": ("relu", {}),
    "relu_plain": ("relu_plain", {}),
    "elu1": ("elu1", {}),
    "sigmoid": ("sigmoid", {}),
    "performer_m16": ("performer", {}),
    "performer_m44": ("performer", dict(num_features=44)),
    "cosformer": ("cosformer", {}),
    "linformer_k12": ("linformer", dict(rank=12)),
    "lara_2d_pool_mixed_L9": ("lara", dict(num_landmarks=9, proposals="pool-mixed")),
    "lara_2d_pool_L4_a1": ("lara", dict(num_landmarks=4, proposals="pool", alpha=1.0)),
    "lara_1d_adaptive_L5": ("lara", dict(num_landmarks=5, proposals="adaptive-1d")),
    "focused_f3": ("focused", {}),
    "focused_f3_perhead": ("focused", dict(per_head=True)),
    "l2vit_linear": ("l2vit", {}),
    "vicinity_sum": ("vicinity", {}),
    "vicinity_sum_clip": ("vicinity", dict(clip=True)),
    "sigmoid_hkunlp": ("sigmoid", HKUNLP),
    "relu_hkunlp": ("relu", HKUNLP),
    "cosformer_hkunlp": ("cosformer", dict(offset=0.1, eps=1e-2)),
    "performer_relu": ("performer", dict(features="relu", num_features=32)),
    # This source adds its floor after the factor m**-0.5.
    "performer_hkunlp": ("performer", dict(per_head=True, floor=4e-4, eps=1e-2, clamp=True)),
    "vicinity_prod": ("vicinity", dict(use_sum=False)),
    "castling_linangular": ("castling", {}),
    "vitality_taylor_derived": ("vitality", {}),
}


def inputs(case, dtype):
    name = "s49" if case == "s49" else "n8"
    tensors = attention_tensors("inputs")
    return {
        part: tensors[f"{name}.{part}"].to(dtype)
        for part in ("q", "k", "v", "go")
        if f"{name}.{part}" in tensors
    }


def built(name, options, case, tensors, dtype):
    """The kernel with the file's parameters, those of the case where it has its own."""
    kernel = KERNELS[name](KernelShape(4, 16, GRIDS[case]), **options).to(dtype).eval()
    own = kernel.state_dict()
    found = {}
    for key, value in tensors.items():
        if key.startswith("param."):
            key = key.removeprefix("param.").removeprefix(f"{case}.")
            found[RENAMED.get(key, key)] = value.to(dtype)
    for key in own:
        value = found[key]
        own[key] = value[: own[key].shape[0]] if key.startswith("proj_") else value
    kernel.load_state_dict(own)
    return kernel


def assert_near(found, expected, tolerance):
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def check(name, run, case, tensors):
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        given = inputs(case, dtype)
        leaves = [given[part].requires_grad_() for part in "qkv"]
        out = run(*leaves, dtype)
        assert out.dtype == dtype
        assert_near(out.double(), tensors[f"{case}.out_f64"], tolerance)
        if f"{case}.grad_q_f64" in tensors:
            gradients = torch.autograd.grad(out, leaves, given["go"])
            for part, gradient in zip("qkv", gradients, strict=True):
                bound = 1e-10 if dtype == torch.float64 else 1e-5
                assert_near(gradient.double(), tensors[f"{case}.grad_{part}_f64"], bound)


def cases(tensors):
    return [case for case in GRIDS if f"{case}.out_f64" in tensors]


@pytest.mark.parametrize("name", FILES)
def test_kernel_is_its_published_definition(name):
    tensors = attention_tensors(name)
    kernel_name, options = FILES[name]
    for case in cases(tensors):

        def run(q, k, v, dtype, case=case):
            kernel = built(kernel_name, options, case, tensors, dtype)
            return kernel.aggregate(*kernel.feature_map(q, k), v)

        check(name, run, case, tensors)


@pytest.mark.parametrize("num_landmarks", [12, 64])
def test_orthoformer_chooses_the_published_landmarks(num_landmarks, monkeypatch):
    tensors = attention_tensors(f"orthoformer_m{num_landmarks}")
    for case in cases(tensors):
        first = tensors[f"param.{case}.init_idx"]

        def run(q, k, v, dtype, case=case, first=first):
            kernel = KERNELS["orthoformer"](
                KernelShape(4, 16, GRIDS[case]), num_landmarks=num_landmarks
            )
            plain = type(kernel).landmarks
            chosen = plain(kernel, q * 16**-0.25, first)
            assert torch.equal(chosen, tensors[f"{case}.landmark_idx"])
            monkeypatch.setattr(kernel, "landmarks", lambda q, _: plain(kernel, q, first))
            return kernel.aggregate(*kernel.feature_map(q, k), v)

        check("orthoformer", run, case, tensors)


def test_lara_with_noise():
    tensors = attention_tensors("lara_2d_pool_mixed_L9_train")
    for case in cases(tensors):

        def run(q, k, v, dtype, case=case):
            kernel = built(
                "lara", dict(num_landmarks=9, proposals="pool-mixed"), case, tensors, dtype
            )
            assert isinstance(kernel, LaraKernel)
            of_proposals, of_tokens = kernel.factors(q, k, tensors[f"param.{case}.noise"].to(dtype))
            return of_proposals @ (of_tokens @ v)

        check("lara", run, case, tensors)


def test_inline_with_its_convolution():
    tensors = attention_tensors("inline")
    for case in cases(tensors):

        def run(q, k, v, dtype, case=case):
            kernel = built("inline", {}, case, tensors, dtype)
            return kernel.attend(q, k, v) + kernel.convolve(
                v, tensors[f"param.{case}.x_mean"].to(dtype)
            )

        check("inline", run, case, tensors)


def test_rank_augmented_core_and_whole():
    core, full = attention_tensors("rala_core"), attention_tensors("rala_full")
    for case in cases(core):

        def run(q, k, v, dtype, case=case):
            kernel = KERNELS["rank_augmented"](KernelShape(4, 16, GRIDS[case]))
            return kernel.attend(*kernel.feature_map(q, k), v)

        check("rala_core", run, case, core)
    for case in cases(full):

        def run_full(q, k, v, dtype, case=case):
            kernel = KERNELS["rank_augmented"](KernelShape(4, 16, GRIDS[case])).to(dtype)
            kernel.lepe.weight.data = full["param.lepe.weight"].to(dtype)
            kernel.lepe.bias.data = full["param.lepe.bias"].to(dtype)
            # An input that the gate passes on is the gate.
            kernel.output_gate.weight.data = torch.eye(64, dtype=dtype)
            kernel.output_gate.bias.data = torch.zeros(64, dtype=dtype)
            gate = full[f"param.{case}.o"].to(dtype).transpose(1, 2).flatten(2)
            return kernel.aggregate(*kernel.feature_map(q, k), v, gate)

        check("rala_full", run_full, case, full)


def test_vig_scans_both_ways():
    tensors = attention_tensors("vig_bigla")
    for case in cases(tensors):
        gates = tensors["param.s49.g" if case == "s49" else "param.n8.g"]

        def run(q, k, v, dtype, case=case, gates=gates):
            kernel = KERNELS["vig"](KernelShape(4, 16, GRIDS[case]))
            return kernel.scan(q, k, v, gates.to(dtype))

        check("vig_bigla", run, case, tensors)


def load_gate(fixation, tensors, prefix="param."):
    """The file's gates: one shared by queries and keys, or one for each below the other."""
    names = ["pgate"] if fixation.num_ratios == 1 else ["q_gate", "k_gate"]
    for part in ("weight", "bias"):
        parts = [tensors[f"{prefix}{name}.{part}"] for name in names]
        getattr(fixation.gate, part).data = torch.cat(parts)


@pytest.mark.parametrize("shared_gate", [True, False])
@pytest.mark.parametrize("kernel_name, file", [("relu", "relu_lvt_ff"), ("softmax", "softmax_ff")])
def test_fixation_of_the_authors(kernel_name, file, shared_gate):
    tensors = attention_tensors(f"{file}_{'shared' if shared_gate else 'separate'}")
    for case in cases(tensors):

        def run(q, k, v, dtype, case=case):
            kernel = built(kernel_name, {}, case, {}, dtype)
            fixation = build_fixation("qkv", 16, 16, shared_gate, "concat")
            load_gate(fixation, tensors)
            q, k = kernel.feature_map(q, k)
            return kernel.aggregate(*fixation.to(dtype)(q, k, v), v)

        check(file, run, case, tensors)


@pytest.mark.parametrize(
    "row, name, shared_gate, aggregate",
    [
        ("sep_qk", "own", False, "concat"),
        ("coop_qk", "qk", False, "concat"),
        ("coop_qk_shared", "qk", True, "concat"),
        ("coop_qkv", "qkv", False, "concat"),
        ("coop_qkv_shared", "qkv", True, "concat"),
        ("add_qkv_shared", "qkv", True, "add"),
        ("mul_qkv_shared", "qkv", True, "mul"),
    ],
)
def test_fixation_options_of_table_4(row, name, shared_gate, aggregate):
    tensors = attention_tensors("ff_ablations_derived")
    given = inputs("t8", torch.float64)
    kernel = built("relu", {}, "t8", {}, torch.float64)
    fixation = build_fixation(name, 16, 16, shared_gate, aggregate)
    load_gate(fixation, tensors, f"{row}.param.")
    q, k = kernel.feature_map(given["q"], given["k"])
    q, k = fixation.double()(q, k, given["v"])
    assert_near(kernel.aggregate(q, k, given["v"]), tensors[f"{row}.out_f64"], 1e-11)


class Given(nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.projected = torch.cat([tensors[f"in.{part}"] for part in "qkv"], -1).flatten(2, 3)

    def forward(self, x):
        return self.projected.to(x.dtype)


SHIFTS = {
    "spatial": (SpaceSequences, [TemporalShift(4, 64)]),
    "temporal": (TimeSequences, [SpatialShift(1, 64, (3, 3))]),
    "joint": (JointSequences, [SpatialShift(1, 64, (3, 3)), TemporalShift(4, 64)]),
}


def test_association_and_fixation_around_other_kernels():
    tensors = attention_tensors("na_ff_kernels")
    names = [name for name in tensors if name.split(".")[0] in SHIFTS]
    assert len(names) == 26
    for name in names:
        place, kernel, what = name.split(".")
        sequences, shifts = SHIFTS[place]
        fixation = "qkv" if "ff" in what else "none"
        for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
            layer = Attention(
                64,
                4,
                (4, (3, 3)),
                sequences,
                nn.Sequential(*shifts) if "na" in what else nn.Identity(),
                block_config(
                    attn_kernel=kernel.removesuffix("_lvt")
                    .removesuffix("_raw")
                    .removesuffix("_feature"),
                    fixation=fixation,
                    fixation_shared="separate" not in what,
                    fixation_order="before" if what.startswith("ff_then_na") else "after",
                ),
            )
            if fixation == "qkv":
                load_gate(layer.fixation, tensors)
            if "performer" in kernel:
                layer.kernel.projection.copy_(tensors["param.projection_matrix"])
            if kernel == "performer_raw":  # ratios from queries and keys, not from their features
                features, layer.kernel.feature_map = layer.kernel.feature_map, lambda q, k: (q, k)
                aggregate = layer.kernel.aggregate
                layer.kernel.aggregate = lambda q, k, v, x, f=features, a=aggregate: a(*f(q, k), v)
            layer.to(dtype).eval()
            layer.qkv, layer.proj = Given(tensors), nn.Identity()
            for fused in (True, False):
                layer.kernel.use_fused = fused
                with torch.no_grad():
                    out = layer(torch.zeros(1, 4, 9, 64, dtype=dtype))
                assert_near(out.double(), tensors[name].flatten(2, 3), tolerance)


@pytest.mark.parametrize("case", ["dead_q", "dead_k", "dead_qk", "big", "tiny"])
@pytest.mark.parametrize(
    "file",
    ["softmax", "relu_lvt", "relu_plain", "elu1", "cosformer", "l2vit_linear", "performer_m16"],
)
def test_hazardous_inputs(case, file):
    tensors = attention_tensors("hazards")
    parameters = {"param.temperature": torch.full((4, 1, 1), 0.25)}
    parameters |= {
        key: value
        for key, value in attention_tensors("performer_m16").items()
        if key.startswith("param.")
    }
    kernel = built(FILES[file][0], {}, "t8", parameters, torch.float64)
    q, k, v = (tensors[f"{case}.{part}"].double() for part in "qkv")
    expected = tensors[f"{case}.{file}"]
    error = (kernel.aggregate(*kernel.feature_map(q, k), v) - expected).abs().max()
    assert error <= 1e-11 * max(expected.abs().max(), 1e-30)


def test_local_concentration():
    tensors = attention_tensors("l2vit_lcm")
    module = LocalConcentration(64, (3, 5)).double().eval()
    module.load_state_dict(
        {
            name: tensors.get(f"param.{name}", torch.tensor(0)).double()
            for name in module.state_dict()
        }
    )
    out = module(tensors["x"].double()[None])[0]
    assert_near(out, tensors["out_f64"], 1e-11)
