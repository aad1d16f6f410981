"""Models can be pickled whatever their options: `torch.save(model)`, spawned processes, Ray."""

import copy
import io

import pytest
import torch
from conftest import checkpointing

import lvt_ff
from lvt_ff import VARIANTS, LinearVideoTransformer
from lvt_ff.kernels import KERNELS
from lvt_ff.layers import CHOICES


def options():
    """One option after the other, all their values; and those that need another beside them."""
    for name, values in CHOICES.items():
        for value in values:
            yield {name: value}
    for aggregate in CHOICES["fixation_aggregate"]:
        yield dict(fixation="qk", fixation_aggregate=aggregate, fixation_shared=False)
    yield dict(local_concentration=True, drop_path_rate=0.1, temporal_shift_segment=2)


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("changes", list(options()), ids=str)
def test_models_are_pickled(changes, clip):
    model = LinearVideoTransformer(**{**VARIANTS["test_lvt_ff"], "depth": 1}, **changes).eval()
    for again in (through_a_file(model), copy.deepcopy(model)):
        assert torch.equal(again(clip), model(clip))


@pytest.mark.parametrize("name", KERNELS)
def test_models_of_transformers_are_pickled(name, clip):
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", attn_kernel=name, depth=1, num_labels=3)
    model = lvt_ff.LVTFFForVideoClassification(config).eval()
    checkpointing(model, "enable")()
    again = through_a_file(model)
    assert torch.equal(again(clip).logits, model(clip).logits)
    again.load_state_dict(model.model.state_dict())  # without the prefix, as folders have it
