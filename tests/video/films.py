"""Odd videos whose frames spell their number, each made once, when it is first asked for.

Everything is made with PyAV alone; what no encoder writes (hidden frames, edit lists, display
matrices, lost packets) is put into the bytes.
"""

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings else

BITS = 7
NUM_FRAMES = 60
UNREADABLE = -1


def numbered_frame(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A frame whose bars spell its number in binary, and below, its complement."""
    frame = np.full((height, width, 3), 30, np.uint8)
    row, column = height / 64, width / 96
    for bit in range(BITS):
        left, right = round((6 + 12 * bit) * column), round((17 + 12 * bit) * column)
        top, bottom = (8, 32) if number >> bit & 1 else (34, 58)
        frame[round(top * row) : round(bottom * row), left:right] = 220
    return frame


def number_of(frame: np.ndarray) -> int:
    """What the bars spell; UNREADABLE where any is neither light nor dark."""
    height, width = frame.shape[:2]
    row, column, number = height / 64, width / 96, 0
    for bit in range(BITS):
        place = slice(round((9 + 12 * bit) * column), round((14 + 12 * bit) * column))
        upper = frame[round(13 * row) : round(27 * row), place].mean()
        lower = frame[round(39 * row) : round(53 * row), place].mean()
        if abs(upper - lower) < 100:
            return UNREADABLE
        number |= (upper > lower) << bit
    return int(number)


def is_grey(frame: np.ndarray) -> bool:
    """Whether much of a frame is what decoders take for a picture that they do not have."""
    return bool((abs(frame.astype(int) - 128) < 8).all(-1).mean() > 0.3)


def numbered(numbers: Iterable[int], height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames that spell these numbers."""
    return [numbered_frame(number, height, width) for number in numbers]


# --- Writing ---------------------------------------------------------------------------------


def _encoder(context, size: tuple[int, int], fps: int, pix_fmt: str, tags: dict) -> None:
    context.height, context.width = size
    context.pix_fmt, context.framerate = pix_fmt, fps
    context.time_base, context.thread_count = Fraction(1, fps), 1
    for name, value in tags.items():
        setattr(context, name, value)


def _video_frames(pictures: Iterable, times: Sequence[int] | None):
    for index, picture in enumerate(pictures):
        frame = picture
        if isinstance(picture, np.ndarray):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = index if times is None else times[index]
        yield frame


def _size_of(picture) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[:2]
    return picture.height, picture.width


def encode(
    path: Path,
    pictures: Sequence,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
    **tags,
) -> None:
    """Write RGB arrays or frames of PyAV; `times` counts in 1 / fps, `tags` go to the encoder."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=fps, options=options or {})
        _encoder(stream.codec_context, _size_of(pictures[0]), fps, pix_fmt, tags)
        for frame in _video_frames(pictures, times):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def join(
    path: Path,
    codec: str,
    clips: Sequence[Sequence[np.ndarray]],
    options: dict[str, str] | None = None,
    change: Callable[[list[av.Packet]], list[av.Packet]] = list,
    pix_fmt: str = "yuv420p",
    container: dict[str, str] | None = None,
    **tags,
) -> None:
    """Clips without B-frames one after the other in one stream, whose header is the first's."""
    packets = []
    for clip in clips:
        encoder = av.CodecContext.create(codec, "w")
        _encoder(encoder, _size_of(clip[0]), 25, pix_fmt, tags)
        encoder.options = options or {}
        for frame in _video_frames(clip, None):
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        _encoder(stream.codec_context, _size_of(clips[0][0]), 25, pix_fmt, tags)
        for time, packet in enumerate(change(packets)):
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = time
            file.mux(packet)


def remux(
    source: Path,
    path: Path,
    change: Callable[[list[av.Packet]], list[av.Packet]] = list,
    container: dict[str, str] | None = None,
) -> None:
    """Write a video's packets again, without decoding them, as `change` leaves them."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=container or {}) as new:
        stream = old.streams.video[0]
        target = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        for packet in change(packets):
            packet.stream = target
            new.mux(packet)


def replaced(packet: av.Packet, content: bytes) -> av.Packet:
    """A packet with other bytes."""
    new = av.Packet(content)
    new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
    new.duration, new.is_keyframe = packet.duration, packet.is_keyframe
    return new


def shifted(packets: list[av.Packet], frames: int, fps: int = 25) -> list[av.Packet]:
    """Packets later by so many frames; those that come before 0 are not shown in an MP4."""
    for packet in packets:
        step = frames * round(1 / (fps * packet.time_base))
        if packet.dts is not None:
            packet.dts += step
        if packet.pts is not None:
            packet.pts += step
    return packets


def from_packet(start: int, packets: list[av.Packet]) -> list[av.Packet]:
    return packets[start:]


def from_key(index: int, packets: list[av.Packet]) -> list[av.Packet]:
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[index] :]


def cut(start: int, end: int, shown_from: int, packets: list[av.Packet]) -> list[av.Packet]:
    """As `ffmpeg -ss -c copy` cuts: packets from a key frame on, shown later, in decoding order."""
    step = round(1 / (25 * packets[0].time_base))
    first = min(packet.pts for packet in packets)
    kept = [packet for packet in packets if start <= (packet.pts - first) / step < end]
    return shifted(kept, -shown_from)


def move_frame(packets: list[av.Packet]) -> list[av.Packet]:
    """A B-frame to which no other refers is said to be shown three and a half frames later."""
    slices = (1, 5)
    for packet in packets[20:]:
        data, place = bytes(packet), 0
        while data[place + 4] & 31 not in slices:
            place += 4 + int.from_bytes(data[place : place + 4], "big")
        if not data[place + 4] & 0x60:
            packet.pts += round(3.5 / (25 * packet.time_base))
            return packets
    raise AssertionError("x264 refers to all frames")


def trim(key: int, shown_from: int, packets: list[av.Packet]) -> list[av.Packet]:
    """As `cut`, with what leans on packets before the key frame still behind it."""
    return shifted(from_key(key, packets), -shown_from)


def pack(packets: list[av.Packet]) -> list[av.Packet]:
    """As DivX wrote B-frames into AVI: with the frame before, and an empty one in their place."""
    note = b"\0\0\1\xb2DivX503b1393p"
    nothing = b"\0\0\1\xb6" + bytes([0b01_0_1_0000, 0b0_1_0_01111])  # vop_coded = 0
    start = bytes(packets[0]).index(b"\0\0\1\xb6")
    first = bytes(packets[0])[:start] + note + bytes(packets[0])[start:]
    result, index = [replaced(packets[0], first)], 1
    while index + 1 < len(packets):
        both, later = packets[index : index + 2]
        if coding_type(bytes(later)) == 2:
            result.append(replaced(both, bytes(both) + bytes(later)))
            result.append(replaced(later, nothing))
            index += 2
        else:
            result.append(both)
            index += 1
    return result + packets[index:]


def coding_type(content: bytes) -> int:
    """Of an MPEG-4 frame: 0 for I, 1 for P, 2 for B."""
    return content[content.index(b"\0\0\1\xb6") + 4] >> 6


# --- Bytes of MP4 ----------------------------------------------------------------------------


def _box(content: bytes, *names: bytes) -> tuple[int, int]:
    """Where a box begins and ends, by the names of those around it and its own."""
    start, end = 0, len(content)
    for name in names:
        while content[start + 4 : start + 8] != name:
            start += int.from_bytes(content[start : start + 4], "big")
            if start >= end:
                raise ValueError(f"no box {name}")
        end = start + int.from_bytes(content[start : start + 4], "big")
        if name != names[-1]:
            start += 8
    return start, end


def set_edits(source: Path, path: Path, edits: Sequence[tuple[int | None, int]]) -> None:
    """Write an edit list: (first frame or None for nothing, number of frames), 25 frames a second.

    The index must be the last box, as it is by default, so that no other offset changes.
    """
    content = bytearray(source.read_bytes())
    place, end = _box(content, b"moov", b"trak", b"edts")
    offset = int.from_bytes(content[place + 28 : place + 32], "big")  # what B-frames need
    media, _ = _box(content, b"moov", b"trak", b"mdia", b"mdhd")
    scale = int.from_bytes(content[media + 20 : media + 24], "big")
    rows = b""
    for first, count in edits:
        begin = -1 if first is None else offset + first * scale // 25
        rows += struct.pack(">iiI", count * 40, begin, 1 << 16)
    table = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    table = struct.pack(">I4s", 8 + len(table), b"edts") + table
    content[place:end] = table
    for names in ((b"moov",), (b"moov", b"trak")):
        box, _ = _box(content, *names)
        size = int.from_bytes(content[box : box + 4], "big") + len(table) - (end - place)
        content[box : box + 4] = struct.pack(">I", size)
    path.write_bytes(content)


def set_matrix(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d), as phones and editors do."""
    content = bytearray(source.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def set_pixel_shape(source: Path, path: Path, shape: tuple[int, int] | None) -> None:
    """Write another shape of pixels into the container, or take the container's away."""
    content = bytearray(source.read_bytes())
    place = content.index(b"pasp")
    if shape is None:
        content[place : place + 4] = b"free"
    else:
        content[place + 4 : place + 12] = struct.pack(">II", *shape)
    path.write_bytes(content)


def set_display_size(source: Path, path: Path, height: int, width: int) -> None:
    """Write how large Matroska shows a picture in the place of what it says of the colours."""
    content = source.read_bytes()
    place = content.index(b"\x55\xb0\x90\x55\xba")  # Colour, of 16 bytes
    new = struct.pack(">HBBHBB", 0x54B0, 0x81, width, 0x54BA, 0x81, height)
    new += b"\xec\x89" + bytes(9)  # Void
    unit = content[:place].replace(b"\x54\xb2\x81\x04", b"\x54\xb2\x81\x00")  # pixels
    path.write_bytes(unit + new + content[place + len(new) :])


# --- Hidden frames ---------------------------------------------------------------------------

HIDDEN = (7, 22, 31, 50)
NOT_HIDDEN = [number for number in range(NUM_FRAMES) if number not in HIDDEN]


def hide_vp8(packets: list[av.Packet]) -> list[av.Packet]:
    """As alternate references are: decoded, kept, not shown."""
    for index in HIDDEN:
        content = bytearray(bytes(packets[index]))
        content[0] &= ~0x10  # show_frame
        packets[index] = replaced(packets[index], bytes(content))
    return packets


def _end_of_vp9_header(bits: str) -> int:
    """How many bits the header of a shown, small VP9 frame has that is no key frame."""
    place = 8  # up to error_resilient_mode, the last bit of the first byte
    resilient = bits[7] == "1"
    place += 0 if resilient else 2
    place += 8 + 3 * 4  # refresh_frame_flags, references
    for _ in range(3):
        place += 1
        if bits[place - 1] == "1":
            break
    else:
        place += 32  # frame_size
    place += 33 if bits[place] == "1" else 1  # render_size
    place += 1  # allow_high_precision_mv
    place += 1 if bits[place] == "1" else 3  # interpolation filter
    place += (0 if resilient else 2) + 2 + 9  # contexts, loop filter
    place += 1
    if bits[place - 1] == "1":  # deltas of the loop filter
        place += 1
        if bits[place - 1] == "1":
            for _ in range(6):
                place += 1 + 7 * (bits[place] == "1")
    place += 8
    for _ in range(3):  # deltas of the quantizer
        place += 1 + 5 * (bits[place] == "1")
    assert bits[place] == "0", "segmentation"
    place += 1
    place += 2 if bits[place] == "1" else 1  # rows of tiles; so small a frame has one column
    return place + 16  # size of the compressed header


def _hidden_vp9(content: bytes) -> bytes:
    """The same frame with show_frame = 0, which puts a bit `intra_only` behind the first byte."""
    bits = "".join(f"{byte:08b}" for byte in content)
    end = _end_of_vp9_header(bits)
    header = bits[:6] + "0" + bits[7] + "0" + bits[8:end]
    header += "0" * (-len(header) % 8)
    rest = content[(end + 7) // 8 :]
    return int(header, 2).to_bytes(len(header) // 8, "big") + rest


def hide_vp9(superframes: bool, packets: list[av.Packet]) -> list[av.Packet]:
    """Hidden frames of their own, or in one packet with the next one, as encoders write them."""
    result = []
    for index, packet in enumerate(packets):
        if index in HIDDEN:
            hidden = _hidden_vp9(bytes(packet))
            if not superframes:
                result.append(replaced(packet, hidden))
        elif superframes and index - 1 in HIDDEN:
            marker = bytes([0b110_11_001])  # sizes of four bytes, two frames
            sizes = struct.pack("<II", len(hidden), packet.size)
            content = hidden + bytes(packet) + marker + sizes + marker
            result.append(replaced(packet, content))
        else:
            result.append(packet)
    return result


# --- The films -------------------------------------------------------------------------------


class Studio:
    """Makes each film once, when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            FILMS[name].make(path, self)
        return path


@dataclass(frozen=True)
class Film:
    """How a video is made, the numbers that its shown frames spell, and their size.

    `plain` is False where FFmpeg's decoder, asked frame by frame, gives something else; why is
    said where the film is listed. A film is `sound` where nothing is missing, not even a packet's
    number.
    """

    make: Callable[[Path, Studio], None]
    numbers: Sequence[int] = tuple(range(NUM_FRAMES))
    size: tuple[int, int] = (64, 96)
    plain: bool = True
    sound: bool = True


def coded(codec: str, options: dict[str, str] | None = None, numbers=range(NUM_FRAMES), **more):
    def make(path: Path, studio: Studio) -> None:
        encode(path, numbered(numbers), codec, options, **more)

    return make


def changed(source: str, change=list, container: dict[str, str] | None = None):
    def make(path: Path, studio: Studio) -> None:
        remux(studio(source), path, change, container)

    return make


def patched(source: str, patch: Callable, *values):
    def make(path: Path, studio: Studio) -> None:
        patch(studio(source), path, *values)

    return make


def with_sound(source: str, codec: str = "aac"):
    """Sound before the video, whose stream is not the file's first."""

    def make(path: Path, studio: Studio) -> None:
        with av.open(str(studio(source))) as old, av.open(str(path), "w") as new:
            stream = old.streams.video[0]
            sound = new.add_stream(codec, rate=48000)
            target = new.add_stream_from_template(stream)
            packets = [packet for packet in old.demux(stream) if packet.size]
            kind, size = ("fltp", 1024) if codec == "aac" else ("s16p", 1152)
            silence = np.zeros((1, size), np.float32 if codec == "aac" else np.int16)
            for index in range(100):
                frame = av.AudioFrame.from_ndarray(silence, kind, "mono")
                frame.sample_rate, frame.pts = 48000, size * index
                new.mux(sound.encode(frame))
            new.mux(sound.encode(None))
            for packet in packets:
                packet.stream = target
                new.mux(packet)

    return make


def joined(codec: str, sizes: Sequence[tuple[int, int]], options=None, **more):
    def make(path: Path, studio: Studio) -> None:
        length = NUM_FRAMES // len(sizes)
        clips = [
            numbered(range(length * index, length * (index + 1)), *size)
            for index, size in enumerate(sizes)
        ]
        join(path, codec, clips, options, **more)

    return make


def concatenated(*sources: str):
    """As `cat` joins them, so that times begin again."""

    def make(path: Path, studio: Studio) -> None:
        path.write_bytes(b"".join(studio(source).read_bytes() for source in sources))

    return make


X264 = {"preset": "veryfast", "g": "20", "bf": "3", "sc_threshold": "0"}
PYRAMID = {"g": "30", "x264-params": "bframes=3:b-pyramid=normal:keyint=30:scenecut=0"}
X265 = "log-level=none:keyint=20:min-keyint=20:scenecut=0:bframes=3"
VP8 = {"deadline": "realtime", "cpu-used": "8", "g": "20", "auto-alt-ref": "0", "b": "400k"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "20", "lag-in-frames": "0"}
AV1 = {"preset": "10", "g": "20", "crf": "35"}
MPEG4 = {"g": "20", "qscale": "3", "sc_threshold": "1000000000"}
IN_BAND = {"x264-params": "repeat-headers=1:bframes=0:keyint=10"}
FLEXIBLE = np.cumsum(np.random.default_rng(0).integers(1, 6, NUM_FRAMES)).tolist()
LATER = range(20, NUM_FRAMES)

ORDINARY = {
    "h264.mp4": Film(coded("libx264", X264)),
    "h264.mkv": Film(coded("libx264", X264)),
    "h264.mov": Film(coded("libx264", X264)),
    "h264.ts": Film(coded("libx264", X264)),
    "h264.flv": Film(coded("libx264", X264)),
    "h264.avi": Film(coded("libx264", X264)),
    "h264.h264": Film(coded("libx264", X264)),
    "h264_no_b.mp4": Film(coded("libx264", X264 | {"bf": "0"})),
    "h264_fragments.mp4": Film(
        coded("libx264", X264, container={"movflags": "frag_keyframe+empty_moov"})
    ),
    "h264_index_first.mp4": Film(coded("libx264", X264, container={"movflags": "faststart"})),
    "hevc.mp4": Film(coded("libx265", {"x265-params": X265 + ":open-gop=0"})),
    "hevc.mkv": Film(coded("libx265", {"x265-params": X265 + ":open-gop=0"})),
    "hevc.ts": Film(coded("libx265", {"x265-params": X265 + ":open-gop=0"})),
    "hevc.hevc": Film(coded("libx265", {"x265-params": X265 + ":open-gop=0"})),
    "vp8.webm": Film(coded("libvpx", VP8)),
    "vp8.mkv": Film(coded("libvpx", VP8)),
    "vp9.webm": Film(coded("libvpx-vp9", VP9)),
    "vp9.mp4": Film(coded("libvpx-vp9", VP9)),
    "av1.mp4": Film(coded("libsvtav1", AV1)),
    "av1.mkv": Film(coded("libsvtav1", AV1 | {"g": "60"})),
    "mpeg4.avi": Film(coded("mpeg4", MPEG4)),
    "mpeg4_b.avi": Film(coded("mpeg4", MPEG4 | {"bf": "2"})),
    "mpeg4_b.mp4": Film(coded("mpeg4", MPEG4 | {"bf": "2"})),
    "mpeg4.mkv": Film(coded("mpeg4", MPEG4)),
    "mpeg4.ts": Film(coded("mpeg4", MPEG4)),
    "mpeg2.mpg": Film(coded("mpeg2video", MPEG4 | {"bf": "2"})),
    "mpeg2.ts": Film(coded("mpeg2video", MPEG4 | {"bf": "2"})),
    "mjpeg.avi": Film(coded("mjpeg", {"qscale": "3"}, pix_fmt="yuvj420p")),
    "mjpeg.mov": Film(coded("mjpeg", {"qscale": "3"}, pix_fmt="yuvj420p")),
    "prores.mov": Film(coded("prores_ks", pix_fmt="yuv422p10le")),
    "ffv1.mkv": Film(coded("ffv1", pix_fmt="yuv444p")),
}
MORE = {
    "mpeg4_packed.avi": Film(changed("mpeg4_one_b.avi", pack)),
    "mpeg4_one_b.avi": Film(coded("mpeg4", MPEG4 | {"bf": "1"})),
    "mpeg1.mpg": Film(coded("mpeg1video", MPEG4 | {"bf": "2"})),
    "wmv2.wmv": Film(coded("wmv2", MPEG4)),
    "flv1.flv": Film(coded("flv", MPEG4)),
    "huffyuv.avi": Film(coded("huffyuv", pix_fmt="yuv422p")),
    "gif.gif": Film(coded("gif", pix_fmt="rgb8")),
    "mjpeg.mkv": Film(coded("mjpeg", {"qscale": "3"}, pix_fmt="yuvj420p")),
    "h264.m2ts": Film(coded("libx264", X264)),
    "h264_live.mkv": Film(coded("libx264", X264, container={"live": "1"})),
    "h264_no_edits.mp4": Film(coded("libx264", X264, container={"use_editlist": "0"})),
    "h264_negative_offsets.mp4": Film(
        coded("libx264", X264, container={"movflags": "negative_cts_offsets"})
    ),
    "h264_many_fragments.mp4": Film(
        coded("libx264", X264, container={"movflags": "frag_every_frame+empty_moov"})
    ),
} | {
    f"one_{name}": Film(coded(codec, options, numbers=[77]), [77])
    for name, codec, options in (
        ("h264.mp4", "libx264", X264),
        ("h264.ts", "libx264", X264),
        ("vp9.webm", "libvpx-vp9", VP9),
        ("mpeg4.avi", "mpeg4", MPEG4),
        ("mpeg2.mpg", "mpeg2video", MPEG4),
    )
}
ORDINARY |= MORE | {
    f"sound_{source}": Film(with_sound(source, codec))
    for source, codec in (
        ("h264.mp4", "aac"),
        ("h264.mkv", "aac"),
        ("h264.ts", "aac"),
        ("mpeg2.mpg", "mp2"),
    )
}
GROUPS = {
    "long_group.mp4": Film(coded("libx264", X264 | {"g": "250"})),
    "all_intra.mp4": Film(coded("libx264", X264 | {"g": "1", "bf": "0"})),
    "pyramid.mp4": Film(
        coded("libx264", X264 | {"bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0:ref=4"})
    ),
    "pyramid.mkv": Film(
        coded("libx264", X264 | {"bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0:ref=4"})
    ),
    "h264_open.mp4": Film(coded("libx264", X264 | {"x264-params": "open-gop=1:b-adapt=0"})),
    "h264_open.mkv": Film(coded("libx264", X264 | {"x264-params": "open-gop=1:b-adapt=0"})),
    "h264_open.ts": Film(coded("libx264", X264 | {"x264-params": "open-gop=1:b-adapt=0"})),
    "hevc_open.mp4": Film(coded("libx265", {"x265-params": X265 + ":open-gop=1:b-adapt=0"})),
    "hevc_open.mkv": Film(coded("libx265", {"x265-params": X265 + ":open-gop=1:b-adapt=0"})),
    "hevc_open.ts": Film(coded("libx265", {"x265-params": X265 + ":open-gop=1:b-adapt=0"})),
    "refresh.mp4": Film(coded("libx264", X264 | {"x264-params": "intra-refresh=1", "bf": "0"})),
    "refresh.mkv": Film(coded("libx264", X264 | {"x264-params": "intra-refresh=1", "bf": "0"})),
}


def missing_times(every: int, packets: list[av.Packet]) -> list[av.Packet]:
    for packet in packets[1::every]:
        packet.pts = None
    return packets


def double_times(packets: list[av.Packet]) -> list[av.Packet]:
    """Two frames each at one time; that of decoding, which MP4 wants to grow, stays."""
    for first, second in zip(packets[8::10], packets[9::10], strict=False):
        first.pts = second.pts
    return packets


def same_times(packets: list[av.Packet]) -> list[av.Packet]:
    for first, second in zip(packets[8::10], packets[9::10], strict=False):
        second.pts = second.dts = first.pts
    return packets


TIMES = {
    "variable_rate.mp4": Film(coded("libx264", X264, times=FLEXIBLE)),
    "variable_rate.mkv": Film(coded("libx264", X264, times=FLEXIBLE)),
    "variable_rate.avi": Film(coded("mpeg4", MPEG4, times=FLEXIBLE)),
    "variable_rate.ts": Film(coded("libx264", X264, times=FLEXIBLE)),
    "double_times.mp4": Film(changed("h264_no_b.mp4", double_times)),
    "double_times.mkv": Film(changed("h264_no_b.mp4", same_times)),
    "missing_times.ts": Film(changed("h264_no_b.mp4", partial(missing_times, 3))),
    "late.mkv": Film(changed("h264.mkv", partial(shifted, frames=250))),
    "late.mp4": Film(changed("h264.mp4", partial(shifted, frames=250))),
    "restart.ts": Film(
        concatenated("h264.ts", "h264.ts"), [*range(NUM_FRAMES), *range(NUM_FRAMES)], sound=False
    ),
    "restart.mpg": Film(
        concatenated("mpeg2.mpg", "mpeg2.mpg"),
        [*range(NUM_FRAMES), *range(NUM_FRAMES)],
        sound=False,
    ),
}
HIDING = {
    "hidden_vp8.webm": Film(changed("vp8.webm", hide_vp8), NOT_HIDDEN),
    "hidden_vp8.mkv": Film(changed("vp8.mkv", hide_vp8), NOT_HIDDEN),
    "hidden_vp9.webm": Film(
        changed("vp9.webm", partial(hide_vp9, False), {"fflags": "-autobsf"}), NOT_HIDDEN
    ),
    "hidden_vp9.mkv": Film(
        changed("vp9.webm", partial(hide_vp9, False), {"fflags": "-autobsf"}), NOT_HIDDEN
    ),
    "hidden_superframes_vp9.webm": Film(changed("vp9.webm", partial(hide_vp9, True)), NOT_HIDDEN),
    "hidden_superframes_vp9.mp4": Film(changed("vp9.webm", partial(hide_vp9, True)), NOT_HIDDEN),
}

# The first packets are lost: what leans on them is not shown.
BEHEADED = {
    f"beheaded_{kind}.{container}": Film(changed(source, change), numbers, plain=plain, sound=False)
    for kind, source, containers, change, numbers, plain in (
        ("h264", "h264.mkv", ("mp4", "mkv", "ts"), partial(from_packet, 5), LATER, True),
        ("hevc", "hevc.mkv", ("mp4", "mkv", "ts"), partial(from_packet, 5), LATER, True),
        ("h264_open", "h264_open.mkv", ("mp4", "mkv"), partial(from_key, 1), LATER, True),
        ("h264_open", "h264_open.ts", ("ts",), partial(from_key, 1), LATER, True),
        ("hevc_open", "hevc_open.mkv", ("mp4", "mkv", "ts"), partial(from_key, 1), LATER, True),
        ("vp8", "vp8.mkv", ("mkv", "webm"), partial(from_packet, 5), LATER, True),
        ("vp9", "vp9.webm", ("mp4", "webm"), partial(from_packet, 5), LATER, True),
        # FFmpeg puts the first frames on grey.
        ("mpeg4", "mpeg4.mkv", ("mkv", "mp4", "avi"), partial(from_packet, 5), LATER, False),
        ("mpeg4", "mpeg4.ts", ("ts",), partial(from_packet, 5), LATER, False),
        ("mpeg2", "mpeg2.ts", ("mkv", "ts", "mpg"), partial(from_packet, 5), range(21, 60), True),
    )
    for container in containers
}
BEHEADED |= {
    f"beheaded_av1.{container}": Film(
        joined("libsvtav1", ((64, 96),), AV1, change=partial(from_packet, 5)), LATER, sound=False
    )
    for container in ("mp4", "mkv")
}
TRIMMED = {
    "trimmed.mp4": Film(changed("h264.mp4", partial(cut, 20, 60, 30)), range(30, 60)),
    "trimmed.mov": Film(changed("h264.mov", partial(cut, 20, 60, 30)), range(30, 60)),
    "trimmed_hevc.mp4": Film(changed("hevc.mp4", partial(cut, 20, 60, 30)), range(30, 60)),
    "trimmed_mpeg4.mp4": Film(changed("mpeg4_b.mp4", partial(cut, 20, 60, 30)), range(30, 60)),
    "trimmed_vp9.mp4": Film(changed("vp9.mp4", partial(cut, 20, 60, 30)), range(30, 60)),
    "trimmed_h264_open.mp4": Film(
        changed("h264_open.mp4", partial(trim, 1, 30)), range(30, NUM_FRAMES)
    ),
    "trimmed_hevc_open.mp4": Film(
        changed("hevc_open.mp4", partial(trim, 1, 30)), range(30, NUM_FRAMES)
    ),
    "trimmed_refresh.mp4": Film(
        changed("refresh.mp4", partial(shifted, frames=-30)), range(30, NUM_FRAMES)
    ),
    "cut.mkv": Film(changed("h264.mkv", partial(cut, 20, 47, 30)), range(20, 47)),
    "cut.ts": Film(changed("h264.ts", partial(cut, 20, 47, 20)), range(20, 47)),
    "both_ends.mp4": Film(patched("h264.mp4", set_edits, [(26, 20)]), range(26, 46)),
    "both_ends.mov": Film(patched("h264_no_b.mp4", set_edits, [(26, 20)]), range(26, 46)),
    "two_edits.mp4": Film(
        patched("h264_no_b.mp4", set_edits, [(5, 10), (43, 10)]), [*range(5, 15), *range(43, 53)]
    ),
    "two_edits_b.mp4": Film(
        patched("h264.mp4", set_edits, [(5, 10), (43, 10)]), [*range(5, 15), *range(43, 53)]
    ),
    "edits_back.mp4": Film(
        patched("h264_no_b.mp4", set_edits, [(43, 10), (5, 10)]), [*range(43, 53), *range(5, 15)]
    ),
    "delayed.mp4": Film(patched("h264.mp4", set_edits, [(None, 25), (0, 60)])),
    "delayed_and_trimmed.mp4": Film(
        patched("h264.mp4", set_edits, [(None, 25), (26, 20)]), range(26, 46)
    ),
}
UP_AND_DOWN = ((64, 96), (128, 192), (48, 64))
SIZES = {
    f"sizes_{codec}.{container}": Film(joined(encoder, UP_AND_DOWN, options))
    for codec, encoder, options, containers in (
        ("h264", "libx264", IN_BAND, ("mp4", "mkv", "ts")),
        (
            "hevc",
            "libx265",
            {"x265-params": "log-level=none:repeat-headers=1:bframes=0:keyint=10"},
            ("mp4", "mkv", "ts"),
        ),
        ("vp8", "libvpx", VP8, ("webm", "mkv")),
        ("vp9", "libvpx-vp9", VP9, ("webm", "mp4")),
        ("mpeg4", "mpeg4", MPEG4, ("ts", "mkv")),
    )
    for container in containers
} | {
    "sizes_down.mp4": Film(
        joined("libx264", ((128, 192), (64, 96), (128, 192)), IN_BAND), size=(128, 192)
    ),
    "shapes_restart.ts": Film(
        concatenated("shape.ts", "h264.ts"),
        [*range(NUM_FRAMES), *range(NUM_FRAMES)],
        size=(64, 128),
        sound=False,
    ),
    "sizes_restart.ts": Film(
        concatenated("h264.ts", "large.ts"), [*range(NUM_FRAMES), *range(NUM_FRAMES)], sound=False
    ),
    "sizes_shape.mkv": Film(joined("libx264", ((64, 96), (96, 64), (64, 64)), IN_BAND)),
}

# Matrix (a, b, c, d), how the coded picture is shown, and how it must be coded to be shown upright.
ORIENTATIONS = {
    "upright": ((1, 0, 0, 1), lambda f: f),
    "mirrored": ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda f: f[::-1]),
    "turned_180": ((-1, 0, 0, -1), lambda f: f[::-1, ::-1]),
    "turned_90": ((0, 1, -1, 0), lambda f: np.rot90(f, 1)),
    "turned_270": ((0, -1, 1, 0), lambda f: np.rot90(f, -1)),
    "transposed": ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1)),
    "transversed": ((0, -1, -1, 0), lambda f: f[::-1, ::-1].swapaxes(0, 1)),
}
WIDE = Fraction(4, 3)
BT709 = dict(colorspace=1, color_range=1, color_primaries=1, color_trc=1)


def oriented(name: str, shape: Fraction | None):
    """Coded as 64 x 96, with frames that are upright once they are shown."""
    matrix, to_coded = ORIENTATIONS[name]
    tags = {} if shape is None else {"sample_aspect_ratio": shape}

    def make(path: Path, studio: Studio) -> None:
        upright = (64, 96) if matrix[0] else (96, 64)
        pictures = [
            np.ascontiguousarray(to_coded(frame)) for frame in numbered(range(NUM_FRAMES), *upright)
        ]
        plain = path.with_name(f"coded_{path.name}")
        encode(plain, pictures, "libx264", X264 | {"crf": "15"}, **tags)
        set_matrix(plain, path, matrix)

    return make


def shown_size(name: str, shape: Fraction | None) -> tuple[int, int]:
    height, width = 64, 96 if shape is None else int(96 * shape)
    return (height, width) if ORIENTATIONS[name][0][0] else (width, height)


ORIENTED = {
    f"{name}{suffix}.{container}": Film(
        oriented(name, shape), size=shown_size(name, shape), plain=False
    )
    for name in ORIENTATIONS
    for suffix, shape in (("", None), ("_wide", WIDE))
    for container in ("mp4", "mov")
    if container == "mp4" or shape is None
}
ORIENTED |= {  # PyAV writes the matrix as Matroska's projection
    name.replace(".mp4", ".mkv"): Film(changed(name), size=film.size, plain=False)
    for name, film in ORIENTED.items()
    if name.endswith(".mp4")
}


def shaped(
    codec: str, options=None, shape: Fraction | int = WIDE, size=(64, 96), frames=NUM_FRAMES, **more
):
    def make(path: Path, studio: Studio) -> None:
        pictures = numbered(range(frames), *size)
        encode(path, pictures, codec, options, sample_aspect_ratio=Fraction(shape), **more)

    return make


SHAPED = {
    "shape.mp4": Film(shaped("libx264", X264), size=(64, 128)),
    "shape_codec_alone.mp4": Film(patched("shape.mp4", set_pixel_shape, None), size=(64, 128)),
    "shape_container_differs.mp4": Film(
        patched("shape.mp4", set_pixel_shape, (2, 1)), size=(64, 192)
    ),
    "shape_container_alone.mp4": Film(shaped("libvpx-vp9", VP9), size=(64, 128)),
    "shape.mkv": Film(shaped("libx264", X264), size=(64, 128)),
    "tagged.mkv": Film(coded("libx264", X264, **BT709)),
    "tagged.webm": Film(coded("libvpx-vp9", VP9, **BT709)),
    "shape_container_alone.mkv": Film(
        patched("tagged.mkv", set_display_size, 64, 128), size=(64, 128)
    ),
    "shape.webm": Film(patched("tagged.webm", set_display_size, 64, 128), size=(64, 128)),
    "shape_narrow.mkv": Film(shaped("libx264", X264, Fraction(3, 4)), size=(64, 72)),
    "shape.ts": Film(shaped("libx264", X264), size=(64, 128)),
    "shape_mpeg2.ts": Film(shaped("mpeg2video", MPEG4, size=(72, 96)), size=(72, 128)),
    "shape_mpeg2.mpg": Film(shaped("mpeg2video", MPEG4, size=(72, 96)), size=(72, 128)),
    "shape_mpeg4.avi": Film(shaped("mpeg4", MPEG4), size=(64, 128)),
    "shape_hevc.mp4": Film(shaped("libx265", {"x265-params": X265}), size=(64, 128)),
    "pal.mpg": Film(
        shaped("mpeg2video", MPEG4, Fraction(64, 45), (576, 720), 20), range(20), (576, 1024)
    ),
    "shape_silly_thin.mp4": Film(patched("shape.mp4", set_pixel_shape, (1, 1000))),
    "shape_silly_broad.mp4": Film(patched("shape.mp4", set_pixel_shape, (60000, 1))),
    "shape_silly_thin.ts": Film(shaped("libx264", X264, Fraction(1, 1000))),
    "shape_silly_broad.ts": Film(shaped("libx264", X264, Fraction(60000, 1))),
}


def two_fields(number: int) -> np.ndarray:
    """A numbered frame above a bar that moves from the even rows to the odd ones, as filmed."""
    moving = np.full((2, 32, 96, 3), 30, np.uint8)
    for field in range(2):
        left = (16 * number + 8 * field) % 76
        moving[field, :, left : left + 20] = 220
    moving[0, 1::2] = moving[1, 1::2]
    return np.concatenate([numbered_frame(number), moving[0]])


def combing(frames: np.ndarray) -> float:
    """How much rows differ from those next to them but not from those next but one."""
    rows = frames[:, 68:92].astype(int)
    return float(abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]).mean())


