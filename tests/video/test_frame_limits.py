"""Files from people who are not known: no frame may be larger, no video longer than allowed."""

import struct

import av
import numpy as np
import pytest
from conftest import random_frames, write_growing_video
from films import NUM_FRAMES, Studio, set_edits

from lvt_ff.data import FrameSizeError, VideoReadError, header, read_clip
from lvt_ff.data.synthetic.writer import write_video

SMALL, LIMIT = (64, 96), 20_000  # pixels: the first frame's, and the most that is allowed
CODECS = {
    "h264.mp4": "libx264",
    "h264.mkv": "libx264",
    "h264.ts": "libx264",
    "hevc.mp4": "libx265",
    "vp8.webm": "libvpx",
    "vp9.webm": "libvpx-vp9",
    "mpeg4.avi": "mpeg4",
}


def first_and_last(total):
    return [0, total - 1]


# FFmpeg itself refuses frames that are much larger, and leaves the rest to be refused.
@pytest.mark.parametrize("larger", [(130, 160), (256, 320)])
@pytest.mark.parametrize("name", CODECS)
def test_frames_larger_than_the_header_says_are_refused(tmp_path, name, larger):
    write_growing_video(tmp_path / name, CODECS[name], [SMALL, larger])
    for decoder in ("auto", "pyav"):
        with pytest.raises(FrameSizeError, match="more than 20,000 pixels"):
            read_clip(tmp_path / name, first_and_last, decoder, max_pixels=LIMIT)
    assert len(read_clip(tmp_path / name, first_and_last, max_pixels=100_000)) == 2


def test_large_frames_behind_those_that_are_used_are_not_looked_at(tmp_path):
    write_growing_video(tmp_path / "a.webm", "libvpx", [SMALL, (256, 320)])
    frames = read_clip(tmp_path / "a.webm", [0, 1], max_pixels=LIMIT)
    assert frames.shape == (2, *SMALL, 3)


@pytest.mark.parametrize("size", [(2160, 3840), (3840, 2160)])
def test_a_frame_of_the_limit_is_read(tmp_path, size):
    write_video(tmp_path / "a.mp4", np.zeros((1, *size, 3), np.uint8))
    assert read_clip(tmp_path / "a.mp4", [0], max_pixels=2160 * 3840).shape == (1, *size, 3)


def test_damaged_files_are_not_called_too_large(tmp_path):
    write_video(tmp_path / "a.mkv", random_frames(20, *SMALL))
    content = bytearray((tmp_path / "a.mkv").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "a.mkv").write_bytes(content)
    with pytest.raises(VideoReadError) as raised:
        read_clip(tmp_path / "a.mkv", [0, 19], max_pixels=LIMIT)
    assert not isinstance(raised.value, FrameSizeError)


def test_frames_that_change_their_size_are_as_large_as_the_first(tmp_path):
    write_growing_video(tmp_path / "a.webm", "libvpx", [SMALL, (128, 192), SMALL])
    frames = read_clip(tmp_path / "a.webm", range(12))
    assert frames.shape == (12, *SMALL, 3)
    expected = np.concatenate([random_frames(4, *size) for size in (SMALL, SMALL, SMALL)])
    assert abs(frames.astype(int) - expected).mean() < 8
    np.testing.assert_array_equal(read_clip(tmp_path / "a.webm", [6, 9]), frames[[6, 9]])
    with pytest.raises(VideoReadError, match="decord: only used for plain .* change their size"):
        read_clip(tmp_path / "a.webm", [0], "decord")


def test_length_is_that_of_the_frames_where_the_header_says_less(tmp_path):
    write_video(tmp_path / "a.mkv", random_frames(40, *SMALL), fps=2)
    content = (tmp_path / "a.mkv").read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # Matroska's duration, in ms
    content = content[:place] + struct.pack(">d", 100) + content[place + 8 :]
    (tmp_path / "a.mkv").write_bytes(content)
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.duration == 100_000
    assert header(tmp_path / "a.mkv")[0] == pytest.approx(19.5)


def test_header_of_too_large_a_frame_names_the_file(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", random_frames(2, *SMALL))
    for way in ("processes", "inline"):
        monkeypatch.setenv("LVT_FF_DECODE", way)
        with pytest.raises(FrameSizeError, match=r"a\.mp4'.* more than 100 pixels"):
            header(tmp_path / "a.mp4", max_pixels=100)


def test_edit_list_that_shows_the_same_for_ever_is_refused(tmp_path):
    film = Studio(tmp_path)("h264.mp4")
    set_edits(film, tmp_path / "twice.mp4", [(0, NUM_FRAMES)] * 2)
    assert len(read_clip(tmp_path / "twice.mp4", range(2 * NUM_FRAMES))) == 2 * NUM_FRAMES
    set_edits(film, tmp_path / "endless.mp4", [(0, NUM_FRAMES)] * 1000)
    with pytest.raises(VideoReadError, match="endless.mp4.* more packets than it has bytes"):
        read_clip(tmp_path / "endless.mp4", [0])
    assert header(tmp_path / "endless.mp4") is None


def test_a_size_that_the_header_alone_tells_is_too_large(tmp_path):
    write_video(tmp_path / "a.webm", random_frames(4, *SMALL), codec="libvpx")
    content = bytearray((tmp_path / "a.webm").read_bytes())
    place = content.index(b"\x9d\x01\x2a") + 3  # VP8's first key frame
    content[place : place + 4] = struct.pack("<2H", 16000, 16000)
    (tmp_path / "a.webm").write_bytes(content)
    with pytest.raises(VideoReadError, match=r"a\.webm"):
        read_clip(tmp_path / "a.webm", [0])
    write_video(tmp_path / "b.mp4", random_frames(2, *SMALL))
    with pytest.raises(FrameSizeError, match="more than 100 pixels"):
        read_clip(tmp_path / "b.mp4", [0], max_pixels=100)
