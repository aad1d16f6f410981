"""How many videos each class has, as a run prints it at its start."""

import numpy as np

from lvt_ff.data import VideoList
from lvt_ff.utils.short_text import counted, listed, shortened

__all__ = ["class_table"]

_WHOLE_TABLE = 20  # classes up to which each has a line


def class_table(videos: VideoList, eval_videos: VideoList | None = None) -> str:
    """Videos of each class where classes are few, of the smallest and the largest where not.

    Args:
        videos: to train on, with class numbers as labels.
        eval_videos: to evaluate on, with the same classes.
    """
    names = videos.class_names
    columns = {"training": videos.class_counts()}
    if eval_videos is not None:
        columns["evaluation"] = eval_videos.class_counts()
    lines = _rows(names, columns) if len(names) <= _WHOLE_TABLE else []
    for use, counts in columns.items():
        small, large = int(counts.argmin()), int(counts.argmax())
        lines.append(
            f"{use}: smallest class {_with_count(names[small], counts[small])}, "
            f"largest {_with_count(names[large], counts[large])}"
        )
        empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
        if empty:
            number = counted(len(empty), "class", "classes")
            lines.append(f"{use}: {number} without a video: {listed(empty)}")
    return "\n".join(lines)


def _with_count(name: str, count: int) -> str:
    return f"{shortened(name, 60)} ({counted(count, 'video')})"


def _rows(names: tuple[str, ...], columns: dict[str, np.ndarray]) -> list[str]:
    lines = ["  ".join([*columns, "class"])]
    for index, name in enumerate(names):
        numbers = [f"{counts[index]:{len(use)}d}" for use, counts in columns.items()]
        lines.append("  ".join([*numbers, shortened(name, 60)]))
    return lines
