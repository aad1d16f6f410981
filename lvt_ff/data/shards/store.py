"""Videos read from tar shards by their place, whichever order they are asked for in."""

import os
import tarfile
from pathlib import Path

import numpy as np

from lvt_ff.data.shards.index import ShardIndex
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_store import NamedBytes
from lvt_ff.utils.errors import VideoReadError
from lvt_ff.video.sources import VideoSource

__all__ = ["ShardStore"]

_HEADER = tarfile.BLOCKSIZE  # bytes before a member, which say what it is


class ShardStore:
    """A `VideoStore` of parts of tar files.

    Args:
        folder: where the tar files are.
        shards: their names.
        shard: which of them each video is in, (n,) int32.
        offset, size: bytes of each video, (n,) int64.
        members: what each is called there.
    """

    def __init__(
        self,
        folder: Path,
        shards: tuple[str, ...],
        shard: np.ndarray,
        offset: np.ndarray,
        size: np.ndarray,
        members: Texts,
    ):
        self._folder, self._shards = os.fspath(folder), shards
        self._shard, self._offset, self._size, self._members = shard, offset, size, members

    @classmethod
    def of_index(cls, folder: Path, index: ShardIndex) -> "ShardStore":
        """All videos of an index."""
        return cls(folder, index.shards, index.shard, index.offset, index.size, index.members)

    def source(self, index: int) -> VideoSource:
        """A video's bytes.

        Raises:
            VideoReadError: the tar file is not there, is shorter than it was, or has something else
                at this place.
        """
        path = os.path.join(self._folder, self._shards[self._shard[index]])
        member, size = self._members[index], int(self._size[index])
        name = f"{path}/{member}"
        try:
            content = _read(path, int(self._offset[index]) - _HEADER, _HEADER + size)
        except OSError as error:
            raise VideoReadError(f"Cannot read video {name}: {error.strerror or error}.") from error
        problem = _problem(content, member, size)
        if problem:
            raise VideoReadError(
                f"Cannot read video {name}: {problem}, so that it is not the tar file that the "
                "index was made of. Fetch or prepare it again."
            )
        return NamedBytes(content[_HEADER:], name)

    def take(self, indices: np.ndarray) -> "ShardStore":
        """These videos, in this order."""
        return ShardStore(
            self._folder,
            self._shards,
            self._shard[indices],
            self._offset[indices],
            self._size[indices],
            self._members.take(indices),
        )


def _read(path: str, offset: int, size: int) -> memoryview:
    content = memoryview(bytearray(size))
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        done = 0
        while done < size and (count := file.readinto(content[done:])):
            done += count
    return content[:done]


def _problem(content: memoryview, member: str, size: int) -> str | None:
    """Why these are not a member's header and content, or None."""
    if len(content) < _HEADER + size:
        return f"the file ends after {max(len(content) - _HEADER, 0):,} of its {size:,} bytes"
    try:
        header = tarfile.TarInfo.frombuf(bytes(content[:_HEADER]), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return "there is no member at its place"
    # Long names, and those that are not ASCII, stand in a header of their own before this one.
    is_plain = member.isascii() and len(member) <= tarfile.LENGTH_NAME
    name = header.name.encode(errors="backslashreplace").decode()  # as the index has it
    if header.size != size or (is_plain and name != member):
        return f"there is another member, {header.name!r} of {header.size:,} bytes, at its place"
    return None
