"""Something-Something V2 as it is distributed: JSON with a template for each video.

Its classes are the templates without brackets, numbered by `labels.json`.
"""

import json
import logging
from pathlib import Path

import numpy as np

from lvt_ff.data.class_file import Classes, read_class_file
from lvt_ff.data.formats.file_head import first_json_object
from lvt_ff.data.formats.listing import Listing, Request
from lvt_ff.data.texts import Texts
from lvt_ff.data.video_places import videos_below
from lvt_ff.utils.short_text import shortened

__all__ = ["EXPECTS", "read", "recognises"]

EXPECTS = "the JSON of Something-Something V2, whose objects have id and template"

_logger = logging.getLogger(__name__)

_LABEL_FILES = ("labels.json", "something-something-v2-labels.json")


def recognises(source: str) -> bool:
    """Whether it is a JSON list whose objects have `id` and `template`."""
    return {"id", "template"} <= first_json_object(source).keys()


def read(request: Request) -> Listing:
    """Videos ID.webm or ID.mp4 anywhere below the root.

    Raises:
        ValueError: other JSON, or a template that is no class.
    """
    file = Path(request.source)
    rows = _rows(file)
    classes = request.classes or _classes_beside(file)
    names = classes.names if classes else tuple(sorted({template for _, template in rows}))
    if not classes:
        _logger.warning(
            "There is no labels.json beside %s: its %d classes are numbered in the order of the "
            "alphabet. --class_file says where the official numbers are.",
            file,
            len(names),
        )
    number = {name: place for place, name in enumerate(names)}
    unknown = next((template for _, template in rows if template not in number), None)
    if unknown is not None:
        raise ValueError(
            f"{file} has the template {shortened(unknown, 80)!r}, which is none of the "
            f"{len(names)} classes of its label file."
        )
    found = videos_below(request.root, {name for name, _ in rows})
    return Listing(
        Texts(found.get(name, [f"{name}.webm"])[0] for name, _ in rows),
        names,
        np.array([number[template] for _, template in rows], np.int64),
        np.arange(len(rows)),
        official=classes is not None,
        absent=np.array([name not in found for name, _ in rows]),
        place=f"looked for in {request.root} and all folders below it",
    )


def _rows(file: Path) -> list[tuple[str, str]]:
    """Name and class of each video."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no JSON file: {shortened(str(error))}.") from error
    try:
        rows = [(str(row["id"]), _class_of(row["template"])) for row in content]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{file} is no labelled list of Something-Something V2: each of its objects needs id "
            "and template, as those of train.json and validation.json have (test.json has none)."
        ) from error
    if not rows:
        raise ValueError(f"{file} has no videos.")
    return rows


def _class_of(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _classes_beside(file: Path) -> Classes | None:
    for name in _LABEL_FILES:
        if (file.parent / name).is_file():
            return read_class_file(file.parent / name)
    return None