def interlaced(codec: str, options: dict[str, str]):
    def make(path: Path, studio: Studio) -> None:
        pictures = [two_fields(number) for number in range(NUM_FRAMES)]
        encode(path, pictures, codec, {"flags": "+ilme+ildct"} | options)

    return make


TOP_FIRST = X264 | {"x264-params": "tff=1", "crf": "15"}
BOTTOM_FIRST = X264 | {"x264-params": "bff=1", "crf": "15"}
INTERLACED = {
    "fields_bottom_first.mp4": Film(interlaced("libx264", BOTTOM_FIRST), size=(96, 96)),
    "fields_mpeg2.mpg": Film(interlaced("mpeg2video", MPEG4 | {"bf": "2"}), size=(96, 96)),
    "fields_mpeg2.ts": Film(interlaced("mpeg2video", MPEG4 | {"bf": "2"}), size=(96, 96)),
    "fields_mpeg2.mkv": Film(interlaced("mpeg2video", MPEG4), size=(96, 96)),
    "fields_h264.ts": Film(interlaced("libx264", TOP_FIRST), size=(96, 96)),
    "fields_h264.mp4": Film(interlaced("libx264", TOP_FIRST), size=(96, 96)),
    "fields_h264.mkv": Film(interlaced("libx264", TOP_FIRST), size=(96, 96)),
    "fields_mpeg4.avi": Film(interlaced("mpeg4", MPEG4), size=(96, 96)),
}

