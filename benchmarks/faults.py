"""A run of which a tenth of the videos cannot be read, and its memory: python benchmarks/faults.py

Each of six faults has as many videos: cut off, empty, text, an unknown codec, a decoder that does
not come back, and removed while the run is on. The run must end, name each of them once, and take
no more memory at its end than at its beginning. Status 1 if it does not.
"""

import argparse
import csv
import json
import math
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from lvt_ff.data import load_video_list
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training.finetune import finetune
from lvt_ff.training.loop import TrainingLoop
from lvt_ff.utils.environment import environment
from lvt_ff.video import decoder_process, pool

FAULTS = ("cut", "empty", "text", "codec", "hangs", "removed")
BATCH = 4
MOST_MB = 50
SETTLED = 200  # clips, after which memory is to stay as it is
EVERY = 100  # clips from one look at the memory to the next
PATIENCE_S = 1.0  # with files named hangs, where a user's own run waits for a minute
# In decoder processes; all backends, so that none takes over.
SABOTAGE = """
import time
from lvt_ff.video import decoders


def hanging(decode):
    def hang(path, *rest):
        if "hangs" in path:
            time.sleep(3600)
        return decode(path, *rest)

    return hang


for name, backend in decoders.DECODERS.items():
    decoders.DECODERS[name] = backend._replace(decode=hanging(backend.decode))
"""


