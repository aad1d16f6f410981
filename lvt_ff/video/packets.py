"""What a packet tells before it is decoded: whether it is whole, shows a frame, starts anew.

Sources: ITU-T H.264 7.3.1 and D.1.8, H.265 7.3.1 and 7.4.2.2, RFC 6386 9.1 (VP8), the VP9 bitstream
specification 6.2 and annex B, the AV1 bitstream specification 5.3.
"""

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["INTRA_CODECS", "PacketFacts", "PacketReader"]

# Every packet is a picture of its own.
INTRA_CODECS = frozenset(
    ("dnxhd", "dvvideo", "ffvhuff", "huffyuv", "mjpeg", "png", "prores", "qtrle", "rawvideo")
)


class PacketFacts(NamedTuple):
    """What a packet tells.

    Args:
        whole: nothing in its structure is damaged.
        shown: how many frames it shows; 0 for those that others only refer to.
        starts: nothing that is shown after it refers to anything before it; of a damaged packet,
            that it was meant to be so.
        opens: a key frame, from which decoding becomes right sooner or later.
        open_group: a start behind which packets may refer to what lies before it.
        leading: it refers to what lies before the last start, and cannot be shown after a jump.
        skips_leading: leading packets behind this start are never shown.
        reference: others of its layer may refer to it.
        layer: temporal layer, to which only this and higher ones refer.
        parameters: what describes the frames (size among others), where it stands here.
    """

    whole: bool = True
    shown: int = 1
    starts: bool = False
    opens: bool = False
    open_group: bool = False
    leading: bool = False
    skips_leading: bool = False
    reference: bool = True
    layer: int = 0
    parameters: bytes = b""


_BROKEN = PacketFacts(whole=False, shown=0)
_H264_SLICES = {1, 2, 5}  # the first of a picture's parts


class PacketReader:
    """Reads the packets of one stream.

    Args:
        codec: FFmpeg's name.
        extradata: the stream's configuration.
        marked: packets that the container calls damaged are so.
    """

    def __init__(self, codec: str, extradata: bytes | None, marked: bool = True):
        self._marked = marked
        self._length_size = _nal_length_size(codec, extradata)
        framed = codec not in ("h264", "hevc") or self._length_size
        self._read = _READERS.get(codec) if framed else None
        self.known = self._read is not None or codec in INTRA_CODECS

    def __call__(self, packet) -> PacketFacts:
        """Facts of an `av.Packet`."""
        key = packet.is_keyframe
        if packet.size == 0 or (self._marked and packet.is_corrupt):
            return _BROKEN._replace(starts=key)
        if self._read is None:
            return PacketFacts(starts=key, opens=key)
        data = memoryview(packet)
        facts = self._read(data, self._length_size) if self._length_size else self._read(data)
        starts = key and (facts.starts or not facts.whole)
        if key or starts != facts.starts:
            facts = facts._replace(starts=starts, opens=key and facts.whole)
        return facts


def _nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of a NAL unit's length; 0 where start codes part them, or for other codecs."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or not extradata or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def _nal_units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """NAL units of a packet; ValueError where their lengths do not fit it."""
    start = 0
    while start < len(data):
        end = start + length_size
        end += int.from_bytes(data[start:end], "big")
        if not start + length_size < end <= len(data):
            raise ValueError
        yield data[start + length_size : end]
        start = end


def _h264(data: memoryview, length_size: int) -> PacketFacts:
    kinds, recovers, reference, parameters = set(), False, False, b""
    try:
        for unit in _nal_units(data, length_size):
            kind = unit[0] & 31
            if unit[0] & 128:
                return _BROKEN
            kinds.add(kind)
            reference = reference or (kind in _H264_SLICES and bool(unit[0] & 0x60))
            recovers = recovers or (kind == 6 and _recovers_at_once(bytes(unit[1:])))
            parameters += bytes(unit) if kind == 7 else b""
    except ValueError:
        return _BROKEN
    if not kinds & _H264_SLICES:
        return _BROKEN
    anew = 5 in kinds
    return PacketFacts(
        starts=anew or recovers, open_group=not anew, reference=reference, parameters=parameters
    )


