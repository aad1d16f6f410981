"""Videos written anew: the frames, their times and their shape stay."""

import os
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from conftest import random_frames

from lvt_ff.data.synthetic import write_video
from lvt_ff.utils.errors import FrameSizeError, VideoReadError
from lvt_ff.video import pool
from lvt_ff.video.reader import read_clip
from lvt_ff.video.reencode import EncodeSettings, reencode

SETTINGS = EncodeSettings(short_side=64, keyframes=6, crf=8)


def opened(path) -> tuple[np.ndarray, list[Fraction], list[str]]:
    """Frames, their times and the kinds of streams, by PyAV alone."""
    with av.open(str(path)) as container:
        kinds = [stream.type for stream in container.streams]
        frames = list(container.decode(video=0))
    pixels = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return pixels, [frame.pts * frame.time_base for frame in frames], kinds


def test_frames_stay_in_number_order_and_content(tmp_path):
    frames = random_frames(20, 96, 128)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    done = reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS)
    assert (done.frames, done.seconds, done.damage) == (20, pytest.approx(2), "")
    pixels, times, _ = opened(tmp_path / "b.mp4")
    assert times == [Fraction(number, 10) for number in range(20)]
    clip = torch.from_numpy(read_clip(tmp_path / "a.mp4", range(20))).permute(0, 3, 1, 2).float()
    smaller = torch.nn.functional.interpolate(clip, (64, 86), mode="bicubic", antialias=True)
    smaller = smaller.permute(0, 2, 3, 1).numpy()
    apart = np.array([[np.abs(one - other).mean() for other in smaller] for one in pixels])
    assert apart.argmin(axis=1).tolist() == list(range(20)) and np.diag(apart).mean() < 5


def test_times_of_a_variable_frame_rate_stay(tmp_path):
    times_ms = [0, 40, 80, 200, 1000, 1033, 1066, 2500]
    write_video(tmp_path / "a.mkv", random_frames(8, 64, 64), times_ms=times_ms)
    reencode(tmp_path / "a.mkv", tmp_path / "b.mp4", SETTINGS)
    _, times, _ = opened(tmp_path / "b.mp4")
    assert [float(time) for time in times] == pytest.approx([t / 1000 for t in times_ms], abs=1e-4)


def test_the_same_video_gives_the_same_bytes(tmp_path):
    """Also one whose frames do not come evenly, and in another process."""
    write_video(
        tmp_path / "a.mkv", random_frames(8, 64, 64), times_ms=[0, 9, 80, 200, 210, 219, 500, 501]
    )
    written = []
    for number in range(3):
        reencode(tmp_path / "a.mkv", tmp_path / f"{number}.mp4", SETTINGS)
        written.append((tmp_path / f"{number}.mp4").read_bytes())
        if number == 1:
            pool.restart()
    assert written[0] == written[1] == written[2]


def test_turned_videos_with_sound_become_upright_and_silent(tmp_path):
    file = tmp_path / "a.mp4"
    with av.open(str(file), "w") as container:
        video, sound = container.add_stream("libx264", rate=10), container.add_stream("aac")
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        for pixels in random_frames(6, 64, 96):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.rate = 48_000
        for _ in range(20):
            container.mux(sound.encode(silence))
        container.mux([*video.encode(None), *sound.encode(None)])
    turned = file.read_bytes()
    place = turned.index(b"tkhd") + 4 + 40  # its matrix: a quarter of a turn
    matrix = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 65536, 0, -65536, 0, 0))
    file.write_bytes(turned[:place] + matrix + turned[place + len(matrix) :])
    assert opened(file)[2] == ["video", "audio"]
    shown = read_clip(file, range(6))
    assert shown.shape[1:3] == (96, 64)
    reencode(file, tmp_path / "b.mp4", SETTINGS)
    pixels, _, kinds = opened(tmp_path / "b.mp4")
    assert kinds == ["video"] and pixels.shape == shown.shape
    assert np.abs(pixels.astype(int) - shown).mean() < 3


@pytest.mark.parametrize(
    "content, told", [(b"no video", "Invalid data"), (b"", "empty"), (None, "does not exist")]
)
def test_what_is_no_video_is_told(tmp_path, content, told):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoReadError, match=told):
        reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS)


def test_a_span_without_frames_and_frames_that_are_too_large_are_told(tmp_path):
    write_video(tmp_path / "a.mp4", random_frames(10, 64, 64), fps=10)
    with pytest.raises(VideoReadError, match="no frame is shown from 5 s"):
        reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS, span=(5, None))
    with pytest.raises(FrameSizeError):
        reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS, max_pixels=100)


def test_a_decoder_that_dies_costs_its_video_only(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", random_frames(10, 64, 64), fps=10)
    real = pool.request

    def killing(message, *how):
        process = pool._pool._take()
        pool._pool._give_back(process)
        monkeypatch.setattr(process, "_send", lambda request: os.kill(process._process.pid, 9))
        return real(message, *how)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "request", killing)
        with pytest.raises(VideoReadError, match=f"signal {int(signal.SIGKILL)}"):
            reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS)
    assert reencode(tmp_path / "a.mp4", tmp_path / "b.mp4", SETTINGS).frames == 10