# --- Damage ----------------------------------------------------------------------------------

LOST_GROUP = range(20, 40)
REGULAR = {
    "h264": ("libx264", X264 | {"bf": "2", "x264-params": "b-adapt=0:b-pyramid=none"}),
    "hevc": (
        "libx265",
        {"x265-params": X265.replace("bframes=3", "bframes=2:b-adapt=0:b-pyramid=0:open-gop=0")},
    ),
    "vp9": ("libvpx-vp9", VP9),
    "vp8": ("libvpx", VP8),
    "mpeg4": ("mpeg4", MPEG4),
}
DAMAGED_CASES = (
    ("h264", ("mp4", "mkv", "ts"), ("key", "P", "B")),
    ("hevc", ("mp4", "mkv"), ("key", "P", "B")),
    ("vp9", ("webm", "mp4"), ("key", "P")),
    ("vp8", ("webm",), ("key", "P")),
    ("mpeg4", ("avi", "mkv"), ("key", "P")),
)


@dataclass(frozen=True)
class Damaged(Film):
    """A film that has lost something: before and behind it, every frame is what it was.

    Between `head` and `tail` come at most `most` frames, which may be smeared but not grey; none
    is smeared where it is `unneeded` by others what was lost. `noticed` where what is wrong can
    be seen, so that a reader must tell.
    """

    head: range = range(0)
    tail: range = range(0)
    most: int = 0
    unneeded: bool = False
    noticed: bool = True


