"""Adapters on every linear layer: each of them learns, whatever kernel and fixation."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.kernels import KERNELS

OPTIONS = (
    *(dict(attn_kernel=name) for name in KERNELS),
    dict(fixation="own"),
    dict(fixation="own", fixation_shared=False),
    dict(fixation_aggregate="add"),
    dict(fixation_aggregate="mul"),
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_adapter_has_a_gradient(options, clip):
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", depth=1, num_labels=3, **options)
    model = get_peft_model(
        LVTFFForVideoClassification(config), LoraConfig(r=2, target_modules="all-linear")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first: then nothing before it has a gradient
            torch.nn.init.normal_(parameter)
    model(pixel_values_videos=clip, labels=torch.tensor([0, 1])).loss.backward()
    adapters = {name: p.grad for name, p in model.named_parameters() if "lora_" in name}
    assert len(adapters) >= 2 * 8
    for name, gradient in adapters.items():
        assert gradient is not None and gradient.abs().max() > 0, name
