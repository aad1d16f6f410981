"""Maps of tokens drawn over frames: contact sheets, animations, grids of attention matrices."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill, shorten

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.utils.plots import PLAIN_TEXT, save_figure

__all__ = [
    "animation",
    "blend",
    "contact_sheet",
    "gif_bytes",
    "matrix_figure",
    "per_pixel",
    "save_animation",
    "time_figure",
]

_SIDE_IN = 1.7  # inches of a frame
_FRAMES_PER_S = 4


def per_pixel(maps: np.ndarray, size: tuple[int, int], stem: tuple[int, int, int]) -> np.ndarray:
    """Token maps (T, h, w) to pixels (T, H, W), linear between the centres of the patches.

    Args:
        maps: one number for each token.
        size: (H, W).
        stem: patch size, stride and padding in pixels.
    """
    patch, stride, padding = stem
    first = patch / 2 - padding
    for axis, length in ((1, size[0]), (2, size[1])):
        number = maps.shape[axis]
        place = np.clip((np.arange(length) + 0.5 - first) / stride, 0, number - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, number - 1)
        part = (place - low).reshape((-1, 1) if axis == 1 else -1)
        maps = maps.take(low, axis) * (1 - part) + maps.take(high, axis) * part
    return maps


def blend(frames: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 in grey, with maps (T, H, W) between 0 and 1 as heat over them."""
    grey = frames.mean(axis=-1, keepdims=True)
    heat = 255 * matplotlib.colormaps["inferno"](maps)[..., :3]
    strength = np.clip(0.25 + maps, 0, 0.8)[..., None]
    return ((1 - strength) * grey + strength * heat).round().astype(np.uint8)


@matplotlib.rc_context(PLAIN_TEXT)
def contact_sheet(
    path: Path,
    frames: np.ndarray,
    rows: dict[str, np.ndarray],
    title: str,
    side: Sequence[dict],
    mark: tuple[int | None, float, float] | None = None,
) -> None:
    """Frames in a row, pictures of the same frames below, plots to the right.

    Args:
        path: PNG file to write.
        frames: (T, H, W, 3) uint8.
        rows: pictures (T, H, W, 3) uint8 by name.
        title: of the sheet.
        side: plots beside the frames, see `_side_plot`.
        mark: a place to mark, as frame (None for all), y and x in pixels.
    """
    pictures = {"frames": frames, **rows}
    per_line = min(len(frames), 8)
    lines = [
        (name, range(start, min(start + per_line, len(frames))))
        for start in range(0, len(frames), per_line)
        for name in pictures
    ]
    height, width = frames.shape[1:3]
    shape = _SIDE_IN * height / width
    figure = Figure(figsize=(per_line * _SIDE_IN + 4.5, max(len(lines) * shape, 3.4) + 0.8))
    columns = figure.add_gridspec(1, 2, width_ratios=(per_line * _SIDE_IN, 3.6), wspace=0.32)
    grid = columns[0].subgridspec(len(lines), per_line, wspace=0.03, hspace=0.05)
    for line, (name, numbers) in enumerate(lines):
        for column, number in enumerate(numbers):
            axis = figure.add_subplot(grid[line, column])
            axis.imshow(pictures[name][number])
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
            if name == "frames":
                axis.set_title(f"frame {number}", fontsize=8, pad=2)
            if mark and mark[0] in (None, number):
                axis.plot(mark[2], mark[1], "+", color="cyan", markersize=9)
    plots = columns[1].subgridspec(len(side), 1, hspace=0.65)
    for number, plot in enumerate(side):
        _side_plot(figure.add_subplot(plots[number]), **plot)
    figure.suptitle(fill(title, 120))
    save_figure(figure, path)


def _side_plot(
    axis: Axes,
    title: str,
    bars: Sequence[tuple[str, float]] = (),
    curves: dict[str, Sequence[float]] | None = None,
    xlabel: str = "",
    ylim: tuple[float, float] | None = None,
) -> None:
    """Bars (name, percent), best on top, or curves by name over 0, 1, …."""
    if bars:
        names, values = zip(*reversed(bars), strict=True)
        axis.barh(range(len(bars)), values, color="tab:orange", alpha=0.6)
        axis.set_yticks([])
        for place, name in enumerate(names):  # within the bars: names may be long
            axis.text(1, place, shorten(name, 60), va="center", fontsize=7)
        axis.set_xlim(0, 100)
    for name, values in (curves or {}).items():
        axis.plot(range(len(values)), values, "o-", markersize=3, label=name)
    if curves:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlim(-0.5, len(values) - 0.5)
        axis.set_ylim(*(ylim or (0, 1.15 * axis.get_ylim()[1])))
        axis.legend(fontsize=7)
    axis.set_xlabel(xlabel, fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)


