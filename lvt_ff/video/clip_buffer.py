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
    "new_frames",
    "too_large",
]

# Chosen frame numbers for the total number of frames.
Choose = Callable[[int], Sequence[int]]

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


class ClipBuffer:
    """Frames of one reading, decoded once each, in the order and as often as asked for.

    Args:
        choose: gives frame numbers for the number of frames that are shown; called again where
            that number turned out to be another.
        max_pixels: of a frame, as coded and as shown.
        allocate: makes the array (T, H, W, 3) uint8.
        progress: called whenever a packet or a frame is done.
    """

    def __init__(
        self,
        choose: Choose,
        max_pixels: int = MAX_PIXELS,
        allocate: Callable[[tuple[int, ...]], np.ndarray] = new_frames,
        progress: Callable[[], None] = lambda: None,
    ):
        self._choose, self._allocate, self.progress = choose, allocate, progress
        self.max_pixels = max_pixels
        self.total = 0
        self.frames: np.ndarray | None = None
        self._places: dict[int, list[int]] = {}

    def choose(self, total: int) -> None:
        """Ask which of so many frames are wanted; what was put before is forgotten.

        Raises:
            ValueError: no frame at all.
            IndexError: a number beyond the end.
        """
        if total < 1:
            raise ValueError("the video has no frame that can be shown")
        indices = [int(index) for index in self._choose(total)]
        outside = sorted({index for index in indices if not 0 <= index < total})
        if outside:
            raise IndexError(f"frames {outside[:5]} were asked for, and there are {total}")
        places = defaultdict(list)
        for place, index in enumerate(indices):
            places[index].append(place)
        self.total, self.num_frames, self._places = total, len(indices), dict(places)
        self._done: set[int] = set()

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

    def fill(self, total: int, picture: Callable[[int], np.ndarray]) -> None:
        """Choose among so many frames, and put what a function gives for each of their numbers."""
        self.choose(total)
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
