"""Index rules of clips."""

import numpy as np
import pytest

from lvt_ff.data import sample_indices


def test_uniform_test_clips_take_middle_start_and_end_of_segments():
    # 33 frames, 4 segments of 8: bounds 0, 8, 16, 24, 32.
    clips = [sample_indices(33, 4, clip=c, num_clips=3).tolist() for c in range(3)]
    assert clips == [[4, 12, 20, 28], [0, 8, 16, 24], [8, 16, 24, 32]]


@pytest.mark.parametrize("num_clips", [2, 3, 5, 10])
@pytest.mark.parametrize("sampling", ["uniform", "dense"])
def test_test_clips_differ(sampling, num_clips):
    options = dict(sampling=sampling, num_clips=num_clips)
    clips = {tuple(sample_indices(300, 8, clip=c, **options)) for c in range(num_clips)}
    assert len(clips) == num_clips


def test_uniform_training_draws_stay_in_their_segments():
    rng = np.random.default_rng(0)
    draws = np.stack([sample_indices(33, 4, rng=rng) for _ in range(500)])
    assert (draws.min(0) == [0, 8, 16, 24]).all() and (draws.max(0) == [8, 16, 24, 32]).all()


def test_dense_takes_every_stride_th_frame_from_one_start():
    assert sample_indices(100, 5, sampling="dense", stride=10).tolist() == [25, 35, 45, 55, 65]
    options = dict(sampling="dense", stride=10, num_clips=3)
    starts = [sample_indices(100, 5, clip=c, **options)[0] for c in range(3)]
    assert starts == [0, 25, 50]
    rng = np.random.default_rng(0)
    draws = np.stack(
        [sample_indices(100, 5, sampling="dense", stride=10, rng=rng) for _ in range(500)]
    )
    assert (np.diff(draws) == 10).all()
    assert draws[:, 0].min() == 0 and draws[:, 0].max() == 50


def test_as_many_frames_as_asked_are_all_taken():
    assert sample_indices(7, 7).tolist() == list(range(7))


@pytest.mark.parametrize("num_total", [1, 2, 5, 15, 16])
@pytest.mark.parametrize("clip", [0, 1, 2])
@pytest.mark.parametrize("random", [False, True])
def test_short_videos_repeat_in_order_or_wrap(num_total, clip, random):
    rng = np.random.default_rng(1) if random else None
    uniform = sample_indices(num_total, 16, clip=clip, num_clips=3, rng=rng)
    assert len(uniform) == 16 and (np.diff(uniform) >= 0).all()
    assert uniform.min() >= 0 and uniform.max() < num_total
    dense = sample_indices(num_total, 16, sampling="dense", stride=3, clip=clip, num_clips=3)
    assert dense.tolist() == [3 * i % num_total for i in range(16)]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sampling="random"), "sampling must be one of"),
        (dict(num_frames=0), "num_frames"),
        (dict(num_total=0), "num_total"),
        (dict(clip=2, num_clips=2), "0 <= clip < num_clips"),
    ],
)
def test_wrong_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sample_indices(**{**dict(num_total=10, num_frames=4), **change})
