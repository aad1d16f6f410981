"""Fixtures that all tests may use: a local Hub, clips, small models, processes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hub_server import HubServer

# Before the hub is imported, by accelerate too, which reads these once: no test reaches another
# machine, or the user's own cache.
HUB = HubServer()
CACHE = tempfile.TemporaryDirectory()
os.environ.update(
    HF_ENDPOINT=HUB.address,
    HF_HOME=CACHE.name,
    HF_HUB_CACHE=str(Path(CACHE.name, "hub")),
    HF_HUB_OFFLINE="0",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_XET="1",
)

from accelerate.state import AcceleratorState  # noqa: E402

import lvt_ff  # noqa: E402
from lvt_ff.data.synthetic.writer import write_video  # noqa: E402
from lvt_ff.video import reader  # noqa: E402

# Here and in the processes that tests start: sums differ in the last digit with the number.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
torch.set_num_threads(THREADS)
os.environ["OMP_NUM_THREADS"] = str(THREADS)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """A folder of real clips, which is not part of the project: their licences differ."""
    folder = Path(os.environ.get("LVT_FF_VIDEOS", Path(__file__).parents[2] / "shared/videos"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder} (set LVT_FF_VIDEOS)")
    return folder


@pytest.fixture
def hub():
    """The Hub that downloads come from; its cache is empty before and after."""
    HUB.empty()
    yield HUB
    HUB.empty_cache()


@pytest.fixture
def inline(monkeypatch):
    """Videos are decoded in this process."""
    monkeypatch.setenv("LVT_FF_DECODE", "inline")


@pytest.fixture
def without_decord(inline, monkeypatch):
    """As if decord were not installed."""
    monkeypatch.setitem(sys.modules, "decord", None)
    absent = dict(reader._absent)
    yield
    reader._absent.clear()
    reader._absent.update(absent)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate keeps device and precision of the first run of a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory) -> Path:
    """A folder of ten small videos of two classes."""
    root = tmp_path_factory.mktemp("two_classes")
    write_two_classes(root, num_videos=10, num_frames=6)
    return root


@pytest.fixture
def clip() -> torch.Tensor:
    """Two normalised clips for `test_lvt_ff`, (2, 4, 3, 64, 64)."""
    return torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hf_model() -> lvt_ff.LVTFFForVideoClassification:
    """A small classifier of three named classes, with embeddings that are not zero."""
    torch.manual_seed(0)
    names = {0: "push", 1: "pull", 2: "lift"}
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", id2label=names)
    model = lvt_ff.LVTFFForVideoClassification(config).eval()
    torch.nn.init.normal_(model.model.temp_embed, std=0.1)
    return model


@pytest.fixture
def processor() -> lvt_ff.LVTFFVideoProcessor:
    """A processor of four small frames."""
    size = dict(height=32, width=32)
    return lvt_ff.LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size)


def clips_of(processor: lvt_ff.LVTFFVideoProcessor, videos: Any, **options: Any) -> torch.Tensor:
    """What a processor makes of videos, (B, T, C, H, W)."""
    return processor(videos, return_tensors="pt", **options)["pixel_values_videos"]


def random_frames(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random frames (T, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (num_frames, 3, 6, 8)))
    frames = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return frames.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def write_two_classes(root: Path, num_videos: int, num_frames: int) -> None:
    """Small videos in two class folders, of which one is brighter."""
    for number in range(num_videos):
        label = root / f"class {number % 2}"
        label.mkdir(exist_ok=True)
        frames = random_frames(num_frames, 32, 48, seed=number) // 2 + 100 * (number % 2)
        write_video(label / f"{number}.mp4", frames)


def write_growing_video(
    path: Path, codec: str, sizes: list[tuple[int, int]], num_frames: int = 4
) -> None:
    """A video whose frames (height, width) grow behind a header that tells only of the first."""
    in_band = {
        "libx264": {"x264-params": "repeat-headers=1:bframes=0"},
        "libx265": {"x265-params": "repeat-headers=1:bframes=0:log-level=none"},
    }
    packets = []
    for height, width in sizes:
        encoder = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 10), 10
        encoder.thread_count, encoder.options = 1, in_band.get(codec, {})
        frames = random_frames(num_frames, height, width)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=in_band.get(codec, {}))
        (stream.height, stream.width), stream.pix_fmt = sizes[0], "yuv420p"
        for index, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = index
            container.mux(packet)


def torchrun(num_processes: int, *script: str) -> subprocess.CompletedProcess:
    """Run a script, or a module after -m, with its arguments on several processes of the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
    command += [str(num_processes), "--master_port", str(29500 + os.getpid() % 1000), *script]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def launch(
    num_processes: int, command: str, options: dict[str, Any]
) -> subprocess.CompletedProcess:
    """Run one of our commands on several processes, with its function's options as flags."""
    flags = [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in options.items()
    ]
    return torchrun(num_processes, "-m", "lvt_ff", command, *flags)


def checkpointing(model: torch.nn.Module, what: str) -> Callable[..., None]:
    """transformers' method to "enable" or "disable" it; versions before 5.2x have the old name."""
    new = getattr(model, f"activation_checkpointing_{what}", None)
    return new or getattr(model, f"gradient_checkpointing_{what}")
