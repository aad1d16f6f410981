"""A comparison's results on disk: numbers, tables to read, and a picture."""

import json
from pathlib import Path
from statistics import mean, stdev

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lvt_ff.training.resume_rules import told_settings
from lvt_ff.utils.atomic_io import atomic_file, write_text
from lvt_ff.utils.plots import PLAIN_TEXT, save_figure

__all__ = ["markdown", "shown_accuracies", "write_report"]

_PAPER = "paper (SSv2, full size)"


def write_report(folder: Path, summary: dict) -> None:
    """Write results.json, tables.md and tables.png of a summary of `lvt_ff.ablation.ablate`."""
    write_text(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    write_text(folder / "tables.md", markdown(summary))
    with atomic_file(folder / "tables.png") as file:
        _picture(file, summary)


def shown_accuracies(values: list[float | None]) -> str:
    """Mean ± deviation of a row's runs in percent; None is a run that diverged."""
    found = [value for value in values if value is not None]
    text = f"{mean(found):.1f}" if found else "" if values else "not run"
    text += f" ± {stdev(found):.1f}" if len(found) > 1 else ""
    lost = len(values) - len(found)
    return text if not lost else f"{text} ({lost} diverged)" if text else "diverged"


def markdown(summary: dict) -> str:
    """The tables in Markdown, with what made them."""
    settings, lines = told_settings(summary), []
    # Older files have no data among their settings, and no scale where videos were given.
    given = settings["data"] if "data" in settings else not settings["scale"]
    kind = "given videos" if given else "made-up motion"
    ours = f"ours on {kind} of {settings['num_classes']} classes, top-1 in %"
    for number, table in summary["tables"].items():
        counts = {len(row["top1"]) for row in table["rows"]}
        told = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        lines += [
            f"### Table {number}: {table['title']}",
            "",
            table["note"],
            "",
            f"| model | {ours} (mean ± deviation, seeds: {told}) | {_PAPER} |",
            "|---|---|---|",
        ]
        for row in table["rows"]:
            paper = "–" if row["paper_top1"] is None else f"{row['paper_top1']}"
            lines.append(f"| {row['name']} | {shown_accuracies(row['top1'])} | {paper} |")
        lines.append("")
    made = "; ".join(f"{m['device']}, torch {m['torch']}" for m in summary["environments"])
    lines += [
        f"`{summary['command']}` on {made}, {summary['train_s'] / 60:.0f} minutes of training in "
        f"all. Training: {settings['train_videos']}; held out: {settings['test_videos']}; chance: "
        f"{100 / settings['num_classes']:.4g} %; recipe `{json.dumps(settings['recipe'])}`.",
        "",
    ]
    return "\n".join(lines)


@matplotlib.rc_context(PLAIN_TEXT)
def _picture(file: Path, summary: dict) -> None:
    tables = summary["tables"]
    heights = [len(table["rows"]) + 2 for table in tables.values()]
    figure = Figure(figsize=(11, 0.34 * sum(heights)))
    axes = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights)
    for (number, table), (ours, paper) in zip(tables.items(), axes, strict=True):
        rows = list(reversed(table["rows"]))
        places = range(len(rows))
        found = [[value for value in row["top1"] if value is not None] for row in rows]
        for place, values in zip(places, found, strict=True):
            ours.plot(values, [place] * len(values), ".", color="tab:blue", alpha=0.5)
            if values:
                ours.plot(mean(values), place, "|", color="tab:blue", ms=11, mew=2)
        published = [np.nan if row["paper_top1"] is None else row["paper_top1"] for row in rows]
        paper.plot(published, places, "D", color="tab:gray", markersize=5)
        names = [row["name"] for row in rows]
        for axis, title, figures in (
            (ours, f"Table {number}, ours (dots: seeds, lines: means)", sum(found, [])),
            (paper, _PAPER, [row["paper_top1"] for row in rows]),
        ):
            known = [value for value in figures if value]
            margin = max(max(known, default=1) - min(known, default=0), 2)
            axis.set_xlim(
                max(min(known, default=0) - margin, 0), max(known, default=1) + margin / 3
            )
            axis.set_ylim(-0.6, len(rows) - 0.4)
            axis.set_yticks(places, names if axis is ours else [""] * len(rows))
            axis.set_xlabel("top-1 (%)", fontsize=8)
            axis.set_title(title, fontsize=9)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=8)
    figure.tight_layout()
    save_figure(figure, file)
