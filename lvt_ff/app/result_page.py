"""What the page shows of a clip: classes, frames, relevance, time; pictures within the text.

Pictures travel inside the HTML: beside the upload itself, which is deleted, nothing is written.
"""

import html
import time
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from lvt_ff.data import header
from lvt_ff.data.video_list import VIDEO_SUFFIXES
from lvt_ff.explain.attention_recorder import core_of
from lvt_ff.explain.explain import Explanation, explain_video
from lvt_ff.explain.figures import gif_bytes, time_figure
from lvt_ff.explain.views import relevance_heat
from lvt_ff.inference.classifier import Classifier

__all__ = ["Answer", "answer", "check_video"]

_LONG_S, _PART_S, _MAX_PARTS = 10, 5, 16  # a timeline's shortest clip, its parts, how many
_MAX_PIXELS = 3840 * 2160  # of a frame: every frame that is used is decoded whole
_HEIGHT = 160  # pixels of a picture on the page


@dataclass
class Answer:
    """Probabilities of the best classes by name, and the rest as HTML."""

    classes: dict[str, float]
    page: str


def check_video(path: Path, max_mb: float, max_seconds: float) -> float | None:
    """Length of an uploaded video in seconds, or None where it cannot be opened.

    Raises:
        ValueError: another kind of file, too large, too long or of too many pixels.
    """
    if not path.is_file():
        raise ValueError("The file is no longer there: upload it again.")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        known = " ".join(sorted(VIDEO_SUFFIXES))
        raise ValueError(f"This is not a video file: its name must end with one of {known}.")
    size_mb = path.stat().st_size / 1e6
    if size_mb > max_mb:
        raise ValueError(f"The file has {size_mb:.0f} MB: the limit is {max_mb:g} MB.")
    told = header(path)
    if told is None:
        return None
    length, pixels = told
    if length > max_seconds:
        raise ValueError(f"The video lasts {length:.0f} s: the limit is {max_seconds:g} s.")
    if pixels > _MAX_PIXELS:
        raise ValueError(f"A frame has {pixels:,} pixels: the limit is {_MAX_PIXELS:,}.")
    return length


def answer(classify: Classifier, path: Path, length_s: float | None, top_k: int = 5) -> Answer:
    """Classify and explain a video with one model.

    Raises:
        VideoReadError: the file cannot be read.
    """
    start = time.perf_counter()
    predictions = classify(path, top_k)
    seconds = time.perf_counter() - start
    parts = [f"<p>Read and classified in {seconds:.2f} s.</p>"]
    try:
        explained = explain_video(classify, path, top_k=top_k)
        frames = explained.frames
        parts.append(_relevance(classify, explained))
    except NotImplementedError as error:
        frames = classify.pictures(classify.read(path)[0])
        parts.append(f"<p>{html.escape(str(error))}</p>")
    parts.append(_figure(_strip(frames), "png", f"The {len(frames)} frames that were used"))
    if length_s is not None and length_s >= _LONG_S:
        parts.append(_timeline(classify, path, length_s))
    return Answer({row["label"]: row["score"] for row in predictions}, "\n".join(parts))


def _relevance(classify: Classifier, explained: Explanation) -> str:
    pictures = relevance_heat(core_of(classify.model), explained)
    both = np.concatenate([explained.frames, pictures], axis=2)
    height, width = both.shape[1:3]
    factor = max(round(_HEIGHT / height), 1)
    larger = both.repeat(factor, axis=1).repeat(factor, axis=2)
    return _figure(gif_bytes(larger), "gif", f"What counts for “{explained.label}”")


def _strip(frames: np.ndarray) -> bytes:
    number, height, width = frames.shape[:3]
    columns = min(number, 8)
    sheet = Image.new("RGB", (columns * width, -(-number // columns) * height), "white")
    for index, frame in enumerate(frames):
        place = (index % columns * width, index // columns * height)
        sheet.paste(Image.fromarray(frame), place)
    file = BytesIO()
    sheet.save(file, format="png")
    return file.getvalue()


def _timeline(classify: Classifier, path: Path, length_s: float) -> str:
    num_parts = int(min(max(length_s // _PART_S, 2), _MAX_PARTS))
    rows = classify.over_time(path, num_parts)
    best = rows.amax(0).topk(min(3, rows.shape[1])).indices.tolist()
    names = classify.model.config.id2label
    middles = (np.arange(num_parts) + 0.5) * length_s / num_parts
    curves = {names[number]: (100 * rows[:, number]).tolist() for number in best}
    caption = f"Over time: {num_parts} parts of {length_s / num_parts:.1f} s, each on its own"
    return _figure(time_figure(middles, curves), "png", caption)


def _figure(picture: bytes, kind: str, caption: str) -> str:
    caption = html.escape(caption)
    source = f"data:image/{kind};base64,{b64encode(picture).decode()}"
    return (
        f'<figure style="margin:0.5em 0"><figcaption>{caption}</figcaption>'
        f'<img src="{source}" alt="{caption}" style="max-width:100%"></figure>'
    )
