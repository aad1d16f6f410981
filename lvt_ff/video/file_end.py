"""Whether a file ends before its container says: cut off while it was written or copied."""

import os
from typing import BinaryIO

__all__ = ["is_cut_off"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ISO_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"sidx")
_ISO_BOXES = (*_ISO_STARTS, b"moof", b"mfra", b"uuid", b"meta", b"udta", b"pdin", b"prft", b"emsg")
_UNKNOWN = 2**32 - 1  # of a RIFF file that was written to a pipe


def is_cut_off(path: str) -> bool:
    """For MP4 and its kin, Matroska, WebM and AVI; False for other files."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[4:8] in _ISO_STARTS:
            return _iso_end(file, size) > size
        if start[:4] == _EBML:
            return _matroska_end(file) > size
        if start[:4] == b"RIFF":
            length = int.from_bytes(start[4:8], "little")
            return length != _UNKNOWN and 8 + length > size
    return False


def _iso_end(file: BinaryIO, size: int) -> int:
    """Where the last box ends (ISO/IEC 14496-12, 4.2); what is no box behind it does not count."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if header[4:8] not in _ISO_BOXES:
            return place
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # to the end of the file, or damaged
            return size
        place += length
    return place


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends (RFC 8794, 5 and 6); 0 where it does not say."""
    place = 0
    for _ in range(8):
        file.seek(place)
        header = file.read(12)
        if len(header) < 12 or not header[4]:
            return 0
        length_size = 9 - header[4].bit_length()
        all_ones = (1 << 7 * length_size) - 1
        length = int.from_bytes(header[4 : 4 + length_size], "big") & all_ones
        if length == all_ones:  # a live stream
            return 0
        place += 4 + length_size + length
        if header[:4] == _SEGMENT:
            return place
    return 0
