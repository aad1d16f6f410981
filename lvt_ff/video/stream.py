"""Files opened by PyAV, and decoding that makes no room for frames that are too large."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lvt_ff.video.clip_buffer import too_large

__all__ = [
    "container_keys",
    "decode_packet",
    "marks_damage",
    "most_packets",
    "open_stream",
    "packets_of",
]

# Files may name others, which whoever made them should not have us open.
_FILES_ONLY = {"protocol_whitelist": "file"}
_PLAYLISTS = ("concat", "dash", "hls", "imf", "sdp")


@contextmanager
def open_stream(path: str, max_pixels: int, threads: int = 1) -> Iterator[tuple]:
    """The container and the best video stream of a file.

    Raises:
        ValueError, av.FFmpegError: not a video.
    """
    import av

    # FFmpeg counts a frame with edges of up to 64 pixels; what is between is refused once decoded.
    limit = {"max_pixels": str(min(2 * max_pixels + 2**15, 2**31 - 1))}
    with av.open(path, options=limit | _FILES_ONLY, metadata_errors="replace") as container:
        if container.format.name in _PLAYLISTS:
            raise ValueError(f"this is a playlist ({container.format.name}), no video")
        stream = container.streams.best("video")
        if stream is None:
            raise ValueError("the file has no video stream")
        context = stream.codec_context
        if context is None:
            raise ValueError("its video is coded in a way that FFmpeg cannot decode")
        context.options = limit
        context.thread_count = threads
        context.thread_type = "AUTO"
        yield container, stream


def packets_of(container, stream) -> Iterator:
    """Packets of a stream, the last of which is empty."""
    # PyAV counts streams at the start, and stumbles at the end over those that came later.
    with suppress(IndexError):
        yield from container.demux(stream)


def marks_damage(container) -> bool:
    """Whether a packet that the container calls damaged is so: in MPEG streams a joint is too."""
    return "mpegts" not in container.format.name


def most_packets(container) -> float:
    """How many packets a file can have: a few bytes of an MP4 may list a part of it for ever."""
    return container.size if "mov" in container.format.name else float("inf")


def container_keys(path: str, progress: Callable[[], None]) -> set[int]:
    """Places in the file of the packets that the container calls key frames.

    FFmpeg's packets say what their content says, which tells nothing where it is damaged.
    """
    import av

    keys = set()
    try:
        options = {"fflags": "noparse"} | _FILES_ONLY
        with av.open(path, options=options, metadata_errors="replace") as container:
            for packet in packets_of(container, container.streams.best("video")):
                progress()
                if packet.is_keyframe and packet.pos is not None:
                    keys.add(packet.pos)
    except av.FFmpegError:
        pass  # the rest of the file is lost
    return keys


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
        raise too_large(max_pixels) from error
    for frame in frames:
        if frame.width * frame.height > max_pixels:
            raise too_large(max_pixels)
    return frames
