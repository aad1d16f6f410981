"""The average of weights is what one computes by hand, in float32, and leaves the model alone."""

import pytest
import torch
from torch import nn

from lvt_ff.training.ema import WeightAverage


def steps(network, average, number):
    """Random walks of the weights, and the averages of them computed by hand."""
    expected = {name: p.detach().double() for name, p in network.named_parameters()}
    for step in range(number):
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter += torch.randn_like(parameter)
                decay = min(average.decay, (1 + step) / (10 + step))
                expected[name] = decay * expected[name] + (1 - decay) * parameter.double()
        average.update(step)
    return expected


def test_average_follows_the_weights():
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    average = WeightAverage(network, 0.5)
    expected = steps(network, average, 20)
    present = {name: p.detach().clone() for name, p in network.named_parameters()}
    with average.applied():
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(p, present[name]) for name, p in network.named_parameters())


def test_average_of_half_precision_weights_is_kept_in_float32():
    network = nn.Linear(4, 3).to(torch.bfloat16)
    average = WeightAverage(network, 0.999)
    assert {value.dtype for value in average.average.values()} == {torch.float32}
    with average.applied():
        assert network.weight.dtype == torch.bfloat16


def test_average_leaves_frozen_parameters_out():
    network = nn.Linear(4, 3)
    network.bias.requires_grad_(False)
    assert set(WeightAverage(network, 0.9).average) == {"weight"}


def test_stored_average_goes_on_and_that_of_another_model_is_refused():
    network = nn.Linear(4, 3)
    one, other = WeightAverage(network, 0.9), WeightAverage(network, 0.9)
    steps(network, one, 3)
    other.load(one.average)
    assert all(torch.equal(one.average[name], other.average[name]) for name in one.average)
    with pytest.raises(ValueError, match="of another model"):
        other.load({"weight": network.weight})


def test_weights_come_back_when_an_evaluation_fails():
    network = nn.Linear(4, 3)
    average, before = WeightAverage(network, 0.9), network.weight.detach().clone()
    average.average["weight"] += 1
    with pytest.raises(RuntimeError), average.applied():
        assert not torch.equal(network.weight, before)
        raise RuntimeError
    assert torch.equal(network.weight, before)
