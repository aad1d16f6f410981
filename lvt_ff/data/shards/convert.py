"""One video made ready for a shard: copied or written anew, and read back."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from lvt_ff.data.shards.members import is_video_ending
from lvt_ff.data.video_list import VideoList
from lvt_ff.utils.errors import VideoReadError
from lvt_ff.video.reader import OnDamage, read_frames
from lvt_ff.video.reencode import EncodeSettings, reencode
from lvt_ff.video.sources import VideoSource

__all__ = ["Converter", "Ready"]


@dataclass
class Ready:
    """A video that goes into a shard, or why it does not.

    Args:
        row: its place in the list.
        problem: why it cannot be read, or "".
        damage: what of it was lost, or "".
        content: a file, or a video's bytes.
        ending: of its name, without the dot.
        frames, seconds: of it.
    """

    row: int
    problem: str = ""
    damage: str = ""
    content: Path | BytesIO | None = None
    ending: str = "mp4"
    frames: int = 0
    seconds: float = 0.0

    def open(self) -> tuple[BinaryIO, int]:
        """Its bytes, and how many there are."""
        if isinstance(self.content, BytesIO):
            return self.content, self.content.getbuffer().nbytes
        return open(self.content, "rb"), os.path.getsize(self.content)


class Converter:
    """Makes videos of a list ready, whichever thread asks.

    Args:
        videos: the list.
        folder: where files lie until they are in a shard.
        settings: how videos are written anew; None copies them.
        max_pixels, on_damage: see `read_clip`.
    """

    def __init__(
        self,
        videos: VideoList,
        folder: Path,
        settings: EncodeSettings | None,
        max_pixels: int,
        on_damage: OnDamage,
    ):
        self._videos, self._folder, self._settings = videos, folder, settings
        self._read_options = dict(max_pixels=max_pixels, on_damage=on_damage)

    def __call__(self, row: int) -> Ready:
        """Make a video ready; what is wrong with it is told in what is returned."""
        try:
            source = self._videos.source(row)
            return self._copy(row, source) if self._settings is None else self._encode(row, source)
        except VideoReadError as error:
            return Ready(row, problem=str(error))

    def forget(self, ready: Ready) -> None:
        """Delete what was kept of a video until it was in a shard."""
        if self._settings is not None:
            ready.content.unlink()

    def _copy(self, row: int, source: VideoSource) -> Ready:
        name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", "")
        if os.path.isdir(name):
            raise VideoReadError(
                f"{name!r} is a folder of pictures, which cannot be copied as one file: give "
                "--short_side to have it encoded."
            )
        frames, seconds, damage = self._read_ends(source)
        ending = os.path.splitext(name)[1].lower().removeprefix(".")
        return Ready(
            row,
            damage=damage,
            content=Path(source) if isinstance(source, str | os.PathLike) else source,
            ending=ending if is_video_ending(ending) else "mp4",
            frames=frames,
            seconds=seconds,
        )

    def _encode(self, row: int, source: VideoSource) -> Ready:
        # A decoder of a run that was killed may still be at work on the same video.
        target = self._folder / f"{row}.{os.getpid()}.mp4"
        encoded = reencode(
            source,
            target,
            self._settings,
            self._videos.span(row),
            max_pixels=self._read_options["max_pixels"],
        )
        if encoded.damage and self._read_options["on_damage"] == "raise":
            raise VideoReadError(f"Cannot read the whole video {source!r}: {encoded.damage}.")
        frames, _, damage = self._read_ends(target)
        if damage or frames != encoded.frames:
            raise VideoReadError(
                f"Cannot encode video {source!r}: {encoded.frames} frames were written, and "
                f"{frames} can be read{damage and f' ({damage})'}."
            )
        return Ready(
            row,
            damage=encoded.damage,
            content=target,
            frames=encoded.frames,
            seconds=encoded.seconds,
        )

    def _read_ends(self, source: VideoSource) -> tuple[int, float, str]:
        """Number of frames, seconds and damage, if the first and the last frame can be decoded."""
        clip = read_frames(source, lambda total: [0, total - 1], **self._read_options)
        first, last = clip.seconds or (0, 0)
        seconds = (last - first) * clip.total / max(clip.total - 1, 1)
        return clip.total, seconds, clip.damage
