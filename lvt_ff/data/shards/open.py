"""The index of a folder of tar shards, or of a single one, as it is or newly made."""

import logging
from pathlib import Path

from lvt_ff.data.shards.index import INDEX_NAME, ShardIndex, read_index, write_index
from lvt_ff.data.shards.scan import scan_shards
from lvt_ff.utils.short_text import counted, listed

__all__ = ["RECORD", "UNFINISHED", "is_loose", "is_shards", "open_index"]

_logger = logging.getLogger(__name__)

_SUFFIX = ".tar"
UNFINISHED = "unfinished"  # folder of what `prepare-data` keeps until all shards are there
RECORD = "prepare.json"  # what it was asked, there and beside the shards


def is_shards(source: Path) -> bool:
    """Whether this is a tar file, or a folder that has some, or their index, directly in it."""
    if source.is_dir():
        return _is_made(source) or bool(_tar_files(source))
    return source.suffix == _SUFFIX and source.is_file()


def is_loose(source: Path) -> bool:
    """Whether tar files lie in a folder that nobody has made an index of."""
    return source.is_dir() and not _is_made(source)


def open_index(source: Path) -> ShardIndex:
    """The videos of a folder of tar shards.

    It is made where there is none, or where tar files came, went or changed since it was
    made; it is kept in the folder if that can be written to.

    Args:
        source: the folder, or a single tar file.

    Raises:
        ValueError: see `scan_shards`; or `prepare-data` has not come to its end.
    """
    if source.is_file():
        return scan_shards([source])
    if _is_unfinished(source):
        raise ValueError(
            f"{source} is not complete: run the command prepare-data that makes it again, and it "
            "goes on where it ended."
        )
    return _index(source)


def _is_made(folder: Path) -> bool:
    """Whether it has an index, or will have one."""
    return (folder / INDEX_NAME).is_file() or _is_unfinished(folder)


def _is_unfinished(folder: Path) -> bool:
    return (folder / UNFINISHED / RECORD).is_file()


def _index(folder: Path) -> ShardIndex:
    file = folder / INDEX_NAME
    if file.is_file():
        index = read_index(file)
        changed = _changed(folder, index)
        if index.is_prepared and changed:
            _logger.warning(
                "%s of %s in %s are missing or not as they were prepared: %s. Their videos cannot "
                "be read.",
                counted(len(changed), "tar file"),
                len(index.shards),
                folder,
                listed(changed),
            )
        if index.is_prepared or not changed:
            return index
    index = scan_shards(_tar_files(folder))
    try:
        write_index(file, index)
    except (OSError, ValueError) as error:  # ValueError: pyarrow is not installed
        _logger.warning("The index of %s cannot be kept there: %s.", folder, error)
    return index


def _changed(folder: Path, index: ShardIndex) -> list[str]:
    """Tar files that are not those of the index; new ones count where it was made by scanning."""
    now = {file.name: file.stat().st_size for file in _tar_files(folder)}
    then = dict(zip(index.shards, index.shard_bytes, strict=True))
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _tar_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix == _SUFFIX and not file.name.startswith(".") and file.is_file()
    )
