"""A benchmark's results in words: rows, the table of clip sizes, and where curves cross."""

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["crossings", "curve_lines", "group_lines", "size_table"]


def group_lines(rows: Sequence[dict]) -> list[str]:
    """A table of models that took turns, and what to know of it."""
    width = max(len(row["name"]) for row in rows)
    titles = f"{'clips/s':>9}{'min–max':>17}{'ms':>10}{'memory GB':>11}{'GMACs':>9}{'× floor':>9}"
    lines = [f"{'model':<{width}}  {'clip':<9}{'batch':>5}{titles}{'× first':>9}"]
    for row in rows:
        size = f"{row['num_frames']}×{row['img_size']}"
        start = f"{row['name']:<{width}}  {size:<9}{row['batch_size']:>5}"
        lines.append(start + ("  " + row["failed"] if "failed" in row else _figures(row)))
        if row.get("parts"):
            shares = [f"{part} {100 * share:.0f} %" for part, share in row["parts"].items()]
            lines.append(f"  of its time: {', '.join(shares)}")
    lines += [f"no ratio: {row['no_ratio']}" for row in rows if "no_ratio" in row]
    return lines


def _figures(row: dict) -> str:
    low, high = row["clips_s_range"]
    ms = 1000 * row["batch_size"] / row["clips_s"]
    ratio = row.get("ratio")
    return (
        f"{row['clips_s']:>9.4g}{f'{low:.4g}–{high:.4g}':>17}{ms:>10.4g}"
        f"{row['peak_bytes'] / 1e9:>11.3g}{row['gmacs']:>9.4g}{row['floor_ratio']:>9.2f}"
        f"{'' if ratio is None else f'{ratio:.2f}':>9}"
    )


def size_table(groups: Sequence[Sequence[dict]]) -> list[str]:
    """Clips/s and memory of every model, a line for each clip size."""
    names = [row["name"] for row in groups[0]]
    width = max(22, *(len(name) + 2 for name in names))
    lines = [f"{'clip':<9}" + "".join(f"{name:>{width}}" for name in names)]
    for rows in groups:
        size = f"{rows[0]['num_frames']}×{rows[0]['img_size']}"
        cells = [
            row.get("failed") or f"{row['clips_s']:.4g} ({row['peak_bytes'] / 1e9:.3g} GB)"
            for row in rows
        ]
        lines.append(f"{size:<9}" + "".join(f"{cell:>{width}}" for cell in cells))
    return [*lines, "clips/s, with peak memory in brackets"]


def crossings(points: Sequence[tuple[float, float]]) -> list[float]:
    """Where an advantage passes 1, on straight lines between points on logarithmic axes.

    Args:
        points: (tokens, advantage), by tokens.
    """
    found = []
    for (x0, y0), (x1, y1) in pairwise(points):
        if (y0 > 1) != (y1 > 1):
            share = math.log(y0) / (math.log(y0) - math.log(y1))
            found.append(math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0))))
    return found


def curve_lines(groups: Sequence[Sequence[dict]]) -> tuple[list[str], list[dict]]:
    """Where the first model of a curve is ahead of each other one, and where it is behind.

    Returns:
        Lines to read, and for each other model its name and the tokens at which speed and memory
        cross.
    """
    lines, found = [], []
    for number, other in enumerate(groups[0][1:], start=1):
        first, both = groups[0][0]["name"], []
        for rows in groups:
            row = rows[number]
            if "failed" not in row and "failed" not in rows[0]:
                memory = row["peak_bytes"] / rows[0]["peak_bytes"]
                both.append((rows[0]["tokens"], 1 / row["ratio"], memory))
        speed = [(tokens, advantage) for tokens, advantage, _ in both]
        memory = [(tokens, advantage) for tokens, _, advantage in both]
        told = f"{first} against {other['name']}:"
        lines.append(f"{told} {_told(speed, 'faster', 'slower')}")
        lines.append(f"{told} {_told(memory, 'less memory', 'more memory')}")
        found.append(dict(name=other["name"], speed=crossings(speed), memory=crossings(memory)))
    return lines, found


def _told(points: Sequence[tuple[float, float]], better: str, worse: str) -> str:
    """An advantage along a curve in words."""
    if not points:
        return "nowhere did both run"
    words = [better if advantage > 1 else worse for _, advantage in points]
    changes = crossings(points)
    span = f"{points[0][0]:,} to {points[-1][0]:,} tokens"
    if not changes:
        return f"{words[0]} at all of {len(points)} sizes, {span}"
    kinds = [words[0], *(now for before, now in pairwise(words) if now != before)]
    told = [f"{kind} from about {at:,.0f}" for kind, at in zip(kinds[1:], changes, strict=True)]
    return f"{kinds[0]} at first, {', '.join(told)} tokens on (measured: {span})"
