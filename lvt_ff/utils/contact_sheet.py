"""A picture of clips: one below the other, their frames side by side."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.plots import PLAIN_TEXT, save_figure

__all__ = ["contact_sheet"]

_FRAME = 1.35  # inches of a frame's longer side
_TITLE = 0.3  # inches above each clip
_GAP = 0.02  # white between frames, as a share of their width


@matplotlib.rc_context(PLAIN_TEXT)
def contact_sheet(
    file: Path, clips: Sequence[np.ndarray], titles: Sequence[str], heading: str, columns: int
) -> None:
    """Draw clips, each with a title above it.

    Args:
        file: PNG file to write.
        clips: (T, H, W, 3) uint8 each, all of one size.
        titles: one for each clip.
        heading: of the whole picture.
        columns: frames to draw of each clip, evenly from its first to its last.
    """
    num_frames, height, width = clips[0].shape[:3]
    numbers = np.linspace(0, num_frames - 1, min(columns, num_frames)).round().astype(int)
    inch = _FRAME / max(height, width)
    gap = max(round(_GAP * width), 1)
    size = (len(numbers) * (width + gap) * inch, len(clips) * (height * inch + _TITLE))
    figure = Figure(figsize=(max(size[0], 4), size[1]), layout="constrained")
    for axis, clip, title in zip(
        figure.subplots(len(clips), 1, squeeze=False)[:, 0], clips, titles, strict=True
    ):
        padded = np.pad(clip[numbers], ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
        axis.imshow(np.concatenate(list(padded), axis=1))
        axis.set_title(title, fontsize=9, loc="left", pad=3)
        axis.set_axis_off()
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left")
    with atomic_file(file) as partial:
        save_figure(figure, partial)
