"""Pictures of what a model sees in a video: relevance for a class, attention, fixation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lvt_ff.attribution import Explanation, relevance
from lvt_ff.console import run, usage
from lvt_ff.files import whole_file
from lvt_ff.layers.checks import suggest
from lvt_ff.predict import Classifier
from lvt_ff.recording import core_of
from lvt_ff.views import ANIMATED, VIEWS, Viewer

__all__ = ["Explanation", "explain", "explain_video"]


@torch.no_grad()
def explain_video(
    classify: Classifier, path: str | Path, label: str | None = None, top_k: int = 5
) -> Explanation:
    """Classify a video, and find the tokens on which the score of a class rests.

    Args:
        classify: a model that takes paths; its first view is explained.
        path: a video file.
        label: the class to explain; None takes the best.
        top_k: number of classes in `predictions`.

    Raises:
        ValueError: the model has no such class, or a kernel without weights.
        VideoReadError: the file cannot be read.
    """
    config = classify.model.config
    if label is not None and label not in config.label2id:
        raise ValueError(
            f"The model has no class {label!r}: {suggest(label, list(config.class_names))}."
        )
    clip = classify.read(path)[:1]
    scores = classify.model(clip).logits
    predictions = classify.ranked(scores, top_k)
    label = label or predictions[0]["label"]
    number = int(config.label2id[label])
    grid = core_of(classify.model).grid
    tokens = relevance(classify.model, clip, torch.tensor([number], device=clip.device))
    return Explanation(
        clip=clip,
        frames=_pictures(clip[0], classify.transform.mean, classify.transform.std),
        predictions=predictions,
        label=label,
        score=scores.float().softmax(-1)[0, number].item(),
        relevance=tokens[0].unflatten(-1, grid).cpu().numpy(),
    )


def _pictures(clip: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    pixels = (clip.cpu().float() * std + mean).mul(255).round().clamp(0, 255)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).byte().numpy()


def explain(
    video: str,
    model: str,
    output: Path,
    view: Literal["relevance", "attention", "fixation", "time", "layers"] = "relevance",
    label: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: tuple[int, int, int] | None = None,
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
    device: str | None = None,
) -> Explanation:
    """Draw what a model sees in a video.

    Args:
        video: Video file.
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        output: Picture to write: .png, or .gif or .mp4 for an animation.
        view: relevance (which tokens the class's score rests on), attention (what one token
            attends to), fixation (ratios of feature fixation), time (attention from frame to
            frame), layers (attention matrices of every block, as in the paper's Fig. 2).
        label: Class whose relevance is shown, or chooses the token; the best if not given.
        layer: Block of the views attention and fixation, from 0; the last if not given.
        head: Attention head, from 0; the mean of all if not given. Not for relevance.
        query: Token of the view attention, as [FRAME,ROW,COLUMN] from 0; the place that counts
            most if not given.
        decoder: Video backend; auto falls back from one to the next.
        device: Torch device; a GPU where there is one if not given.
    """
    given = dict(label=label, layer=layer, head=head, query=query)
    given = {name: value for name, value in given.items() if value is not None}
    with usage():
        drawn = VIEWS[view]
        for name in given.keys() - drawn.options:
            raise ValueError(f"--{name} has no effect on the view {view}: leave it out.")
        suffixes = (".png", *ANIMATED) if drawn.moving else (".png",)
        if output.suffix.lower() not in suffixes:
            raise ValueError(
                f"--output must end with {' or '.join(suffixes)} for the view {view}, got {output}."
            )
        if not output.absolute().parent.is_dir():
            raise ValueError(f"There is no folder {output.absolute().parent} to write to.")
        classify = Classifier(model, device, decoder=decoder)
        try:
            explained = explain_video(classify, video, given.pop("label", None))
            with torch.no_grad(), whole_file(output) as partial:
                drawn.draw(Viewer(classify.model, explained, Path(video).name, **given), partial)
        except NotImplementedError as error:
            raise ValueError(str(error)) from error
    print(f"{explained.label}: {100 * explained.score:.1f} %; wrote {output}")
    return explained


if __name__ == "__main__":
    raise SystemExit(run(explain, "lvt_ff.explain", positional=("video",)))
