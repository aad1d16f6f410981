"""Video backends: each decodes chosen frames, in presentation order, upright, RGB uint8.

Every decoder opens the file itself, with one thread, and closes it; none is imported before use.
A frame may be larger than the file's header says. Where pixels are limited, only decoders
that can refuse such a frame before they make room for it may read the file: `limits_pixels`.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from lvt_ff.utils.errors import FrameSizeError

__all__ = ["DECODERS", "Choose", "open_limited"]

# Chosen frame numbers for the total number of frames.
Choose = Callable[[int], Sequence[int]]

_ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def _refuse_without_times(path: str) -> str | None:
    """Why a decoder that seeks must not read a file, or None.

    In AVI and MPEG streams with B-frames, whose containers keep no presentation times, decord 0.6.0
    seeks by decoding order and returns other frames than asked, and torchcodec 0.17.0 misses frames
    (tests/data/test_reader.py shows both).
    """
    with open(path, "rb") as file:
        start = file.read(12)
    if start[4:8] in _ISO_BOXES or start[:4] == b"\x1aE\xdf\xa3" or start[:3] == b"FLV":
        return None
    return "only used for MP4, Matroska/WebM and FLV, where its frame numbers are right"


# Per codec: where its configuration tells the size of NAL lengths, and a NAL's type as
# (right shift, mask) with the types of key frames from which decoding starts clean (IDR).
_NAL_RULES = {"h264": (4, 0, 31, {5}), "hevc": (21, 1, 63, {19, 20})}


def _is_clean_start(packet, codec: str, configuration: bytes | None) -> bool:
    """Whether nothing behind a key frame refers to anything before it."""
    if codec not in _NAL_RULES:
        return True
    place, shift, mask, clean_types = _NAL_RULES[codec]
    if configuration is None or len(configuration) <= place:
        return False
    length_size, data, start = (configuration[place] & 3) + 1, bytes(packet), 0
    while start + length_size < len(data):
        if data[start + length_size] >> shift & mask in clean_types:
            return True
        start += length_size + int.from_bytes(data[start : start + length_size], "big")
    return False


@lru_cache(maxsize=100_000)
def _has_trimmed_or_open_groups(path: str, mtime: float) -> bool:
    """Whether packets are not shown, or lean on another group of pictures; a demux tells."""
    import av

    try:
        with av.open(path) as container:
            stream, key_time = container.streams.best("video"), None
            if stream is None:
                return False
            codec, configuration = stream.codec_context.name, stream.codec_context.extradata
            for packet in container.demux(stream):
                if packet.is_discard or (packet.pts is not None and packet.pts < 0):
                    return True
                if packet.is_keyframe:
                    if not _is_clean_start(packet, codec, configuration):
                        return True
                    key_time = packet.pts
                elif None not in (packet.pts, key_time) and packet.pts < key_time:
                    return True
    except av.error.FFmpegError:
        pass  # the decoder finds out what is wrong with the file
    return False


class DecordDecoder:
    """decord: seeks, so that a few frames of a long file are cheap."""

    limits_pixels = False

    @staticmethod
    def refuses(path: str) -> str | None:
        """Why this backend must not read a file, or None."""
        reason = _refuse_without_times(path)
        if reason is None and _has_trimmed_or_open_groups(path, os.path.getmtime(path)):
            reason = (
                "it numbers frames wrongly where an edit list trims the video, or where groups of "
                "pictures are open (usual in HEVC)"
            )
        return reason

    @staticmethod
    def decode(path: str, choose: Choose) -> np.ndarray:
        """Chosen frames (T, H, W, 3)."""
        import decord  # after torch: the other order freezes DataLoader workers

        decord.logging.set_level(decord.logging.QUIET)  # what is wrong is in the error it raises
        reader = decord.VideoReader(path, num_threads=1)
        return reader.get_batch(list(choose(len(reader)))).asnumpy()


def open_limited(path: str, max_pixels: int | None):
    """A file opened by PyAV; FFmpeg makes room for no frame that is much larger than allowed."""
    import av

    return av.open(path, options=_ffmpeg_limit(max_pixels))


def _ffmpeg_limit(max_pixels: int | None) -> dict[str, str]:
    # FFmpeg counts a frame with edges of up to 64 pixels; what is between is refused once decoded.
    return {} if max_pixels is None else {"max_pixels": str(2 * max_pixels + 2**15)}


class PyAVDecoder:
    """PyAV: decodes from the first frame on, which is right for every container."""

    limits_pixels = True

    @staticmethod
    def refuses(path: str) -> str | None:
        """Never."""
        return None

    @staticmethod
    def decode(path: str, choose: Choose, max_pixels: int | None = None) -> np.ndarray:
        """Chosen frames (T, H, W, 3), of the first one's size where it changes."""

        def video_stream(container):
            stream = container.streams.best("video")
            if stream is None:
                raise ValueError("the file has no video stream")
            stream.codec_context.thread_count = 1
            stream.codec_context.options = _ffmpeg_limit(max_pixels)
            return stream

        with open_limited(path, max_pixels) as container:
            stream = video_stream(container)
            total = sum(1 for packet in container.demux(stream) if packet.size)
        while True:
            indices = [int(index) for index in choose(total)]
            wanted, frames, count = set(indices), {}, 0
            with open_limited(path, max_pixels) as container:
                for frame in _limited_frames(container, video_stream(container), max_pixels):
                    if count == 0:
                        size = dict(width=frame.width, height=frame.height)
                    if count in wanted:
                        turns = round(frame.rotation / 90) % 4
                        pixels = frame.to_ndarray(format="rgb24", **size)
                        frames[count] = np.rot90(pixels, turns)
                    count += 1
                    if len(frames) == len(wanted):
                        return np.stack([frames[index] for index in indices])
            if count == 0:
                raise ValueError("the video stream has no frame")
            if count >= total:
                raise IndexError(f"frames {sorted(wanted - set(frames))} of {count} were asked for")
            total = count  # some packets hold no frame: choose again among those that there are


def _limited_frames(container, stream, max_pixels: int | None):
    """The frames of a stream; FrameSizeError at the first that is too large."""
    import av

    context = stream.codec_context
    header_size = context.width * context.height
    try:
        for frame in container.decode(stream):
            if max_pixels is not None and frame.width * frame.height > max_pixels:
                raise FrameSizeError(_too_large(max_pixels))
            yield frame
    except av.FFmpegError as error:
        # By the codec, FFmpeg leaves the size that it refused, or none at all.
        refused = context.width * context.height
        if max_pixels is None or refused == header_size or 0 < refused <= max_pixels:
            raise
        raise FrameSizeError(_too_large(max_pixels)) from error


def _too_large(max_pixels: int) -> str:
    return f"A frame has more than {max_pixels:,} pixels, which is the limit."


class TorchCodecDecoder:
    """torchcodec, where it is installed and finds FFmpeg's libraries."""

    limits_pixels = False
    refuses = staticmethod(_refuse_without_times)

    @staticmethod
    def decode(path: str, choose: Choose) -> np.ndarray:
        """Chosen frames (T, H, W, 3)."""
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        indices = [int(index) for index in choose(len(decoder))]
        return decoder.get_frames_at(indices).data.numpy()


DECODERS = {"decord": DecordDecoder, "pyav": PyAVDecoder, "torchcodec": TorchCodecDecoder}
