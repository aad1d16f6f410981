"""Progress bars that leave nothing behind on the terminal."""

import sys

from tqdm import tqdm

__all__ = ["print_line", "progress_bar"]


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


def print_line(text: str) -> None:
    """Print to stdout, above the bars that are on the terminal."""
    tqdm.write(text)
    sys.stdout.flush()
