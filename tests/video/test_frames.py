"""Frames of odd videos: whoever asks, and however, a number gives the frame that is shown."""

import dataclasses
import os
import struct
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
from films import (
    BROKEN_OFF,
    COLOURED,
    DAMAGED,
    FILMS,
    HIDING,
    INTERLACED,
    LEFT_OUT,
    LONG,
    NUM_FRAMES,
    NUMBERED,
    SCRATCHED,
    SHAPED,
    UNREADABLE,
    Damaged,
    Film,
    Studio,
    colours_of,
    combing,
    encode,
    is_grey,
    middles,
    number_of,
    numbered,
    numbers_of,
    planes_of,
)

from lvt_ff import data
from lvt_ff.data import VideoReadError, header, read_clip
from lvt_ff.video import pyav_decoder
from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.display import Shape
from lvt_ff.video.packets import PacketReader
from lvt_ff.video.probe import _Scan, probe
from lvt_ff.video.reader import read_frames

BACKENDS = ("auto", "torchcodec", "decord", "pyav")
ALWAYS_RIGHT = ("auto", "pyav")


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    return Studio(tmp_path_factory.mktemp("films"))


def read(path, indices, backend: str, **options) -> np.ndarray | None:
    """Frames, or None where a backend that was asked for by name leaves the file to others."""
    try:
        return read_clip(path, indices, decoder=backend, **options)
    except VideoReadError as error:
        if backend not in ALWAYS_RIGHT and "not installed" in str(error):
            pytest.skip(f"{backend} is not installed")
        if backend in ALWAYS_RIGHT:
            raise
    return None


def everything(total: int) -> range:
    return range(total)


