"""Every way to hand a video to the processor and to the classifier gives the same clip."""

import io
import itertools
import struct
import sys
import threading
from collections import UserList, namedtuple
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest
import torch
from conftest import clips_of, random_frames
from PIL import Image

from lvt_ff import LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.explain.explain import explain_video
from lvt_ff.hf import open_videos
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.errors import FrameSizeError, VideoReadError

FRAMES = random_frames(30, 48, 56)
B_FRAMES = {"bf": "3", "g": "10"}
FILES = {
    "a.mp4": dict(codec="libx264", options=B_FRAMES),
    "a.mkv": dict(codec="libx264", options=B_FRAMES),
    "a.ts": dict(codec="libx264", options=B_FRAMES),
    "a.avi": dict(codec="mpeg4", options={"bf": "2", "g": "12", "qscale": "3"}),
    "a.h264": dict(codec="libx264", options={"bf": "0"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, how in FILES.items():
        write_video(folder / name, FRAMES, **how)
    return folder


def decoded(path):
    """All frames (T, H, W, 3) of a file, by nothing of ours."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class FakeDecoder:
    """torchcodec's VideoDecoder as far as it is used: https://meta-pytorch.org/torchcodec."""

    def __init__(self, source, dimension_order="NCHW", output_dtype=torch.uint8):
        self._frames = torch.from_numpy(decoded(source))
        if dimension_order == "NCHW":
            self._frames = self._frames.permute(0, 3, 1, 2)
        if output_dtype == torch.float32:
            self._frames = self._frames / 255

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, key):
        return self._frames[key]

    def get_frames_at(self, indices):
        if not all(0 <= index < len(self) for index in indices):
            raise IndexError(f"Invalid frame index={indices}")
        batch = namedtuple("FrameBatch", "data pts_seconds duration_seconds")
        times = torch.tensor(indices) / 16
        return batch(self._frames[torch.as_tensor(indices)], times, torch.full_like(times, 1 / 16))


def video_decoder(*args, **options):
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError):
        return FakeDecoder(*args, **options)
    return VideoDecoder(*args, **options)


def of_decord(path):
    decord = pytest.importorskip("decord")
    return decord.VideoReader(str(path), num_threads=1)


def named(file, name):
    file.name = name
    return file


WAYS = {
    "text": str,
    "path": lambda path: path,
    "numpy text": np.str_,
    "bytes": lambda path: path.read_bytes(),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "item with bytes": lambda path: dict(path=None, bytes=path.read_bytes()),
    "item with path": lambda path: dict(path=str(path), bytes=None),
    "item with both": lambda path: dict(path="elsewhere.mp4", bytes=path.read_bytes()),
    "torchcodec": lambda path: video_decoder(str(path)),
    "torchcodec NHWC": lambda path: video_decoder(str(path), dimension_order="NHWC"),
    "torchcodec float": lambda path: video_decoder(str(path), output_dtype=torch.float32),
    "decord": of_decord,
    "PyAV container": lambda path: av.open(str(path)),
    "PyAV of BytesIO": lambda path: av.open(io.BytesIO(path.read_bytes())),
    "PyAV stream": lambda path: av.open(str(path)).streams.video[0],
}


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("way", WAYS)
def test_a_video_gives_the_same_clip_in_every_way(processor, folder, way):
    video = WAYS[way](folder / "a.mp4")
    whole = decoded(folder / "a.mp4")
    for options in (
        {},
        dict(num_frames=7),
        dict(sampling="dense", sampling_stride=3),
        dict(num_frames=30, sampling="dense", sampling_stride=2),
        dict(do_sample_frames=False),
    ):
        expected = clips_of(processor, [str(folder / "a.mp4")], **options)
        # More than once: what was read before is no matter.
        found = clips_of(processor, video, **options)
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
        assert (found - expected).abs().mean() < 0.01
    torch.testing.assert_close(
        clips_of(processor, video, do_sample_frames=False),
        clips_of(processor, whole, do_sample_frames=False),
        atol=0.05,
        rtol=0,
    )


@pytest.mark.filterwarnings("ignore:unclosed file")
def test_lists_may_mix_all_of_them(processor, folder):
    path = folder / "a.mp4"
    videos = [WAYS[way](path) for way in WAYS if way != "decord"]
    frames = random_frames(4, 48, 56, seed=1)
    images = [Image.fromarray(frame) for frame in frames]
    videos = [images, *videos[:5], frames, [videos[5:]], torch.from_numpy(frames)]
    found = clips_of(processor, videos)
    assert len(found) == len(WAYS) - 1 + 3
    of_frames = clips_of(processor, frames)[0]
    expected = clips_of(processor, path)[0]
    for place, clip in enumerate(found):
        wanted = of_frames if place in (0, 6, len(found) - 1) else expected
        torch.testing.assert_close(clip, wanted, atol=0.05, rtol=0)
    column = UserList([str(path), dict(path=str(path), bytes=None)])  # as that of `datasets`
    torch.testing.assert_close(clips_of(processor, column), expected[None].repeat(2, 1, 1, 1, 1))
    inputs = processor(videos[:3], return_metadata=True)
    assert [metadata.total_num_frames for metadata in inputs["video_metadata"]] == [4, 30, 30]
    assert inputs["video_metadata"][1].frames_indices.tolist() == [3, 10, 18, 25]


@pytest.mark.parametrize("name", FILES)
def test_containers_of_pyav_are_rewound_and_read_in_the_order_of_showing(processor, folder, name):
    expected = clips_of(processor, decoded(folder / name), do_sample_frames=False)
    with av.open(str(folder / name)) as container:
        for frame in itertools.islice(container.decode(video=0), 11):
            assert frame.width == 56
        for video in (container, container.streams.video[0], container):
            found = clips_of(processor, video, do_sample_frames=False)
            torch.testing.assert_close(found, expected)


class Pipe:
    """A file that goes only on."""

    def __init__(self, path):
        self.read = path.open("rb").read


@pytest.mark.filterwarnings("ignore:unclosed file")
def test_streams_that_cannot_be_rewound_are_read_from_where_they_are(
    processor, folder, monkeypatch
):
    expected = clips_of(processor, decoded(folder / "a.ts"))
    with av.open(Pipe(folder / "a.ts"), format="mpegts") as container:
        torch.testing.assert_close(clips_of(processor, container), expected)
    monkeypatch.setattr(open_videos, "MAX_CLIP_BYTES", 100_000)
    with (
        av.open(Pipe(folder / "a.ts"), format="mpegts") as container,
        pytest.raises(FrameSizeError, match="write it to a file"),
    ):
        processor(container)


def test_videos_of_pyav_may_show_fewer_frames_than_they_have_packets(processor, tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES, codec="libx264", options=B_FRAMES)
    # As `ffmpeg -ss 0.3 -c copy` cuts: packets from the key frame before.
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as cut:
        old = source.streams.video[0]
        new = cut.add_stream_from_template(old)
        for packet in source.demux(old):
            if packet.dts is not None:
                packet.pts -= int(5 / 16 / old.time_base)
                packet.dts -= int(5 / 16 / old.time_base)
                packet.stream = new
                cut.mux(packet)
    shown = decoded(tmp_path / "b.mp4")
    assert len(shown) == 25
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 30
        for options in ({}, dict(do_sample_frames=False)):
            expected = clips_of(processor, shown, **options)
            torch.testing.assert_close(clips_of(processor, container, **options), expected)


def test_turned_videos_of_pyav_are_upright(processor, folder, tmp_path):
    content = (folder / "a.mp4").read_bytes()
    place = content.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # to the right
    (tmp_path / "turned.mp4").write_bytes(content[:place] + matrix + content[place + 36 :])
    whole = np.rot90(decoded(folder / "a.mp4"), -1, axes=(1, 2))
    expected = clips_of(processor, whole.copy(), do_sample_frames=False)
    with av.open(str(tmp_path / "turned.mp4")) as container:
        found = clips_of(processor, container, do_sample_frames=False)
    torch.testing.assert_close(found, expected)


def test_decords_bridge_to_torch_is_no_matter(processor, folder):
    decord = pytest.importorskip("decord")
    expected = clips_of(processor, folder / "a.mp4")
    with decord.bridge.use_torch():
        found = clips_of(processor, of_decord(folder / "a.mp4"))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_what_others_raise_is_one_error(processor, folder, tmp_path):
    decoder = FakeDecoder(folder / "a.mp4")
    decoder.get_frames_at = lambda indices: 1 / 0
    with pytest.raises(VideoReadError, match="torchcodec's VideoDecoder: ZeroDivisionError"):
        processor(decoder)
    container = av.open(str(folder / "a.mp4"))
    container.close()
    with pytest.raises(VideoReadError, match="from PyAV's"):
        processor(container)
    with av.open(str(tmp_path / "a.wav"), "w") as sound:
        stream = sound.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        sound.mux(stream.encode(frame))
        with pytest.raises(TypeError, match="got OutputContainer"):
            processor(sound)
    with (
        av.open(str(tmp_path / "a.wav")) as sound,
        pytest.raises(VideoReadError, match="a.wav': it has no video stream"),
    ):
        processor(sound)
    with pytest.raises(VideoReadError, match="a video of 7 bytes"):
        processor(b"nothing")
    with pytest.raises(VideoReadError, match="elsewhere.mp4"):
        processor(dict(path="elsewhere.mp4", bytes=b"nothing"))
    for video in (dict(path=None, bytes=None), dict(array=FRAMES), {}):
        with pytest.raises(TypeError, match="path or bytes that are not None"):
            processor(video)
    with pytest.raises(TypeError, match="must be a path, .* got float"):
        processor([FRAMES, 0.5])
    with pytest.raises(ValueError, match="no video in an empty list"):
        processor([])
    with pytest.raises(ValueError, match=r"got an array of shape \(3,\)"):
        processor(np.zeros(3))
    # An option that does not fit is no matter of the video.
    with av.open(str(folder / "a.mp4")) as container:
        for video in (FakeDecoder(folder / "a.mp4"), container, folder / "a.mp4"):
            with pytest.raises(ValueError, match="stride >= 1"):
                processor(video, sampling="dense", sampling_stride=0)


ALPHA = np.concatenate([FRAMES, np.full((30, 48, 56, 1), 128, np.uint8)], -1)


def images(frames, *modes):
    made = [Image.fromarray(frame) for frame in frames]
    return [image.convert(mode) for image, mode in zip(made, itertools.cycle(modes))]


def on_white(frames):
    return np.stack([255 - (255 - frame[..., :3].astype(float)) * 128 / 255 for frame in frames])


GREY = np.stack([np.asarray(image) for image in images(FRAMES[:4], "L")])
GREY_RGB = GREY[..., None].repeat(3, -1)


@pytest.mark.parametrize(
    "video, expected",
    [
        (GREY, GREY_RGB),
        (images(GREY, "L", "RGB", "RGBA", "LA"), GREY_RGB),
        (images(GREY, "LA"), GREY_RGB),
        (images(GREY, "1"), np.where(np.asarray(images(GREY, "1")), 255, 0)[..., None] + [0] * 3),
        ([Image.fromarray(frame.astype(np.uint16) * 257) for frame in GREY], GREY_RGB),
        (images(FRAMES[:4], "RGB", "RGBA", "CMYK"), FRAMES[:4]),
        (ALPHA[:4], on_white(ALPHA[:4])),
        (list(ALPHA[:4]), on_white(ALPHA[:4])),
        (ALPHA[:4].transpose(0, 3, 1, 2), on_white(ALPHA[:4])),
        (images(ALPHA[:4], "RGBA"), on_white(ALPHA[:4])),
        (images(ALPHA[:4], "RGBA", "RGBa"), on_white(ALPHA[:4])),
        ([Image.fromarray(FRAMES[0]), *FRAMES[1:4]], FRAMES[:4]),
    ],
    ids=[
        *("grey", "grey of all modes", "grey with alpha", "black and white", "16 bits"),
        *("colours of all modes", "RGBA", "RGBA in a list", "RGBA channels first", "RGBA PIL"),
        *("alpha of all modes", "PIL and arrays"),
    ],
)
def test_pictures_of_any_mode(processor, video, expected):
    wanted = clips_of(processor, torch.from_numpy(np.asarray(expected).astype(np.uint8)))
    torch.testing.assert_close(clips_of(processor, video), wanted, atol=0.02, rtol=0)
    both = clips_of(processor, [video, FRAMES[:4]])
    torch.testing.assert_close(both[:1], wanted, atol=0.02, rtol=0)
    torch.testing.assert_close(both[1:], clips_of(processor, FRAMES[:4]))


@pytest.fixture
def address(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

        def log_message(self, *args):
            pass

    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:SECRET@127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(hf_model, tmp_path):
    size = dict(height=64, width=64)
    processor = LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size)
    for saved in (hf_model, processor):
        saved.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def on_stdin(monkeypatch, path):
    stdin = namedtuple("stdin", "buffer")
    monkeypatch.setattr(sys, "stdin", stdin(io.BytesIO(path.read_bytes())))


def test_addresses_are_read_by_the_processor(processor, folder, address):
    start, asked = address
    torch.testing.assert_close(
        clips_of(processor, [f"{start}/a.mp4?token=SECRET", folder / "a.mp4"])[:1],
        clips_of(processor, folder / "a.mp4"),
    )
    assert asked == ["/a.mp4?token=SECRET"]
    with pytest.raises(VideoReadError, match="http://127.*/b.mp4.*404") as failure:
        processor(f"{start}/b.mp4?token=SECRET")
    assert "SECRET" not in str(failure.value)
    frames, metadata = processor.fetch_videos(f"{start}/a.mp4")
    assert frames.shape == FRAMES.shape and metadata.total_num_frames == 30


def test_predict_reads_addresses_and_standard_input(model, folder, address, monkeypatch, capsys):
    start, asked = address
    capsys.readouterr()
    assert main(["predict", str(folder / "a.mp4"), "--model", model]) == 0
    expected = capsys.readouterr().out.splitlines()
    on_stdin(monkeypatch, folder / "a.mp4")
    assert main(["predict", f"{start}/a.mp4?token=SECRET", "-", "--model", model]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[1:4] == found[5:] == expected[1:]
    assert found[0].endswith("/a.mp4?…") and "SECRET" not in found[0]
    assert found[4] == "standard input"
    assert main(["predict", f"{start}/b.mp4?token=SECRET", "--model", model]) == 1
    shown = "".join(capsys.readouterr())
    assert "404 Not Found" in shown and "SECRET" not in shown
    assert asked == ["/a.mp4?token=SECRET", "/b.mp4?token=SECRET"]


def test_explain_reads_addresses_and_standard_input(model, folder, address, monkeypatch, tmp_path):
    start, asked = address
    for video in ("-", f"{start}/a.mp4"):
        on_stdin(monkeypatch, folder / "a.mp4")
        picture = tmp_path / "a.png"
        assert main(["explain", video, "--model", model, "--output", str(picture)]) == 0
        assert picture.stat().st_size > 1000
        picture.unlink()
    assert asked == ["/a.mp4"]


def test_the_classifier_reads_each_source_once(model, folder, address):
    start, asked = address
    classify = Classifier(model, "cpu")
    expected = classify.read(folder / "a.mp4")
    content = (folder / "a.mp4").read_bytes()
    for video in (f"{start}/a.mp4", content, io.BytesIO(content)):
        torch.testing.assert_close(classify.read(video), expected)
        assert classify(video) == classify(folder / "a.mp4")
        assert explain_video(classify, video).predictions == classify(video)
    before = len(asked)
    torch.testing.assert_close(
        classify.scores_over_time(f"{start}/a.mp4", 3),
        classify.scores_over_time(folder / "a.mp4", 3),
    )
    assert len(asked) == before + 1
