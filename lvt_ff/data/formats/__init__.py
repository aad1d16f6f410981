"""The table of formats that lists of videos come in, in the order in which they are tried.

A format is a module with

- `EXPECTS`: what it looks like, in a phrase for messages;
- `recognises(source: str) -> bool`: whether a path (or another text) looks like it. It looks at
  little of a file and raises nothing; the first format that says yes is taken;
- `read(request: Request) -> Listing`: videos and labels as they are listed. It raises ValueError
  for what is wrong in the list, marks what is not on disk in `absent`, and leaves to
  `load_video_list` what all formats share: missing files, the order of classes, kinds of labels.

A new format is one file here, one line in `FORMATS`, before those that would take its sources, and
its name in `DataFormat`.
"""

from pathlib import Path
from typing import Literal

from lvt_ff.data.formats import charades, folder, hf_datasets, kinetics, shards, ssv2, table
from lvt_ff.data.formats.listing import Format, Listing, Request

__all__ = ["FORMATS", "DataFormat", "Format", "Listing", "Request", "recognised"]

DataFormat = Literal[
    "auto", "shards", "datasets", "folder", "ssv2", "kinetics", "charades", "table"
]

FORMATS: dict[str, Format] = {
    "shards": shards,
    "datasets": hf_datasets,
    "folder": folder,
    "ssv2": ssv2,
    "kinetics": kinetics,
    "charades": charades,
    "table": table,
}


def recognised(source: str) -> str:
    """The name of the format that a source is in.

    Raises:
        ValueError: none; the message says what was looked for.
    """
    for name, form in FORMATS.items():
        if form.recognises(source):
            return name
    if not Path(source).exists():
        raise ValueError(f"{source} does not exist: give a folder of class folders or a CSV file.")
    known = "; ".join(f"{name} ({form.EXPECTS})" for name, form in FORMATS.items())
    raise ValueError(
        f"{source} is in no known format of video lists. These are known: {known}. Where it is "
        "one of them, name it with --data_format."
    )
