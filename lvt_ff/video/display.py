"""Decoded frames as players show them: deinterlaced, square pixels, upright, RGB, of one size."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

__all__ = ["Deinterlacer", "Painter", "Shape", "orient", "orientation"]

_MAX_PIXEL_ASPECT = 16  # beyond, a file's pixel shape is damaged


def orientation(frame) -> tuple[bool, bool, bool]:
    """How to show an `av.VideoFrame`: transposed, then mirrored left to right, then top to bottom.

    A display matrix maps places (x, y) of the coded picture to (a·x + c·y, b·x + d·y).
    """
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None or len(data := bytes(matrix)) < 36:
        return False, False, False
    a, b, _, c, d = np.frombuffer(data, "<i4")[:5].tolist()
    if abs(a) >= abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def orient(pixels: np.ndarray, how: tuple[bool, bool, bool]) -> np.ndarray:
    """Turn a frame (H, W, 3) as `orientation` says."""
    transposed, left_right, top_bottom = how
    pixels = pixels.swapaxes(0, 1) if transposed else pixels
    return pixels[:: -1 if top_bottom else 1, :: -1 if left_right else 1]


class Shape(NamedTuple):
    """How all frames of a stream are shown, whatever their own size.

    Args:
        width, height: pixels of the picture before it is turned.
        orientation: see `orientation`.
        square_pixels: as coded.
    """

    width: int
    height: int
    orientation: tuple[bool, bool, bool]
    square_pixels: bool

    @classmethod
    def of(cls, first, pixel_aspect: Fraction | None) -> "Shape":
        """That of a stream's first `av.VideoFrame`.

        Args:
            first: the frame.
            pixel_aspect: width of a pixel by its height; None or 0 where the file does not say.
        """
        aspect = pixel_aspect or 1
        if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
            aspect = 1
        width = max(round(first.width * aspect), 1)
        return cls(width, first.height, orientation(first), aspect == 1)

    @property
    def is_mirrored(self) -> bool:
        """Whether no turn alone makes it upright."""
        return sum(self.orientation) % 2 == 1

    def smaller_by(self, needed: tuple[int, int] | None) -> int:
        """By which whole number sides may be divided and still cover what is needed.

        Args:
            needed: pixels (height, width) of the picture as it is shown; None for all.
        """
        if needed is None:
            return 1
        height, width = needed[::-1] if self.orientation[0] else needed
        return max(min(self.height // height, self.width // width), 1)


class Painter:
    """Makes RGB pictures of frames, all of one shape; not for several threads.

    Args:
        shape: of the frames.
        needed: see `Shape.smaller_by`.
    """

    def __init__(self, shape: Shape, needed: tuple[int, int] | None = None):
        from av.video.reformatter import VideoReformatter

        divisor = shape.smaller_by(needed)
        self._size = shape.width // divisor, shape.height // divisor
        # Each pixel is then the mean of those that it stands for.
        self._filter = "AREA" if divisor > 1 else None
        self._orientation, self._reformatter = shape.orientation, VideoReformatter()

    def __call__(self, frame) -> np.ndarray:
        """The picture (H, W, 3) uint8 of an `av.VideoFrame`."""
        picture = self._reformatter.reformat(
            frame,
            *self._size,
            "rgb24",
            interpolation=self._filter,
            threads=1,  # waking others takes longer than most frames do
        )
        return orient(picture.to_ndarray(), self._orientation)


class Deinterlacer:
    """Makes whole pictures of frames whose two fields were taken one after the other.

    Frames go through one by one and in order; those that are not interlaced stay as they are.
    """

    def __init__(self):
        self._graph = None
        self._format = None

    def __call__(self, frame) -> Iterator:
        """Frames that are ready, when one more is there; None at the end gives the rest."""
        if self._graph is None and (frame is None or not frame.interlaced_frame):
            yield from [] if frame is None else [frame]
            return
        if frame is None or self._format != _format_of(frame):
            yield from self._rest()
        if frame is not None:
            self._push(frame)
            yield from self._ready()

    def _push(self, frame) -> None:
        from av.filter import Graph

        if self._graph is None:
            graph, self._format = Graph(), _format_of(frame)
            graph.link_nodes(
                graph.add_buffer(
                    width=frame.width,
                    height=frame.height,
                    format=frame.format,
                    time_base=frame.time_base or Fraction(1, 1000),
                ),
                graph.add("bwdif", "mode=send_frame:deint=interlaced"),
                graph.add("buffersink"),
            ).configure()
            self._graph = graph
        self._graph.push(frame)

    def _ready(self) -> Iterator:
        import av

        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    def _rest(self) -> Iterator:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None


def _format_of(frame) -> tuple:
    return frame.width, frame.height, frame.format.name
