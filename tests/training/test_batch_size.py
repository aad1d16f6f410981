"""How a step's clips are shared out."""

import copy
import itertools

import pytest
import torch
from accelerate import Accelerator

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification
from lvt_ff.training import batch_size
from lvt_ff.training.batch_size import find_batch_size, largest_batch, scaled_lr, split_batch
from lvt_ff.utils.errors import Failure

SHAPE = (2, 3, 32, 32)


def test_split_batch_is_exact_or_names_totals_and_sizes_that_are():
    exact = 0
    for total, size, world in itertools.product(range(1, 40), (1, 3, 4), (1, 2, 3)):
        try:
            accumulation = split_batch(total, size, world)
        except ValueError as error:
            words = str(error).partition("give ")[2].rstrip(".")
            totals, _, lower = words.partition(", or --batch_size ")
            near = [int(word) for word in totals.split(" or ")]
            assert all(split_batch(number, size, world) for number in near)
            assert all(abs(number - total) < size * world for number in near)
            assert bool(lower) == (total % world == 0)
            assert not lower or split_batch(total, int(lower), world)
        else:
            assert accumulation * size * world == total
            exact += 1
    shares = itertools.product(range(1, 40), (1, 3, 4), (1, 2, 3))
    assert exact == sum(total % (size * world) == 0 for total, size, world in shares)


def test_split_batch_tells_what_was_asked():
    expected = (
        "--total_batch_size 50 is not a multiple of --batch_size 8 on 2 processes: give 48 or 64, "
        "or --batch_size 5."
    )
    with pytest.raises(ValueError) as error:
        split_batch(50, 8, 2)
    assert str(error.value) == expected


def test_largest_batch_is_the_first_that_fits():
    tried = []
    assert largest_batch([16, 8, 4, 2], lambda size: tried.append(size) or size <= 5) == 4
    assert tried == [16, 8, 4]
    assert largest_batch([2, 1], lambda size: False) is None


@pytest.fixture
def network(monkeypatch):
    """A model that has memory for six clips."""
    config = dict(depth=1, num_frames=2, img_size=32, head_hidden=16, local_concentration=True)
    torch.manual_seed(0)
    network = LVTFFForVideoClassification(LVTFFConfig.from_variant("test_lvt_ff", **config))
    forward = LVTFFForVideoClassification.forward

    def limited(self, pixel_values_videos, **kwargs):
        if len(pixel_values_videos) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pixel_values_videos=pixel_values_videos, **kwargs)

    monkeypatch.setattr(LVTFFForVideoClassification, "forward", limited)
    return network


@pytest.mark.parametrize("total, expected", [(24, 6), (32, 4), (5, 5), (7, 1)])
def test_find_batch_size_divides_the_step_and_fits(network, total, expected):
    before, draws = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert find_batch_size(network, Accelerator(cpu=True), total, clip_shape=SHAPE) == expected
    assert torch.equal(torch.get_rng_state(), draws)
    for name, tensor in network.state_dict().items():  # running statistics too
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_smallest_machine_decides(network, monkeypatch):
    tried = []

    def gather(found):
        tried.append(found)
        return [*found, len(tried) > 3]  # another process, that has less memory

    monkeypatch.setattr(batch_size, "gather_object", gather)
    assert find_batch_size(network, Accelerator(cpu=True), 16, clip_shape=SHAPE) == 2
    assert tried == [[False], [False], [True], [True]]


def test_find_batch_size_ends_where_nothing_fits(network, monkeypatch):
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: torch.empty(1 << 60))
    with pytest.raises(Failure, match="out of memory with one clip .*--grad_checkpointing"):
        find_batch_size(network, Accelerator(cpu=True), 2, clip_shape=SHAPE)


def test_find_batch_size_passes_other_errors_on(network):
    with pytest.raises(ValueError, match="frames"):
        find_batch_size(network, Accelerator(cpu=True), 2, clip_shape=(3, 3, 32, 32))


def test_scaled_lr_follows_its_rule():
    assert scaled_lr(1e-3, 64, scaling="none") == (1e-3, "0.001")
    assert scaled_lr(1e-3, 64, scaling="linear") == (2.5e-4, "0.00025 (0.001 × 64 / 256)")
    assert scaled_lr(1e-3, 64, scaling="sqrt") == (5e-4, "0.0005 (0.001 × √(64 / 256))")
    assert scaled_lr(1e-3, 64, scaling="linear", reference=32)[0] == 2e-3
