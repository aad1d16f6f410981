"""Tar shards written whole or not at all: the same videos give the same bytes."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.errors import Failure

__all__ = ["ShardWriter", "new_shard"]

_CHUNK = 2**20


class ShardWriter:
    """Puts members into a tar file.

    Args:
        file: open for writing.
    """

    def __init__(self, file: BinaryIO):
        # Plain headers of 512 bytes: the place of what follows can be told from them.
        self._archive = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._digests: dict[str, str] = {}
        self.size = 0

    def add(self, name: str, content: BinaryIO, size: int) -> None:
        """Put so many bytes of a file in."""
        info = tarfile.TarInfo(name)  # of nobody, and of 1970, wherever and whenever it is written
        info.size = size
        reader = _Hashing(content)
        self._archive.addfile(info, reader)
        self._digests[name] = reader.digest
        self.size = self._archive.offset

    def add_bytes(self, name: str, content: bytes) -> None:
        """Put bytes in."""
        self.add(name, io.BytesIO(content), len(content))

    def close(self) -> dict[str, str]:
        """End the tar file; gives the SHA-256 of each member."""
        self._archive.close()
        return self._digests


class _Hashing:
    """A file whose SHA-256 is taken while it is read."""

    def __init__(self, file: BinaryIO):
        self._file, self._hash = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._hash.update(content)
        return content

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def new_shard(path: Path) -> Iterator[ShardWriter]:
    """A tar file that gets its name if the block ends well and what was written can be read back.

    Raises:
        Failure: a member reads otherwise than it was written.
    """
    with atomic_file(path) as partial:
        with open(partial, "wb") as file:
            writer = ShardWriter(file)
            yield writer
            digests = writer.close()
        _verify(partial, digests)


def _verify(path: Path, digests: dict[str, str]) -> None:
    read = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            reader = _Hashing(archive.extractfile(member))
            while reader.read(_CHUNK):
                pass
            read[member.name] = reader.digest
    wrong = [name for name in digests.keys() | read.keys() if digests.get(name) != read.get(name)]
    if wrong:
        raise Failure(
            f"{path.name} reads otherwise than it was written, such as {min(wrong)}: the disk or "
            "the memory of this machine is damaged. Check both, and run the command again."
        )