@matplotlib.rc_context(PLAIN_TEXT)
def matrix_figure(
    path: Path,
    matrices: Sequence[dict[str, np.ndarray]],
    titles: Sequence[dict[str, str]],
    title: str,
    side: Sequence[dict],
) -> None:
    """Attention matrices of every layer, as in Fig. 2 of the paper, and curves below.

    Args:
        path: PNG file to write.
        matrices: by name, for each layer; brightness is relative to a matrix's 99th percentile.
        titles: of each.
        title: of the picture.
        side: plots of figures by layer, see `_side_plot`.
    """
    kinds = list(matrices[0])
    per_line = min(len(matrices), 4) if len(matrices) > 1 else len(kinds)
    lines = -(-len(matrices) * len(kinds) // per_line)
    figure = Figure(figsize=(max(2.6 * per_line, 8), 2.8 * lines + 3), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.8 * lines, 2.5))
    axes = top.subplots(lines, per_line, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for layer, by_kind in enumerate(matrices):
        for number, kind in enumerate(kinds):
            line, column = layer // per_line * len(kinds) + number, layer % per_line
            axis = axes[line, column] if len(matrices) > 1 else axes[0, number]
            brightest = max(np.quantile(by_kind[kind], 0.99), 1e-12)
            axis.imshow(by_kind[kind], cmap="viridis", vmin=0, vmax=brightest, aspect="auto")
            axis.set_title(f"{kind}\n{titles[layer][kind]}", fontsize=7)
    plots = bottom.subplots(1, len(side), squeeze=False)
    for axis, plot in zip(plots.flat, side, strict=True):
        _side_plot(axis, **plot)
    figure.suptitle(fill(title, 100), fontsize=11)
    save_figure(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def animation(
    frames: np.ndarray, pictures: np.ndarray, title: str, bars: Sequence[tuple[str, float]]
) -> np.ndarray:
    """Frames and pictures (T, H, W, 3) side by side over the best classes, (T, H', W', 3) uint8."""
    drawn = []
    for number, pair in enumerate(zip(frames, pictures, strict=True)):
        figure = Figure(figsize=(6.4, 4.8), dpi=80)
        figure.suptitle(fill(title, 80), fontsize=10)
        grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), hspace=0.2, wspace=0.05)
        for column, picture in enumerate(pair):
            axis = figure.add_subplot(grid[0, column])
            axis.imshow(picture)
            axis.set_axis_off()
        axis = figure.add_subplot(grid[1, :])
        _side_plot(axis, f"frame {number}", bars)
        figure.subplots_adjust(left=0.05, right=0.95, top=0.9, bottom=0.08)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(drawn)


def save_animation(path: Path, drawn: np.ndarray) -> None:
    """Write pictures (T, H, W, 3) uint8 with even sides as a GIF or, by the suffix, a video."""
    if path.suffix.lower() == ".gif":
        path.write_bytes(gif_bytes(drawn))
    else:
        write_video(path, drawn, fps=_FRAMES_PER_S)


def gif_bytes(pictures: np.ndarray) -> bytes:
    """Pictures (T, H, W, 3) uint8 as an endless animation."""
    images, file = [Image.fromarray(picture) for picture in pictures], BytesIO()
    timing = dict(duration=1000 // _FRAMES_PER_S, loop=0)
    images[0].save(file, format="gif", save_all=True, append_images=images[1:], **timing)
    return file.getvalue()


@matplotlib.rc_context(PLAIN_TEXT)
def time_figure(seconds: Sequence[float], curves: dict[str, Sequence[float]]) -> bytes:
    """Percentages by name over seconds, as a PNG file's bytes."""
    figure, file = Figure(figsize=(6, 2.4), layout="constrained"), BytesIO()
    axis = figure.subplots()
    for name, values in curves.items():
        axis.plot(seconds, values, "o-", markersize=3, label=shorten(name, 40))
    axis.set_ylim(0, 100)
    axis.set_xlabel("seconds", fontsize=8)
    axis.set_ylabel("probability (%)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    save_figure(figure, file)
    return file.getvalue()
