"""decord: reads plain files rightly, others wrongly or worse, which `refuses` names."""

from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.probe import Probe

__all__ = ["decode", "refuses"]


def refuses(found: Probe) -> str | None:
    """Why decord must not read a file, or None.

    decord 0.6.0 counts packets that show nothing, numbers frames of open groups by decoding order
    where it seeks, knows neither mirrored pictures nor turned ones in Matroska nor oblong pixels,
    shows grey where HEVC has lost something, cannot open AV1, and may abort on damage.
    """
    reasons = {
        "has open groups of pictures": found.open_groups,
        "is turned": any(found.shape.orientation),
        f"is coded in {found.codec}": found.codec in ("hevc", "av1", "libdav1d"),
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    return found.not_plain or reason


def decode(path: str, found: Probe, clip: ClipBuffer, threads: int) -> str:
    """See `pyav_decoder.decode`; what is lost is an error here."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # what is wrong is in the error it raises
    reader = decord.VideoReader(path, num_threads=threads)
    found.check_count(len(reader))
    clip.fill(found.num_shown, lambda number: reader[number].asnumpy(), found.shown_s)
    return ""
