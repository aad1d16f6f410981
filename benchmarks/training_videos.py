"""Made-up videos as large as common ones: python benchmarks/training_videos.py FOLDER NUMBER

Folders of four classes with films of 90 frames of 340 × 256 pixels, h264 with a key frame in every
16.
"""

import os
import sys

import numpy as np

from lvt_ff.data.synthetic.writer import write_dataset

_CLASSES = ("right", "down", "left", "up")
_NUM_FRAMES, _HEIGHT, _WIDTH = 90, 256, 340


def draw_waves(label: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of waves that move in the direction of a class."""
    angle = 0.5 * np.pi * (label + rng.uniform(-0.3, 0.3))
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / rng.uniform(8, 24)
    times = np.arange(_NUM_FRAMES, dtype=np.float32)[:, None, None, None] / 4
    colours = rng.uniform(0, 6, 3).astype(np.float32)
    waves = np.sin(along[None, :, :, None].astype(np.float32) - times + colours)
    return (127 + 100 * waves).astype(np.uint8)


def main() -> None:
    folder, number = sys.argv[1], int(sys.argv[2])
    write_dataset(folder, number, 0, os.cpu_count() or 1, _CLASSES, draw_waves)


if __name__ == "__main__":
    main()
