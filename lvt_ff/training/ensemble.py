"""One prediction of several models, from the files of scores that their evaluations left."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lvt_ff.data import VideoList
from lvt_ff.data.texts import Texts
from lvt_ff.hf.pooling import pool_logits
from lvt_ff.training.evaluation_report import print_report, write_report
from lvt_ff.training.measures import class_rows, confidence_intervals, measure
from lvt_ff.training.score_files import ScoreFile, read_scores
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.option_types import PositiveFloat
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.short_text import counted, shortened

__all__ = ["combined", "ensemble"]


@command()
def ensemble(
    files: list[Path],
    output_dir: Path,
    weights: list[PositiveFloat] | None = None,
) -> dict:
    """Average the scores of several evaluations of the same videos, and tell how right they are.

    The views of each model are pooled as in its evaluation, then the probabilities of the models
    are averaged. A video that one of them could not read counts as wrong.

    Args:
        files: Files logits.safetensors of `lvt-ff evaluate --save_logits`, two or more.
        output_dir: Where ensemble.json and confusion.png go.
        weights: Of the models, in the order of the files; equal if not given.
    """
    output_dir = Path(output_dir)
    with usage():
        check_output_folder(output_dir, "--output_dir")
        members = [read_scores(Path(file)) for file in files]
        logits = combined(members, weights, [str(file) for file in files])
    first = members[0]
    videos = VideoList(Texts(first.paths), first.labels, first.class_names)
    labels, names, function = first.labels, first.class_names, first.function
    read = ~np.isnan(logits).any(axis=1)
    if not read.any():
        raise Failure("No video was read by all models.")
    of_each = [_figures(member) for member in members]
    protocols = list(dict.fromkeys(member.protocol for member in members))
    results = dict(
        protocol=f"mean of {counted(len(members), 'model')}: {'; '.join(protocols)}",
        **measure(logits, labels, names, function),
        intervals=confidence_intervals(logits, labels, function),
        num_listed=len(labels),
        num_evaluated=int(read.sum()),
        failures=[
            dict(path=first.paths[number], reason=f"{first.paths[number]}: not read by all models")
            for number in np.flatnonzero(~read)
        ],
        damaged=[],
        members=[
            dict(file=str(file), model=member.model, protocol=member.protocol, **figures)
            for file, member, figures in zip(files, members, of_each, strict=True)
        ],
        weights=[1.0] * len(members) if weights is None else list(weights),
        classes=class_rows(logits, labels, names, function),
        environment=environment(),
    )
    print_report(results)
    for member, figures in zip(members, of_each, strict=True):
        name, value = next(iter(figures.items()))
        shown = f"{value:.4g}" if function == "none" else f"{100 * value:.2f} %"
        print(f"alone: {name.replace('_', ' ')} {shown}  {shortened(member.model, 80)}")
    written = write_report(output_dir, "ensemble.json", results, logits, videos)
    print(f"wrote {' and '.join(written)} to {output_dir}")
    return results


def combined(
    members: Sequence[ScoreFile], weights: Sequence[float] | None, names: Sequence[str]
) -> np.ndarray:
    """Logits (n, K) whose scores are the weighted means of the members' scores.

    Args:
        members: of the same videos.
        weights: of each; equal if not given.
        names: of each, for messages.

    Raises:
        ValueError: fewer than two members, other videos, classes or labels, or another number of
            weights.
    """
    if len(members) < 2:
        raise ValueError(f"An ensemble has two or more files, got {len(members)}.")
    if weights is not None and len(weights) != len(members):
        raise ValueError(f"Give a weight for each of {len(members)} files, got {len(weights)}.")
    for member, name in zip(members[1:], names[1:], strict=True):
        if problem := _difference(members[0], member):
            raise ValueError(f"{names[0]} and {name} do not belong together: {problem}.")
    pooled = [_pooled(member) for member in members]
    shares = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return pool_logits(torch.stack(pooled, dim=1), members[0].function, "mean", shares).numpy()


def _pooled(member: ScoreFile) -> torch.Tensor:
    return pool_logits(torch.from_numpy(member.logits), member.function, member.pooling)


def _figures(member: ScoreFile) -> dict:
    logits = _pooled(member).numpy()
    return measure(logits, member.labels, member.class_names, member.function)


def _difference(one: ScoreFile, other: ScoreFile) -> str | None:
    """Why two files cannot be averaged; folders of other machines do not count."""
    if one.function != other.function:
        return f"scores are made with {one.function} and with {other.function}"
    if one.class_names != other.class_names:
        same = sorted(one.class_names) == sorted(other.class_names)
        return "they have other classes" if not same else "their classes stand in another order"
    if len(one.paths) != len(other.paths):
        return f"they have {len(one.paths)} and {len(other.paths)} videos"
    for a, b in zip(one.paths, other.paths, strict=True):
        if Path(a).parts[-2:] != Path(b).parts[-2:]:
            return f"the first video in which they differ is {shortened(a)} and {shortened(b)}"
    if not np.array_equal(one.labels, other.labels):
        return "they have other labels"
    return None