def _recovers_at_once(sei: bytes) -> bool:
    """Whether a supplemental message says that all is exact from its picture on."""
    place = 0
    while place + 2 < len(sei):
        kind = size = 0
        while place < len(sei) and sei[place] == 255:
            kind, place = kind + 255, place + 1
        kind, place = kind + sei[place], place + 1
        while place < len(sei) and sei[place] == 255:
            size, place = size + 255, place + 1
        if place >= len(sei):
            return False
        size, place = size + sei[place], place + 1
        if kind == 6 and place < len(sei):
            return sei[place] & 0b11000000 == 0b11000000  # in 0 frames, exactly
        place += size
    return False


def _hevc(data: memoryview, length_size: int) -> PacketFacts:
    pictures, layer, parameters = [], 0, b""
    try:
        for unit in _nal_units(data, length_size):
            kind = unit[0] >> 1 & 63
            if unit[0] & 128 or len(unit) < 3:
                return _BROKEN
            if kind < 32:
                pictures.append(kind)
                layer = unit[1] & 7
            parameters += bytes(unit) if kind == 33 else b""
    except ValueError:
        return _BROKEN
    if not pictures:
        return _BROKEN
    kind = pictures[0]
    return PacketFacts(
        starts=16 <= kind <= 21,
        open_group=kind not in (19, 20),
        leading=kind in (8, 9),
        skips_leading=16 <= kind <= 20,
        reference=kind >= 16 or kind % 2 == 1,
        layer=layer,
        parameters=parameters,
    )


def _vp8(data: memoryview) -> PacketFacts:
    starts = not data[0] & 1
    if starts and (len(data) < 10 or data[3:6] != b"\x9d\x01\x2a"):
        return _BROKEN
    size = bytes(data[6:10]) if starts else b""
    return PacketFacts(shown=data[0] >> 4 & 1, starts=starts, parameters=size)


def _vp9(data: memoryview) -> PacketFacts:
    frames = [_vp9_frame(frame) for frame in _vp9_frames(data)]
    if None in frames or not frames:
        return _BROKEN
    starts = frames[0][1]
    return PacketFacts(
        shown=sum(shown for shown, _ in frames),
        starts=starts,
        parameters=bytes(data[1:9]) if starts else b"",
    )


def _vp9_frames(data: memoryview) -> list[memoryview]:
    """The frames of a superframe, or the packet itself."""
    last = data[-1]
    count, length_size = (last & 7) + 1, (last >> 3 & 3) + 1
    index = 2 + count * length_size
    if last & 0xE0 != 0xC0 or len(data) < index or data[-index] != last:
        return [data]
    frames, start = [], 0
    for number in range(count):
        place = len(data) - index + 1 + number * length_size
        end = start + int.from_bytes(data[place : place + length_size], "little")
        if end > start:  # an empty one shows nothing
            frames.append(data[start:end])
        start = end
    return frames


def _vp9_frame(data: memoryview) -> tuple[bool, bool] | None:
    """Whether a frame is shown, and is a key frame; None where it is damaged."""
    first = data[0] if len(data) else 0
    if first >> 6 != 2:
        return None
    rest = first << 1 if first & 0x30 == 0x30 else first  # profile 3 has one bit more
    if rest & 8:  # an earlier frame is shown
        return True, False
    return bool(rest & 2), not rest & 4


def _av1(data: memoryview) -> PacketFacts:
    place, parameters = 0, b""
    while place < len(data):
        header = data[place]
        if header & 0x80 or not header & 2:
            return PacketFacts(whole=not header & 0x80, starts=bool(parameters))
        size, place = _leb128(data, place + 1 + (header >> 2 & 1))
        if header >> 3 & 15 == 1:
            parameters = bytes(data[place : place + size])
        place += size
    return PacketFacts(starts=bool(parameters), parameters=parameters)


def _leb128(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        if place >= len(data):
            break
        byte, place = data[place], place + 1
        value |= (byte & 127) << shift
        if not byte & 128:
            break
    return value, place


_READERS = {"h264": _h264, "hevc": _hevc, "vp8": _vp8, "vp9": _vp9, "av1": _av1, "libdav1d": _av1}
