"""Where the frames that were asked for go, and the limits on how much that may be."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from lvt_ff.utils.errors import FrameSizeError

__all__ = [
    "MAX_CLIP_BYTES",
    "MAX_PIXELS",
    "CallersError",
    "Choose",
    "ClipBuffer",
    "Span",
    "SpanError",
    "new_frames",
    "too_large",
]

# Chosen frame numbers for the total number of frames.
Choose = Callable[[int], Sequence[int]]

# Start and end of what is read of a file, in seconds; None for the file's own.
Span = tuple[float | None, float | None]

MAX_PIXELS = 7680 * 4320  # of a frame: 8k
MAX_CLIP_BYTES = 2**32


def new_frames(shape: tuple[int, ...]) -> np.ndarray:
    """An array of uint8 whose values do not matter."""
    return np.empty(shape, np.uint8)


def too_large(max_pixels: int) -> FrameSizeError:
    """The error of a frame of more pixels than that."""
    return FrameSizeError(f"A frame has more than {max_pixels:,} pixels, which is the limit.")


class CallersError(BaseException):
    """The caller's function that chooses frames failed: no decoder's error."""


class SpanError(Exception):
    """No frame of a file is shown within the span that is read."""


class ClipBuffer:
    """Frames of one reading, decoded once each, in the order and as often as asked for.

    Args:
        choose: gives frame numbers for the number of frames that are shown; called again where
            that number turned out to be another.
        max_pixels: of a frame, as coded and as shown.
        allocate: makes the array (T, H, W, 3) uint8.
        progress: called whenever a packet or a frame is done.
        span: only frames that are shown from its start on and before its end are there for
            `choose`, which counts from the first of them.
        needed: pixels (height, width) that a frame must still cover where it is made smaller.
    """

    def __init__(
        self,
        choose: Choose,
        max_pixels: int = MAX_PIXELS,
        allocate: Callable[[tuple[int, ...]], np.ndarray] = new_frames,
        progress: Callable[[], None] = lambda: None,
        span: Span = (None, None),
        needed: tuple[int, int] | None = None,
    ):
        self._choose, self._allocate, self.progress = choose, allocate, progress
        self.max_pixels, self.span, self.needed = max_pixels, span, needed
        self.total = 0
        self.seconds: tuple[float, float] | None = None  # of the first and the last wanted frame
        self.frames: np.ndarray | None = None
        self._window = (0, 0)
        self._places: dict[int, list[int]] = {}
        self._done: set[int] = set()

    def choose(self, total: int, seconds: np.ndarray | None = None, sure: bool = True) -> None:
        """Ask which of a file's frames are wanted; what was put before is forgotten.

        Args:
            total: frames of the file.
            seconds: when each is shown (total,), ascending; None where frames have no times.
            sure: where this may be wrong, a span without frames is no error: nothing is wanted.

        Raises:
            ValueError: no frame at all.
            SpanError: none within the span, or frames without times.
            IndexError: a number beyond the end.
        """
        if total < 1:
            raise ValueError("the video has no frame that can be shown")
        first, end = self._window = self._frames_within(total, seconds)
        self.total, self.num_frames = end - first, 0
        self._places, self._done = {}, set()
        if first == end:
            if sure:
                raise SpanError(_told(self.span, seconds))
            return
        indices = [int(index) for index in self._choose(self.total)]
        outside = sorted({index for index in indices if not 0 <= index < self.total})
        if outside:
            raise IndexError(f"frames {outside[:5]} were asked for, and there are {self.total}")
        places = defaultdict(list)
        for place, index in enumerate(indices):
            places[first + index].append(place)
        self.num_frames, self._places = len(indices), dict(places)
        self._note_seconds(seconds)

    def confirm(self, total: int, seconds: np.ndarray | None) -> bool:
        """Whether frames were chosen among those that these are the true times of."""
        self._note_seconds(seconds)
        return bool(self.total) and self._frames_within(total, seconds) == self._window

    def _frames_within(self, total: int, seconds: np.ndarray | None) -> tuple[int, int]:
        """The first frame of the span, and the first one behind it."""
        start, end = self.span
        if (start, end) == (None, None):
            return 0, total
        if seconds is None:
            raise SpanError(
                "pictures have no times, so that no part of them can be read from a start to an "
                "end in seconds: leave both out"
            )
        first = 0 if start is None else int(np.searchsorted(seconds, start))
        return first, total if end is None else max(int(np.searchsorted(seconds, end)), first)

    def _note_seconds(self, seconds: np.ndarray | None) -> None:
        self.seconds = None
        if seconds is not None and self._places and max(self._places) < len(seconds):
            self.seconds = (
                float(seconds[min(self._places)]),
                float(seconds[max(self._places)]),
            )

    @property
    def missing(self) -> list[int]:
        """Numbers of the frames that are wanted and not there yet, ascending."""
        return sorted(self._places.keys() - self._done)

    def check_size(self, width: int, height: int) -> None:
        """Raise FrameSizeError for a frame of more pixels than allowed."""
        if width * height > self.max_pixels:
            raise too_large(self.max_pixels)

    def wants(self, number: int) -> bool:
        """Whether the frame of this number is wanted and not there yet."""
        return number in self._places and number not in self._done

    def fill(
        self, total: int, picture: Callable[[int], np.ndarray], seconds: np.ndarray | None = None
    ) -> None:
        """Choose as `choose` does, and put what a function gives for each of the numbers."""
        self.choose(total, seconds)
        for number in self.missing:
            self.put(number, picture(number))

    def put(self, number: int, pixels: np.ndarray) -> None:
        """Keep a wanted frame (H, W, 3) uint8; all of a reading have one size."""
        height, width = pixels.shape[:2]
        shape = (self.num_frames, height, width, 3)
        if self.frames is None or self.frames.shape != shape:
            self.check_size(width, height)
            if np.prod(shape, dtype=float) > MAX_CLIP_BYTES:
                raise FrameSizeError(
                    f"{self.num_frames} frames of {width}×{height} pixels take "
                    f"{np.prod(shape, dtype=float) / 1e9:.1f} GB, the limit is "
                    f"{MAX_CLIP_BYTES / 1e9:.1f} GB: read fewer at a time."
                )
            self.frames = self._allocate(shape)
        for place in self._places[number]:
            self.frames[place] = pixels
        self._done.add(number)
        self.progress()


def _told(span: Span, seconds: np.ndarray) -> str:
    start, end = span
    from_start = "" if start is None else f" from {start:g} s"
    to_end = "" if end is None else f" to {end:g} s"
    frame_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    return (
        f"no frame is shown{from_start}{to_end}: the file is {seconds[-1] + frame_s:.2f} s long, "
        f"with {len(seconds)} frames, the last of them at {seconds[-1]:.2f} s"
    )
