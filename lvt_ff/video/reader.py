"""From a video to the frames asked for, whichever backend can give them.

Files are decoded in processes of their own, so that none can end, hang or exhaust this one;
`LVT_FF_DECODE=inline` decodes here, for files that are trusted.
"""

import math
import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from lvt_ff.utils.errors import DamagedVideoWarning, FrameSizeError, VideoReadError
from lvt_ff.utils.validation import check_choice
from lvt_ff.video import pool
from lvt_ff.video.clip_buffer import (
    MAX_PIXELS,
    CallersError,
    Choose,
    ClipBuffer,
    Span,
    SpanError,
)
from lvt_ff.video.decoder_process import Died
from lvt_ff.video.decoders import (
    DECODER_CHOICES,
    DECODERS,
    Attempt,
    Refused,
    decode,
    read_header,
)
from lvt_ff.video.file_names import problem_of_file
from lvt_ff.video.sources import VideoSource, local_video, source_name

__all__ = ["OnDamage", "ReadClip", "header", "read_clip", "read_frames", "warn_of_damage"]

OnDamage = Literal["skip", "raise"]

_WAYS = ("processes", "inline")
_MAX_THREADS = 4  # of a decoder; frames that are decoded at a time take memory
_absent: dict[str, Attempt] = {}  # backends that cannot be loaded here


class ReadClip(NamedTuple):
    """What was read.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        total: number of frames that the video shows, within the span if there is one.
        damage: what was lost of the file, or "".
        decoder: the backend.
        seconds: when the earliest and the latest of the frames are shown, counted from the file's
            start; None of pictures.
    """

    frames: np.ndarray
    total: int
    damage: str
    decoder: str
    seconds: tuple[float, float] | None = None


class _Wanted(NamedTuple):
    """What is read of a file; see `read_frames`."""

    choose: Choose
    max_pixels: int
    span: Span
    needed: tuple[int, int] | None


def read_clip(
    video: VideoSource,
    indices: Sequence[int] | Choose,
    decoder: str = "auto",
    timeout_s: float = 60.0,
    max_pixels: int = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    span: Span | None = None,
) -> np.ndarray:
    """Read frames of a video, as players show them: upright, in square pixels, deinterlaced.

    Args:
        video: a video file, a folder of numbered pictures, an http(s) address, "-" for standard
            input, bytes, or a file opened in binary mode.
        indices: numbers of shown frames in presentation order, repeats allowed, or a function that
            chooses them for the total number of frames; it is called again where the file said
            another total than it has.
        decoder: "auto" tries torchcodec, PyAV and decord in this order, leaving out what is not
            installed or not made for the file, and reads pictures with Pillow; a name forces one.
        timeout_s: without progress, for each backend; of no effect where decoding is inline.
        max_pixels: of any frame that is decoded, whatever the file's header says.
        on_damage: "skip" reads what a damaged file still shows, with a `DamagedVideoWarning`;
            "raise" does not.
        span: start and end in seconds, either of which may be None (or NaN): only the frames that
            are shown from the start on and before the end count, and are counted from 0, by the
            file's own times, as players show them (0 is where sound or picture begin).

    Returns:
        (T, H, W, 3) uint8 RGB; frames of other sizes are scaled to the first one's.

    Raises:
        VideoReadError: the file is missing, empty, damaged, not a video or too short, or shows
            nothing within the span, or no backend is installed, or its decoder died.
            FrameSizeError, a kind of it: a frame has more than `max_pixels`, or the clip takes more
            than 4.3 GB.
        ValueError: an unknown decoder name or `on_damage`.
    """
    clip = read_frames(video, indices, decoder, timeout_s, max_pixels, on_damage, span)
    if clip.damage:
        warn_of_damage(video, clip.damage, stacklevel=3)
    return clip.frames


def warn_of_damage(video: VideoSource, damage: str, stacklevel: int = 2) -> None:
    """Give a `DamagedVideoWarning` that names the video and what was lost of it."""
    told = f"Video {source_name(video)!r} is damaged: {damage}."
    warnings.warn(DamagedVideoWarning(told), stacklevel=stacklevel)


def read_frames(
    video: VideoSource,
    indices: Sequence[int] | Choose,
    decoder: str = "auto",
    timeout_s: float = 60.0,
    max_pixels: int = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    span: Span | None = None,
    needed: tuple[int, int] | None = None,
) -> ReadClip:
    """`read_clip` with what it found besides, and without its warning.

    Args:
        needed: pixels (height, width) that are needed: frames with at least twice as many on both
            sides are made smaller by a whole number while they are decoded, where PyAV does it.
    """
    check_choice("decoder", decoder, DECODER_CHOICES)
    check_choice("on_damage", on_damage, get_args(OnDamage))
    choose = _never_nothing(indices if callable(indices) else lambda total: indices)
    names = list(DECODERS) if decoder == "auto" else [decoder]
    with local_video(video) as path:
        wanted = _Wanted(choose, max_pixels, _checked(span), needed)
        clip = _read_file(path, names, wanted, timeout_s)
        if clip.damage and on_damage == "raise":
            raise VideoReadError(
                f"Cannot read the whole video {path!r}: {clip.damage}; on_damage skip reads the "
                "rest."
            )
    return clip


