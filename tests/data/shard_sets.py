"""Small labelled videos for the tests of shards."""

import os
from collections.abc import Callable
from pathlib import Path

from conftest import random_frames

from lvt_ff.data.synthetic import write_video

CLASSES = ("jump", "sit")


def write_folder(folder: Path, num_clips: int = 10, num_frames: int = 8) -> None:
    """`num_clips` videos in two class folders, and one that is no video."""
    for index in range(num_clips):
        file = folder / CLASSES[index % 2] / f"{index:02d}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(num_frames, 32, 48, seed=index), fps=8)
    (folder / CLASSES[1] / "broken.mp4").write_bytes(b"no video")


def content(folder: Path) -> dict[str, bytes]:
    """What a folder of shards holds, without what tells of the machine and the time."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "prepare.json"
    }


def in_a_fork(work: Callable[[], None]) -> int:
    """Do something in a process of its own; its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)  # not reached where the work ends the process
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
