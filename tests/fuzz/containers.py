"""Where containers and codecs keep their numbers, so that mutations can hit them.

Everything is found in damaged files too: what leads outside a file is left out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Field", "fields", "frame_sizes"]

_MOST = 5000  # fields of one file; a long film has no other kinds at its end


class Field(NamedTuple):
    """A number of a file.

    Args:
        group: what it belongs to, such as a box's type.
        place, length: in bytes.
        kind: "size", "type" or "number".
        order: of its bytes.
        marker: bits that stay set, as EBML's lengths of lengths.
    """

    group: str
    place: int
    length: int
    kind: str = "number"
    order: str = "big"
    marker: int = 0


def fields(content: bytes) -> list[Field]:
    """Numbers of a file whose container is known; an empty list for others."""
    found = _walker(content)
    seen = [] if found is None else [field for field, _ in zip(found, range(_MOST), strict=False)]
    return [field for field in seen if field.place + field.length <= len(content)]


def _walker(content: bytes) -> Iterator[Field] | None:
    if content[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return _iso(content, 0, len(content))
    if content[:4] == b"\x1a\x45\xdf\xa3":
        return _ebml(content, 0, len(content))
    if content[:4] == b"RIFF":
        return _riff(content, 0, len(content))
    if content[:3] == b"FLV":
        return _flv(content)
    if content[:1] == b"G" and content[188:189] == b"G":
        return _transport(content)
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(content)
    return _start_codes(content)


# --- MP4 and its kin (ISO/IEC 14496-12) ------------------------------------------------------

_ISO_PARENTS = set(b"moov trak mdia minf stbl edts moof traf mvex dinf mfra".split())
_VISUAL = set(b"avc1 hvc1 hev1 vp09 av01 mp4v apcn jpeg mp4a".split())
_ISO_BYTES = set(b"avcC hvcC vpcC av1C esds colr hdlr ftyp fiel dac3".split())


def _iso(content: bytes, start: int, end: int) -> Iterator[Field]:
    while start + 8 <= end:
        size = int.from_bytes(content[start : start + 4], "big")
        kind = content[start + 4 : start + 8]
        group = kind.decode("latin-1")
        yield Field(group, start, 4, "size")
        yield Field(group, start + 4, 4, "type")
        stop = min(start + size, end)
        if size < 8:
            return
        yield from _iso_payload(content, kind, start + 8, stop)
        start = stop


def _iso_payload(content: bytes, kind: bytes, start: int, stop: int) -> Iterator[Field]:
    group = kind.decode("latin-1")
    if kind in _ISO_PARENTS:
        yield from _iso(content, start, stop)
    elif kind == b"stsd":
        yield Field(group, start + 4, 4)
        yield from _iso(content, start + 8, stop)
    elif kind in _VISUAL:
        for place in range(start + 6, min(start + 78, stop), 2):
            yield Field(group, place, 2)
        yield from _iso(content, start + 78, stop)
    elif kind in _ISO_BYTES:
        yield from (Field(group, place, 1) for place in range(start, min(start + 200, stop)))
    elif kind != b"mdat":
        yield from (Field(group, place, 4) for place in range(start, min(start + 2000, stop), 4))


# --- Matroska and WebM (RFC 8794, RFC 9559) --------------------------------------------------

_EBML_PARENTS = {
    *(0x1A45DFA3, 0x18538067, 0x114D9B74, 0x4DBB, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x55B0),
    *(0x7670, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7, 0x6D80, 0x6240, 0x5034, 0x1254C367),
}
_BLOCKS = {0xA3, 0xA1}
_CODEC_PRIVATE = 0x63A2


def _ebml_number(content: bytes, place: int) -> tuple[int, int]:
    """Value with its marker and length of a number of variable length; length 0 for none."""
    first = content[place : place + 1] if place >= 0 else b""
    length = 9 - first[0].bit_length() if first.strip(b"\0") else 0
    return int.from_bytes(content[place : place + length], "big"), length


def _ebml(content: bytes, start: int, end: int) -> Iterator[Field]:
    while start < end:
        kind, id_length = _ebml_number(content, start)
        marked, length = _ebml_number(content, start + id_length)
        if not id_length or not length:
            return
        marker = 1 << 7 * length
        unknown = marked == 2 * marker - 1
        data = start + id_length + length
        stop = end if unknown else min(data + marked - marker, end)
        yield Field(f"{kind:x}", start, id_length, "type")
        yield Field(f"{kind:x}", start + id_length, length, "size", marker=marker)
        yield from _ebml_payload(content, kind, data, stop)
        start = stop


def _ebml_payload(content: bytes, kind: int, data: int, stop: int) -> Iterator[Field]:
    group = f"{kind:x}"
    if kind in _EBML_PARENTS:
        yield from _ebml(content, data, stop)
    elif kind in _BLOCKS:  # track, time, flags
        yield Field(group, data, 1)
        yield Field(group, data + 1, 2)
        yield Field(group, data + 3, 1)
    elif kind == _CODEC_PRIVATE:
        yield from (Field(group, place, 1) for place in range(data, min(data + 200, stop)))
    elif 0 < stop - data <= 8:
        yield Field(group, data, stop - data)


# --- Others ----------------------------------------------------------------------------------


def _riff(content: bytes, start: int, end: int) -> Iterator[Field]:
    """AVI and WebP."""
    while start + 8 <= end:
        kind = content[start : start + 4]
        group = kind.decode("latin-1")
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        yield Field(group, start, 4, "type")
        yield Field(group, start + 4, 4, "size", "little")
        stop = min(start + 8 + size, end)
        if kind in (b"RIFF", b"LIST"):
            yield from _riff(content, start + 12, stop)
        elif kind in (b"avih", b"strh", b"strf", b"idx1", b"indx", b"vprp", b"dmlh"):
            places = range(start + 8, min(stop, start + 1000), 4)
            yield from (Field(group, place, 4, order="little") for place in places)
        else:
            places = range(start + 8, min(stop, start + 32))
            yield from (Field(group, place, 1) for place in places)
        start = stop + size % 2


def _flv(content: bytes) -> Iterator[Field]:
    yield from (Field("header", place, 1) for place in range(3, 13))
    start = 13
    while start + 11 <= len(content):
        yield Field("tag", start, 1, "type")
        yield Field("tag", start + 1, 3, "size")
        yield Field("time", start + 4, 3)
        yield Field("time", start + 7, 1)
        yield from (Field("data", start + 11 + place, 1) for place in range(16))
        start += 15 + int.from_bytes(content[start + 1 : start + 4], "big")


def _transport(content: bytes) -> Iterator[Field]:
    for start in range(0, len(content), 188):
        yield Field("pid", start + 1, 2)
        yield Field("flags", start + 3, 1)
        starts_unit = content[start + 1] & 0x40 if start + 1 < len(content) else 0
        yield Field("adaptation", start + 4, 1, "size")
        tables = start < 3 * 188
        for place in range(start + 4, start + (60 if tables else 32 if starts_unit else 12)):
            yield Field("tables" if tables else "unit", place, 1)


def _gif(content: bytes) -> Iterator[Field]:
    yield from (Field("canvas", 6 + 2 * place, 2, order="little") for place in range(2))
    yield Field("canvas", 10, 1)
    for found in re.finditer(rb"\x21\xf9\x04", content):
        yield Field("control", found.start() + 3, 1)
        yield Field("control", found.start() + 4, 2, order="little")
        image = found.start() + 9
        yield from (Field("image", image + 2 * place, 2, order="little") for place in range(4))
        yield Field("blocks", image + 10, 1, "size")


def _start_codes(content: bytes) -> Iterator[Field]:
    """MPEG program and elementary streams, and raw H.264 and HEVC."""
    for found in re.finditer(rb"\0\0\x01(.)", content, re.DOTALL):
        group = "picture" if found[1] in b"\0" else "unit"
        yield Field(group, found.end() - 1, 1, "type")
        yield Field(group, found.end(), 2, "size")
        yield from (Field(group, found.end() + 2 + place, 1) for place in range(24))


# --- Sizes of frames -------------------------------------------------------------------------


def frame_sizes(content: bytes) -> list[tuple[int, int, str]]:
    """Where a width or height stands: first bit, number of bits, order of bytes."""
    found = []
    for finder in (_sizes_of_containers, _sizes_of_codecs, _sizes_of_mpeg4):
        found += finder(content)
    return [part for part in found if sum(part[:2]) <= 8 * len(content)]


def _sizes_of_containers(content: bytes) -> Iterator[tuple[int, int, str]]:
    for name, offset, bits, order in (
        (rb"tkhd", 80, 32, "big"),
        (rb"avc1|hvc1|hev1|vp09|av01|mp4v|jpeg|apcn", 28, 16, "big"),
        (rb"avih", 40, 32, "little"),
        (rb"strf", 12, 32, "little"),
        (rb"VP8X", 12, 24, "little"),
        (rb"GIF8", 6, 16, "little"),
    ):
        for match in re.finditer(name, content):
            place = 8 * (match.start() + offset)
            yield place, bits, order
            yield place + bits, bits, order
    for match in re.finditer(rb"[\xb0\xba]([\x81-\x84])|\x54[\xb0\xba]([\x81-\x84])", content):
        length = content[match.end() - 1] - 128
        yield 8 * match.end(), 8 * length, "big"


# What comes before a size of a codec's own: distance in bits, and bits of each of two sizes.
_IN_CODECS = (
    (rb"\x9d\x01\x2a", 24, 16, "little"),  # VP8
    (rb"\x49\x83\x42", 28, 16, "big"),  # VP9, profile 0
    (rb"\0\0\x01\xb3", 32, 12, "big"),  # MPEG-1 and 2
    (rb"\xff[\xc0-\xc2]\0.\x08", 40, 16, "big"),  # JPEG
    (rb"icpf\0.\0.....", 96, 16, "big"),  # ProRes
    (rb"\x21\xf9\x04....\0\x2c", 104, 16, "little"),  # GIF
)


def _sizes_of_codecs(content: bytes) -> Iterator[tuple[int, int, str]]:
    for pattern, distance, bits, order in _IN_CODECS:
        for match in re.finditer(pattern, content, re.DOTALL):
            place = 8 * match.start() + distance
            yield place, bits, order
            yield place + bits, bits, order


def _sizes_of_mpeg4(content: bytes) -> Iterator[tuple[int, int, str]]:
    """Of a video object layer as FFmpeg writes it (ISO/IEC 14496-2, 6.2.3)."""
    for match in re.finditer(rb"\0\0\x01[\x20-\x2f]", content):
        head = "".join(f"{byte:08b}" for byte in content[match.end() : match.end() + 16])
        if len(head) < 128:
            continue
        place = 17 if head[9] == "1" else 10
        place += 20 if head[place : place + 4] == "1111" else 4
        place += 5 if head[place] == "1" and head[place + 4] == "0" else 1
        resolution = int(head[place + 3 : place + 19], 2)
        place += 20
        place += 1 + ((resolution - 1).bit_length() if head[place] == "1" else 0)
        yield 8 * match.end() + place + 1, 13, "big"
        yield 8 * match.end() + place + 15, 13, "big"
