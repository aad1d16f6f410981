"""Frames by number from every container and backend, and files that cannot be read."""

import gc

import numpy as np
import psutil
import pytest
from films import MPEG4, NUM_FRAMES, encode, number_of, numbered_frame

from lvt_ff.data import DamagedVideoWarning, VideoReadError, read_clip
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.video import decord_decoder
from lvt_ff.video.clip_buffer import ClipBuffer
from lvt_ff.video.decoders import DECODERS
from lvt_ff.video.probe import probe

B_FRAMES = {"bf": "3", "g": "20"}
VARIABLE = np.cumsum(np.random.default_rng(0).integers(20, 90, NUM_FRAMES)).tolist()
CONTAINERS = {
    "h264_b_frames.mp4": dict(codec="libx264", options=B_FRAMES),
    "h264_long_gop.mp4": dict(codec="libx264", options={"bf": "2", "g": "250"}),
    "h264_open_gop.mp4": dict(
        codec="libx264", options={"x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3"}
    ),
    "hevc_open_gop.mp4": dict(
        codec="libx265",
        options={"x265-params": "log-level=none:open-gop=1:keyint=6:min-keyint=6:bframes=3"},
    ),
    "h264.mkv": dict(codec="libx264", options=B_FRAMES),
    "h264.mov": dict(codec="libx264", options=B_FRAMES),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": dict(codec="mpeg4", options={"g": "12", "qscale": "3"}),
    "mpeg4_b_frames.avi": dict(codec="mpeg4", options={"bf": "2", "g": "12", "qscale": "3"}),
    "h264.avi": dict(codec="libx264", options=B_FRAMES),
    "mpeg2.mpg": dict(codec="mpeg2video", options={"bf": "2", "g": "12"}),
    "h264.ts": dict(codec="libx264", options=B_FRAMES),
    "variable_rate.mp4": dict(codec="libx264", options=B_FRAMES, times_ms=VARIABLE),
    "variable_rate.mkv": dict(codec="libx264", options=B_FRAMES, times_ms=VARIABLE),
}
ORDERS = (
    list(range(NUM_FRAMES)),
    list(range(NUM_FRAMES))[::-7],
    [41, 3, 3, 59, 17, 0, 41],
    [NUM_FRAMES - 1],
)


def usable(name):
    try:
        __import__(dict(pyav="av").get(name, name))
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{name} cannot be loaded: {str(error).splitlines()[0]}")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    frames = np.stack([numbered_frame(number) for number in range(NUM_FRAMES)])
    for name, how in CONTAINERS.items():
        write_video(folder / name, frames, fps=25, **how)
    return folder


@pytest.mark.parametrize("backend", ["auto", *DECODERS])
@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_are_those_asked_for(numbered, container, backend):
    path = str(numbered / container)
    if backend != "auto":
        usable(backend)
        if DECODERS[backend].refuses(probe(path)):
            with pytest.raises(VideoReadError, match="only used for plain videos"):
                read_clip(path, [0], decoder=backend)
            return
    for order in ORDERS:
        frames = read_clip(path, order, decoder=backend)
        assert frames.shape == (len(order), 64, 96, 3) and frames.dtype == np.uint8
        assert [number_of(frame) for frame in frames] == order


def test_decord_is_refused_where_it_returns_other_frames(numbered):
    usable("decord")
    wrong = set()
    for container in CONTAINERS:
        path = str(numbered / container)
        for order in ORDERS[1:]:
            clip = ClipBuffer(lambda total, order=order: order)
            decord_decoder.decode(path, probe(path), clip, 1)
            if [number_of(frame) for frame in clip.frames] != order:
                wrong.add(container)
    refused = {c for c in CONTAINERS if decord_decoder.refuses(probe(str(numbered / c)))}
    assert wrong and wrong <= refused


