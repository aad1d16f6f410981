"""Progress of long work: bars that leave nothing behind on a terminal, lines elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm

__all__ = ["Reporter", "print_line", "progress_bar"]

_EVERY_S = 30  # between two lines, where there is no terminal


def progress_bar(
    total: int, unit: str, *, desc: str | None = None, initial: int = 0, shown: bool = True
) -> tqdm:
    """A bar on a terminal, and none elsewhere; it vanishes where its block ends, or fails.

    Args:
        total, initial: steps in all, and those done before.
        unit: of a step.
        desc: text before the bar.
        shown: no bar where this is false, as for all processes but one.
    """
    return tqdm(
        total=total,
        unit=unit,
        desc=desc,
        initial=initial,
        leave=False,
        dynamic_ncols=True,  # a bar that is too long wraps, and its first lines stay
        disable=not shown or not sys.stderr.isatty(),
    )


class Reporter:
    """A bar with a text behind it; without a terminal, a line now and then. Use it as a block.

    Args:
        total, unit, initial, shown: see `progress_bar`.
    """

    def __init__(self, total: int, unit: str, *, initial: int = 0, shown: bool = True):
        self.total, self.unit, self.done = total, unit, initial
        self.bar = progress_bar(total, unit, initial=initial, shown=shown)
        self.lines = shown and not sys.stderr.isatty()
        self.started = self.told = time.monotonic()
        self.first = initial

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()

    def update(self, text: str) -> None:
        """Count a step, and tell what it gave."""
        self.done += 1
        self.bar.update()
        self.bar.set_postfix_str(text)
        now = time.monotonic()
        if self.lines and now - self.told >= _EVERY_S:
            self.told = now
            rest = (self.total - self.done) * (now - self.started) / (self.done - self.first)
            left = tqdm.format_interval(rest)
            print_line(f"{self.unit} {self.done}/{self.total}: {text}, {left} left")


def print_line(text: str) -> None:
    """Print to stdout, above the bars that are on the terminal."""
    tqdm.write(text)
    sys.stdout.flush()
