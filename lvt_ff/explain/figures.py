"""Heatmaps of tokens over frames: contact sheets, animations, grids of attention matrices."""

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
    "animation_frames",
    "contact_sheet",
    "gif_bytes",
    "matrix_figure",
    "overlay_heatmap",
    "save_animation",
    "timeline_figure",
    "upsample_token_map",
]

_SIDE_IN = 1.7  # inches of a frame
_FRAMES_PER_S = 4


def upsample_token_map(
    token_map: np.ndarray, size: tuple[int, int], stem: tuple[int, int, int]
) -> np.ndarray:
    """A token map (T, h, w) to pixels (T, H, W), linear between the centres of the patches.

    Args:
        token_map: one number for each token.
        size: (H, W).
        stem: patch size, stride and padding in pixels.
    """
    patch, stride, padding = stem
    first = patch / 2 - padding
    for axis, length in ((1, size[0]), (2, size[1])):
        number = token_map.shape[axis]
        position = np.clip((np.arange(length) + 0.5 - first) / stride, 0, number - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, number - 1)
        weight = (position - low).reshape((-1, 1) if axis == 1 else -1)
        token_map = token_map.take(low, axis) * (1 - weight) + token_map.take(high, axis) * weight
    return token_map


def overlay_heatmap(frames: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """A heatmap (T, H, W) between 0 and 1 in colour over frames (T, H, W, 3) uint8 in grey."""
    grey = frames.mean(axis=-1, keepdims=True)
    colour = 255 * matplotlib.colormaps["inferno"](heatmap)[..., :3]
    alpha = np.clip(0.25 + heatmap, 0, 0.8)[..., None]
    return ((1 - alpha) * grey + alpha * colour).round().astype(np.uint8)


@matplotlib.rc_context(PLAIN_TEXT)
def contact_sheet(
    path: Path,
    frames: np.ndarray,
    overlays: dict[str, np.ndarray],
    title: str,
    plots: Sequence[dict],
    marker: tuple[int | None, float, float] | None = None,
) -> None:
    """Frames in a row, overlays of the same frames below, plots to the right.

    Args:
        path: PNG file to write.
        frames: (T, H, W, 3) uint8.
        overlays: pictures (T, H, W, 3) uint8 by name.
        title: of the sheet.
        plots: beside the frames, see `_draw_plot`.
        marker: a place to mark, as frame (None for all), y and x in pixels.
    """
    images = {"frames": frames, **overlays}
    per_row = min(len(frames), 8)
    rows = [
        (name, range(start, min(start + per_row, len(frames))))
        for start in range(0, len(frames), per_row)
        for name in images
    ]
    height, width = frames.shape[1:3]
    row_height = _SIDE_IN * height / width
    inches = max(len(rows) * row_height, 3.4)
    figure = Figure(figsize=(per_row * _SIDE_IN + 4.5, inches + 1.3))
    columns = figure.add_gridspec(
        1,
        2,
        width_ratios=(per_row * _SIDE_IN, 3.6),
        wspace=0.06,
        left=0.03,
        right=0.98,
        bottom=0.5 / (inches + 1.3),
        top=1 - 0.7 / (inches + 1.3),
    )
    grid = columns[0].subgridspec(len(rows), per_row, wspace=0.03, hspace=0.05)
    for row, (name, numbers) in enumerate(rows):
        for column, number in enumerate(numbers):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(images[name][number])
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
            if name == "frames":
                axis.set_title(f"frame {number}", fontsize=8, pad=2)
            if marker and marker[0] in (None, number):
                axis.plot(marker[2], marker[1], "+", color="cyan", markersize=9)
    places = columns[1].subgridspec(len(plots), 1, hspace=0.65)
    for number, plot in enumerate(plots):
        _draw_plot(figure.add_subplot(places[number]), **plot)
    figure.suptitle(fill(title, 120))
    save_figure(figure, path)


def _draw_plot(
    axis: Axes,
    title: str,
    bars: Sequence[tuple[str, float]] = (),
    curves: dict[str, Sequence[float]] | None = None,
    xlabel: str = "",
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> None:
    """Bars (name, length), best on top, or curves by name over 0, 1, …."""
    if bars:
        names, lengths = zip(*reversed(bars), strict=True)
        axis.barh(range(len(bars)), lengths, color="tab:orange", alpha=0.6)
        axis.set_yticks([])
        axis.set_xlim(xlim)
        left = min(axis.get_xlim()[0], 0) + 0.01 * np.ptp(axis.get_xlim())
        for place, name in enumerate(names):  # within the bars: names may be long
            axis.text(left, place, shorten(name, 60), va="center", fontsize=7)
    for name, values in (curves or {}).items():
        axis.plot(range(len(values)), values, "o-", markersize=3, label=name)
    if curves:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlim(-0.5, len(values) - 0.5)
        axis.set_ylim(*(ylim or (0, 1.15 * axis.get_ylim()[1])))
    if curves and len(curves) > 1:
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
    plots: Sequence[dict],
) -> None:
    """Attention matrices of every layer, as in Fig. 2 of the paper, and curves below.

    Args:
        path: PNG file to write.
        matrices: by name, for each layer; brightness is relative to a matrix's 99th percentile.
        titles: of each.
        title: of the picture.
        plots: of figures by layer, see `_draw_plot`.
    """
    kinds = list(matrices[0])
    per_row = min(len(matrices), 4) if len(matrices) > 1 else len(kinds)
    num_rows = -(-len(matrices) * len(kinds) // per_row)
    figure = Figure(figsize=(max(2.6 * per_row, 8), 2.8 * num_rows + 3), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.8 * num_rows, 2.5))
    axes = top.subplots(num_rows, per_row, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for layer, by_kind in enumerate(matrices):
        for number, kind in enumerate(kinds):
            row, column = layer // per_row * len(kinds) + number, layer % per_row
            axis = axes[row, column] if len(matrices) > 1 else axes[0, number]
            brightest = max(np.quantile(by_kind[kind], 0.99), 1e-12)
            axis.imshow(by_kind[kind], cmap="viridis", vmin=0, vmax=brightest, aspect="auto")
            axis.set_box_aspect(1)
            axis.set_title(f"{kind}\n{titles[layer][kind]}", fontsize=7)
    below = bottom.subplots(1, len(plots), squeeze=False)
    for axis, plot in zip(below.flat, plots, strict=True):
        _draw_plot(axis, **plot)
    figure.suptitle(fill(title, 100), fontsize=11)
    save_figure(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def animation_frames(
    frames: np.ndarray, overlays: np.ndarray, title: str, best_classes: dict
) -> np.ndarray:
    """Frames and overlays (T, H, W, 3) side by side over the best classes, (T, H', W', 3) uint8.

    Args:
        frames, overlays: pictures of the same size.
        title: above them.
        best_classes: bars below them, see `_draw_plot`.
    """
    drawn = []
    for number, pair in enumerate(zip(frames, overlays, strict=True)):
        figure = Figure(figsize=(6.4, 4.8), dpi=80)
        figure.suptitle(fill(title, 80), fontsize=10)
        grid = figure.add_gridspec(2, 2, height_ratios=(3, 1), hspace=0.2, wspace=0.05)
        for column, image in enumerate(pair):
            axis = figure.add_subplot(grid[0, column])
            axis.imshow(image)
            axis.set_axis_off()
        axis = figure.add_subplot(grid[1, :])
        _draw_plot(axis, **best_classes | dict(title=f"frame {number}"))
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
def timeline_figure(
    seconds: Sequence[float],
    curves: dict[str, Sequence[float]],
    ylabel: str,
    ylim: tuple[float, float] | None,
) -> bytes:
    """Scores by name over seconds, as a PNG file's bytes; `ylim` None fits them."""
    figure, file = Figure(figsize=(6, 2.4), layout="constrained"), BytesIO()
    axis = figure.subplots()
    for name, values in curves.items():
        axis.plot(seconds, values, "o-", markersize=3, label=shorten(name, 40))
    axis.set_ylim(ylim)
    axis.set_xlabel("seconds", fontsize=8)
    axis.set_ylabel(ylabel, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    save_figure(figure, file)
    return file.getvalue()
