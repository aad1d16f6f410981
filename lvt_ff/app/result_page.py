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
from lvt_ff.explain.explain import Explanation, explain_clip
from lvt_ff.explain.figures import gif_bytes, timeline_figure
from lvt_ff.explain.views import relevance_overlay
from lvt_ff.hf.scores import format_score
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.errors import Failure

__all__ = ["MAX_FRAME_PIXELS", "ResultPage", "check_video", "make_result_page"]

MAX_FRAME_PIXELS = 3840 * 2160  # every frame up to those that are used is decoded whole
_LONG_S, _PART_S, _MAX_PARTS = 10, 5, 16  # a timeline's shortest clip, its parts, how many
_HEIGHT = 160  # pixels of a picture on the page


@dataclass
class ResultPage:
    """What gradio's label shows, and the rest as HTML.

    Args:
        best_classes: probabilities by name, or the values of a regression as text.
        html: time, pictures, timeline.
    """

    best_classes: dict[str, float] | str
    html: str


def check_video(path: Path, max_mb: float, max_seconds: float) -> float | None:
    """Length of an uploaded video in seconds, or None where it cannot be opened.

    Raises:
        ValueError: another kind of file, too large or too long.
        FrameSizeError: of too many pixels.
    """
    if not path.is_file():
        raise ValueError("The file is no longer there: upload it again.")
    # The whole name: one such as ".mp4" has no suffix for pathlib.
    if not path.name.lower().endswith(tuple(VIDEO_SUFFIXES)):
        raise ValueError(
            "This is not a video file: its name must end as those of videos do, such as .mp4, "
            ".mov, .mkv, .webm or .avi."
        )
    size_mb = path.stat().st_size / 1e6
    if size_mb > max_mb:
        raise ValueError(f"The file has {size_mb:.0f} MB: the limit is {max_mb:g} MB.")
    known = header(path, MAX_FRAME_PIXELS)
    if known is None:
        return None
    length, _ = known
    if length > max_seconds:
        raise ValueError(f"The video lasts {length:.0f} s: the limit is {max_seconds:g} s.")
    return length


def make_result_page(
    classify: Classifier, path: Path, length_s: float | None, top_k: int = 5
) -> ResultPage:
    """Classify and explain a video with one model.

    Raises:
        VideoReadError: the file cannot be read.
        Failure: the model's scores are not numbers.
    """
    start = time.perf_counter()
    clips = classify.read(path)
    predictions = classify.classify_clips(clips, top_k)
    seconds = time.perf_counter() - start
    parts = [f"<p>Read and classified in {seconds:.2f} s.</p>"]
    frames = classify.pictures(clips[0])
    try:
        explained = explain_clip(classify, clips[:1], top_k=top_k)
        parts.append(_relevance(classify, explained))
    except (NotImplementedError, Failure) as error:
        parts.append(f"<p>{html.escape(str(error))}</p>")
    parts.append(_figure(_contact_sheet(frames), "png", f"The {len(frames)} frames that were used"))
    if length_s is not None and length_s >= _LONG_S:
        parts.append(_timeline(classify, path, length_s))
    return ResultPage(_best_classes(classify, predictions), "\n".join(parts))


def _best_classes(classify: Classifier, predictions: list[dict]) -> dict[str, float] | str:
    if classify.score_function != "none":
        return {row["label"]: row["score"] for row in predictions}
    return ", ".join(f"{row['label']}: {format_score(row['score'], 'none')}" for row in predictions)


def _relevance(classify: Classifier, explained: Explanation) -> str:
    overlay = relevance_overlay(core_of(classify.model), explained)
    both = np.concatenate([explained.frames, overlay], axis=2)
    height, width = both.shape[1:3]
    factor = max(round(_HEIGHT / height), 1)
    larger = both.repeat(factor, axis=1).repeat(factor, axis=2)
    return _figure(gif_bytes(larger), "gif", f"What counts for “{explained.label}”")


def _contact_sheet(frames: np.ndarray) -> bytes:
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
    scores = classify.scores_over_time(path, num_parts)  # (num_parts, K)
    best = scores.amax(0).topk(min(3, scores.shape[1])).indices.tolist()
    names = classify.model.config.class_names
    middles = (np.arange(num_parts) + 0.5) * length_s / num_parts
    if classify.score_function == "none":
        scale, ylabel, ylim = 1, "value", None
    else:
        scale, ylabel, ylim = 100, "probability (%)", (0, 100)
    curves = {names[number]: (scale * scores[:, number]).tolist() for number in best}
    caption = f"Over time: {num_parts} parts of {length_s / num_parts:.1f} s, each on its own"
    return _figure(timeline_figure(middles, curves, ylabel, ylim), "png", caption)


def _figure(picture: bytes, kind: str, caption: str) -> str:
    caption = html.escape(caption)
    source = f"data:image/{kind};base64,{b64encode(picture).decode()}"
    return (
        f'<figure style="margin:0.5em 0"><figcaption>{caption}</figcaption>'
        f'<img src="{source}" alt="{caption}" style="max-width:100%"></figure>'
    )
