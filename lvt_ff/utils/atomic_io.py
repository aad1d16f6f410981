"""Files and folders that are written whole or not at all.

What is unfinished lies in a folder of a new name beside its target, which only this user may enter:
no link waits there, and two writers of one target do not meet. The umask decides who may read the
result, whichever library wrote it (safetensors alone leaves its files to their owner).
"""

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed writer left stays there
    fcntl = None

__all__ = ["atomic_file", "atomic_files", "atomic_folder", "let_umask_decide", "write_text"]

_SUFFIX, _FORMER = ".partial", "former"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A new file that gets its name, and replaces a former one, only if the block ends well."""
    with _workplace(path) as place:
        partial = place / path.name  # writers choose a format by the suffix
        yield partial
        _finish(partial)
        os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write a file that appears under its name only when it is complete.

    Names of files that are not UTF-8 are written as the bytes that they are.
    """
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=sys.getfilesystemencodeerrors())


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A new folder that gets its name, and replaces a former one, only if the block ends well."""
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with _workplace(folder) as place:
        new, former = place / "new", place / _FORMER / folder.name
        new.mkdir()
        former.parent.mkdir()
        yield new
        _finish(new)
        if not os.path.lexists(folder):
            os.rename(new, folder)
            return
        os.rename(folder, former)
        try:
            os.rename(new, folder)
        except OSError:
            os.rename(former, folder)
            raise


@contextmanager
def atomic_files(folder: Path, last: str) -> Iterator[Path]:
    """A folder whose files come into another one, beside what is there, if the block ends well.

    Args:
        folder: where they go, made if it is not there.
        last: the file without which the others do not count: a former one goes first, and the new
            one comes when all others are in place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _workplace(folder / last) as place:
        new = place / "new"
        new.mkdir()
        yield new
        _finish(new)
        (folder / last).unlink(missing_ok=True)
        for file in sorted(new.iterdir(), key=lambda file: file.name == last):
            os.replace(file, folder / file.name)


def let_umask_decide(*files: Path) -> None:
    """Give files the permissions that a plain new file in their folder gets."""
    for folder in {file.parent for file in files}:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
            allowed = _allowed(Path(place))
        for file in files:
            if file.parent == folder:
                _permit(file, allowed)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A new folder beside a target, locked while it is in use and gone afterwards."""
    _sweep(target)
    parent = target.absolute().parent
    while True:
        place = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=_SUFFIX, dir=parent))
        lock = _locked(place)
        if place.exists():  # a sweep may have come before the lock
            break
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name[:100]}."  # names end at 255 bytes


def _sweep(target: Path) -> None:
    """Delete what killed writers of a target left behind, bringing back what they moved away."""
    name = re.compile(rf"{re.escape(_prefix(target))}\w+{re.escape(_SUFFIX)}")
    for place in target.absolute().parent.iterdir():
        lock = _locked(place) if name.fullmatch(place.name) else None
        if lock is None:
            continue
        with suppress(OSError):
            if not os.path.lexists(target):
                os.rename(place / _FORMER / target.name, target)
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _locked(place: Path) -> int | None:
    """A handle that holds the lock on a folder; None where another writer has it."""
    if fcntl is None:
        return None
    with suppress(OSError):
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:  # in use, or a file system without locks
            os.close(handle)
    return None


def _allowed(place: Path) -> int:
    """The permissions of a new folder here, as the umask and the parent folder make them."""
    probe = place / "probe"
    probe.mkdir()
    allowed = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    return allowed


def _permit(path: Path, allowed: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    of_a_file = (allowed & 0o666) | (mode & allowed & 0o111)  # scripts stay scripts
    wanted = allowed if path.is_dir() else of_a_file
    if mode != wanted:
        path.chmod(wanted)


def _finish(new: Path) -> None:
    """Put a file, or all files of a folder, on the disk with the permissions that they get there.

    The file's own folder is the private one.
    """
    allowed = _allowed(new.parent)
    for path in [new, *new.rglob("*")] if new.is_dir() else [new]:
        if path.is_symlink():
            continue
        _permit(path, allowed)
        if path.is_file():
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
