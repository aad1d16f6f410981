"""Videos that are pictures: folders of numbered files, and animated WebP."""

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageCms, ImageOps

from lvt_ff.utils.errors import FrameSizeError
from lvt_ff.video.clip_buffer import ClipBuffer

__all__ = ["decode_pictures", "is_pictures", "numbered_pictures", "rgb_picture"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_ORIENTATION = 0x0112  # EXIF's tag
_TURNED = (5, 6, 7, 8)  # orientations whose width is shown as height


def is_pictures(path: str) -> bool:
    """Whether a path is read picture by picture.

    That is a folder of at least two numbered pictures, hidden files aside, or a WebP file whatever
    its name: FFmpeg reads no animation of that format.
    """
    if os.path.isdir(path):
        return bool(_numbered_files(path))
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def decode_pictures(path: str, clip: ClipBuffer) -> None:
    """Read the chosen pictures of a folder, or frames of an animated WebP.

    Pictures come in the order of the numbers in their names, shown as EXIF says, and of the first
    one's size where they differ. Colours are those of `rgb_picture`.

    Args:
        path: as `is_pictures` takes it.
        clip: what is chosen, and where it goes; (T, H, W, 3) uint8.

    Raises:
        ValueError: a picture is damaged; the message names it.
        FrameSizeError: a picture has more pixels than allowed.
    """
    if os.path.isdir(path):
        _decode_folder(path, clip)
    else:
        _decode_animation(path, clip)


def rgb_picture(image: Image.Image) -> Image.Image:
    """An image of any of PIL's modes in 8-bit RGB.

    Transparency lies on white, as in transformers, so that files and images in memory give the same
    clip. Sixteen bits are scaled to eight; mode "I" is taken for sixteen bits where it comes from a
    file or has values above 255.

    Raises:
        ValueError: a mode that PIL cannot turn into RGB.
    """
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        profiles = (ImageCms.createProfile(name) for name in ("LAB", "sRGB"))
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Grey values (H, W) uint8 of an image with integers of more bits."""
    pixels = np.asarray(image).astype(np.int64).clip(0, 65535)
    # PIL opens 16-bit PGM as mode "I", older versions PNG too.
    if image.mode != "I" or image.format is not None or pixels.max(initial=0) > 255:
        pixels = (pixels + 128) // 257
    return pixels.astype(np.uint8)


def numbered_pictures(names: Iterable[str]) -> list[str]:
    """Names of pictures with a number, in the order of their numbers; none if it is a single one.

    Hidden files are left out.
    """
    found = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        numbers = [int(digits) for digits in re.findall(r"\d+", stem)]
        if numbers and not name.startswith(".") and suffix.lower() in _SUFFIXES:
            found.append((numbers, name))
    return [name for _, name in sorted(found)] if len(found) > 1 else []


def _numbered_files(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in numbered_pictures(names)]


def _decode_folder(folder: str, clip: ClipBuffer) -> None:
    paths = _numbered_files(folder)
    with _picture(paths[0], clip) as first:
        turned = _orientation(first) in _TURNED
        size = first.size[::-1] if turned else first.size
    clip.choose(len(paths))
    for number in clip.missing:
        with _picture(paths[number], clip) as image:
            if _orientation(image) != 1:
                image = ImageOps.exif_transpose(image)
            image = rgb_picture(image)
            if image.size != size:
                image = image.resize(size, Image.Resampling.BILINEAR)
        clip.put(number, np.asarray(image))


def _decode_animation(path: str, clip: ClipBuffer) -> None:
    with _picture(path, clip) as image:
        total = image.n_frames
    clip.choose(total)
    last = max(clip.missing, default=-1)
    with _picture(path, clip) as image:
        # Each frame is drawn onto the one before.
        for number in range(last + 1):
            image.seek(number)
            image.load()
            clip.progress()
            if clip.wants(number):
                clip.put(number, np.asarray(rgb_picture(image)))


@contextmanager
def _picture(path: str, clip: ClipBuffer) -> Iterator[Image.Image]:
    """A picture whose size is checked, before its pixels are decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            clip.check_size(*image.size)
            yield image
    except FrameSizeError:
        raise
    except Image.DecompressionBombError as error:
        limit = min(clip.max_pixels, 2 * Image.MAX_IMAGE_PIXELS)
        raise FrameSizeError(f"A frame has more than {limit:,} pixels, the limit.") from error
    except Exception as error:  # PIL lets through whatever its parsers raise
        reason = str(error).replace(repr(path), "").strip(": ") or type(error).__name__
        raise ValueError(f"the picture {os.path.basename(path)!r} is damaged: {reason}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata of a picture that can be shown
        return 1
