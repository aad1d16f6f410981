"""Linear attention: product orders and a plain reference."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lvt_ff.ops import linear as module
from lvt_ff.ops import linear_attention


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
        monkeypatch.setattr(module, "_queries_first", lambda *_, first=first: first)
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
