"""Names of files as every decoder takes them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def problem_of_file(path: str, folders: bool = False) -> str | None:
    """Why there is nothing to read at a path, or None.

    Args:
        path: of a file.
        folders: it may also be a folder.
    """
    file = Path(path)
    try:
        size = os.stat(path).st_size
        if file.is_dir():
            return None if folders else "it is not a file"
        if not file.is_file():
            return "it is not a file"
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        return "the file does not exist"
    except (OSError, ValueError) as error:  # such as a name that is too long, or has a zero in it
        return getattr(error, "strerror", None) or str(error)
    return None if size else "the file is empty"
