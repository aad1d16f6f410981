"""A folder with one subfolder per class."""

import logging
import os
from pathlib import Path

import numpy as np

from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_files import list_folder

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = "a folder with one subfolder per class"

_logger = logging.getLogger(__name__)


def recognises(source: str) -> bool:
    """Whether it is a folder."""
    return os.path.isdir(source)


def read(request: Request) -> Listing:
    """Videos at any depth below the folder of their class; what is left out is told.

    Raises:
        ValueError: no folder, or no video in it.
    """
    folder = Path(request.source)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: expected {EXPECTS}.")
    contents = list_folder(folder)
    told = contents.told()
    if not contents.rows:
        raise ValueError(
            f"No video found in {folder}: expected {folder}/CLASS/NAME.mp4, or another file that "
            f"FFmpeg reads, or pictures {folder}/CLASS/NAME/0001.jpg, …{told and f'. {told}'}"
        )
    if told:
        _logger.warning("%s", told)
    if request.video_root is not None:
        _logger.warning(
            "The video root %s is not used for %s, a folder that holds its videos itself.",
            request.video_root,
            folder,
        )
    names = tuple(dict.fromkeys(name for _, name in contents.rows))
    number = {name: place for place, name in enumerate(names)}
    return Listing(
        Texts(str(path) for path, _ in contents.rows),
        names,
        np.array([number[name] for _, name in contents.rows]),
        np.arange(len(contents.rows)),
    )
