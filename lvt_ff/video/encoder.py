"""A video written anew as MP4 with H.264: smaller, with key frames close to each other.

Frames come from our own decoders, so that they are those that a reader shows, upright and in square
pixels; they keep their times.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lvt_ff.video.clip_buffer import MAX_PIXELS, ClipBuffer, Span
from lvt_ff.video.decoders import Refused, decode

__all__ = ["EncodeSettings", "Encoded", "encode"]

_TICKS = 90_000  # a second: a whole number of them for all usual rates, and for milliseconds
_PICTURES_PER_S = 25  # pictures have no times
_MIN_SIDE = 2  # of H.264 with colours at half the size
_OPTIONS = {
    "preset": "fast",
    # Else frames that do not come evenly give other bytes each time.
    "x264-params": "force-cfr=1",
}


class EncodeSettings(NamedTuple):
    """How videos are written.

    Args:
        short_side: pixels of the shorter side; smaller videos keep their size.
        keyframes: most frames from one key frame to the next.
        crf: of x264: less is better, and larger.
    """

    short_side: int
    keyframes: int
    crf: int


class Encoded(NamedTuple):
    """What was written.

    Args:
        frames: number of them.
        seconds: from the first frame to the end of the last.
        damage: what was lost of the original, or "".
    """

    frames: int
    seconds: float
    damage: str


def encode(
    path: str,
    target: str,
    settings: EncodeSettings,
    span: Span,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
) -> Encoded:
    """Write the frames of a video, or a part of it, to a new file.

    Args:
        path: video file, or folder of numbered pictures.
        target: the file, MP4 whatever its name.
        settings: how.
        span: see `ClipBuffer`.
        max_pixels: of a frame of the original.
        progress: called whenever a packet or a frame is done.

    Raises:
        FrameSizeError: a frame is larger than allowed.
        SpanError: no frame is shown within the span.
        Refused: not a video.
    """
    reasons = []
    writer = _Writer(target, settings, max_pixels, progress, span)
    try:
        _, damage = decode(
            ("pyav", "pillow"),
            path,
            writer,
            threads=1,
            trying=lambda name: None,
            failed=lambda attempt: reasons.append(f"{attempt.name}: {attempt.reason}"),
        )
    except Refused as error:
        raise Refused("; ".join([*reasons, *error.args])) from error
    finally:
        writer.close()
    return Encoded(writer.num_written, writer.length_s, damage)


class _Writer(ClipBuffer):
    """Takes decoded frames as they come, in order, and writes them."""

    def __init__(
        self,
        target: str,
        settings: EncodeSettings,
        max_pixels: int,
        progress: Callable[[], None],
        span: Span,
    ):
        super().__init__(range, max_pixels, progress=progress, span=span)
        self._target, self._settings = target, settings
        self._container = self._stream = self._reformatter = None
        self.num_written, self.length_s = 0, 0.0

    def choose(self, total: int, seconds: np.ndarray | None = None, sure: bool = True) -> None:
        """Begin, or begin anew."""
        self.close()
        self.num_written = 0
        super().choose(total, seconds, sure)
        self._ticks = _ticks(total, seconds)
        first, end = self._window
        self.length_s = float(self._ticks[end] - self._ticks[first]) / _TICKS

    def confirm(self, total: int, seconds: np.ndarray | None) -> bool:
        """Whether all frames were written at these times."""
        same = super().confirm(total, seconds)
        return same and np.array_equal(self._ticks, _ticks(total, seconds))

    def put(self, number: int, pixels: np.ndarray) -> None:
        """Write a frame."""
        import av

        if self._container is None:
            self._open(*pixels.shape[:2])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = self._reformatter.reformat(
            frame, self._stream.width, self._stream.height, "yuv420p", interpolation="BICUBIC"
        )
        frame.time_base = Fraction(1, _TICKS)
        frame.pts = int(self._ticks[number] - self._ticks[self._window[0]])
        frame.duration = int(self._ticks[number + 1] - self._ticks[number])
        self._container.mux(self._stream.encode(frame))
        self.num_written += 1
        self._done.add(number)
        self.progress()

    def _open(self, height: int, width: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        # Not this machine's versions and clock, so that the same video gives the same bytes.
        options = {"fflags": "+bitexact"}
        self._container = av.open(self._target, "w", format="mp4", options=options)
        rate = Fraction(self.total / self.length_s).limit_denominator(1001)
        self._stream = self._container.add_stream(
            "libx264",
            rate=max(rate, Fraction(1)),
            options=_OPTIONS | dict(crf=str(self._settings.crf)),
        )
        self._stream.width, self._stream.height = _size(width, height, self._settings.short_side)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.thread_count = Fraction(1, _TICKS), 1
        context.gop_size = self._settings.keyframes
        self._reformatter = VideoReformatter()

    def close(self) -> None:
        """Write what is left, and close the file."""
        container, self._container = self._container, None
        if container is not None:
            with container:
                container.mux(self._stream.encode(None))


def _ticks(total: int, seconds: np.ndarray | None) -> np.ndarray:
    """When frames are shown, and the last one's end (total + 1,), ascending."""
    if seconds is None or len(seconds) != total:
        seconds = np.arange(total) / _PICTURES_PER_S
    # Nothing tells how long the last frame is shown.
    last_s = float(np.median(np.diff(seconds))) if total > 1 else 1 / _PICTURES_PER_S
    ticks = np.rint(np.append(seconds, seconds[-1] + last_s) * _TICKS).astype(np.int64)
    places = np.arange(len(ticks))
    return np.maximum.accumulate(ticks - places) + places


def _size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Even width and height, the shorter one at most `short_side`."""
    scale = min(short_side / min(width, height), 1)
    return tuple(max(round(side * scale / 2) * 2, _MIN_SIDE) for side in (width, height))
