"""A whole attention layer in half precision on one sequence of 4,624 tokens."""

import copy

import pytest
import torch
from blocks import block_config
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
        JointSequences,
        nn.Identity(),
        block_config(attn_kernel=kernel),
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


@pytest.mark.parametrize("fixation", ["none", "qkv", "own"])
@pytest.mark.parametrize("kernel", ["relu_plain", "cosformer", "vicinity", "relu"])
@pytest.mark.parametrize("size", [(1, (1, 1)), (400, (16, 16))], ids=["1_token", "102400_tokens"])
def test_gradients_of_float16_are_finite_whatever_the_length(kernel, size, fixation):
    """Some queries of so many have no positive part, and sums over keys leave float16's range."""
    torch.manual_seed(0)
    config = block_config(attn_kernel=kernel, fixation=fixation, fixation_aggregate="concat")
    layer = Attention(16, 1, size, JointSequences, nn.Identity(), config)
    layer.apply(init_weights)
    x = 3 * torch.randn(1 if size[0] > 1 else 4096, size[0], size[1][0] * size[1][1], 16)
    x.requires_grad_()
    with torch.autocast("cpu", torch.float16):
        out = layer(x)
    out.float().square().mean().mul(2**10).backward()  # scaled, as mixed precision does
    assert out.isfinite().all() and x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