def _frame_numbers(packets: list[av.Packet]) -> list[int]:
    step = round(1 / (25 * packets[0].time_base))
    times = [packet.dts if packet.pts is None else packet.pts for packet in packets]
    first = min(times)
    return [round((time - first) / step) for time in times]


def _place(role: str, packets: list[av.Packet]) -> int:
    """Of the packet of the lost group with which a role begins: key, or the third P or B."""
    newest, places = -1, {"key": [], "P": [], "B": []}
    for place, number in enumerate(_frame_numbers(packets)):
        kind = "B" if number < newest else "key" if packets[place].is_keyframe else "P"
        newest = max(newest, number)
        if number in LOST_GROUP:
            places[kind].append(place)
    return places[role][0 if role == "key" else 2]


def damage(role: str, how: str, packets: list[av.Packet]) -> list[av.Packet]:
    place = _place(role, packets)
    if how == "removed":
        return packets[:place] + packets[place + 1 :]
    byte = b"\xff" if how == "overwritten" else b"\0"
    packets[place] = replaced(packets[place], byte * packets[place].size)
    return packets


def _damaged_film(codec: str, container: str, role: str, how: str) -> Damaged:
    stream = container == "ts"  # no packets, only what lies between two start codes
    source = f"regular_{codec}.{container}"
    b_frames = codec in ("h264", "hevc")
    if role == "key":
        first, last = 20 - stream, 40
        most = 21 if stream else 0  # a stream does not tell that what is lost was a key frame
    elif role == "P":  # the third one, which B-frames before it need, and all that follow
        first, last = (27 if b_frames else 23) - 2 * stream, 40
        most = last - first
    else:  # the third one, which nothing needs; but how is a reader to know?
        first, last, most = 24 - stream, 40, 16
    if how == "removed" and role == "key":
        most = len(LOST_GROUP) + stream
    raw = {"fflags": "-autobsf"} if codec == "vp9" else None  # zeros would pass for hidden frames
    return Damaged(
        changed(source, partial(damage, role, how), raw),
        head=range(first),
        tail=range(last, NUM_FRAMES),
        most=most,
        unneeded=role == "B",
        noticed=how != "removed" and not stream,
    )


