"""Pictures of a run: learning curve, confusion matrix, frames with predictions."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["PLAIN_TEXT", "confusion_picture", "curve_picture", "prediction_picture", "save_figure"]


PLAIN_TEXT = {"text.parse_math": False}  # names may have dollar signs


def save_figure(figure: Figure, file: Path | BytesIO) -> None:
    """Write a PNG, without a display."""
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    width = max(min(width, len(values)), 1)
    totals = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (totals[ends] - totals[starts]) / (ends - starts)


def draw_curve(loss_axis, rows: Sequence[dict], epochs: Sequence[dict]) -> None:
    """Training loss, top-1 of training batches and of evaluations, by optimizer step.

    Args:
        loss_axis: matplotlib axis.
        rows: one per step, with `loss` and `top1`.
        epochs: one per evaluation, with `step` and, where there is evaluation data, `eval_top1`.
    """
    steps = np.arange(1, len(rows) + 1)
    width = max(len(rows) // 50, 1)
    loss = _smooth(np.array([row["loss"] for row in rows]), width)
    top1 = _smooth(np.array([row["top1"] for row in rows]), width)
    loss_axis.plot(steps, loss, color="tab:red", label="training loss")
    loss_axis.set_xlabel("optimizer step")
    loss_axis.set_ylabel("loss", color="tab:red")
    loss_axis.set_ylim(bottom=0)
    axis = loss_axis.twinx()
    axis.plot(steps, 100 * top1, color="tab:blue", alpha=0.4, label="training top-1")
    evaluated = [row for row in epochs if "eval_top1" in row]
    if evaluated:
        axis.plot(
            [row["step"] for row in evaluated],
            [100 * row["eval_top1"] for row in evaluated],
            "o-",
            color="tab:blue",
            markersize=4,
            label="evaluation top-1",
        )
    axis.set_ylim(0, 100)
    axis.set_ylabel("top-1 accuracy (%)", color="tab:blue")
    handles = loss_axis.get_lines() + axis.get_lines()
    labels = [handle.get_label() for handle in handles]
    loss_axis.legend(  # above: no place within is free in every run
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False
    )


@matplotlib.rc_context(PLAIN_TEXT)
def curve_picture(path: Path, rows: Sequence[dict], epochs: Sequence[dict], title: str) -> None:
    """Learning curve and learning rate of a run; see `draw_curve`."""
    figure = Figure(figsize=(8, 6))
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
    draw_curve(top, rows, epochs)
    top.set_title(title, pad=26)
    bottom.plot(np.arange(1, len(rows) + 1), [row["lr"] for row in rows], color="tab:gray")
    bottom.set_xlabel("optimizer step")
    bottom.set_ylabel("learning rate")
    save_figure(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def confusion_picture(
    path: Path, counts: np.ndarray, class_names: Sequence[str], title: str
) -> None:
    """Confusion matrix (K, K) in percent of each true class; written out up to 20 classes."""
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(4 + 0.4 * len(class_names), 30)
    figure = Figure(figsize=(size, size))
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axis, label="% of the true class", shrink=0.8)
    ticks = np.arange(len(class_names))
    axis.set_xticks(ticks, class_names, rotation=90)
    axis.set_yticks(ticks, class_names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(title)
    if len(class_names) <= 20:
        for row, column in np.argwhere(counts > 0):
            color = "white" if share[row, column] > 50 else "black"
            text = f"{share[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def prediction_picture(
    path: Path,
    examples: Sequence[dict],
    rows: Sequence[dict],
    epochs: Sequence[dict],
    title: str,
) -> None:
    """Clips with their best classes, and the learning curve below.

    Args:
        path: PNG file to write.
        examples: each with `frames` (T, H, W, 3) uint8, `label`, and `top`, a list of (name,
            score).
        rows, epochs: see `draw_curve`.
        title: of the picture.
    """
    figure = Figure(figsize=(12, 1.4 * len(examples) + 4))
    grid = figure.add_gridspec(
        len(examples) + 1, 2, width_ratios=(3, 1), height_ratios=[1] * len(examples) + [2.4]
    )
    for row, example in enumerate(examples):
        axis = figure.add_subplot(grid[row, 0])
        gap = ((0, 0), (0, 0), (0, 2), (0, 0))  # a white line between frames
        framed = np.pad(example["frames"], gap, constant_values=255)
        axis.imshow(np.concatenate(list(framed), axis=1))
        axis.set_axis_off()
        axis.set_title(f"true: {example['label']}", fontsize=9, loc="left")
        bars = figure.add_subplot(grid[row, 1])
        names, scores = zip(*reversed(example["top"]), strict=True)
        colors = ["tab:green" if name == example["label"] else "tab:gray" for name in names]
        bars.barh(names, [100 * score for score in scores], color=colors)
        bars.set_xlim(0, 100)
        bars.tick_params(labelsize=8)
    bars.set_xlabel("probability (%)", fontsize=8)
    draw_curve(figure.add_subplot(grid[-1, :]), rows, epochs)
    figure.suptitle(title)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    save_figure(figure, path)
