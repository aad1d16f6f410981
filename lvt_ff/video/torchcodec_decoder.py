"""torchcodec, where it is installed and finds FFmpeg's libraries."""

from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.probe import Probe

__all__ = ["decode", "refuses"]


def refuses(found: Probe) -> str | None:
    """Why torchcodec must not read a file, or None."""
    return found.not_plain or None


def decode(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    """See `pyav_decoder.decode`; what is lost is an error here."""
    reader = _open(path, threads)
    found.check_count(len(reader))
    clip.fill(
        found.num_shown,
        lambda number: reader.get_frame_at(number).data.numpy(),
        found.shown_s,
    )
    return ""


def _open(path: str, threads: int):
    try:
        from torchcodec.decoders import VideoDecoder

        return VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact"
        )
    except RuntimeError as error:
        if "load libtorchcodec" in str(error):  # by the version, it looks for FFmpeg here or there
            raise ImportError("it finds no FFmpeg that it can use") from error
        raise
