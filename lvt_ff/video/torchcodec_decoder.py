"""torchcodec, where it is installed and finds FFmpeg's libraries."""

from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.decord_decoder import refuses_special
from lvt_ff.video.probe import Probe

__all__ = ["decode", "refuses"]

refuses = refuses_special


def decode(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    """See `pyav_decoder.decode`; what is lost is an error here."""
    import av  # noqa: F401 - first: torchcodec takes the FFmpeg that is loaded already
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(
        path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact"
    )
    if len(reader) != found.num_shown:
        raise ValueError(f"it counts {len(reader)} frames of {found.num_shown}")
    clip.choose(found.num_shown)
    for number in clip.missing:
        clip.put(number, reader.get_frame_at(number).data.numpy())
    return ""
