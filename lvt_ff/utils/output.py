"""Where results go: checked before the work, and written by one run at a time."""

import tempfile
from pathlib import Path

__all__ = ["check_output_file", "check_output_folder"]


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise ValueError where a folder, made or to be made, could not be written to.

    Args:
        folder: that results will go to.
        flag: the option that names another one.
    """
    place = Path(folder).absolute()
    if place.exists() and not place.is_dir():
        raise ValueError(f"{folder} is a file: give a folder with {flag}.")
    while not place.exists():
        place = place.parent
    # Permissions tell too little: of read-only disks, of quotas, and nothing at all to root.
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror or error}): give another folder with "
            f"{flag}."
        ) from error


def check_output_file(file: Path, flag: str) -> None:
    """Raise ValueError where a file could not be written.

    Args:
        file: that a result will go to.
        flag: the option that names another one.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: give a file with {flag}.")
    parent = file.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"There is no folder {parent} to write to: make it, or change {flag}.")
    check_output_folder(parent, flag)
