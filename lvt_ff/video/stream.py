"""Files opened by PyAV, and decoding that makes no room for frames that are too large."""

from collections.abc import Iterator
from contextlib import contextmanager

from lvt_ff.utils.errors import FrameSizeError

__all__ = ["decode_packet", "open_stream"]


@contextmanager
def open_stream(path: str, max_pixels: int, threads: int = 1) -> Iterator[tuple]:
    """The container and the best video stream of a file.

    Raises:
        ValueError, av.FFmpegError: not a video.
    """
    import av

    # FFmpeg counts a frame with edges of up to 64 pixels; what is between is refused once decoded.
    limit = {"max_pixels": str(2 * max_pixels + 2**15)}
    with av.open(path, options=limit, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise ValueError("the file has no video stream")
        context = stream.codec_context
        context.options = limit
        context.thread_count = threads
        context.thread_type = "AUTO"
        yield container, stream


def decode_packet(stream, packet, max_pixels: int) -> list:
    """Frames that are ready once a packet is there; None gives the rest.

    Raises:
        FrameSizeError: a frame is larger than allowed.
        av.FFmpegError: the packet is damaged.
    """
    import av

    context = stream.codec_context
    size_before = context.width * context.height
    try:
        frames = context.decode(packet)
    except av.FFmpegError as error:
        # By the codec, FFmpeg leaves the size that it refused, or none at all.
        refused = context.width * context.height
        if refused == size_before or 0 < refused <= max_pixels:
            raise
        raise FrameSizeError(_too_large(max_pixels)) from error
    for frame in frames:
        if frame.width * frame.height > max_pixels:
            raise FrameSizeError(_too_large(max_pixels))
    return frames


def _too_large(max_pixels: int) -> str:
    return f"A frame has more than {max_pixels:,} pixels, which is the limit."
