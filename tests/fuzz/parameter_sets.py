"""H.264 and HEVC streams whose parameter sets ask for frames of another size.

Sources: ITU-T H.264 7.3.2.1.1, H.265 7.3.2.2 and 7.3.3.
"""

import re

__all__ = ["with_frame_size"]

_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128)  # profiles of H.264


def with_frame_size(stream: bytes, codec: str, width: int, height: int) -> bytes:
    """A raw stream with start codes whose every sequence parameter set says so many pixels."""
    pieces = stream.split(b"\0\0\1")
    for index, piece in enumerate(pieces[1:], 1):
        unit = piece.rstrip(b"\0")
        zeros = piece[len(unit) :]
        if codec == "h264" and unit[0] & 31 == 7:
            pieces[index] = unit[:1] + _h264(unit[1:], width, height) + zeros
        elif codec == "hevc" and unit[0] >> 1 & 63 == 33:
            pieces[index] = unit[:2] + _hevc(unit[2:], width, height) + zeros
    return b"\0\0\1".join(pieces)


class _Bits:
    """The bits of a unit and a place in them."""

    def __init__(self, escaped: bytes):
        content = escaped.replace(b"\0\0\3", b"\0\0")
        self.bits = "".join(f"{byte:08b}" for byte in content).rstrip("0")
        self.place = 0

    def skip(self, count: int) -> None:
        self.place += count

    def number(self) -> int:
        """An Exp-Golomb code."""
        zeros = self.bits.index("1", self.place) - self.place
        start, self.place = self.place + zeros, self.place + 2 * zeros + 1
        return int(self.bits[start : self.place], 2) - 1

    def replace_numbers(self, *values: int) -> bytes:
        """The unit with others in the place of the next numbers."""
        start = self.place
        for _ in values:
            self.number()
        codes = "".join("0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}" for value in values)
        bits = self.bits[:start] + codes + self.bits[self.place :]
        bits += "0" * (-len(bits) % 8)
        content = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", content)


def _h264(unit: bytes, width: int, height: int) -> bytes:
    bits = _Bits(unit)
    bits.skip(24)
    bits.number()
    if unit[0] in _WITH_CHROMA:
        if bits.number() == 3:
            bits.skip(1)
        bits.number(), bits.number()
        bits.skip(2)
    bits.number()
    if bits.number() == 0:
        bits.number()
    bits.number()
    bits.skip(1)
    return bits.replace_numbers(width // 16 - 1, height // 16 - 1)


def _hevc(unit: bytes, width: int, height: int) -> bytes:
    bits = _Bits(unit)
    bits.skip(8 + 96)
    bits.number()
    if bits.number() == 3:
        bits.skip(1)
    return bits.replace_numbers(width, height)
