"""Tar shards, as `prepare-data` or the WebDataset library writes them."""

import logging
from pathlib import Path

from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.shards import ShardStore, is_loose, is_shards, open_index
from lvt_ff.data.video_files import list_folder

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = "a folder of tar files whose members are KEY.mp4 and KEY.json, KEY.cls or KEY.txt"

_logger = logging.getLogger(__name__)


def recognises(source: str) -> bool:
    """Whether it is a tar file, or a folder that has tar files directly in it.

    Not a folder of class folders, beside which the archive that they came in was left.
    """
    place = Path(source)
    return is_shards(place) and not (is_loose(place) and list_folder(place).rows)


def read(request: Request) -> Listing:
    """Videos in the order of the index; one is made where there is none.

    Raises:
        ValueError: no tar files, others than those, or a video without a label.
    """
    source = Path(request.source)
    if not is_shards(source):
        raise ValueError(f"{source} has no tar files: expected {EXPECTS}.")
    if request.video_root is not None:
        _logger.warning(
            "The video root %s is not used for %s: tar files hold their videos themselves.",
            request.video_root,
            source,
        )
    index = open_index(source)
    folder = source if source.is_dir() else source.parent
    return Listing(
        index.names,
        index.class_names,
        index.labels,
        index.rows,
        official=index.official,
        may_number=all(name.isdecimal() for name in index.class_names),
        multi=index.multi,
        label_spans=index.label_spans,
        store=ShardStore.of_index(folder, index),
    )
