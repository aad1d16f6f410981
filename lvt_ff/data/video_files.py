"""Which files are videos, and which of them a folder of class folders holds."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lvt_ff.utils.short_text import counted, listed, shortened
from lvt_ff.video.pictures import numbered_pictures

__all__ = ["VIDEO_SUFFIXES", "FolderContents", "is_foreign", "is_video", "list_folder"]

# What FFmpeg reads. Not .webp: it reads no animated ones, and single ones are pictures.
VIDEO_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("264", "265", "3g2", "3gp", "3gpp", "amv", "asf", "avi", "dav", "divx", "dv", "dvr-ms"),
        *("f4v", "flv", "gif", "gxf", "h264", "h265", "hevc", "ivf", "m1v", "m2t", "m2ts", "m2v"),
        *("m4v", "mjpeg", "mjpg", "mk3d", "mkv", "mod", "mov", "mp2", "mp4", "mpe", "mpeg", "mpg"),
        *("mpv", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "trp", "ts", "vob"),
        *("vro", "webm", "wmv", "wtv", "xvid", "y4m"),
    )
)

# What systems, drives and tools leave in folders, besides names that start with a dot.
_FOREIGN = frozenset(
    (
        *("$recycle.bin", "found.000", "lost+found", "recycler", "system volume information"),
        *("desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"),
        *("__macosx", "network trash folder", "temporary items"),
        *("#recycle", "#snapshot", "@eadir", "@recently-snapshot", "@recycle", "@tmp"),
        "__pycache__",
    )
)
_FORMS = 5  # suffixes that a message names


@dataclass
class _Files:
    """Files that are left out: how many of which suffix, and the first of them."""

    suffixes: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.suffixes[_suffix(path)] += 1
            self.first = self.first or path

    def told(self, what: str, plural: str) -> list[str]:
        number = self.suffixes.total()
        if not number:
            return []
        kinds = [
            f"{count} {shortened(suffix, 20) or 'without suffix'}"
            for suffix, count in self.suffixes.most_common()
        ]
        said = f"{counted(number, what, plural)} left out: {listed(kinds, _FORMS)}"
        return [f"{said} (such as {shortened(self.first)})."]


@dataclass
class FolderContents:
    """What a folder of class folders holds.

    Args:
        folder: the folder.
        rows: path and class of each video, by path.
        empty_classes: class folders without a video.
        others: files in class folders that are no videos.
        outside: files in no class folder.
        closed: folders that cannot be opened, and why.
    """

    folder: Path
    rows: list[tuple[Path, str]] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    others: _Files = field(default_factory=_Files)
    outside: _Files = field(default_factory=_Files)
    closed: list[str] = field(default_factory=list)

    def told(self) -> str:
        """What is left out, in a sentence or more; empty where nothing is."""
        sentences = self.others.told(
            f"file in {self.folder} is no video and is",
            f"files in {self.folder} are no videos and are",
        )
        sentences += self.outside.told(
            f"file directly in {self.folder} is in no class folder and is",
            f"files directly in {self.folder} are in no class folder and are",
        )
        if self.empty_classes:
            empty = counted(len(self.empty_classes), "class folder holds", "class folders hold")
            sentences.append(f"{empty} no video: {listed(self.empty_classes)}.")
        if self.closed:
            closed = counted(len(self.closed), "folder is", "folders are")
            sentences.append(
                f"{closed} left out that cannot be opened, such as {shortened(self.closed[0])}."
            )
        return " ".join(sentences)


def list_folder(folder: Path) -> FolderContents:
    """Find the videos of a folder with one subfolder per class.

    Videos may lie in folders of any depth below that of their class. Such a folder is a video
    itself where it holds numbered pictures and no video. Hidden files and folders, and those that
    systems and drives make for themselves, are passed over.

    Raises:
        OSError: the folder cannot be opened.
    """
    contents = FolderContents(folder)
    files, class_names = _names(folder)
    contents.outside.add(files)
    for class_name in class_names:
        paths = _videos_of_class(contents, class_name)
        contents.rows += [(path, class_name) for path in sorted(paths)]
        if not paths:
            contents.empty_classes.append(class_name)
    return contents


def is_foreign(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems and drives make for themselves."""
    return name.startswith(".") or name.lower() in _FOREIGN


def is_video(path: str | Path) -> bool:
    """Whether there is a file, or a folder of numbered pictures, by this name.

    What the system does not let us look at counts as there: to read it fails later, and says why.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            files, _ = _names(path)
            return not any(map(_has_video_suffix, files)) and bool(numbered_pictures(files))
        return stat.S_ISREG(mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero in the name
        return False
    except OSError:  # a name too long, no permission, a drive that is gone
        return True


def _videos_of_class(contents: FolderContents, class_name: str) -> list[Path]:
    """The videos of a class, in no order; what is left out is noted in `contents`."""
    top = contents.folder / class_name
    videos, waiting = [], [(top, (_identity(contents.folder),))]
    while waiting:
        place, above = waiting.pop()
        try:
            identity = _identity(place)
            files, folders = _names(place)
        except OSError as error:
            told = f"{place.relative_to(contents.folder)} ({error.strerror or error})"
            contents.closed.append(told)
            continue
        if identity in above:  # a link to a folder that it lies in
            continue
        waiting += [(place / name, (*above, identity)) for name in folders]
        found = set(filter(_has_video_suffix, files))
        videos += [place / name for name in found]
        if place != top and not found:
            found = numbered_pictures(files)
            videos += [place] if found else []
        inside = place.relative_to(contents.folder)
        contents.others.add(str(inside / name) for name in files if name not in found)
    return videos


def _identity(folder: Path) -> tuple[int, int]:
    """Tells a folder from all others, whichever links lead to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _names(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of files and of folders, sorted, without what is hidden or foreign."""
    names = ([], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_foreign(entry.name):
                names[_is_folder(entry)].append(entry.name)
    return sorted(names[False]), sorted(names[True])


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _has_video_suffix(name: str) -> bool:
    return _suffix(name) in VIDEO_SUFFIXES
