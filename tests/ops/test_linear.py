"""Linear attention: product orders and a plain reference."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lvt_ff.ops import in_float32, linear_attention, linear_weights, product
from lvt_ff.ops import linear as module


def features(length, dim, seed=0, std=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [std * torch.randn(2, 3, length, dim, generator=generator, dtype=dtype) for _ in "qkv"]


def reference(q, k, v, eps):
    weights = q @ k.transpose(-2, -1)
    return (weights @ v) / (weights.sum(-1, keepdim=True) + eps)


@pytest.mark.parametrize("length", [1, 5, 16, 17, 40])
def test_linear_attention_equals_explicit_weights(length):
    q, k, v = features(length, 16)
    q, k = q.relu() + 0.25, k.relu() + 0.25
    torch.testing.assert_close(linear_attention(q, k, v, 1e-6), reference(q, k, v, 1e-6))


@pytest.mark.parametrize("length", [8, 64])
def test_both_product_orders_agree_in_values_and_gradients(length, monkeypatch):
    outputs = {}
    for first in (False, True):
        monkeypatch.setattr(module, "queries_first", lambda *_, first=first: first)
        q, k, v = (t.requires_grad_() for t in features(length, 16))
        out = linear_attention(q.relu() + 0.25, k.relu() + 0.25, v)
        out.square().sum().backward()
        outputs[first] = dict(out=out, dq=q.grad, dk=k.grad, dv=v.grad)
    for name in outputs[True]:
        torch.testing.assert_close(outputs[True][name], outputs[False][name], msg=name)


def test_product_order_follows_sequence_length():
    def flops(length):
        with FlopCounterMode(display=False) as counter:
            linear_attention(*features(length, 64))
        return counter.get_total_flops() / (2 * 2 * 3)

    assert flops(16) == 2 * 16 * 16 * 64 + 16 * 64  # and the denominator
    assert flops(300) == 2 * 300 * 64 * 64 + 300 * 64


def test_linear_attention_keeps_the_dtype_of_values():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        q, k, v = (t.relu().to(dtype) + 1 for t in features(9, 4))
        assert linear_attention(q, k, v).dtype == dtype


@pytest.mark.parametrize("length", [8, 63, 64, 84, 85, 86, 101, 102, 103, 200])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_product_order_is_the_cheaper_one_for_every_number_of_features(length, times):
    """cosFormer has twice, Vicinity four times as many features as a head has channels."""
    _, _, v = features(length, 64)
    q, k, _ = features(length, 64 * times)
    with FlopCounterMode(display=False) as counter:
        product(q, k, v)
    macs = counter.get_total_flops() / (2 * 2 * 3)
    assert macs == min(length**2 * (64 + 64 * times), 2 * length * 64 * 64 * times)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_queries_that_meet_no_key_give_nothing_and_learn_nothing(dtype):
    q, k, v = (t.relu().to(dtype) for t in features(9, 4))
    q[..., 2, :] = 0
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = linear_attention(*leaves)
    assert (out[..., 2, :] == 0).all() and (linear_weights(q, k)[..., 2, :] == 0).all()
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][..., 2, :] == 0).all()


def test_float32_inside_restores_the_dtype_of_the_named_argument():
    seen = []

    @in_float32(restore="b")
    def function(a, b, name):
        seen.append((a.dtype, b.dtype, name, torch.is_autocast_enabled("cpu")))
        return a @ b

    a, b = torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        assert function(a, b, "x").dtype == torch.float16
    assert seen == [(torch.float32, torch.float32, "x", False)]
    assert function(a.double(), b.double(), "x").dtype == torch.float64
    indices = torch.arange(2)
    assert in_float32()(lambda x, rows: x[rows])(a, indices).dtype == torch.float32
