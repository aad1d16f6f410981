"""torchcodec, where it is installed and finds FFmpeg's libraries."""

from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.decord_decoder import refuses_special
from lvt_ff.video.probe import Probe

__all__ = ["decode", "refuses"]

refuses = refuses_special


def decode(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    """See `pyav_decoder.decode`; what is lost is an error here."""
    reader = _open(path, threads)
    if len(reader) != found.num_shown:
        raise ValueError(f"it counts {len(reader)} frames of {found.num_shown}")
    clip.choose(found.num_shown)
    for number in clip.missing:
        clip.put(number, reader.get_frame_at(number).data.numpy())
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