def _checked(span: Span | None) -> Span:
    """A span without NaN, which arrays have where there is no time."""
    start, end = span or (None, None)
    return tuple(None if time is None or math.isnan(time) else float(time) for time in (start, end))


def _never_nothing(choose: Choose) -> Choose:
    def checked(total: int) -> Sequence[int]:
        indices = list(choose(total))
        if not indices:
            raise ValueError("No frames were asked for: give one number or more.")
        return indices

    return checked


def _read_file(path: str, names: Sequence[str], wanted: _Wanted, timeout_s: float) -> ReadClip:
    problem = problem_of_file(path)
    if problem:
        raise VideoReadError(f"Cannot read video {path!r}: {problem}.")
    try:
        return _read(names, path, wanted, timeout_s)
    except FrameSizeError as error:
        raise FrameSizeError(f"Cannot read video {path!r}: {error}") from error
    except SpanError as error:
        raise VideoReadError(f"Cannot read video {path!r}: {error}.") from error
    except Refused as error:
        raise VideoReadError(f"Cannot read video {path!r}. Tried {error}.") from error


def header(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> tuple[float, int] | None:
    """Seconds, and pixels of a frame as it is shown; None where the file cannot be read.

    The container's duration counts or the span of its packets' times, whichever is longer: either
    may be missing or wrong.

    Args:
        path: a video file.
        max_pixels: of the first frame.

    Raises:
        FrameSizeError: the first frame is larger.
    """
    path = str(os.fspath(path))
    if problem_of_file(path):
        return None
    try:
        if _is_inline():
            return read_header(path, max_pixels)
        message = dict(do="header", path=os.path.abspath(path), max_pixels=max_pixels)
        return tuple(pool.request(message, _nothing, 60.0)["header"])
    except FrameSizeError as error:
        raise FrameSizeError(f"Cannot read video {path!r}: {error}") from error
    except (Refused, Died):
        return None


def _nothing(total: int) -> Sequence[int]:
    return []


def _read(names: Sequence[str], path: str, wanted: _Wanted, timeout_s: float) -> ReadClip:
    """Read with the first backend that can; Refused tells what each of them said."""
    attempts = [_absent[name] for name in names if name in _absent]
    left = [name for name in names if name not in _absent]
    how = _read_inline if _is_inline() else partial(_read_isolated, timeout_s=timeout_s)
    try:
        if not left:
            raise Refused
        return how(left, path, wanted, attempts)
    except Refused as error:
        said = sorted(attempts, key=lambda attempt: names.index(attempt.name))
        told = [f"{attempt.name}: {attempt.reason}" for attempt in said]
        raise Refused("; ".join([*told, *error.args])) from error
    finally:
        _absent.update({attempt.name: attempt for attempt in attempts if attempt.absent})


def _read_inline(
    names: Sequence[str], path: str, wanted: _Wanted, attempts: list[Attempt]
) -> ReadClip:
    def choose_noting_errors(total: int) -> Sequence[int]:
        try:
            return wanted.choose(total)
        except Exception as error:
            raise CallersError from error

    clip = ClipBuffer(
        choose_noting_errors, wanted.max_pixels, span=wanted.span, needed=wanted.needed
    )
    try:
        decoder, damage = decode(
            names, path, clip, _threads(), trying=lambda name: None, failed=attempts.append
        )
    except CallersError as error:
        raise error.__cause__ from None
    return ReadClip(clip.frames, clip.total, damage, decoder, clip.seconds)


def _read_isolated(
    names: Sequence[str],
    path: str,
    wanted: _Wanted,
    attempts: list[Attempt],
    timeout_s: float,
) -> ReadClip:
    message = dict(
        do="read",
        path=os.path.abspath(path),
        max_pixels=wanted.max_pixels,
        span=wanted.span,
        needed=wanted.needed,
        threads=_threads(),
    )
    while True:
        trying = []

        def note(told: dict, trying: list[str] = trying) -> None:
            if "trying" in told:
                trying.append(told["trying"])
            else:
                attempts.append(Attempt(*told["failed"]))

        try:
            answer = pool.request(dict(message, decoders=names), wanted.choose, timeout_s, note)
            seconds = answer["seconds"] and tuple(answer["seconds"])
            return ReadClip(*(answer[key] for key in ReadClip._fields[:-1]), seconds)
        except Died as error:
            if not trying:  # the file itself did it, which no backend can avoid
                raise Refused(f"pyav, opening it: {error}") from error
            attempts.append(Attempt(trying[-1], str(error)))
            names = names[names.index(trying[-1]) + 1 :]
            if not names:
                raise Refused from error


def _is_inline() -> bool:
    way = os.environ.get("LVT_FF_DECODE", _WAYS[0])
    check_choice("LVT_FF_DECODE", way, _WAYS)
    # A frozen program has no Python to start.
    return way == "inline" or getattr(sys, "frozen", False)


def _threads() -> int:
    """One in a data loader's worker, which has others beside it."""
    if multiprocessing.parent_process() is not None:
        return 1
    return min(os.cpu_count() or 1, _MAX_THREADS)
