"""A whole attention layer in half precision on one sequence of 4,624 tokens."""

import copy

import pytest
import torch
from torch import nn

from lvt_ff.layers.attention import Attention, JointSequences
from lvt_ff.layers.fixation import FIXATION_AGGREGATES, build_fixation
from lvt_ff.model import init_weights


@pytest.mark.parametrize("aggregate", FIXATION_AGGREGATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ratios_stay_finite_where_their_parts_are_large(aggregate, dtype):
    torch.manual_seed(0)
    fixation = build_fixation("qkv", 16, 16, True, aggregate)
    q, k, v = (100 * torch.randn(1, 2, 50, 16) for _ in "qkv")
    parts = [part.to(dtype) for part in (q, k, v)]
    with torch.autocast("cpu", dtype):
        within = fixation(*parts)
    for part in (*within, *fixation.to(dtype)(*parts)):
        assert part.isfinite().all()


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_layer_is_finite_and_close_under_autocast(kernel, dtype):
    torch.manual_seed(0)
    layer = Attention(
        64,
        1,
        (16, (17, 17)),
        sequences=JointSequences,
        shift=nn.Identity(),
        kernel=kernel,
        kernel_options={},
        fixation="qkv",
        fixation_shared=True,
        fixation_aggregate="concat",
        fixation_order="after",
        fixation_bias=0.0,
        attn_drop_rate=0.0,
    )
    layer.apply(init_weights)
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.eye(64).repeat(3, 1))  # q, k, v keep their deviation of 10
    x = 10 * torch.randn(1, 16, 289, 64, generator=torch.Generator().manual_seed(1))
    exact = copy.deepcopy(layer).double()
    with torch.autocast("cpu", dtype):
        got = layer(x)
    got.float().mean(dim=(1, 2)).square().sum().backward()
    want = exact(x.double())
    want.mean(dim=(1, 2)).square().sum().backward()
    pairs = {"out": (got, want)}
    for (name, p), q in zip(layer.named_parameters(), exact.parameters(), strict=True):
        pairs[name] = (p.grad, q.grad)
    for name, (a, b) in pairs.items():
        assert a.isfinite().all(), name
        error = ((a.double() - b).abs().max() / b.abs().max()).item()
        # bf16's rounding of q and k, before any sum, moves softmax weights by more than this.
        if (kernel, dtype) != ("softmax", torch.bfloat16):
            assert error < 2e-2, f"{name}: {error:.1e}"
