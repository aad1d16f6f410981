"""Pictures of a benchmark: bars of models, and curves over clip sizes."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lvt_ff.benchmarking.parts import PARTS
from lvt_ff.utils.plots import PLAIN_TEXT, save_figure

__all__ = ["bars_picture", "sizes_picture"]


@matplotlib.rc_context(PLAIN_TEXT)
def bars_picture(file: Path, groups: Sequence[Sequence[dict]], title: str) -> None:
    """Clips/s with the range of samples, the floor's beside it, and shares of time if measured.

    Args:
        file: PNG to write.
        groups: rows that took turns, a panel for each group.
        title: of the picture.
    """
    with_parts = any("parts" in row for rows in groups for row in rows)
    heights = [len(rows) + 1.5 for rows in groups]
    figure = Figure(figsize=(13 if with_parts else 8, 1.2 + 0.42 * sum(heights)))
    panels = figure.subplots(
        len(groups), 1 + with_parts, squeeze=False, height_ratios=heights, sharey="row"
    )
    for rows, axes in zip(groups, panels, strict=True):
        _draw_speeds(axes[0], rows)
        if with_parts:
            _draw_parts(axes[1], rows)
    panels[-1][0].set_xlabel("clips/s (line: range of samples; |: its linear layers alone)")
    if with_parts:
        panels[-1][1].set_xlabel("share of time (%)")
        handles, labels = panels[0][1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight() if with_parts else 0, 1, 1))
    save_figure(figure, file)


def _draw_speeds(axis, rows: Sequence[dict]) -> None:
    names = [f"{r['name']}\n{r['num_frames']} × {r['img_size']}" for r in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first above
    axis.set_title(f"batch {rows[0]['batch_size']}", fontsize=9, loc="left")
    for place, row in enumerate(rows):
        if "failed" in row:
            axis.text(0, place, f" {row['failed']}", va="center", fontsize=8)
            continue
        speed = row["clips_s"]
        low, high = row["clips_s_range"]
        spread = [[speed - low], [high - speed]]
        color = "tab:gray" if place else "tab:blue"
        axis.barh(place, speed, xerr=spread, height=0.6, color=color, ecolor="black")
        axis.plot(speed * row["floor_ratio"], place, "|", color="tab:red", markersize=14)


def _draw_parts(axis, rows: Sequence[dict]) -> None:
    colors = matplotlib.colormaps["tab10"].colors
    starts = [0.0] * len(rows)
    for color, part in zip(colors, [*PARTS, "other"], strict=False):
        widths = [100 * row.get("parts", {}).get(part, 0) for row in rows]
        # Every part in every panel: one legend serves all of them.
        axis.barh(range(len(rows)), widths, left=starts, height=0.6, color=color, label=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axis.set_xlim(0, 100)


@matplotlib.rc_context(PLAIN_TEXT)
def sizes_picture(
    file: Path,
    groups: Sequence[Sequence[dict]],
    title: str,
    crossing_tokens: Sequence[float] | None = None,
) -> None:
    """Clips/s and memory of every model over clip sizes.

    Args:
        file: PNG to write.
        groups: of the same models, one for each size.
        title: of the picture.
        crossing_tokens: where the first model's speed crosses another's; sizes are numbers of
            tokens then, and one beside the other if None.
    """
    figure = Figure(figsize=(10, 4.6))
    axes = figure.subplots(1, 2)
    labels = [f"{rows[0]['num_frames']}×{rows[0]['img_size']}" for rows in groups]
    by_tokens = crossing_tokens is not None
    places = [rows[0]["tokens"] for rows in groups] if by_tokens else list(range(len(groups)))
    for number, first in enumerate(groups[0]):
        ran = [place for place, rows in enumerate(groups) if "failed" not in rows[number]]
        xs = [places[place] for place in ran]
        for axis, key, factor in zip(axes, ("clips_s", "peak_bytes"), (1, 1e-9), strict=True):
            ys = [factor * groups[place][number][key] for place in ran]
            axis.plot(xs, ys, "o-", markersize=4, label=first["name"])
    for axis, name in zip(axes, ("clips/s", "peak memory (GB)"), strict=True):
        axis.set_yscale("log")
        _plain_ticks(axis.yaxis)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        if by_tokens:
            axis.set_xscale("log")
            axis.set_xticks(places, [f"{tokens:,}" for tokens in places], rotation=60, fontsize=8)
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("tokens of a clip")
        else:
            axis.set_xticks(places, labels, rotation=60, fontsize=8)
            axis.set_xlabel("frames × pixels")
    for tokens in crossing_tokens or ():
        axes[0].axvline(tokens, color="tab:gray", linestyle=":")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    save_figure(figure, file)


def _plain_ticks(axis) -> None:
    """Numbers of a logarithmic axis without formulas, which plain text cannot show."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
