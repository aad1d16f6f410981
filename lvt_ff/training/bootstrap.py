"""How far a figure might be off because these videos and no others were evaluated.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), the percentile interval.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

__all__ = ["RESAMPLES", "class_means", "intervals", "mean_of_defined", "means", "root_mean"]

RESAMPLES = 1000
_SEED = 0
_AT_ONCE = 2**22  # counts in memory

# From how often each of n videos was drawn, (R, n), to a figure for each of R draws.
Figure = Callable[[np.ndarray], np.ndarray]


def intervals(
    figures: dict[str, Figure], num_videos: int, resamples: int = RESAMPLES
) -> dict[str, list[float]]:
    """The 95 % interval of figures: as many videos are drawn, with repeats, again and again.

    Args:
        figures: by name; all get the same draws.
        num_videos: n.
        resamples: draws; the same each time, whatever they are used for.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for counts in _draws(num_videos, resamples):
        for name, figure in figures.items():
            found[name].append(figure(counts))
    return {
        name: np.nanpercentile(np.concatenate(parts), (2.5, 97.5)).tolist()
        for name, parts in found.items()
    }


def _draws(num_videos: int, resamples: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(_SEED)
    at_once = max(_AT_ONCE // num_videos, 1)
    for first in range(0, resamples, at_once):
        yield np.stack(
            [
                np.bincount(rng.integers(num_videos, size=num_videos), minlength=num_videos)
                for _ in range(first, min(first + at_once, resamples))
            ]
        )


def means(values: np.ndarray) -> Figure:
    """The mean of a value of each video, (n,)."""
    return lambda counts: counts @ values / counts.sum(axis=1)


def class_means(values: np.ndarray, labels: np.ndarray) -> Figure:
    """The mean over classes of their means; classes that are not drawn are left out.

    Args:
        values: (n,) of each video.
        labels: (n,) class numbers.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    values = values[order].astype(np.float64)

    def figure(counts: np.ndarray) -> np.ndarray:
        counts = counts[:, order]
        drawn = np.add.reduceat(counts, starts, axis=1)
        sums = np.add.reduceat(counts * values, starts, axis=1)
        ratios = np.divide(sums, drawn, out=np.zeros_like(sums), where=drawn > 0)
        return ratios.sum(axis=1) / (drawn > 0).sum(axis=1)

    return figure


def root_mean(values: np.ndarray) -> Figure:
    """The root of the mean of a value of each video, (n,)."""
    mean = means(values)
    return lambda counts: np.sqrt(mean(counts))


def mean_of_defined(figures: Sequence[Figure]) -> Figure:
    """The mean of those of several figures that are not NaN."""

    def figure(counts: np.ndarray) -> np.ndarray:
        rows = np.stack([one(counts) for one in figures])
        number = (~np.isnan(rows)).sum(axis=0)
        total = np.nansum(rows, axis=0)
        return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)

    return figure
