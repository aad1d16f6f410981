"""What reading costs: decoder processes and decoding inline, decoders, an hour-long file, memory.

python benchmarks/reading.py
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import psutil

from lvt_ff.data import read_clip, sample_indices
from lvt_ff.data.synthetic.writer import write_video

HOUR_S = 3600


def sixteen(total: int) -> np.ndarray:
    """Frames of a uniformly sampled clip."""
    return sample_indices(total, 16)


def natural(num_frames: int, height: int, width: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of coarse noise that moves, about as hard to code as a film."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    still = coarse.repeat(8, axis=0).repeat(8, axis=1)
    grain = rng.integers(0, 12, still.shape, dtype=np.uint8)
    frames = [
        np.roll(still, 3 * t, axis=1) // 2 + np.roll(grain, 7 * t, axis=0)
        for t in range(num_frames)
    ]
    return np.stack(frames)


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of ways to read, which take turns."""
    times = {name: [] for name in ways}
    for round_number in range(repeats + 3):
        for name, read in ways.items():
            times[name].append(seconds(read))
            if round_number < 3:  # until decoders have started and caches are warm
                times[name].clear()
    return [statistics.median(taken) for taken in times.values()]


def read_in(way: str, path: Path, decoder: str = "auto") -> None:
    """Read one clip, by the value of LVT_FF_DECODE."""
    os.environ["LVT_FF_DECODE"] = way
    read_clip(path, sixteen, decoder=decoder)


def compare_ways(path: Path, repeats: int) -> None:
    """Print how long reading takes in this process and in another."""
    ways = {way: partial(read_in, way, path) for way in ("inline", "processes")}
    inline, processes = medians(ways, repeats)
    print(
        f"{path.name}: inline {1e3 * inline:.1f} ms, in a process {1e3 * processes:.1f} ms, "
        f"{processes / inline:.3f} times as long"
    )


def compare_decoders(folder: Path, repeats: int) -> None:
    """Print how long PyAV takes and how long decord does, of the same film coded in four ways."""
    film = natural(300, 256, 340)
    for options in ({"g": "12"}, {"g": "12", "bf": "0"}, {"g": "250"}, {"g": "250", "bf": "0"}):
        path = folder / "film.mp4"
        write_video(path, film, fps=30, options=options)
        ways = {name: partial(read_in, "inline", path, name) for name in ("pyav", "decord")}
        pyav, decord = medians(ways, repeats)
        told = "none" if "bf" in options else "x264's"
        print(
            f"key frame in every {options['g']}, B frames: {told}: PyAV {1e3 * pyav:.1f} ms, "
            f"decord {1e3 * decord:.1f} ms, {pyav / decord:.2f} times as long"
        )


def write_hour(path: Path, codec: str, options: dict[str, str]) -> None:
    """An hour of 1920×1080 pixels: ten seconds, whose packets are repeated."""
    short = path.with_name(f"short{path.suffix}")
    write_video(short, natural(300, 1080, 1920), fps=30, codec=codec, options=options)
    with av.open(str(path), "w") as target:
        for turn in range(HOUR_S // 10):
            with av.open(str(short)) as source:
                stream = source.streams.video[0]
                if turn == 0:
                    copy = target.add_stream_from_template(stream)
                    step = int(10 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.pts += turn * step
                        packet.dts += turn * step
                        packet.stream = copy
                        target.mux(packet)


def resident(process: psutil.Process) -> int:
    """Bytes of a process and of those below it."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])


def watch_memory(path: Path, num_clips: int) -> None:
    """Print how memory of this process and its decoders grows."""
    os.environ["LVT_FF_DECODE"] = "processes"
    for _ in range(50):
        read_clip(path, sixteen)
    before = resident(psutil.Process())
    for _ in range(num_clips):
        read_clip(path, sixteen)
    growth = resident(psutil.Process()) - before
    print(f"{num_clips} clips: {before / 2**20:.0f} MiB before, {growth / 2**20:+.1f} MiB")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--hour", action="store_true", help="also write and read hour-long files")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("av", "decord"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "320x240.mp4")
        write_video(clip, natural(300, 240, 320), fps=30)
        compare_ways(clip, options.repeats)
        compare_decoders(Path(folder), options.repeats)
        watch_memory(clip, options.clips)
        if not options.hour:
            return
        hours = {
            "h264.mp4": ("libx264", {"preset": "veryfast", "g": "250"}),
            "hevc.mov": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
        }
        for name, (codec, how) in hours.items():
            write_hour(Path(folder, name), codec, how)
            taken = seconds(lambda name=name: read_clip(Path(folder, name), sixteen))
            size = Path(folder, name).stat().st_size / 1e9
            print(f"{name}: 16 frames of an hour of 1920×1080 ({size:.1f} GB) in {taken:.1f} s")


if __name__ == "__main__":
    main()
