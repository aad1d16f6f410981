"""Where results go: checked before the work, and written by one run at a time."""

import errno
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from lvt_ff.utils.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: what the lock file says has to do
    fcntl = None

__all__ = ["LOCK_NAME", "check_output_file", "check_output_folder", "only_run"]

LOCK_NAME = "run.lock"  # in the folder of a run, while it runs
_HELD: set[Path] = set()  # lock files of this process, which its own locks do not keep out


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise ValueError where a folder, made or to be made, could not be written to.

    Args:
        folder: that results will go to.
        flag: the option, or the argument, that names another one.
    """
    place = Path(folder).absolute()
    if place.exists() and not place.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: give another {flag}.")
    while not place.exists():
        place = place.parent
    # Permissions tell too little: of read-only disks, of quotas, and nothing at all to root.
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror or error}): give another {flag}."
        ) from error


def check_output_file(file: Path, flag: str) -> None:
    """Raise ValueError where a file could not be written.

    Args:
        file: that a result will go to.
        flag: the option, or the argument, that names another one.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a file: give another {flag}.")
    parent = file.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"There is no folder {parent} to write to: give another {flag}.")
    check_output_folder(parent, flag)


@contextmanager
def only_run(folder: Path, flag: str) -> Iterator[None]:
    """Within this block, no other run writes to a folder.

    A file in it names the run. It is deleted when the block ends, however it ends; where a run was
    killed it stays, and the next run on the same machine takes it over, or what torchrun starts
    anew of the same run, on any machine.

    Args:
        folder: of the run; made where it is not there.
        flag: the option, or the argument, that names another one.

    Raises:
        UsageError: another run is at work there, or may be, on another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.resolve() / LOCK_NAME
    # A process's own lock would not keep it out, and would be lost when the file is opened again.
    holder = _this_run() if file in _HELD else None
    if holder is None:
        handle, holder = _opened(file)
    if holder is not None:
        raise UsageError(
            f"Another run is writing to {folder}: process {holder.get('pid', 'unknown')} on "
            f"{holder.get('host', 'this machine')}, started {holder.get('started', 'just now')}. "
            f"Give another {flag}, or wait for it; if it is no longer there, delete {file}."
        )
    with handle:
        _HELD.add(file)
        try:
            handle.truncate(0)
            json.dump(_this_run(), handle)
            handle.flush()
            yield
        finally:
            _HELD.discard(file)
            if fcntl is None:
                handle.close()  # Windows deletes no open file
            file.unlink(missing_ok=True)


def _this_run() -> dict[str, Any]:
    started = datetime.now().isoformat(" ", "seconds")
    return dict(pid=os.getpid(), host=platform.node(), started=started, job=_job())


def _job() -> str | None:
    """torchrun's name of this run, which processes started in place of ended ones have too."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def _opened(file: Path) -> tuple[TextIO, dict | None]:
    """A lock file that is ours, open; or closed, with the run that holds it."""
    while True:
        handle = open(file, "a+", encoding="utf-8")  # noqa: SIM115 -- open while the run lasts
        holder = _holder(handle)
        if holder is not None:
            handle.close()
            return handle, holder
        with suppress(FileNotFoundError):
            if os.path.samestat(file.stat(), os.fstat(handle.fileno())):
                return handle, None
        handle.close()  # its run has ended, and deleted it, since we opened it


def _holder(handle: TextIO) -> dict | None:
    """The run that a lock file belongs to; None where there is none, or none any more."""
    free = None  # unknown
    if fcntl is not None:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:  # any other: a drive that has no locks
            free = False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    handle.seek(0)
    try:
        told = json.load(handle)
    except ValueError:  # just made, or its run was killed while writing it
        told = {}
    if free is False:
        return told
    if _job() is not None and told.get("job") == _job():
        return None  # torchrun starts nothing anew before the ended processes are gone
    # Locks of other machines are not seen on every network drive.
    if told and (told["host"] != platform.node() or (free is None and _is_running(told["pid"]))):
        return told
    return None


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where asking would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
