"""Names of files as every decoder takes them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from lvt_ff.video.pictures import is_pictures

__all__ = ["plain_name", "problem_of_file"]


@contextmanager
def plain_name(path: str) -> Iterator[str]:
    """A name of a file that no decoder takes for an address, and that is UTF-8."""
    path = os.path.abspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="lvt_ff_") as folder:
            link = os.path.join(folder, "video")
            os.symlink(path, link)
            yield link
    else:
        yield path


def problem_of_file(path: str) -> str | None:
    """Why there is nothing to read at a path, or None."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            found = is_pictures(path)
            return None if found else "it is not a file, nor a folder of numbered pictures"
        if not stat.S_ISREG(status.st_mode):
            return "it is not a file"
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        return "the file does not exist"
    except (OSError, ValueError) as error:  # such as a name that is too long, or has a zero in it
        return getattr(error, "strerror", None) or str(error)
    return None if status.st_size else "the file is empty"
