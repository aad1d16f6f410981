"""Classify videos with a model folder."""

import json as json_format
from collections.abc import Iterator, Sequence

from lvt_ff.data import MAX_PIXELS, Decoder, OnDamage, VideoReadError
from lvt_ff.hf.scores import format_score
from lvt_ff.inference.classifier import Classifier
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.option_types import PositiveInt
from lvt_ff.video.sources import source_name

__all__ = ["predict"]


@command()
def predict(
    videos: list[str],
    model: str,
    top_k: PositiveInt = 5,
    clips: PositiveInt = 1,
    crops: PositiveInt = 1,
    json: bool = False,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    device: str | None = None,
) -> None:
    """Print the best classes of each video.

    Scores are those of transformers' pipeline: a share of 100 %, a probability for each class where
    the model gives several labels (`problem_type` multi_label_classification), or the values that
    it predicts (regression).
    Videos that cannot be read are named, the rest is classified, and the exit status is 1.

    Args:
        videos: Video files, http(s) addresses, or - for a video on standard input.
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        top_k: Number of classes.
        clips: Clips in time per video; scores are averaged, or of several labels a video the
            largest of a class is taken.
        crops: Crops along the longer side per clip; scores go together as those of clips.
        json: One JSON object per video and line.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
        device: Torch device; a GPU where there is one if not given.
    """
    with usage():
        classify = Classifier(
            model,
            device,
            clips,
            crops,
            decoder,
            max_pixels=max_pixels,
            on_damage=on_damage,
        )
    failed = 0
    for path, result in _results(classify, videos, top_k):
        failed += isinstance(result, str)
        if json:
            key = "error" if isinstance(result, str) else "predictions"
            print(json_format.dumps({"path": path, key: result}))
            continue
        print(source_name(path))
        if isinstance(result, str):
            print(f"  {result}")
            continue
        for row in result:
            print(f"  {format_score(row['score'], classify.score_function):>7}  {row['label']}")
    if failed:
        raise Failure(f"{failed} of {len(videos)} videos could not be read")


def _results(
    classify: Classifier, videos: Sequence[str], top_k: int
) -> Iterator[tuple[str, list[dict] | str]]:
    for path in videos:
        try:
            yield path, classify(path, top_k)
        except VideoReadError as error:
            yield path, str(error)
