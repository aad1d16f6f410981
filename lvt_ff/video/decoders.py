"""The table of video backends, in the order in which they are tried."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple, get_args

from lvt_ff.utils.errors import FrameSizeError
from lvt_ff.video import decord_decoder, pyav_decoder, torchcodec_decoder
from lvt_ff.video.clip_buffer import ClipBuffer, SpanError
from lvt_ff.video.file_names import plain_name
from lvt_ff.video.pictures import decode_pictures, is_pictures
from lvt_ff.video.probe import Probe, probe

__all__ = [
    "DECODERS",
    "DECODER_CHOICES",
    "Attempt",
    "Decoder",
    "Refused",
    "decode",
    "decoder_version",
    "read_header",
]

Decoder = Literal["auto", "torchcodec", "pyav", "decord", "pillow"]
DECODER_CHOICES = get_args(Decoder)


class _Backend(NamedTuple):
    """How a backend reads.

    Args:
        refuses: why it must not read a file, or None.
        decode: puts the frames that are wanted into their buffer; returns what was lost, or "".
        pictures: it reads pictures, the others videos.
    """

    refuses: Callable[[Probe], str | None]
    decode: Callable[[str, Probe, ClipBuffer, int], str]
    pictures: bool = False


def _decode_pictures(path: str, found: None, clip: ClipBuffer, threads: int) -> str:
    decode_pictures(path, clip)
    return ""


DECODERS = {
    "torchcodec": _Backend(torchcodec_decoder.refuses, torchcodec_decoder.decode),
    "pyav": _Backend(lambda found: None, pyav_decoder.decode),
    "decord": _Backend(decord_decoder.refuses, decord_decoder.decode),
    "pillow": _Backend(lambda found: None, _decode_pictures, pictures=True),
}


# What may have installed a backend.
_PACKAGES = {
    "torchcodec": ("torchcodec",),
    "pyav": ("av",),
    "decord": ("decord", "decord2", "eva-decord"),
    "pillow": ("pillow",),
}


def decoder_version(name: str) -> str:
    """The version of a backend; "unknown" where no package of its name is installed."""
    for package in _PACKAGES[name]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


class Refused(Exception):
    """A file was not read; the message says why, if the attempts at it do not."""


class Attempt(NamedTuple):
    """A backend that did not give the frames.

    Args:
        name: of the backend.
        reason: why.
        absent: it cannot be loaded here, whatever the file.
    """

    name: str
    reason: str
    absent: bool = False


def decode(
    names: Sequence[str],
    path: str,
    clip: ClipBuffer,
    threads: int,
    trying: Callable[[str], None],
    failed: Callable[[Attempt], None],
) -> tuple[str, str]:
    """Put the frames that are wanted into `clip` with the first backend that gives them.

    Args:
        names: of backends, in order.
        path: a video file.
        clip: what is wanted.
        threads: of a decoder.
        trying: told the name of each backend that starts.
        failed: told of each that does not give the frames.

    Returns:
        The backend's name, and what was lost of the file, or "".

    Raises:
        FrameSizeError: a frame is larger than allowed.
        SpanError: no frame is shown within the span that is wanted.
        Refused: not a video, or no backend gave the frames.
    """
    with plain_name(path) as file:
        pictures = is_pictures(file)
        found = None if pictures else _probe(file, clip.max_pixels, clip.progress)
        if found:
            clip.check_size(found.shape.width, found.shape.height)
        for name in names:
            reason = _refusal(name, found)
            if reason:
                failed(Attempt(name, reason))
                continue
            trying(name)
            try:
                return name, DECODERS[name].decode(file, found, clip, threads)
            except (FrameSizeError, SpanError):
                raise
            except ImportError as error:
                failed(Attempt(name, f"not installed ({first_line(error)})", absent=True))
            except Exception as error:  # backends raise classes of their own
                failed(Attempt(name, first_line(error)))
    raise Refused


def _refusal(name: str, found: Probe | None) -> str | None:
    """Why a backend must not read what was found; None is found of pictures."""
    backend = DECODERS[name]
    if backend.pictures or found is None:
        made_for = "pictures" if backend.pictures else "videos"
        return f"only used for {made_for}" if backend.pictures != (found is None) else None
    reason = backend.refuses(found)
    return f"only used for plain videos, and this one {reason}" if reason else None


def _probe(file: str, max_pixels: int, progress: Callable[[], None]) -> Probe:
    try:
        return probe(file, max_pixels, progress)
    except FrameSizeError:
        raise
    except Exception as error:
        raise Refused(f"pyav, opening it: {first_line(error)}") from error


def read_header(
    path: str, max_pixels: int, progress: Callable[[], None] = lambda: None
) -> tuple[float, int]:
    """Seconds, and pixels of a frame as it is shown.

    Raises:
        FrameSizeError: the first frame is larger than allowed.
        Refused: not a video.
    """
    with plain_name(path) as file:
        if is_pictures(file):
            raise Refused("pictures have no length")
        found = _probe(file, max_pixels, progress)
    return found.seconds, found.shape.width * found.shape.height


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
