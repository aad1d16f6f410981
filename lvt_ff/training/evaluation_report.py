"""An evaluation as people read it: what is printed, and the files that it leaves."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from lvt_ff.data import VideoList
from lvt_ff.training.metrics import CALIBRATION_BINS, confusion_matrix
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.plots import confusion_picture
from lvt_ff.utils.short_text import counted, listed, shortened

__all__ = ["print_report", "score_table", "write_report"]

# Titles, in the order of the report, and whether a figure is a share.
_FIGURES = {
    "top1": ("top-1", True),
    "top5": ("top-5", True),
    "mean_class_accuracy": ("mean class accuracy", True),
    "mean_average_precision": ("mean average precision", True),
    "mean_absolute_error": ("mean absolute error", False),
    "root_mean_square_error": ("root mean square error", False),
    "loss": ("loss", False),
    "calibration_error": (f"calibration error (ECE, {CALIBRATION_BINS} bins)", True),
    "majority_share": ("share of the largest class", True),
    "chance_average_precision": ("average precision by chance", True),
}
_WHOLE_TABLE = 20  # classes up to which each has a line
_SHOWN = 5  # of the best, and of the worst, where there are more
_TOP = 5


def print_report(results: dict) -> None:
    """Print figures, what they were measured with, and what could not be read."""
    rows = results.get("classes", [])
    _print_classes(rows)
    print(f"[{results['protocol']}]")
    for name, (title, is_share) in _FIGURES.items():
        if results.get(name) is not None:
            print(_line(name, title, is_share, results))
    if "intervals" in results:
        print("95 % intervals: bootstrap over videos")
    if "top1" in results and results["top1"] <= results["majority_share"]:
        print(
            f"No better than always answering {shortened(results['majority_class'], 60)!r}, the "
            "largest class."
        )
    if missing := results.get("num_classes_without_videos"):
        print(f"{counted(missing, 'class', 'classes')} without a video left out of the mean")
    missing = results.get("num_missing", 0)
    left_out = f", {missing} not on disk and left out" if missing else ""
    total = results["num_listed"] + missing
    print(f"{results['num_evaluated']} of {total} listed videos evaluated{left_out}")
    _print_unread(results, "counted as wrong" if rows else "left out")


def _line(name: str, title: str, is_share: bool, results: dict) -> str:
    def shown(value: float) -> str:
        return f"{100 * value:.2f} %" if is_share else f"{value:.4g}"

    words = [f"{title} {shown(results[name])}"]
    if name in results.get("intervals", {}):
        low, high = results["intervals"][name]
        words.append(f"({shown(low)} to {shown(high)})")
    if name == "majority_share":
        words.append(f"({shortened(results['majority_class'], 60)})")
    if name in results.get("one_view", {}):
        words.append(f"· one view {shown(results['one_view'][name])}")
    if name in results.get("of_read", {}):
        words.append(f"· of those read {shown(results['of_read'][name])}")
    return " ".join(words)


def _print_classes(rows: list[dict]) -> None:
    if not rows:
        return
    key = "top1" if "top1" in rows[0] else "average_precision"
    title = {"top1": "top-1", "average_precision": "average precision"}[key]
    shown = rows
    if len(rows) > _WHOLE_TABLE:
        order = sorted(rows, key=lambda row: -row[key])
        shown = [*order[:_SHOWN], None, *order[-_SHOWN:]]
    print(f"{title} per class")
    for row in shown:
        if row is None:
            print(f"     …   {len(rows) - 2 * _SHOWN} more in evaluation.json")
            continue
        videos = f"{row['num_videos']:5d} {'videos' if row['num_videos'] != 1 else 'video '}"
        print(f"{100 * row[key]:6.1f} %  {videos}  {shortened(row['name'], 60)}")


def _print_unread(results: dict, outcome: str) -> None:
    for failure in results["failures"][:_TOP]:
        print(f"not read, {outcome}: {failure['reason']}")
    if more := results["failures"][_TOP:]:
        names = listed([failure["path"] for failure in more])
        print(f"not read either, {len(more)} more: {names}")
    for damaged in results["damaged"]:
        print(f"damaged, evaluated with what was left: {damaged['path']}: {damaged['damage']}")


def write_report(
    folder: Path, name: str, results: dict, scores: np.ndarray, videos: VideoList
) -> list[str]:
    """Write results, and where classes exclude each other a confusion matrix.

    Args:
        folder: made where it is not there.
        name: of the file of results.
        results: of an evaluation.
        scores: (n, K).
        videos: with their labels.

    Returns:
        The names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / name, json.dumps(results, indent=2) + "\n")
    if "top1" not in results:
        return [name]
    title = f"top-1 {100 * results['top1']:.1f} %\n{results['protocol']}"
    counts = confusion_matrix(scores, videos.labels)
    confusion_picture(folder / "confusion.png", counts, videos.class_names, title)
    return [name, "confusion.png"]


def score_table(scores: np.ndarray, videos: VideoList) -> str:
    """A CSV file with a row for each video: path, label, and its best classes with scores.

    Args:
        scores: (n, K); the columns of a row of NaN are empty.
        videos: with their labels; of several labels a video, they stand with semicolons between.
    """
    names, ranks = videos.class_names, range(1, min(_TOP, scores.shape[1]) + 1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, : len(ranks)]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["path", "label", *(f"{what}{k}" for k in ranks for what in ("top", "score"))])
    for number, path in enumerate(videos.paths):
        row = [] if np.isnan(scores[number]).any() else best[number]
        pairs = [cell for index in row for cell in (names[index], float(scores[number, index]))]
        writer.writerow([path, _label(videos, number), *(pairs or [""] * (2 * len(ranks)))])
    return table.getvalue()


def _label(videos: VideoList, number: int) -> str | float:
    label = videos.labels[number]
    if label.ndim:
        return ";".join(videos.class_names[index] for index in np.flatnonzero(label))
    return videos.class_names[label] if np.issubdtype(label.dtype, np.integer) else float(label)
