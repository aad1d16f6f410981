"""Labels that hold during a part of a video only."""

from dataclasses import dataclass

import numpy as np

__all__ = ["LabelSpans"]


@dataclass(frozen=True)
class LabelSpans:
    """From when to when each label of each video holds.

    Args:
        ends: where the labels of each video end in the other arrays (n + 1,), the first is 0.
        labels: class numbers (m,).
        times: start and end in seconds (m, 2).
    """

    ends: np.ndarray
    labels: np.ndarray
    times: np.ndarray

    @classmethod
    def of(
        cls, videos: np.ndarray, labels: np.ndarray, times: np.ndarray, num_videos: int
    ) -> "LabelSpans":
        """From the video (m,), the class (m,) and the times (m, 2) of each label."""
        order = np.argsort(videos, kind="stable")
        counts = np.bincount(videos, minlength=num_videos)
        return cls(np.concatenate([[0], np.cumsum(counts)]), labels[order], times[order])

    def take(self, indices: np.ndarray) -> "LabelSpans":
        """Those of these videos, in this order."""
        indices = np.asarray(indices)
        counts = np.diff(self.ends)[indices]
        picked = [np.arange(self.ends[video], self.ends[video + 1]) for video in indices]
        kept = np.concatenate([np.empty(0, np.int64), *picked])
        return LabelSpans(
            np.concatenate([[0], np.cumsum(counts)]), self.labels[kept], self.times[kept]
        )

    def within(self, video: int, first: float, last: float) -> np.ndarray:
        """Classes whose span has some of the time from one frame of a video to another, in it."""
        mine = slice(self.ends[video], self.ends[video + 1])
        start, end = self.times[mine].T
        return self.labels[mine][(start <= last) & (first <= end)]
