"""What formats are asked, and what they answer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from lvt_ff.data.class_file import Classes
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_store import VideoStore

__all__ = ["Format", "Listing", "Request"]


@dataclass(frozen=True)
class Request:
    """Which videos are wanted.

    Args:
        source: a path, or what else a format takes.
        video_root: the folder that videos lie in; None for where the format has them.
        classes: names of classes from a file that the user gave.
        split: of several in one source, the wanted one; None takes what is there.
    """

    source: str
    video_root: Path | None = None
    classes: Classes | None = None
    split: str | None = None

    @property
    def root(self) -> Path:
        """`video_root`, or the folder that the source lies in."""
        return self.video_root or Path(self.source).parent


@dataclass(frozen=True)
class Listing:
    """Videos with their labels, as they are listed.

    Args:
        paths: (n,), of files; of videos in a store, what they are called.
        names: what labels stand for.
        labels: places in `names` (m,), of all videos.
        rows: places in `paths` (m,): whose label each is. There may be none or several for one.
        official: `names` are all classes in the data set's own order, whether they occur or not;
            else they are those that occur, in any order.
        may_number: names that are whole numbers are numbers of classes.
        multi: a video may have several labels.
        spans: start and end of what is used of each file, in seconds (n, 2), NaN for its own.
        label_spans: from when to when a label holds, in seconds (m, 2).
        absent: (n,) bool, which videos are not on disk; None where that cannot be.
        place: where they were looked for, in words.
        store: where the videos lie that are no files of their own.
    """

    paths: Texts
    names: tuple[str, ...]
    labels: np.ndarray
    rows: np.ndarray
    official: bool = False
    may_number: bool = False
    multi: bool = False
    spans: np.ndarray | None = None
    label_spans: np.ndarray | None = None
    absent: np.ndarray | None = None
    place: str = ""
    store: VideoStore | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, kept: np.ndarray) -> "Listing":
        """The videos (k,) at these places, each at most once, in ascending order."""
        place = np.full(len(self), -1)
        place[kept] = np.arange(len(kept))
        labelled = place[self.rows] >= 0
        return replace(
            self,
            paths=self.paths.take(kept),
            labels=self.labels[labelled],
            rows=place[self.rows][labelled],
            spans=None if self.spans is None else self.spans[kept],
            label_spans=None if self.label_spans is None else self.label_spans[labelled],
            absent=None if self.absent is None else self.absent[kept],
            store=None if self.store is None else self.store.take(kept),
        )


class Format(Protocol):
    """A module of `lvt_ff.data.formats`; see there."""

    EXPECTS: str

    @staticmethod
    def recognises(source: str) -> bool:
        """Whether a source looks like this format."""

    @staticmethod
    def read(request: Request) -> Listing:
        """What is listed."""
