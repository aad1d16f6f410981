"""The table of kernels: what every kernel keeps to, and that a new one is one file and one line."""

import pytest
import torch

from lvt_ff import VARIANTS, LinearVideoTransformer
from lvt_ff.kernels import KERNELS, Kernel
from lvt_ff.ops import linear_attention


class TwoSided(Kernel):
    """Positive and negative parts as separate features: F = 2·E."""

    @property
    def feature_dim(self):
        return 2 * self.head_dim

    def feature_map(self, q, k):
        return torch.cat([q.relu(), (-q).relu()], -1), torch.cat([k.relu(), (-k).relu()], -1)

    def aggregate(self, q, k, v):
        return linear_attention(q, k, v)


@pytest.mark.parametrize("fixation", ["none", "qkv"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_third_kernel_is_one_line(monkeypatch, fixation, shared):
    monkeypatch.setitem(KERNELS, "two_sided", TwoSided)
    options = dict(attn_kernel="two_sided", fixation=fixation, fixation_shared=shared)
    model = LinearVideoTransformer(**VARIANTS["test_lvt_ff"], num_classes=3, **options)
    out = model(torch.randn(1, 4, 3, 64, 64))
    out.square().sum().backward()
    assert out.shape == (1, 3) and model.blocks[0].attn.qkv.weight.grad.isfinite().all()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("length", [1, 3, 40])
def test_kernels_average_values_with_weights_that_sum_to_one(name, length):
    kernel = KERNELS[name](16).double()
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, length, 16)
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "qkv")
    features = kernel.feature_map(q, k)
    assert features[0].shape == (*shape[:-1], kernel.feature_dim)
    ones = kernel.aggregate(*features, torch.ones_like(v))
    torch.testing.assert_close(ones, torch.ones_like(v), atol=1e-5, rtol=0)
    out = kernel.aggregate(*features, v)
    assert (out <= v.amax(-2, keepdim=True) + 1e-5).all()
    assert (out >= v.amin(-2, keepdim=True) - 1e-5).all()
