"""Whole tensors of shards."""

import torch

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.training.sharding import empty_copy, full_tensors, like


def test_an_empty_copy_takes_all_weights_and_no_memory(clip):
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", depth=1, attn_kernel="performer", num_labels=3)
    network = LVTFFForVideoClassification(config).eval()
    network.model.temp_embed.requires_grad_(False)
    copied = empty_copy(network)
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert not copied.model.temp_embed.requires_grad and copied.model.norm.weight.requires_grad
    copied.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(*(net(pixel_values_videos=clip).logits for net in (copied, network)))


def test_whole_tensors_stay_what_they_are():
    tensors = dict(a=torch.arange(6.0).reshape(2, 3).T, b=torch.tensor(3))
    whole = full_tensors(tensors, keep=True)
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors.items())
    assert all(tensor.is_contiguous() for tensor in whole.values())  # safetensors refuses others
    assert full_tensors(tensors, keep=False) == {}
    assert like(tensors["a"], torch.zeros(3, 2)) is tensors["a"]
