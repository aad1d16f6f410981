"""Which frames of a video make a clip.

Source: the authors' SSv2 and Kinetics recipes (arXiv 2210.08164, appendix, and their code).
"""

import numpy as np

__all__ = ["SAMPLINGS", "sample_indices"]


def _uniform(
    num_total: int, num_frames: int, stride: int, clip: int, num_clips: int, rng
) -> np.ndarray:
    if num_total == num_frames:
        return np.arange(num_total)
    bounds = np.rint((num_total - 1) / num_frames * np.arange(num_frames + 1)).astype(int)
    start, end = bounds[:-1], bounds[1:]
    if rng is not None:
        return rng.integers(start, end, endpoint=True)
    if num_clips > 3:
        return start + (end - start) * clip // (num_clips - 1)
    return ((start + end) // 2, start, end)[clip]  # the authors' order: middle, start, end


def _dense(
    num_total: int, num_frames: int, stride: int, clip: int, num_clips: int, rng
) -> np.ndarray:
    room = max(num_total - stride * num_frames, 0)
    if rng is not None:
        first = int(rng.integers(0, room, endpoint=True))
    else:
        first = room // 2 if num_clips == 1 else room * clip // (num_clips - 1)
    return (first + stride * np.arange(num_frames)) % num_total


SAMPLINGS = {"uniform": _uniform, "dense": _dense}


def sample_indices(
    num_total: int,
    num_frames: int,
    *,
    sampling: str = "uniform",
    stride: int = 4,
    clip: int = 0,
    num_clips: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Frame numbers of one clip.

    Args:
        num_total: frames of the video.
        num_frames: frames of the clip, T.
        sampling: "uniform" takes one frame of each of T equal segments of the whole video (SSv2):
            the middle one for clip 0, the first for clip 1, the last for clip 2, evenly spread
            places for more than three clips; a video of fewer than T frames repeats frames in
            order. "dense" takes every `stride`-th frame from one start (Kinetics): the middle one
            for a single clip, else starts evenly spread over the video; a video shorter than the
            clip starts again from its first frame.
        stride: frames between two of a dense clip.
        clip: which of the `num_clips` test clips, from 0; of no effect with `rng`.
        num_clips: test clips of the video.
        rng: draws the frame of each segment, or the start; None is deterministic.

    Returns:
        (T,) int64, ascending but for the wrap of a short dense clip.

    Raises:
        ValueError: unknown sampling, or counts out of range.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {list(SAMPLINGS)}, got {sampling!r}.")
    if num_total < 1 or num_frames < 1 or stride < 1 or not 0 <= clip < num_clips:
        raise ValueError(
            "Expected num_total, num_frames, stride >= 1 and 0 <= clip < num_clips, got "
            f"{num_total}, {num_frames}, {stride}, {clip}, {num_clips}."
        )
    return SAMPLINGS[sampling](num_total, num_frames, stride, clip, num_clips, rng)
