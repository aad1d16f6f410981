"""Neighbourhood association against a loop over positions that follows the specification."""

import pytest
import torch
from reference import attention_tensors

from lvt_ff.layers.shift import SPATIAL_OFFSETS, SpatialShift, TemporalShift

# By hand from the specification, not from the table under test.
SIZE_1 = [(1, 0), (-1, 0), (0, 1), (0, -1), (-1, -1), (1, 1), (-1, 1), (1, -1)]
SIZE_2 = (
    [(2, 0), (-2, 0), (0, 2), (0, -2), (-2, -2), (2, 2), (-2, 2), (2, -2)]
    + [(-2, -1), (-2, 1), (-1, -2), (1, -2), (2, -1), (2, 1), (-1, 2), (1, 2)]
    + SIZE_1
)


def spatial_loop(x, offsets, grid, zero_groups=4):
    height, width = grid
    out = x.clone()
    fold = x.shape[-1] // (2 * len(offsets))
    for group, (dy, dx) in enumerate(offsets):
        channels = slice(group * fold, (group + 1) * fold)
        for row in range(height):
            for column in range(width):
                inside = 0 <= row + dy < height and 0 <= column + dx < width
                here = row * width + column
                if inside:
                    there = (row + dy) * width + column + dx
                    out[:, :, here, channels] = x[:, :, there, channels]
                elif group < zero_groups:
                    out[:, :, here, channels] = 0
    return out


@pytest.mark.parametrize("grid", [(5, 5), (3, 7), (6, 2), (1, 4), (1, 1)])
@pytest.mark.parametrize("size, offsets", [(1, SIZE_1), (2, SIZE_2)])
def test_spatial_shift_equals_a_loop_over_positions(size, offsets, grid):
    x = torch.randn(2, 3, grid[0] * grid[1], 100)
    assert torch.equal(SpatialShift(size, 100, grid)(x), spatial_loop(x, offsets, grid))
    zero = SpatialShift(size, 100, grid, border="zero")(x)
    assert torch.equal(zero, spatial_loop(x, offsets, grid, zero_groups=24))


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("div", [2, 4, 8])
def test_temporal_shift_equals_a_loop_over_frames(div, frames):
    x = torch.randn(2, frames, 6, 20)
    fold = 20 // div
    expected = x.clone()
    for t in range(frames):
        expected[:, t, :, :fold] = x[:, t + 1, :, :fold] if t + 1 < frames else 0
        expected[:, t, :, fold : 2 * fold] = x[:, t - 1, :, fold : 2 * fold] if t else 0
    assert torch.equal(TemporalShift(div, 20)(x), expected)
    parts = [TemporalShift(div, 20)(part) for part in x.split(2, dim=1)]
    assert torch.equal(TemporalShift(div, 20, segment=2)(x), torch.cat(parts, dim=1))


def test_shifts_match_the_authors():
    golden = attention_tensors("na_shifts")
    x = golden["x"].flatten(2, 3).float()  # (B, T, N, D)
    spatial = SpatialShift(1, 64, (5, 5))(x)
    cases = {
        "temporal_ndiv4": TemporalShift(4, 64)(x),
        "temporal_ndiv8": TemporalShift(8, 64)(x),
        "temporal_ndiv8_segment2": TemporalShift(8, 64, segment=2)(x),
        "spatial_size1": spatial,
        "spatial_size2": SpatialShift(2, 64, (5, 5))(x),
        "joint_spatial1_then_temporal_ndiv4": TemporalShift(4, 64)(spatial),
    }
    for name, got in cases.items():
        assert torch.equal(got, golden[name].flatten(2, 3).float()), name


@pytest.mark.parametrize("size", [1, 2])
def test_shift_gradient_is_the_transposed_shift(size):
    shift = SpatialShift(size, 96, (4, 3))
    x = torch.randn(1, 1, 12, 96, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shift, x, fast_mode=True)


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="embed_dim >= 48, got 32"):
        SpatialShift(2, 32, (4, 4))
    with pytest.raises(ValueError, match="temporal_shift_div must be 0"):
        TemporalShift(1, 32)


def test_sizes_offered():
    assert [len(offsets) for offsets in SPATIAL_OFFSETS.values()] == [0, 8, 24]