def test_indices_may_be_chosen_by_the_total(numbered):
    totals = []

    def middle(total):
        totals.append(total)
        return [total // 2]

    for backend in ("decord", "pyav"):
        usable(backend)
        frames = read_clip(numbered / "h264.mkv", middle, decoder=backend)
        assert number_of(frames[0]) == NUM_FRAMES // 2
    assert set(totals) == {NUM_FRAMES}


def test_errors_of_the_chooser_are_the_callers(numbered):
    def choose(total):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read_clip(numbered / "h264.mkv", choose)


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_frames_beyond_the_end_are_an_error(numbered, backend):
    if backend != "auto":
        usable(backend)
    with pytest.raises(VideoReadError, match="h264_b_frames.mp4"):
        read_clip(numbered / "h264_b_frames.mp4", [0, NUM_FRAMES], decoder=backend)


def test_unreadable_files_are_named_with_reasons(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video " * 50)
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "absent.mp4": "does not exist",
        "empty.mp4": "is empty",
        "folder.mp4": "not a file",
        "text.mp4": "Tried .*pyav.*: .*Invalid data",
    }
    for name, message in cases.items():
        with pytest.raises(VideoReadError, match=f"{name}.*{message}"):
            read_clip(tmp_path / name, [0])


def test_path_is_printed_plainly(tmp_path):
    with pytest.raises(VideoReadError, match="Cannot read video '"):
        read_clip(np.str_(tmp_path / "absent.mp4"), [0])


def test_truncated_file_is_an_error(numbered, tmp_path):
    data = (numbered / "h264_b_frames.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoReadError, match="cut.mp4"):
        read_clip(tmp_path / "cut.mp4", range(NUM_FRAMES))


def test_audio_alone_is_an_error(tmp_path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoReadError, match="sound.mp4.*no video stream"):
        read_clip(path, [0])


def test_unknown_codec_is_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, np.stack([numbered_frame(3)]), fps=25, codec="libx264")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"))
    with pytest.raises(VideoReadError, match="a.mp4.* coded in a way that FFmpeg cannot decode"):
        read_clip(path, [0])


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_sound_that_begins_late_changes_nothing(tmp_path, backend):
    path = tmp_path / "a.flv"
    frames = [numbered_frame(number) for number in range(100)]
    encode(path, frames, "flv", MPEG4, fps=1)  # FFmpeg looks for streams for 90 s
    sound = bytes([8, 0, 0, 41]) + (99_000).to_bytes(3, "big") + bytes(4) + b"\x2f" + bytes(40)
    path.write_bytes(path.read_bytes() + sound + len(sound).to_bytes(4, "big"))
    frames = read_clip(path, [0, 50, 99], backend)
    assert [number_of(frame) for frame in frames] == [0, 50, 99]


def test_unknown_decoder_lists_the_known():
    with pytest.raises(ValueError, match="auto.*torchcodec.*pyav.*decord.*got 'opencv'"):
        read_clip("x.mp4", [0], decoder="opencv")


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_memory_does_not_grow_over_500_clips(numbered, backend):
    usable(backend)
    gc.collect()
    process = psutil.Process()

    def read(times):
        for _ in range(times):
            read_clip(numbered / "h264_b_frames.mp4", [3, 30, 59], decoder=backend)
        return process.memory_info().rss

    before = read(20)
    threads, files = process.num_threads(), process.num_fds()
    growth = read(500) - before
    assert growth < 50 * 2**20
    assert process.num_threads() <= threads + 1 and process.num_fds() <= files


REAL = {
    "kinetics_arm_wrestling.mp4": (280, 256, 427),
    "kinetics_b.mp4": (300, 256, 455),
    "short_clip.mp4": (32, 256, 455),
    "ucf_like.avi": (164, 240, 320),
    "flipping_a_pancake.mkv": (310, 240, 426),
    "nasa_with_audio.mp4": (390, 270, 480),
    "h265.mp4": (10, 128, 128),
    "h264_10bit.mp4": (30, 200, 200),
    "av1.mkv": (125, 360, 640),
    "rotated_0.mov": (3, 320, 568),
    "rotated_90.mov": (3, 568, 320),
    "rotated_180.mov": (3, 320, 568),
    "unordered.mov": (4, 50, 50),
}


@pytest.mark.parametrize("name", REAL)
def test_real_clips(real_videos, name):
    total, height, width = REAL[name]
    seen = []
    path = real_videos / name
    for backend in ("auto", "pyav"):
        frames = read_clip(path, lambda n: seen.append(n) or [0, n // 2, n - 1], decoder=backend)
        assert frames.shape == (3, height, width, 3)
        whole = read_clip(path, lambda n: range(n), decoder=backend)
        np.testing.assert_array_equal(frames, whole[[0, total // 2, total - 1]])
    assert set(seen) == {total}


def test_trimmed_video_shows_the_frames_of_its_edit_list(numbered, tmp_path):
    import av

    # As `ffmpeg -ss 1.2 -c copy` cuts: packets from the key frame before, shown from frame 30 on.
    path = tmp_path / "cut.mp4"
    with av.open(str(numbered / "h264_b_frames.mp4")) as source, av.open(str(path), "w") as target:
        old = source.streams.video[0]
        new = target.add_stream_from_template(old)
        per_frame = int(1 / (25 * old.time_base))
        for packet in source.demux(old):
            if packet.dts is None or packet.pts < 20 * per_frame:
                continue
            packet.pts -= 30 * per_frame
            packet.dts -= 30 * per_frame
            packet.stream = new
            target.mux(packet)
    reason = decord_decoder.refuses(probe(str(path)))
    frames = read_clip(path, lambda total: range(total))
    assert [number_of(frame) for frame in frames] == list(range(30, NUM_FRAMES))
    assert "edit list" in reason


def test_decord_reads_the_ordinary_cases(real_videos):
    for name in (
        "flipping_a_pancake.mkv",
        "nasa_with_audio.mp4",
        "rotated_0.mov",
    ):
        assert decord_decoder.refuses(probe(str(real_videos / name))) is None
    assert "open" in decord_decoder.refuses(probe(str(real_videos / "h265.mp4")))


def test_corrupted_clip_gives_what_is_left_or_an_error_that_names_it(real_videos):
    path = real_videos / "corrupted.mp4"
    with pytest.warns(DamagedVideoWarning, match="corrupted.mp4.*2 of 50 frames are lost"):
        assert len(read_clip(path, lambda n: range(n))) == 48
    with pytest.raises(VideoReadError, match="corrupted.mp4.*2 of 50 frames are lost"):
        read_clip(path, [0], on_damage="raise")


PLAYLISTS = {
    "hls.mp4": "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {name}\n",
    "remote.mp4": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_files_that_name_others_are_no_videos(numbered, tmp_path, name):
    (tmp_path / "h264.ts").write_bytes((numbered / "h264.ts").read_bytes())
    (tmp_path / name).write_text(PLAYLISTS[name].format(name="h264.ts"))
    with pytest.raises(VideoReadError, match=f"{name}.*(playlist|Invalid data)"):
        read_clip(tmp_path / name, [0])


def test_whole_files_with_odd_ends_are_not_damaged(numbered, tmp_path):
    piped = bytearray((numbered / "h264.avi").read_bytes())
    piped[4:8] = b"\xff" * 4  # FFmpeg writes so to a pipe
    trailed = (numbered / "h264_b_frames.mp4").read_bytes() + b"\0\0\1\0camera" * 10
    for name, content in (("piped.avi", piped), ("trailed.mp4", trailed)):
        (tmp_path / name).write_bytes(content)
        assert len(read_clip(tmp_path / name, [0, 59], on_damage="raise")) == 2


def test_closed_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(VideoReadError, match="standard input.*closed"):
        read_clip("-", [0])
