"""Files of scores: what one evaluation gave for each video, for others to go on with."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lvt_ff.utils.atomic_io import atomic_file

__all__ = ["ScoreFile", "read_scores", "write_scores"]

_TOLD = ("paths", "class_names", "function", "pooling", "protocol", "model")


@dataclass(frozen=True)
class ScoreFile:
    """Logits of videos, and what they are of.

    Args:
        logits: of every view, by clip, then crop, (n, V, K) float32; NaN where a video could not be
            read.
        labels: see `VideoList`.
        paths: of the videos.
        class_names: in order.
        function: what makes scores of logits, see `lvt_ff.hf.scores`.
        pooling: of the views of a video.
        protocol: of the evaluation.
        model: its name.
    """

    logits: np.ndarray
    labels: np.ndarray
    paths: list[str]
    class_names: tuple[str, ...]
    function: str
    pooling: str
    protocol: str
    model: str


def write_scores(file: Path, scores: ScoreFile) -> None:
    """Write safetensors with `logits` and `labels`, and the rest as JSON in its metadata."""
    told = {name: json.dumps(getattr(scores, name)) for name in _TOLD}
    tensors = dict(logits=np.ascontiguousarray(scores.logits), labels=scores.labels)
    with atomic_file(file) as partial:
        save_file(tensors, partial, metadata=told)


def read_scores(file: Path) -> ScoreFile:
    """Read what `write_scores` wrote.

    Raises:
        ValueError: another file, or one whose parts do not fit together.
    """
    try:
        with safe_open(file, "np") as stored:
            metadata = stored.metadata() or {}
            told = {name: json.loads(metadata[name]) for name in _TOLD}
            tensors = {name: stored.get_tensor(name) for name in ("logits", "labels")}
    except FileNotFoundError as error:
        raise ValueError(f"{file} does not exist.") from error
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise ValueError(
            f"{file} is not a file of scores: give logits.safetensors of `lvt-ff evaluate "
            f"--save_logits` ({type(error).__name__}: {error})."
        ) from error
    told["class_names"] = tuple(told["class_names"])
    scores = ScoreFile(**tensors, **told)
    count, classes = len(scores.paths), len(scores.class_names)
    shape = scores.logits.shape
    if len(shape) != 3 or (shape[0], shape[2]) != (count, classes) or len(scores.labels) != count:
        raise ValueError(
            f"{file} is damaged: expected logits ({count}, views, {classes}) and {count} labels, "
            f"got {shape} and {len(scores.labels)}."
        )
    return scores