def write_videos(folder: Path, num_videos: int) -> None:
    """Two classes of short videos; a tenth has faults, but for those that are removed later."""
    rng = np.random.default_rng(0)
    names = [f"{fault}{n}" for n in range(num_videos // 60) for fault in FAULTS[:-1]]
    names += [f"sound{n}" for n in range(num_videos - len(names))]
    for number, name in enumerate(names):
        # Of a file that ends with its table of contents nothing can be read; of this one, most.
        suffix = ".mkv" if name.startswith("cut") and number // len(FAULTS) % 2 else ".mp4"
        path = folder / ("left", "right")[number % 2] / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (16, 6, 8, 3), dtype=np.uint8)
        write_video(path, coarse.repeat(16, axis=1).repeat(16, axis=2), options={"g": "4"})
        damage(path, name.rstrip("0123456789"))


def damage(path: Path, fault: str) -> None:
    """Do to a sound file what its fault says."""
    content = path.read_bytes()
    if fault == "cut":
        path.write_bytes(content[: 3 * len(content) // 4])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "text":
        path.write_bytes(b"This is no video.\n" * 99)
    elif fault == "codec":
        path.write_bytes(content.replace(b"avc1", b"zzz1"))


def let_decoders_hang(folder: Path) -> None:
    """Decoders started from now on do not come back from files named hangs."""
    (folder / "sabotage.py").write_text(SABOTAGE, encoding="utf-8")
    sys.path.append(str(folder))
    decoder_process._CODE += "; import sabotage"
    request = pool.request

    def impatient(message: dict, choose, timeout_s: float, *note) -> dict:
        hangs = "hangs" in Path(message["path"]).name
        return request(message, choose, PATIENCE_S if hangs else timeout_s, *note)

    pool.request = impatient


def memory() -> dict[str, float]:
    """MB of this process, of the largest worker and of the largest decoder, which may be new."""
    own = psutil.Process()
    found = dict(main=_own_mb(own), worker=0.0, decoder=0.0)
    for process in own.children(recursive=True):
        with suppress(psutil.Error):
            decodes = "worker.main()" in " ".join(process.cmdline())
            kind = "decoder" if decodes else "worker"
            found[kind] = max(found[kind], _own_mb(process))
    return found


def _own_mb(process: psutil.Process) -> float:
    """What a process has for itself: pages that a worker has from its parent are not its own."""
    return process.memory_full_info().uss / 1e6


class Watch:
    """Removes videos in a run's first step, and looks at memory all along.

    Args:
        paths: of the run's videos.
        number: of sound ones to remove, among the last of the first epoch.
    """

    def __init__(self, paths: list[str], number: int):
        self.paths, self.number = paths, number
        self.removed: list[str] = []
        self.memory: list[dict] = []

    def begin_step(self, loop: TrainingLoop, step: int) -> None:
        clips = step * BATCH
        if step == 0:
            self._remove(loop)
        if clips >= SETTLED and clips % EVERY == 0:
            self.memory.append(dict(clips=clips, **memory()))

    def _remove(self, loop: TrainingLoop) -> None:
        steps = reversed(range(loop.batches.steps_per_epoch))
        order = np.concatenate([loop.batches.step_indices(step)[1] for step in steps])
        names = [self.paths[index] for index in order if "sound" in Path(self.paths[index]).name]
        self.removed = names[: self.number]
        for name in self.removed:
            os.remove(name)

    def growth(self) -> dict[str, float]:
        """MB by which each kind of process was ever larger than at the first look."""
        first = self.memory[0]
        kinds = [kind for kind in first if kind != "clips"]
        return {kind: max(row[kind] - first[kind] for row in self.memory) for kind in kinds}


def watched(watch: Watch) -> None:
    """Let a watch see each step of the runs to come."""
    step = TrainingLoop._step

    def seen(self: TrainingLoop, number: int, *rest):
        watch.begin_step(self, number)
        return step(self, number, *rest)

    TrainingLoop._step = seen


def expected(watch: Watch) -> tuple[list[str], list[str]]:
    """Names of the videos that cannot be read, and of those that can in part."""
    faults = [path for path in watch.paths if "sound" not in Path(path).name]
    in_part = [path for path in faults if path.endswith(".mkv")]
    return sorted({*faults, *watch.removed} - {*in_part}), sorted(in_part)


def found(folder: Path, results: dict) -> dict[str, tuple[list[str], list[str]]]:
    """The same as the run's table has them, and as its evaluation has."""
    with open(folder / "bad_files.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    in_part = [row["path"] for row in rows if row["reason"].startswith("damaged, used")]
    bad = [row["path"] for row in rows if row["path"] not in in_part]
    last = results["epochs"][-1]
    return dict(
        training=(sorted(bad), sorted(in_part)),
        evaluation=tuple(
            sorted(row["path"] for row in last[f"eval_{name}"]) for name in ("failures", "damaged")
        ),
    )


def measure(folder: Path, num_videos: int, num_clips: int) -> dict:
    """One run, and what it told and took."""
    videos = folder / "videos"
    write_videos(videos, num_videos)
    let_decoders_hang(folder)
    epochs = math.ceil(num_clips / num_videos)
    watch = Watch(list(load_video_list(videos).paths), num_videos // 60)
    watched(watch)
    results = finetune(
        model="test_lvt_ff",
        model_args=dict(depth=1, num_frames=4, img_size=32, head_hidden=16),
        pretrained=False,
        train_data=videos,
        eval_data=videos,
        output_dir=folder / "run",
        max_bad_fraction=0.1,
        epochs=epochs,
        eval_epochs=epochs,
        batch_size=BATCH,
        num_workers=2,
        lr=1e-4,
        cpu=True,
    )
    bad, in_part = expected(watch)
    told = found(folder / "run", results)
    return dict(
        num_videos=num_videos,
        num_clips=epochs * num_videos,
        num_bad=len(bad),
        num_damaged=len(in_part),
        exact={name: lists == (bad, in_part) for name, lists in told.items()},
        num_evaluated=results["epochs"][-1]["eval_num_evaluated"],
        memory_mb=watch.memory,
        growth_mb=watch.growth(),
        environment=environment(cpu=True),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=300, help="a multiple of 60")
    parser.add_argument("--clips", type=int, default=2000, help="300 or more")
    parser.add_argument("--output", type=Path, default=Path("faults.json"))
    options = parser.parse_args()
    if options.videos < 60 or options.videos % 60 or options.clips < SETTLED + EVERY:
        parser.error("--videos must be a multiple of 60, and --clips 300 or more")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.videos, options.clips)
    options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    exact = all(figures["exact"].values())
    grown = {kind: f"{mb:+.1f} MB" for kind, mb in figures["growth_mb"].items()}
    print(
        f"{figures['num_bad']} unreadable and {figures['num_damaged']} damaged of "
        f"{options.videos} videos: counts {'exact' if exact else 'WRONG'}"
    )
    print(f"memory from clip {SETTLED} to {figures['num_clips']}: {grown}")
    return 0 if exact and max(figures["growth_mb"].values()) < MOST_MB else 1


if __name__ == "__main__":
    sys.exit(main())
