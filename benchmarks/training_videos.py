"""Made-up videos as large as common ones: python benchmarks/training_videos.py FOLDER NUMBER

Folders of four classes with films of 340 × 256 pixels, h264 with a key frame in every 16.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np

from lvt_ff.data.synthetic.writer import write_dataset

_CLASSES = ("right", "down", "left", "up")
_HEIGHT, _WIDTH = 256, 340


def draw_waves(label: int, rng: np.random.Generator, num_frames: int, grain: float) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of waves that move in the direction of a class.

    Args:
        label: of the class.
        rng: of the draws.
        num_frames: T.
        grain: standard deviation of noise that goes with each frame.
    """
    angle = 0.5 * np.pi * (label + rng.uniform(-0.3, 0.3))
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / rng.uniform(8, 24)
    times = np.arange(num_frames, dtype=np.float32)[:, None, None, None] / 4
    colours = rng.uniform(0, 6, 3).astype(np.float32)
    waves = np.sin(along[None, :, :, None].astype(np.float32) - times + colours)
    if grain:
        waves += grain / 100 * rng.standard_normal(waves.shape, dtype=np.float32)
    return (127 + 100 * waves).clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int, help="of the videos")
    parser.add_argument("--frames", type=int, default=90, help="of a video")
    parser.add_argument("--grain", type=float, default=0.0, help="noise, in levels of 255")
    args = parser.parse_args()
    draw = partial(draw_waves, num_frames=args.frames, grain=args.grain)
    write_dataset(args.folder, args.number, 0, os.cpu_count() or 1, _CLASSES, draw)


if __name__ == "__main__":
    main()
