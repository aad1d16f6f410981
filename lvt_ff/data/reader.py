"""From a video file to the frames asked for, whichever backend can give them."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lvt_ff.data.decoders import DECODERS, Choose
from lvt_ff.utils.errors import VideoReadError

__all__ = ["DECODER_CHOICES", "header", "read_clip"]

DECODER_CHOICES = ("auto", *DECODERS)


def read_clip(
    path: str | os.PathLike,
    indices: Sequence[int] | Choose,
    decoder: str = "auto",
    timeout_s: float = 60.0,
) -> np.ndarray:
    """Read frames of a video file.

    Args:
        path: a video file.
        indices: frame numbers in presentation order, repeats allowed, or a function that chooses
            them for the total number of frames.
        decoder: "auto" tries decord, PyAV and torchcodec in this order, leaving out what is not
            installed or known to return other frames for the container; a name forces one.
        timeout_s: time for each backend. A decoder that hangs is abandoned with its thread.

    Returns:
        (T, H, W, 3) uint8 RGB, upright.

    Raises:
        VideoReadError: the file is missing, empty, damaged, not a video or too short, or no backend
            is installed.
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
        frames, reason = _decode(name, path, choose, timeout_s)
        if frames is not None:
            return frames
        reasons.append(f"{name}: {reason}")
    raise VideoReadError(f"Cannot read video {path!r}. Tried {'; '.join(reasons)}.")


def header(path: str | os.PathLike) -> tuple[float, int] | None:
    """Seconds and pixels of a frame, without decoding; None where the file cannot be opened.

    Where the container tells no duration, the last packet's time counts.
    """
    import av

    try:
        with av.open(os.fspath(path)) as container:
            stream = container.streams.best("video") or container.streams.video[0]
            pixels = stream.codec_context.width * stream.codec_context.height
            if container.duration:
                return container.duration / av.time_base, pixels
            times = (packet.pts for packet in container.demux(stream))
            last = max((time for time in times if time is not None), default=0)
            return float(last * stream.time_base), pixels
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
    name: str, path: str, choose: Choose, timeout_s: float
) -> tuple[np.ndarray | None, str]:
    result, callers_errors = [], []

    def choose_noting_errors(total: int) -> Sequence[int]:
        try:
            return choose(total)
        except Exception as error:
            callers_errors.append(error)
            raise

    def work() -> None:
        backend = DECODERS[name]
        try:
            reason = backend.refuses(path)
            frames = backend.decode(path, choose_noting_errors) if reason is None else None
            result.append((frames, reason))
        except ImportError as error:
            result.append((None, f"not installed ({_first_line(error)})"))
        except Exception as error:  # backends raise classes of their own, some not RuntimeError
            result.append((None, _first_line(error)))

    thread = threading.Thread(target=work, name=f"{name}-decoder", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if callers_errors:
        raise callers_errors[0]
    return result[0] if result else (None, f"no answer within {timeout_s:g} s")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
