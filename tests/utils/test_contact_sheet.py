"""Contact sheets show every clip, and frames evenly from the first to the last."""

import numpy as np
from PIL import Image

from lvt_ff.utils.contact_sheet import contact_sheet


def drawn(tmp_path, columns, num_clips=2, num_frames=7, titles=None):
    """Which of the frames, each of a colour of its own, the picture shows."""
    colors = np.random.default_rng(0).integers(0, 250, (num_clips, num_frames, 3), np.uint8)
    clips = [np.tile(frames[:, None, None], (1, 20, 30, 1)) for frames in colors]
    contact_sheet(tmp_path / "a.png", clips, titles or ["a"] * num_clips, "heading", columns)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    found = {tuple(color) for color in np.unique(pixels, axis=0).tolist()}
    return [[tuple(color.tolist()) in found for color in frames] for frames in colors]


def test_frames_are_spread_evenly(tmp_path):
    assert drawn(tmp_path, 3) == [[number in (0, 3, 6) for number in range(7)]] * 2
    assert drawn(tmp_path, 1) == [[number == 0 for number in range(7)]] * 2
    assert drawn(tmp_path, 9) == [[True] * 7] * 2


def test_odd_titles_are_drawn_as_they_are(tmp_path):
    assert all(drawn(tmp_path, 7, 1, titles=["$x_{$ 100 %"])[0])