def orders(total: int) -> list[list[int]]:
    rng = np.random.default_rng(total)
    if total == 1:
        return [[0], [0, 0, 0]]
    return [
        rng.permutation(total)[: total // 2].tolist(),
        rng.integers(0, total, 12).tolist(),
        list(range(total))[::-7],
        [total - 1],
        [0],
        [0, total // 3, total - 1],
        [total - 2, total - 2, total - 1],
    ]


def reports(caught: list) -> list[str]:
    return [str(w.message) for w in caught if w.category.__name__ == "DamagedVideoWarning"]


def assert_size(frames: np.ndarray, name: str, film: Film) -> None:
    height, width = frames.shape[1:3]
    if "_wide" in name and film.size[0] > film.size[1]:
        # A turned picture may be shown as high as it is coded, or as wide.
        assert height * film.size[1] == width * film.size[0]
    else:
        assert (height, width) == film.size


# --- What the films are, by FFmpeg's decoder alone, frame after frame --------------------------


def decoded(path: Path) -> list[av.VideoFrame]:
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.FFmpegError:
                continue
    return frames


def pictures(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray(format="rgb24") for frame in decoded(path)]


@pytest.mark.parametrize("name", [name for name, film in NUMBERED.items() if film.plain])
def test_films_show_what_they_are_said_to_show(studio, name):
    assert numbers_of(FILMS[name], pictures(studio(name))) == list(FILMS[name].numbers)


@pytest.mark.parametrize("name", [name for name in HIDING if "superframes" not in name])
def test_films_have_packets_that_are_not_shown(studio, name):
    with av.open(str(studio(name))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert len(packets) == NUM_FRAMES > len(FILMS[name].numbers)


@pytest.mark.parametrize("name", INTERLACED)
def test_films_of_two_fields_are_combed(studio, name):
    assert all(frame.interlaced_frame for frame in decoded(studio(name)))
    assert combing(np.stack(pictures(studio(name)))) > 30


@pytest.mark.parametrize("name", COLOURED)
def test_films_have_the_colours_that_they_should_have(studio, name):
    film = COLOURED[name]
    frame = decoded(studio(name))[1]
    wanted = planes_of(film.matrix, film.span, film.depth)
    for index, plane in enumerate(frame.planes):
        kind = np.uint16 if film.depth == 10 else np.uint8
        pixels = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
        rows, columns = (
            (np.array([1, 3]) * plane.height // 4),
            np.array([1, 3, 5]) * plane.width // 6,
        )
        found = pixels[np.ix_(rows, columns)].ravel().astype(int)
        assert abs(found - wanted[:, index]).max() <= 2 ** (film.depth - 8)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_films_have_lost_what_they_should_have(studio, name):
    film = DAMAGED[name]
    numbers = [number_of(frame) for frame in pictures(studio(name))]
    assert numbers[: len(film.head)] == list(film.head)
    assert numbers[-len(film.tail) :] == list(film.tail)
    assert numbers != list(range(NUM_FRAMES))


# --- What the reader makes of them ------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NUMBERED)
def test_frames_are_those_that_are_shown(studio, name, backend):
    film, totals = NUMBERED[name], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whole = read(studio(name), lambda n: totals.append(n) or range(n), backend)
        if whole is None:
            return
        parts = [read(studio(name), order, backend) for order in orders(len(film.numbers))]
    assert numbers_of(film, whole) == list(film.numbers)
    assert totals[-1] == len(whole)
    assert whole.dtype == np.uint8
    assert_size(whole, name, film)
    for order, frames in zip(orders(len(film.numbers)), parts, strict=True):
        np.testing.assert_array_equal(frames, whole[order], str(order))
    if film.sound:
        assert not reports(caught)


@pytest.mark.parametrize("backend", ALWAYS_RIGHT)
@pytest.mark.parametrize("name", ["h264.mp4", "hidden_vp8.webm", "both_ends.mp4", "mpeg4_b.avi"])
def test_no_frame_is_behind_the_last_one(studio, name, backend):
    total = len(FILMS[name].numbers)
    for indices in ([total], [0, total], [total + 500]):
        with pytest.raises(VideoReadError, match=name):
            read_clip(studio(name), indices, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", INTERLACED)
def test_fields_become_whole_pictures(studio, name, backend):
    whole = read(studio(name), everything, backend)
    if whole is None:
        return
    assert combing(whole) < 10
    # The bar is still there: nothing is blurred until no comb is left.
    assert all((frame[72:88].mean((0, 2)) > 150).sum() >= 12 for frame in whole)
    for order in orders(NUM_FRAMES):
        np.testing.assert_array_equal(read(studio(name), order, backend), whole[order])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_those_of_the_tags(studio, name, backend):
    film = COLOURED[name]
    frames = read(studio(name), [0, 2], backend)
    if frames is None:
        return
    planes = planes_of(film.matrix, film.span, film.depth)
    wanted = colours_of(planes, film.matrix, film.span, film.depth)
    for frame in frames:
        # FFmpeg's fast conversion of ten bits is off by three.
        np.testing.assert_allclose(middles(frame).round(), wanted.round(), atol=3)


def damaged_read(path: Path, indices, backend: str, **options) -> tuple[np.ndarray | None, list]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            frames = read_clip(path, indices, decoder=backend, **options)
        except VideoReadError:
            if backend in ALWAYS_RIGHT:
                raise
            return None, []
    return frames, reports(caught)


def assert_told(film: Damaged, messages: list[str], name: str) -> None:
    if film.noticed:
        assert messages
    assert all(name in message for message in messages)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_not_damaged_is_read(studio, name, backend):
    film = DAMAGED[name]
    whole, messages = damaged_read(studio(name), everything, backend, on_damage="skip")
    if whole is None:
        return
    numbers = [number_of(frame) for frame in whole]
    behind = len(numbers) - len(film.tail)
    assert numbers[: len(film.head)] == list(film.head)
    assert numbers[behind:] == list(film.tail)
    assert 0 <= behind - len(film.head) <= film.most
    if film.unneeded:
        assert numbers == sorted(set(numbers)) and numbers[0] == 0
    if "key_removed" not in name:  # nobody can know that what follows leans on what is not there
        assert not any(is_grey(frame) for frame in whole)
    assert_told(film, messages, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", DAMAGED)
def test_frames_of_damaged_videos_have_one_number_each(studio, name, backend):
    whole, _ = damaged_read(studio(name), everything, backend, on_damage="skip")
    if whole is None:
        return
    total = len(whole)
    # Some damage shows only where a frame is decoded: elsewhere what is lost is counted, too.
    unseen = "removed" in name or name == "vp8_P_overwritten.webm"
    for order in ([total - 1], [0], [5, total - 8, 22, 5], [total - 19, 2], [21, 20, 19]):
        frames, _ = damaged_read(studio(name), order, backend, on_damage="skip")
        if unseen:
            assert all((frame == whole).all((1, 2, 3)).any() for frame in frames), str(order)
        else:
            np.testing.assert_array_equal(frames, whole[order], str(order))


@pytest.mark.parametrize("backend", ALWAYS_RIGHT)
@pytest.mark.parametrize("name", [name for name, film in DAMAGED.items() if film.noticed])
def test_damage_is_an_error_where_it_is_to_be_one(studio, name, backend):
    with pytest.raises(VideoReadError, match=name):
        read_clip(studio(name), everything, backend, on_damage="raise")


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4_b.avi", "hevc_open.mkv", "both_ends.mp4"])
def test_sound_videos_are_read_where_damage_is_an_error(studio, name):
    frames = read_clip(studio(name), everything, on_damage="raise")
    assert [number_of(frame) for frame in frames] == list(FILMS[name].numbers)


def test_only_known_ways_to_take_damage(studio):
    with pytest.raises(ValueError, match="'raise'.*'skip'|'skip'.*'raise'"):
        read_clip(studio("h264.mp4"), [0], on_damage="ignore")


def first_wrong(numbers: list[int]) -> int:
    places = [place for place, number in enumerate(numbers) if place != number]
    return [*places, len(numbers)][0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BROKEN_OFF)
def test_what_there_is_of_a_broken_off_file_is_read(studio, name, backend):
    there = [number_of(frame) for frame in pictures(studio(name))]
    whole, messages = damaged_read(studio(name), everything, backend, on_damage="skip")
    if whole is None:
        return
    sure = first_wrong(there) - 2  # the last packet may be half there
    assert [number_of(frame) for frame in whole[:sure]] == list(range(sure))
    assert sure <= len(whole) <= len(there) + 1
    assert not any(is_grey(frame) for frame in whole)
    assert_told(BROKEN_OFF[name], messages, name)


@pytest.mark.parametrize("backend", ALWAYS_RIGHT)
@pytest.mark.parametrize("name", [name for name, film in BROKEN_OFF.items() if film.noticed])
def test_a_broken_off_file_is_an_error_where_damage_is_to_be_one(studio, name, backend):
    with pytest.raises(VideoReadError, match=name):
        read_clip(studio(name), everything, backend, on_damage="raise")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SCRATCHED)
def test_what_is_around_a_scratch_is_read(studio, name, backend):
    there = [number_of(frame) for frame in pictures(studio(name))]
    whole, messages = damaged_read(studio(name), everything, backend, on_damage="skip")
    if whole is None:
        return
    numbers = [number_of(frame) for frame in whole]
    sure = first_wrong(there) - 3
    assert numbers[:sure] == list(range(sure))
    if there[-20:] == list(range(40, NUM_FRAMES)):
        assert numbers[-20:] == there[-20:]
    assert not any(is_grey(frame) for frame in whole)
    assert all(name in message for message in messages)
    if name.endswith(".mp4"):
        assert messages


def test_damage_has_a_warning_of_its_own():
    assert issubclass(data.DamagedVideoWarning, UserWarning)


@pytest.mark.parametrize("backend", BACKENDS)
def test_few_frames_of_a_long_video(studio, backend):
    film = LONG["long.mp4"]
    for start in (0, 300, 449):
        order = list(range(start, len(film.numbers), 450))
        frames = read(studio("long.mp4"), order, backend)
        if frames is None:
            return
        assert len(frames) == 16
        assert numbers_of(film, frames) == [film.numbers[index] for index in order]
    assert numbers_of(film, read(studio("long.mp4"), [7199, 7198, 3], backend)) == [119, 118, 3]


# --- Names ------------------------------------------------------------------------------------

NAMES = [
    "12:30.mp4",
    "file:clip.mp4",
    "http:clip.mp4",
    "concat:clip.mp4",
    "pipe:0",
    "clip%03d.mp4",
    "-clip.mp4",
    ' it\'s a "clip"\n.mp4',
    "ünïcödé 影片.mp4",
    os.fsdecode(b"latin \xe9\xff.mp4"),
    "no_suffix",
    "wrong_suffix.jpg",
]


def is_utf_8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_only_names(studio, tmp_path, monkeypatch, name, backend):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(studio("h264.mp4").read_bytes())
    for path in (name, Path(name), tmp_path / name):
        try:
            frames = read(path, [30, 3], backend)
        except VideoReadError:  # some backends take no bytes that are not UTF-8
            assert backend not in ALWAYS_RIGHT and not is_utf_8(name)
            continue
        assert frames is None or [number_of(frame) for frame in frames] == [30, 3]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    ["x" * 300 + ".mp4", "zero\0byte.mp4", "x/" * 3000 + "a.mp4"],
    ids=["long", "null", "deep"],
)
def test_names_that_no_file_can_have(name, backend):
    with pytest.raises(VideoReadError):
        read_clip(name, [0], backend)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_must_not_be_read(studio, tmp_path):
    path = tmp_path / "locked.mp4"
    path.write_bytes(studio("h264.mp4").read_bytes())
    path.chmod(0)
    for backend in BACKENDS:
        with pytest.raises(VideoReadError, match=r"locked\.mp4"):
            read_clip(path, [0], backend)


def test_a_name_that_is_no_utf_8_is_in_the_message_as_it_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"gone \xe9.mp4")
    with pytest.raises(VideoReadError) as raised:
        read_clip(path, [0])
    str(raised.value).encode()


def test_numbers_that_cannot_be_read_are_known():
    assert number_of(np.full((64, 96, 3), 128, np.uint8)) == UNREADABLE


@pytest.mark.parametrize("name", ["upright.mp4", *SHAPED])
def test_pixels_of_the_header_are_those_of_a_frame(studio, name):
    _, height, width, _ = read_clip(studio(name), [0]).shape
    assert header(studio(name))[1] == height * width


# FFmpeg jumps elsewhere in them: all frames are decoded, in order.
NOT_BY_TIME = {"two_edits.mp4", "two_edits_b.mp4"}


def test_frames_are_found_by_their_times(studio, monkeypatch):
    def in_order(*_):
        raise AssertionError("all frames were decoded")

    monkeypatch.setattr(pyav_decoder, "_decode_in_order", in_order)
    found = 0
    for name, film in FILMS.items():
        path = str(studio(name))
        other = {*NOT_BY_TIME, *LEFT_OUT, *DAMAGED, *SCRATCHED, *BROKEN_OFF, *COLOURED}
        if name in other or probe(path).untimed:
            continue
        for numbers in ([-1], [0], [-1, 50, 20, 0], range(len(film.numbers))):
            order = [number % len(film.numbers) for number in numbers]
            clip = ClipBuffer(lambda total, order=order: order)
            pyav_decoder.decode(path, probe(path), clip, 1)
        found += 1
    assert found > 80


# x264 and x265 with and without frames that others refer to, x265 also in temporal layers.
DEPENDING = {
    "h264": ("libx264", {"g": "30", "bf": "3"}),
    "h264_pyramid": ("libx264", {"g": "60", "bf": "7", "x264-params": "b-pyramid=normal"}),
    "h264_all": ("libx264", {"g": "30", "bf": "0"}),
    "hevc": ("libx265", {"x265-params": "keyint=60:bframes=3:open-gop=0:log-level=none"}),
    "hevc_layers": (
        "libx265",
        {"x265-params": "keyint=60:bframes=3:open-gop=0:temporal-layers=3:log-level=none"},
    ),
}


@pytest.mark.parametrize("name", DEPENDING)
def test_frames_that_nobody_needs_are_left_out(tmp_path, monkeypatch, name):
    path = str(tmp_path / "film.mp4")
    encode(path, numbered(range(60)), *DEPENDING[name])
    found = probe(path)
    fed = []
    decode_packet = pyav_decoder.decode_packet

    def noting(stream, packet, max_pixels):
        fed.append(packet.pts)
        return decode_packet(stream, packet, max_pixels)

    def read(order, found):
        fed.clear()
        clip = ClipBuffer(lambda total: order)
        pyav_decoder.decode(path, found, clip, 1)
        return clip.frames, len(fed)

    monkeypatch.setattr(pyav_decoder, "decode_packet", noting)
    every = read(range(60), found)[0]
    cautious = dataclasses.replace(found, unneeded=np.zeros_like(found.unneeded))
    rng = np.random.default_rng(0)
    counts = np.zeros(2, int)
    for _ in range(20):
        order = rng.integers(60, size=6).tolist()
        for place, what in enumerate((found, cautious)):
            frames, count = read(order, what)
            assert np.array_equal(frames, every[order])
            counts[place] += count
    assert found.unneeded.any() == (name != "h264_all")
    assert counts[0] == counts[1] if name == "h264_all" else counts[0] < 0.9 * counts[1]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_single_frames_are_those_of_the_whole(studio, name):
    path = studio(name)
    whole = read_clip(path, range(NUM_FRAMES), "pyav")
    for number in range(NUM_FRAMES):
        assert np.array_equal(read_clip(path, [number], "pyav")[0], whole[number]), number


def test_layers_of_hevc_tell_what_others_refer_to():
    reader = PacketReader("hevc", bytes([1, *[0] * 20, 3, *[0] * 4]))

    def facts(kind, layer):
        return reader(av.Packet(struct.pack(">IBBB", 3, kind << 1, layer, 128)))

    assert facts(kind=0, layer=1)[-3:-1] == (False, 1)
    assert facts(kind=2, layer=3)[-3:-1] == (False, 3)
    assert facts(kind=1, layer=2).reference and facts(kind=19, layer=1).reference


def test_only_frames_of_the_highest_layer_are_not_needed():
    scan = _Scan()
    scan.pts, scan.layers, scan.top_layer = [0, 20, 10, 30], [-1, 3, 2, 3], 3
    assert scan._unneeded(np.array([0, 10, 20, 30])).tolist() == [False, False, True, True]
    assert not scan._unneeded(np.array([0, 10, 20, 90])).any()
    scan.hidden = True
    assert not scan._unneeded(np.array([0, 10, 20, 30])).any()


@pytest.mark.parametrize(
    "needed, divisor", [(None, 1), ((200, 200), 1), ((128, 192), 2), ((60, 60), 4), ((16, 24), 16)]
)
def test_large_frames_are_made_smaller_by_a_whole_number(tmp_path, monkeypatch, needed, divisor):
    path = tmp_path / "film.mp4"
    encode(path, numbered(range(12), 256, 384))
    for way in ("inline", "processes"):
        monkeypatch.setenv("LVT_FF_DECODE", way)
        frames = read_frames(path, [3, 9], "pyav", needed=needed).frames
        assert frames.shape == (2, 256 // divisor, 384 // divisor, 3)
    whole = read_clip(path, [3, 9], "pyav")
    shape = (2, 256 // divisor, divisor, 384 // divisor, divisor, 3)
    means = whole.reshape(shape).mean((2, 4))
    assert abs(means - frames).max() <= 4  # as light and colour are averaged apart


def test_what_is_needed_is_counted_as_frames_are_shown():
    lying, standing = (Shape(400, 200, (turned, False, False), True) for turned in (False, True))
    assert lying.smaller_by((100, 200)) == 2 and lying.smaller_by((200, 100)) == 1
    assert standing.smaller_by((200, 100)) == 2 and standing.smaller_by((100, 200)) == 1
    assert lying.smaller_by((300, 10)) == lying.smaller_by(None) == 1
