"""Reads files as `lvt-ff predict` does, for the fuzzer: `python reading.py MODULE:FUNCTION`.

It says "ready". A request is a line of JSON, {"path": ..., "way": ...}, and so is its answer,
{"outcome": ..., "told": ...}: "read", "refused" in words, or "wrong", which no reader may be.
"""

import importlib
import json
import os
import sys
import traceback

import numpy as np

from lvt_ff.data import VideoReadError, header, sample_indices
from lvt_ff.video.reader import read_frames

__all__ = ["NUM_FRAMES", "TIMEOUT_S", "read"]

NUM_FRAMES = 16
TIMEOUT_S = 20.0


def read(path: str, way: str) -> tuple[str, str]:
    """Outcome of reading a file, and what is to be said about it.

    Args:
        path: of the file.
        way: a backend's name, "auto" or "header".
    """
    try:
        if way == "header":
            return judge_header(header(path))
        clip = read_frames(path, lambda total: sample_indices(total, NUM_FRAMES), way, TIMEOUT_S)
    except VideoReadError as error:
        told = f"{type(error).__name__}: {error}"
        named = os.path.basename(path) in told
        return ("refused", told) if named else ("wrong", f"its name is not in {told}")
    return judge_frames(clip.frames, f"{clip.decoder}{', damaged' if clip.damage else ''}")


def judge_header(found: tuple[float, int] | None) -> tuple[str, str]:
    """Whether a length and a size are possible."""
    if found is None:
        return "refused", "header: nothing"
    seconds, pixels = found
    possible = 0 <= seconds < 1e15 and 0 < pixels < 2**26
    return ("read" if possible else "wrong"), f"header{'' if possible else f': {found}'}"


def judge_frames(frames: np.ndarray, told: str) -> tuple[str, str]:
    """Whether a clip is what was asked for."""
    good = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4
    good = good and frames.shape[0] == NUM_FRAMES and frames.shape[3] == 3 and frames.size > 0
    if not good:
        return "wrong", f"{told}: {getattr(frames, 'dtype', '')} {getattr(frames, 'shape', '')}"
    frames[:, :: max(frames.shape[1] // 8, 1)].sum()  # memory that is not there would end us
    return "read", told


def main() -> None:
    """Answer until the input ends."""
    module, _, function = sys.argv[1].partition(":")
    reader = getattr(importlib.import_module(module), function)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            outcome, told = reader(request["path"], request["way"])
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}"
            outcome, told = "wrong", f"{type(error).__name__}: {error} ({where})"
        print(json.dumps({"outcome": outcome, "told": told}), file=answers, flush=True)


if __name__ == "__main__":
    main()
