"""Pictures of what a model sees in a video: relevance for a class, attention, fixation."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lvt_ff.data import MAX_PIXELS, Decoder, OnDamage
from lvt_ff.explain.attention_recorder import core_of
from lvt_ff.explain.relevance import Explanation, relevance
from lvt_ff.explain.views import ANIMATION_SUFFIXES, VIEWS, Viewer
from lvt_ff.hf.scores import format_score
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import PositiveInt
from lvt_ff.utils.output import check_output_file
from lvt_ff.utils.validation import suggest
from lvt_ff.video.sources import VideoSource, source_name

__all__ = ["Explanation", "explain", "explain_clip", "explain_video"]


def explain_video(
    classify: Classifier, video: VideoSource, label: str | None = None, top_k: int = 5
) -> Explanation:
    """Classify a video, and find the tokens on which the score of a class rests.

    Args:
        classify: a model that takes videos; its first view is explained.
        video: a file, or any other of those of `Classifier.read`.
        label: the class to explain; None takes the best.
        top_k: number of classes in `predictions`.

    Raises:
        ValueError: the model has no such class, or none at all.
        NotImplementedError: the model's kernel has no weights to show.
        VideoReadError: the video cannot be read.
    """
    _check_label(classify, label)
    return explain_clip(classify, classify.read(video)[:1], label, top_k)


@torch.no_grad()
def explain_clip(
    classify: Classifier, clip: Tensor, label: str | None = None, top_k: int = 5
) -> Explanation:
    """`explain_video` of a clip (1, T, C, H, W) that has been read."""
    _check_label(classify, label)
    logits = classify.model(clip).logits
    predictions = classify.ranked(logits, top_k)
    label = predictions[0]["label"] if label is None else label
    number = classify.model.config.class_names.index(label)
    grid = core_of(classify.model).grid
    tokens = relevance(classify.model, clip, torch.tensor([number], device=clip.device))
    return Explanation(
        clip=clip,
        frames=classify.pictures(clip[0]),
        predictions=predictions,
        label=label,
        score=classify.scores(logits)[0, number].item(),
        relevance=tokens[0].unflatten(-1, grid).cpu().numpy(),
        score_function=classify.score_function,
    )


def _check_label(classify: Classifier, label: str | None) -> None:
    config = classify.model.config
    if not config.num_labels or core_of(classify.model).global_pool == "":
        raise ValueError("The model has no classes to explain: fine-tune it first.")
    names = list(config.class_names)
    if label is not None and label not in names:
        raise ValueError(f"The model has no class {label!r}: {suggest(label, names)}.")


@command({"model": "model and output", "view": "view", "decoder": "reading and hardware"})
def explain(
    video: str,
    model: str,
    output: Path,
    view: Literal["relevance", "attention", "fixation", "time", "layers"] = "relevance",
    label: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: tuple[int, ...] | None = None,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    device: str | None = None,
) -> Explanation:
    """Draw what a model sees in a video.

    Args:
        video: Video file, http(s) address, or - for a video on standard input.
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        output: Picture to write: .png, or .gif or .mp4 for an animation.
        view: relevance (which tokens the class's score rests on), attention (what one token
            attends to), fixation (ratios of feature fixation), time (attention from frame to
            frame), layers (attention matrices of every block, as in the paper's Fig. 2).
        label: Class to explain; for the attention view it picks the token. The best if not given.
        layer: Block of the views attention and fixation, from 0; the last if not given.
        head: Attention head, from 0; the mean of all if not given. Not for relevance.
        query: Token of the view attention, as ROW,COLUMN from 0, or FRAME,ROW,COLUMN where
            attention is joint; the place that counts most if not given.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
        device: Torch device; a GPU where there is one if not given.
    """
    given = dict(label=label, layer=layer, head=head, query=query)
    given = {name: value for name, value in given.items() if value is not None}
    with usage():
        drawn = VIEWS[view]
        for name in given.keys() - drawn.options:
            raise ValueError(f"--{name} has no effect on the view {view}: leave it out.")
        if label is not None and query is not None:
            raise ValueError("--label chooses the token that --query gives: leave one out.")
        if output.absolute() == Path(video).absolute():
            raise ValueError(f"--output is the video itself: {output}.")
        suffixes = (".png", *ANIMATION_SUFFIXES) if drawn.animated else (".png",)
        if output.suffix.lower() not in suffixes:
            raise ValueError(
                f"--output must end with {' or '.join(suffixes)} for the view {view}, got {output}."
            )
        check_output_file(output, "--output")
        classify = Classifier(
            model, device, decoder=decoder, max_pixels=max_pixels, on_damage=on_damage
        )
        try:
            name = Path(source_name(video)).name
            explained = explain_video(classify, video, given.pop("label", None))
            with torch.no_grad(), atomic_file(output) as partial:
                drawn.draw(Viewer(classify.model, explained, name, **given), partial)
        except NotImplementedError as error:
            raise ValueError(str(error)) from error
    score = format_score(explained.score, explained.score_function)
    print(f"{explained.label}: {score}; wrote {output}")
    return explained
