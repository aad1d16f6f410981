"""When frames are shown, in seconds from the beginning of a file as players count them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

__all__ = ["Clock"]

_FRAME_S = Fraction(1, 25)  # of files that do not say how long a frame is shown


@dataclass(frozen=True)
class Clock:
    """How a file counts time.

    Args:
        time_base: seconds of a unit of its stream.
        begins: where a player begins to count, in these units; None for the first frame.
        frame_s: seconds from one frame to the next, where frames have no times.
    """

    time_base: Fraction
    begins: int | None
    frame_s: Fraction

    @classmethod
    def of(cls, container, stream) -> "Clock":
        """That of an open file: sound may begin before the picture, but not before 0."""
        begins = None
        if container.streams.audio and container.start_time is not None:
            begins = int(max(container.start_time, 0) / 1_000_000 / stream.time_base)
        rate = stream.average_rate or stream.guessed_rate
        return cls(stream.time_base, begins, 1 / rate if rate else _FRAME_S)

    def seconds(self, pts: Sequence[int | None], dts: Sequence[int | None]) -> np.ndarray:
        """When each frame is shown (n,), ascending.

        Presentation times count where every frame has one and they ascend, then those of decoding,
        as AVI has no others; where neither do, frames have one length.

        Args:
            pts, dts: of frames in the order in which they are shown.
        """
        ticks = _ascending(pts)
        begins = self.begins
        if ticks is None:
            ticks, begins = _ascending(_continued(dts)), None
        if ticks is None:
            return np.arange(len(pts)) * self.frame_s.numerator / self.frame_s.denominator
        if len(ticks):
            ticks = ticks - (ticks[0] if begins is None else min(begins, ticks[0]))
        # Rounded once, so that a frame at 1.2 s is not shown before 1.2 s.
        return ticks * self.time_base.numerator / self.time_base.denominator


def _ascending(times: Sequence[int | None]) -> np.ndarray | None:
    """Times (n,) int64, where all are there and each is later than the one before."""
    if any(time is None for time in times):
        return None
    ticks = np.array(times, np.int64)
    return ticks if (np.diff(ticks) > 0).all() else None


def _continued(times: Sequence[int | None]) -> list[int | None]:
    """Times with those that lack at the end: FFmpeg's last frames leave a decoder without one."""
    times = list(times)
    known = next((n for n in range(len(times), 0, -1) if times[n - 1] is not None), 0)
    if known > 1 and times[known - 2] is not None:
        step = times[known - 1] - times[known - 2]
        for place in range(known, len(times)):
            times[place] = times[place - 1] + step
    return times
