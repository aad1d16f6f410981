"""Which of many videos are on disk, and where: folders are listed instead of asked file by file."""

import os
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from lvt_ff.data.video_files import VIDEO_SUFFIXES, is_foreign, is_video

__all__ = ["videos_below", "which_exist"]

_WORTH_LISTING = 8  # files of a folder that are asked for


def which_exist(paths: Sequence[str]) -> np.ndarray:
    """Which paths (n,) are videos, as `is_video` says; bool."""
    by_folder = defaultdict(list)
    for place, path in enumerate(paths):
        by_folder[os.path.dirname(path)].append(place)
    exist = np.zeros(len(paths), bool)
    for folder, places in by_folder.items():
        files = _plain_files(folder) if len(places) >= _WORTH_LISTING else ()
        for place in places:
            path = paths[place]
            exist[place] = os.path.basename(path) in files or is_video(path)
    return exist


def _plain_files(folder: str) -> Collection[str]:
    """Names of files that are no links; none where the folder cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except (OSError, ValueError):
        return ()


def videos_below(root: str | os.PathLike, names: Collection[str]) -> dict[str, list[str]]:
    """Videos at any depth below a folder, by their names without suffix.

    Folders of numbered pictures are videos too. Hidden files and folders are passed over.

    Args:
        root: the folder.
        names: those that are looked for.

    Returns:
        Paths in the order of the alphabet, files before folders, for each name that is there.

    Raises:
        ValueError: no such folder.
    """
    if not os.path.isdir(root):
        raise ValueError(f"There is no folder {root} to look for videos in.")
    files, folders = defaultdict(list), defaultdict(list)
    waiting, seen = [os.fspath(root)], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # links in a circle
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if stem in names and suffix.lower() in VIDEO_SUFFIXES:
                        files[stem].append(entry.path)
                    elif not is_foreign(entry.name) and _is_folder(entry):
                        wanted = entry.name in names and is_video(entry.path)
                        (folders[entry.name] if wanted else waiting).append(entry.path)
        except OSError:
            continue  # what cannot be opened is missing
    return {
        name: sorted(files.get(name, ())) + sorted(folders.get(name, ()))
        for name in files.keys() | folders.keys()
    }


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
