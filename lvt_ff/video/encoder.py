"""A video written anew as MP4 with H.264: smaller, with key frames close to each other.

Frames come from our own decoders, so that they are those that a reader shows, upright and in square
pixels; they keep their times.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lvt_ff.video.clip_buffer import MAX_PIXELS, ClipBuffer
from lvt_ff.video.decoders import Refused, decode
from lvt_ff.video.file_names import plain_name
from lvt_ff.video.pictures import is_pictures
from lvt_ff.video.probe import Probe, probe
from lvt_ff.video.stream import open_stream

__all__ = ["Encoded", "EncodeSettings", "encode"]

_PICTURES_PER_S = 25  # pictures say no times
_MIN_SIDE = 2  # of H.264 with colours at half the size
_PRESET = "fast"


class EncodeSettings(NamedTuple):
    """How videos are written.

    Args:
        short_side: pixels of the shorter side; smaller videos keep their size.
        keyframes: most frames from one key frame to the next.
        crf: of x264, less is better and larger.
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
    span: tuple[float, float],
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
) -> Encoded:
    """Write the frames of a video, or a part of it, to a new file.

    Args:
        path: video file, or folder of numbered pictures.
        target: the file, MP4 whatever its name.
        settings: how.
        span: seconds of the first frame and behind the last one, counted from the video's first
            frame; NaN for its own start or end.
        max_pixels: of a frame of the original.
        progress: called whenever a packet or a frame is done.

    Raises:
        FrameSizeError: a frame is larger than allowed.
        Refused: not a video, or no frame of it is in the span.
    """
    reasons = []
    with plain_name(path) as file:
        times = _Times.of(file, max_pixels)
        writer = _Writer(target, settings, times, span, max_pixels, progress)
        try:
            _, damage = decode(
                ("pyav", "pillow"),
                file,
                writer,
                threads=1,
                trying=lambda name: None,
                failed=lambda attempt: reasons.append(f"{attempt.name}: {attempt.reason}"),
            )
        except Refused as error:
            raise Refused("; ".join([*reasons, *error.args])) from error
        finally:
            writer.close()
    return Encoded(writer.num_written, writer.seconds, damage)


class _Times:
    """When each frame of a video is shown.

    Args:
        ticks: of each frame, ascending; None spaces frames evenly.
        base: seconds of a tick.
        seconds: of the whole video; 0 where it is not known.
    """

    def __init__(self, ticks: np.ndarray | None, base: Fraction, seconds: float):
        self._ticks, self._base, self._seconds = ticks, base, seconds

    @classmethod
    def of(cls, file: str, max_pixels: int) -> "_Times":
        """Those of a file; what cannot be opened is told when it is decoded."""
        if is_pictures(file):
            return cls(None, Fraction(1, _PICTURES_PER_S), 0)
        try:
            found: Probe = probe(file, max_pixels)
            with open_stream(file, max_pixels) as (_, stream):
                base = stream.time_base
        except Exception:
            return cls(None, Fraction(1, _PICTURES_PER_S), 0)
        return cls(None if found.untimed else found.times, base, found.seconds)

    def of_total(self, total: int) -> tuple[np.ndarray, Fraction]:
        """Ticks of so many frames from the first on, and seconds of a tick."""
        if self._ticks is not None and len(self._ticks) == total:
            return self._ticks - self._ticks[0], self._base
        rate = total / self._seconds if self._seconds else _PICTURES_PER_S
        rate = Fraction(rate).limit_denominator(1001)
        return np.arange(total), 1 / rate if rate else Fraction(1, _PICTURES_PER_S)


class _Writer(ClipBuffer):
    """Takes decoded frames as they come, in order, and writes them."""

    def __init__(
        self,
        target: str,
        settings: EncodeSettings,
        times: _Times,
        span: tuple[float, float],
        max_pixels: int,
        progress: Callable[[], None],
    ):
        super().__init__(self._in_span, max_pixels, progress=progress)
        self._target, self._settings = target, settings
        self._times, self._span = times, span
        self._container = self._stream = self._reformatter = None
        self.num_written, self.seconds = 0, 0.0

    def _in_span(self, total: int) -> np.ndarray:
        self._ticks, self._base = self._times.of_total(total)
        seconds = self._ticks * float(self._base)
        start, end = self._span
        inside = np.ones(total, bool)
        if not math.isnan(start):
            inside &= seconds >= start
        if not math.isnan(end):
            inside &= seconds < end
        numbers = np.flatnonzero(inside)
        if not len(numbers):
            raise ValueError(
                f"no frame is between {start:g} and {end:g} s: the video has {total} frames, the "
                f"last at {seconds[-1]:.2f} s"
            )
        self._first = int(self._ticks[numbers[0]])
        step = float(np.median(np.diff(self._ticks))) if total > 1 else 1.0
        self.seconds = float((self._ticks[numbers[-1]] - self._first + step) * self._base)
        return numbers

    def choose(self, total: int) -> None:
        """Begin, or begin anew."""
        self.close()
        self.num_written = 0
        super().choose(total)

    def put(self, number: int, pixels: np.ndarray) -> None:
        """Write a frame."""
        import av

        if self._container is None:
            self._open(*pixels.shape[:2])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = self._reformatter.reformat(
            frame, self._stream.width, self._stream.height, "yuv420p", interpolation="BICUBIC"
        )
        frame.pts, frame.time_base = int(self._ticks[number]) - self._first, self._base
        self._container.mux(self._stream.encode(frame))
        self.num_written += 1
        self._done.add(number)
        self.progress()

    def _open(self, height: int, width: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        rate = Fraction(len(self._ticks) / max(self.seconds, 1e-3)).limit_denominator(1001)
        # Not this machine's versions and clock, so that the same video gives the same bytes.
        options = {"fflags": "+bitexact"}
        self._container = av.open(self._target, "w", format="mp4", options=options)
        self._stream = self._container.add_stream(
            "libx264",
            rate=max(rate, Fraction(1)),
            options=dict(crf=str(self._settings.crf), preset=_PRESET),
        )
        self._stream.width, self._stream.height = _size(width, height, self._settings.short_side)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.thread_count = self._base, 1
        context.gop_size = self._settings.keyframes
        self._reformatter = VideoReformatter()

    def close(self) -> None:
        """Write what is left, and close the file."""
        container, self._container = self._container, None
        if container is not None:
            with container:
                container.mux(self._stream.encode(None))


def _size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Even width and height, the shorter one at most `short_side`."""
    scale = min(short_side / min(width, height), 1)
    return tuple(max(round(side * scale / 2) * 2, _MIN_SIDE) for side in (width, height))
