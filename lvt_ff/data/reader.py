"""From a video file to the frames asked for, whichever backend can give them."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lvt_ff.data.decoders import DECODERS, Choose, open_limited
from lvt_ff.utils.errors import FrameSizeError, VideoReadError

__all__ = ["DECODER_CHOICES", "Decoder", "header", "read_clip"]

Decoder = Literal["auto", "decord", "pyav", "torchcodec"]
DECODER_CHOICES = get_args(Decoder)


def read_clip(
    path: str | os.PathLike,
    indices: Sequence[int] | Choose,
    decoder: str = "auto",
    timeout_s: float = 60.0,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Read frames of a video file.

    Args:
        path: a video file.
        indices: frame numbers in presentation order, repeats allowed, or a function that chooses
            them for the total number of frames.
        decoder: "auto" tries decord, PyAV and torchcodec in this order, leaving out what is not
            installed or known to return other frames for the container; a name forces one.
        timeout_s: time for each backend. A decoder that hangs is abandoned with its thread.
        max_pixels: of any frame that is decoded, whatever the file's header says; only PyAV keeps
            this limit. For files from people who are not known.

    Returns:
        (T, H, W, 3) uint8 RGB, upright.

    Raises:
        VideoReadError: the file is missing, empty, damaged, not a video or too short, or no backend
            is installed. FrameSizeError, a kind of it: a frame has more than `max_pixels`.
        ValueError: unknown decoder name.
    """
    if decoder not in DECODER_CHOICES:
        raise ValueError(f"decoder must be one of {list(DECODER_CHOICES)}, got {decoder!r}.")
    path = str(os.fspath(path))  # not numpy's kind of string, which prints otherwise
    problem = _problem_of_file(path)
    if problem:
        raise VideoReadError(f"Cannot read video {path!r}: {problem}.")
    choose = indices if callable(indices) else lambda total: indices
    reasons = []
    for name in DECODERS if decoder == "auto" else (decoder,):
        frames, reason = _decode(name, path, choose, timeout_s, max_pixels)
        if frames is not None:
            return frames
        reasons.append(f"{name}: {reason}")
    raise VideoReadError(f"Cannot read video {path!r}. Tried {'; '.join(reasons)}.")


def header(path: str | os.PathLike, max_pixels: int | None = None) -> tuple[float, int] | None:
    """Seconds and pixels of a frame, without decoding; None where the file cannot be opened.

    The container's duration counts or the span of its packets' times, whichever is longer: either
    may be missing or wrong.

    Args:
        path: a video file.
        max_pixels: FFmpeg looks into no larger frame to find these out.
    """
    import av

    try:
        with open_limited(os.fspath(path), max_pixels) as container:
            stream = container.streams.best("video") or container.streams.video[0]
            pixels = stream.codec_context.width * stream.codec_context.height
            first, last = float("inf"), 0
            for packet in container.demux(stream):
                if packet.pts is not None:
                    first, last = min(first, packet.pts), max(last, packet.pts)
            span = float((last - min(first, last)) * stream.time_base)
            return max((container.duration or 0) / av.time_base, span), pixels
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return None


def _problem_of_file(path: str) -> str | None:
    file = Path(path)
    if not file.exists():
        return "the file does not exist"
    if not file.is_file():
        return "it is not a file"
    return None if file.stat().st_size else "the file is empty"


def _decode(
    name: str, path: str, choose: Choose, timeout_s: float, max_pixels: int | None
) -> tuple[np.ndarray | None, str]:
    if max_pixels is not None and not DECODERS[name].limits_pixels:
        return None, "it cannot limit the pixels of a frame"
    limits = {} if max_pixels is None else dict(max_pixels=max_pixels)
    result, errors_to_raise = [], []

    def choose_noting_errors(total: int) -> Sequence[int]:
        try:
            return choose(total)
        except Exception as error:
            errors_to_raise.append(error)
            raise

    def work() -> None:
        backend = DECODERS[name]
        try:
            reason = backend.refuses(path)
            frames = None
            if reason is None:
                frames = backend.decode(path, choose_noting_errors, **limits)
            result.append((frames, reason))
        except FrameSizeError as error:  # no other backend may try
            errors_to_raise.append(error)
        except ImportError as error:
            result.append((None, f"not installed ({_first_line(error)})"))
        except Exception as error:  # backends raise classes of their own, some not RuntimeError
            result.append((None, _first_line(error)))

    thread = threading.Thread(target=work, name=f"{name}-decoder", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors_to_raise:
        raise errors_to_raise[0]
    return result[0] if result else (None, f"no answer within {timeout_s:g} s")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