DAMAGED = {
    f"{codec}_{role}_{how}.{container}": _damaged_film(codec, container, role, how)
    for codec, containers, roles in DAMAGED_CASES
    for container in containers
    for role in roles
    for how in ("overwritten", "zeroed", "removed")
}


def without_bytes(source: str, start: float, count: int, filling: bytes | None):
    """A file some bytes of which, from a share of it on, are others or are not there."""

    def make(path: Path, studio: Studio) -> None:
        content = studio(source).read_bytes()
        first = int(len(content) * start) // 188 * 188
        middle = b"" if filling is None else filling * count
        path.write_bytes(content[:first] + middle + content[first + count :])

    return make


# Which frames these bytes belong to is not asked: only that none is grey, and most are there.
SCRATCHED = {
    f"scratched_{kind}_{source}": Film(without_bytes(source, 0.45, 376, filling), sound=False)
    for kind, filling in (("ones", b"\xff"), ("zeros", b"\0"), ("gap", None))
    for source in ("h264.ts", "hevc.ts", "mpeg2.ts", "mpeg2.mpg", "h264.mkv", "h264.mp4")
    if kind != "gap" or source.endswith((".ts", ".mpg", ".mkv"))
}


def halved(source: str):
    """As a download that broke off."""

    def make(path: Path, studio: Studio) -> None:
        content = studio(source).read_bytes()
        path.write_bytes(content[: len(content) * 6 // 10])

    return make


# Nothing in a transport stream says how long it is to be.
BROKEN_OFF = {
    f"broken_off_{source}": Damaged(halved(source), noticed=not source.endswith(".ts"))
    for source in (
        "h264_index_first.mp4",
        "h264.mkv",
        "h264.ts",
        "mpeg4.avi",
        "vp8.webm",
        "vp9.webm",
        "hevc.mkv",
    )
}

# --- Colours ---------------------------------------------------------------------------------

# What is tagged, as FFmpeg counts it, and how much red and blue weigh in luma.
MATRICES = {
    "bt601": (6, 0.299, 0.114),
    "bt709": (1, 0.2126, 0.0722),
    "bt2020": (9, 0.2627, 0.0593),
    "untagged": (2, 0.299, 0.114),
}
RANGES = {"limited": 1, "full": 2}
PATCHES = np.array(
    [(200, 40, 40), (40, 180, 60), (50, 60, 200), (210, 200, 60), (128, 128, 128), (225, 172, 150)]
)


def planes_of(matrix: str, span: str, depth: int) -> np.ndarray:
    """Patches as (6, 3) luma and chroma, in steps of their depth."""
    _, red, blue = MATRICES[matrix]
    rgb = PATCHES / 255
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[:, 2] - luma) / (2 - 2 * blue), (rgb[:, 0] - luma) / (2 - 2 * red)]
    steps = 2 ** (depth - 8)
    if span == "full":
        top = 2**depth - 1
        values = [luma * top, *(part * top + 128 * steps for part in chroma)]
    else:
        values = [luma * 219 * steps + 16 * steps]
        values += [part * 224 * steps + 128 * steps for part in chroma]
    return np.round(np.stack(values, 1)).astype(int)


