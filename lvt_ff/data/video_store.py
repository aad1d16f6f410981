"""What holds videos that are no files of their own."""

import io
from typing import Protocol

import numpy as np

from lvt_ff.video.sources import VideoSource

__all__ = ["NamedBytes", "VideoStore"]


class VideoStore(Protocol):
    """Videos that are no files of their own: parts of larger files, by their place in a list."""

    def source(self, index: int) -> VideoSource:
        """What a reader takes for a video; raises VideoReadError where it cannot be had."""

    def take(self, indices: np.ndarray) -> "VideoStore":
        """These videos, in this order."""


class NamedBytes(io.BytesIO):
    """A video's bytes, with the name that messages have for it."""

    def __init__(self, content: bytes | memoryview, name: str):
        super().__init__(content)
        self.name = name
