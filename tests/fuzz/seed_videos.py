"""Sound files that mutants are made of: small films of every kind, and real clips.

A made one has the same bytes each time, so that a mutant's number is enough to make it again.
"""

import os
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

from parameter_sets import with_frame_size
from PIL import Image

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS / "video"))

import films  # noqa: E402

__all__ = ["GIANTS", "made_videos", "real_videos"]

_EXACT = {"fflags": "+bitexact"}  # else Matroska draws numbers for its parts
_FILMS = (
    *("h264.mp4", "h264.mov", "h264.ts", "h264.flv"),
    *("h264.avi", "h264_fragments.mp4", "h264_index_first.mp4", "h264.h264"),
    *("fields_h264.mp4", "sound_h264.mp4", "one_h264.mp4", "both_ends.mp4"),
    *("two_edits.mp4", "delayed_and_trimmed.mp4", "turned_90.mov", "shape.mp4"),
    *("sizes_h264.mp4", "hevc.mp4", "hevc.hevc", "hevc.ts"),
    *("vp9.mp4", "av1.mp4", "mpeg4_b.avi", "mpeg4_packed.avi"),
    *("mpeg4.ts", "mpeg2.mpg", "fields_mpeg2.ts", "mjpeg.avi"),
    *("flv1.flv", "prores.mov"),
)
_ENCODED = {
    "h264.mkv": ("libx264", films.X264),
    "hevc.mkv": ("libx265", {"x265-params": films.X265}),
    # Below 0 its speed does not depend on how busy the machine is.
    "vp8.webm": ("libvpx", films.VP8 | {"cpu-used": "-8"}),
    "vp9.webm": ("libvpx-vp9", films.VP9),
    "av1.mkv": ("libsvtav1", films.AV1),
    "wmv2.wmv": ("wmv2", films.MPEG4),
}
_SMALL = {"gif.gif": ("gif", "rgb8"), "ffv1.mkv": ("ffv1", "yuv444p")}
# One that is allowed, and two that are not, the last not even by muxers.
_GIANT_SIZES = {"large": (8192, 4032), "giant": (8192, 8192), "titan": (16384, 16384)}


def _timed(packets: list) -> list:
    for time, packet in enumerate(packets):
        packet.time_base = Fraction(1, 25)
        packet.pts, packet.dts, packet.duration = time, time, 1
    return packets


def _giant(codec: str, size: tuple[int, int], path: Path, studio: films.Studio) -> None:
    raw = path.with_suffix(f".{codec}")
    raw.write_bytes(with_frame_size(studio(f"{codec}.{codec}").read_bytes(), codec, *size))
    if path != raw:
        films.remux(raw, path, _timed, _EXACT)


def _endless(path: Path, studio: films.Studio) -> None:
    """A million frames of one short film."""
    everything = (0, films.NUM_FRAMES)
    films.set_edits(studio("h264.mp4"), path, [everything] * (10**6 // films.NUM_FRAMES))


def _broad(path: Path, studio: films.Studio) -> None:
    """Pixels that are 16 times as wide as they are high."""
    frames = [films.numbered_frame(number, 96, 4096) for number in range(4)]
    films.encode(path, frames, "libx264", films.X264, sample_aspect_ratio=Fraction(16))


def _webp(path: Path, studio: films.Studio) -> None:
    first, *rest = map(Image.fromarray, films.numbered(range(12)))
    first.save(path, save_all=True, append_images=rest, duration=40)


def _giants() -> dict[str, Callable[[Path, films.Studio], None]]:
    recipes = {}
    for kind, size in _GIANT_SIZES.items():
        for codec in ("h264", "hevc"):
            for container in (codec,) if kind == "titan" else ("mp4", "mkv", "ts"):
                recipes[f"{kind}_{codec}.{container}"] = partial(_giant, codec, size)
    return recipes | {"endless.mp4": _endless, "broad.mp4": _broad}


GIANTS = tuple(_giants())


def _recipes() -> dict[str, Callable[[Path, films.Studio], None]]:
    recipes = {name: films.FILMS[name].make for name in _FILMS} | {"webp.webp": _webp}
    for name, (codec, options) in _ENCODED.items():
        recipes[name] = films.coded(codec, options, container=_EXACT)
    for name, (codec, pix_fmt) in _SMALL.items():
        recipes[name] = films.coded(codec, None, range(12), pix_fmt=pix_fmt, container=_EXACT)
    return recipes | _giants()


def made_videos(folder: Path) -> dict[str, bytes]:
    """Contents of all films by name, made in a folder."""
    studio = films.Studio(folder)
    for name, make in _recipes().items():
        make(folder / name, studio)
    return {name: (folder / name).read_bytes() for name in _recipes()}


def real_videos() -> dict[str, bytes]:
    """Contents of real clips by name; none where there is no folder of them."""
    folder = Path(os.environ.get("LVT_FF_VIDEOS", TESTS.parents[1] / "shared/videos"))
    if not folder.is_dir():
        return {}
    paths = sorted(path for path in folder.iterdir() if path.suffix not in ("", ".md", ".txt"))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}