def colours_of(planes: np.ndarray, matrix: str, span: str, depth: int) -> np.ndarray:
    """RGB (6, 3) that luma and chroma stand for, from 0 to 255."""
    _, red, blue = MATRICES[matrix]
    steps = 2 ** (depth - 8)
    if span == "full":
        luma = planes[:, 0] / (2**depth - 1)
        chroma = (planes[:, 1:] - 128 * steps) / (2**depth - 1)
    else:
        luma = (planes[:, 0] / steps - 16) / 219
        chroma = (planes[:, 1:] / steps - 128) / 224
    r = luma + (2 - 2 * red) * chroma[:, 1]
    b = luma + (2 - 2 * blue) * chroma[:, 0]
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return 255 * np.stack([r, g, b], 1).clip(0, 1)


def _patches(planes: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame(96, 64, pix_fmt)
    kind = np.uint16 if "10" in pix_fmt else np.uint8
    for index, plane in enumerate(frame.planes):
        pitch = plane.line_size // np.dtype(kind).itemsize
        pixels = np.zeros((plane.height, pitch), kind)
        height, width = plane.height // 2, plane.width // 3
        for patch, values in enumerate(planes):
            row, column = divmod(patch, 3)
            rows = slice(row * height, (row + 1) * height)
            pixels[rows, column * width : (column + 1) * width] = values[index]
        plane.update(pixels.tobytes())
    return frame


def middles(frame: np.ndarray) -> np.ndarray:
    """Colours (6, 3) in the middle of each patch."""
    centres = [(16 + 32 * row, 16 + 32 * column) for row in range(2) for column in range(3)]
    return np.array([frame[y - 4 : y + 4, x - 4 : x + 4].mean((0, 1)) for y, x in centres])


def patches(codec: str, pix_fmt: str, matrix: str, span: str, options: dict[str, str]):
    def make(path: Path, studio: Studio) -> None:
        planes = planes_of(matrix, span, 10 if "10" in pix_fmt else 8)
        tags = dict(colorspace=MATRICES[matrix][0], color_range=RANGES[span])
        pictures = [_patches(planes, pix_fmt) for _ in range(4)]
        for picture in pictures:
            picture.colorspace, picture.color_range = tags["colorspace"], tags["color_range"]
        encode(path, pictures, codec, options, pix_fmt=pix_fmt, **tags)

    return make


@dataclass(frozen=True)
class Coloured(Film):
    """A film of flat patches, and which colours they stand for."""

    matrix: str = ""
    span: str = ""
    depth: int = 8


FINE_X265 = {"x265-params": "log-level=none:crf=1"}
FINE_VP9 = VP9 | {"lossless": "1"}
COLOURED = {
    f"{codec}_{pix_fmt}_{matrix}_{span}.{container}": Coloured(
        patches(encoder, pix_fmt, matrix, span, options),
        numbers=(),
        matrix=matrix,
        span=span,
        depth=10 if "10" in pix_fmt else 8,
    )
    for codec, encoder, container, options, formats in (
        (
            "h264",
            "libx264",
            "mp4",
            {"crf": "1"},
            ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"),
        ),
        ("h264", "libx264", "mkv", {"crf": "1"}, ("yuv420p",)),
        ("hevc", "libx265", "mp4", FINE_X265, ("yuv420p", "yuv420p10le")),
        ("vp9", "libvpx-vp9", "webm", FINE_VP9, ("yuv420p", "yuv444p")),
    )
    for pix_fmt in formats
    for matrix in MATRICES
    for span in RANGES
}

# --- All of them -----------------------------------------------------------------------------


def long_film(path: Path, studio: Studio) -> None:
    """12 minutes of one frame after the other, with a key frame every 12 seconds."""
    part = path.with_name("part.mp4")
    encode(part, numbered(range(120)), "libx264", X264 | {"g": "120"}, fps=10)

    def repeat(packets: list[av.Packet]) -> list[av.Packet]:
        copies = []
        for turn in range(60):
            again = [replaced(packet, bytes(packet)) for packet in packets]
            copies += shifted(again, 120 * turn, fps=10)
        return copies

    remux(part, path, repeat)


LONG = {"long.mp4": Film(long_film, [*range(120)] * 60)}
NUMBERED = (
    ORDINARY | GROUPS | TIMES | HIDING | BEHEADED | TRIMMED | SIZES | ORIENTED | SHAPED | INTERLACED
)
BASES = {"large.ts": Film(shaped("libx264", X264, 1, (128, 192)), size=(128, 192))} | {
    f"regular_{codec}.{container}": Film(coded(*REGULAR[codec]))
    for codec, containers, _ in DAMAGED_CASES
    for container in containers
}
LEFT_OUT = {
    "h264_pyramid.mp4": Film(coded("libx264", PYRAMID)),
    "joined_edits.mp4": Film(patched("h264_pyramid.mp4", set_edits, [(0, 40), (40, 20)])),
    "moved_frame.mkv": Film(changed("h264_pyramid.mp4", move_frame)),
}
FILMS = LEFT_OUT | NUMBERED | DAMAGED | SCRATCHED | BROKEN_OFF | COLOURED | LONG | BASES


def numbers_of(film: Film, frames: Iterable[np.ndarray]) -> list[int]:
    """What frames spell; those of two fields do so above their moving bar."""
    two = film.size == (96, 96)
    return [number_of(frame[:64] if two else frame) for frame in frames]
