"""Evaluate a model folder on labelled videos, every view of every video accounted for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import Accelerator
from torch import nn

from lvt_ff.data import (
    MAX_PIXELS,
    DataFormat,
    Decoder,
    EvalDataset,
    Missing,
    OnDamage,
    VideoList,
    load_video_list,
)
from lvt_ff.hf import LVTFFConfig, LVTFFVideoProcessor
from lvt_ff.hf.pooling import Pooling, default_pooling
from lvt_ff.hf.scores import score_function
from lvt_ff.hub.card_results import add_evaluation
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.hub.resolve import is_repository, local_folder, origin
from lvt_ff.training.engine import check_launch, start_handlers
from lvt_ff.training.evaluation_report import print_report, score_table, write_report
from lvt_ff.training.measures import class_rows, confidence_intervals, measure, scores_of
from lvt_ff.training.partial_scores import PartialScores
from lvt_ff.training.score_files import ScoreFile, write_scores
from lvt_ff.training.scoring import Scores, central_view, score_videos, weights_code
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import Failure, UsageError, usage
from lvt_ff.utils.json_files import read_object
from lvt_ff.utils.option_types import ClosedUnitInterval, NonNegativeInt, PositiveInt
from lvt_ff.utils.output import check_output_folder, only_run
from lvt_ff.utils.short_text import counted
from lvt_ff.utils.validation import check_rgb
from lvt_ff.video.decoders import decoder_version

__all__ = ["evaluate", "evaluate_videos", "make_accelerator", "protocol"]

_ALWAYS_ALLOWED = 1  # unreadable video: of a short list, it would be more than most fractions
_PARTIAL = "evaluation_partial"
_FALLS_WITH_FAILURES = ("top1", "top5", "mean_class_accuracy", "mean_average_precision")
_OF_SCORES = (
    *_FALLS_WITH_FAILURES,
    *("loss", "calibration_error", "mean_absolute_error", "root_mean_square_error"),
)
# What a model folder's results.json and card do not repeat of evaluation.json.
_AT_LENGTH = ("classes", "failures", "damaged", "model")


def protocol(
    num_clips: int, num_crops: int, processor: LVTFFVideoProcessor, pooling: Pooling = "mean"
) -> str:
    """What an accuracy was measured with, in a line."""
    height, width = processor.crop_size["height"], processor.crop_size["width"]
    stride = f", stride {processor.sampling_stride}" if processor.sampling == "dense" else ""
    largest = ", max over views" if pooling == "max" and num_clips * num_crops > 1 else ""
    return (
        f"{counted(num_clips, 'clip')} × {counted(num_crops, 'crop')}, "
        f"{processor.num_frames} frames of {height}×{width}, {processor.sampling} sampling"
        f"{stride}{largest}"
    )


def evaluate_videos(
    model: nn.Module,
    dataset: EvalDataset,
    processor: LVTFFVideoProcessor,
    accelerator: Accelerator,
    *,
    views_per_forward: int,
    num_workers: int,
    pooling: Pooling | None = None,
    keep_views: bool = False,
    partial: PartialScores | None = None,
    progress: str = "evaluating",
    stop: Callable[[], int] | None = None,
) -> tuple[dict, Scores]:
    """`score_videos` with how right the scores are.

    Args:
        model, dataset, accelerator: see `score_videos`, as are all options.
        processor: of the model, for the protocol.

    Returns:
        Figures by name, as JSON holds them: `protocol`, `top1`, `loss` and so on by the kind of
        problem (see `measure`), the same of one view (`one_view`, where there are several) and of
        the videos that were read (`of_read`, where some were not), `num_listed`, `num_evaluated`,
        `failures`, `damaged`, `decoders`; and the scores.
    """
    function = score_function(model.config)
    pooling = pooling or default_pooling(function)
    scores = score_videos(
        model,
        dataset,
        accelerator,
        views_per_forward=views_per_forward,
        num_workers=num_workers,
        pooling=pooling,
        keep_views=keep_views,
        partial=partial,
        progress=progress,
        stop=stop,
    )
    videos = dataset.videos
    results = dict(
        protocol=protocol(dataset.num_clips, dataset.num_crops, processor, pooling),
        **measure(scores.logits, videos.labels, videos.class_names, function),
    )
    if scores.one_view is not None:
        figures = measure(scores.one_view, videos.labels, videos.class_names, function)
        view = central_view(dataset.num_clips, dataset.num_crops, processor.sampling)
        results["one_view"] = dict(view=view) | {n: figures[n] for n in figures if n in _OF_SCORES}
    read = ~np.isnan(scores.logits).any(axis=1)
    if scores.failures:
        figures = measure(scores.logits[read], videos.labels[read], videos.class_names, function)
        told = {n: figures[n] for n in _FALLS_WITH_FAILURES if figures.get(n) is not None}
        results["of_read"] = told
    results.update(
        num_listed=len(dataset),
        num_evaluated=len(dataset) - len(scores.failures),
        failures=[dict(path=path, reason=reason) for path, reason in scores.failures],
        damaged=[dict(path=path, damage=damage) for path, damage in scores.damages],
        decoders={
            name: dict(version=decoder_version(name), num_videos=number)
            for name, number in scores.decoders.items()
        },
    )
    return results, scores


_TASKS = {"softmax": "single", "sigmoid": "multi", "none": "regression"}


def _load_data(data: Path, config: LVTFFConfig, **how) -> VideoList:
    """What a model is evaluated on, by the kind of problem that it was trained for."""
    task, names = _TASKS[score_function(config)], config.class_names
    if task == "regression" and len(names) != 1:
        raise ValueError(
            f"The model predicts {len(names)} numbers for a video: a list of videos has only one "
            "for each, so that only models of one can be evaluated."
        )
    return load_video_list(data, names, task=task, **how)


@command(
    {
        "model": "model and data",
        "clips": "views",
        "output_dir": "output",
        "views_per_forward": "hardware and speed",
    }
)
def evaluate(
    model: str,
    data: Path,
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    missing: Missing = "fail",
    class_file: Path | None = None,
    clips: PositiveInt | None = None,
    crops: PositiveInt | None = None,
    view_pooling: Pooling | None = None,
    output_dir: Path | None = None,
    save_logits: bool = False,
    resume: bool = False,
    max_bad_fraction: ClosedUnitInterval = 0.05,
    views_per_forward: PositiveInt = 8,
    num_workers: NonNegativeInt = 2,
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    cpu: bool = False,
) -> dict:
    """Accuracy of a model with intervals, a per-class table and a confusion matrix.

    Each video is read once for all its views, and their scores are pooled; the view nearest to the
    centre is told beside them. Videos that cannot be read count as wrong and are listed. By the
    model's `problem_type` other figures take the place of accuracy: average precision for several
    labels a video (multi_label_classification; a list has a column labels for them, or a line for
    each), and mean absolute and root mean square error for numbers (regression; labels are numbers,
    videos that cannot be read are left out).
    Figures of a model folder also go into its results.json and onto its card.

    Args:
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        data: Folder with one subfolder per class, or file that lists videos: CSV, TSV or JSON with
            path and label (or labels; start and end), "path number" lines, or the files of
            Something-Something V2, Kinetics or Charades.
        data_format: Format of data; auto recognises it.
        video_root: Folder that listed videos lie in; that of the list if not given.
        missing: What is done with videos that are listed and not on disk: end here (fail), or leave
            them out (skip).
        class_file: File with the names of the classes that a list has only the numbers of.
        clips: Clips in time per video; those of the recipe that the model was trained with, else 1,
            if not given.
        crops: Crops along the longer side per clip; likewise.
        view_pooling: What is made of a video's views: the mean of their probabilities, or the
            largest of each class; max for models of several labels a video, else mean, if not
            given.
        output_dir: Where evaluation.json and confusion.png go; the model folder if not given.
        save_logits: Also write the logits of every view (logits.safetensors, for `lvt-ff ensemble`)
            and the best classes of each video (scores.csv).
        resume: Go on with an evaluation into the same folder that was stopped.
        max_bad_fraction: Exit with status 1 where more of the listed videos than this could not be
            read. One is always allowed, but none with 0.
        views_per_forward: Views in one forward pass of a process, of one video or of several.
        num_workers: Processes that read videos, per process.
        mixed_precision: Autocast dtype; that of `accelerate launch` if not given.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
        cpu: Use the CPU where there is a GPU.
    """
    with usage():
        if is_repository(str(model)) and output_dir is None:
            raise ValueError(f"{model} lies on the Hub: say with --output_dir where results go.")
        place = local_folder(model)
        network, processor = load_folder(place)
        trained = _settings_of(place)
        clips = clips or trained.get("test_clips") or 1
        crops = crops or trained.get("test_crops") or 1
        folder = Path(output_dir or model)
        check_output_folder(folder, "--output_dir")
        check_rgb(network.config.in_chans)
        videos = _load_data(
            data,
            network.config,
            data_format=data_format,
            video_root=video_root,
            missing=missing,
            class_file=class_file,
        )
    accelerator = make_accelerator(mixed_precision, cpu)
    dataset = EvalDataset(
        videos,
        processor.eval_transform(),
        num_clips=clips,
        num_crops=crops,
        **processor.clip_options(),
        decoder=decoder,
        max_pixels=max_pixels,
        on_damage=on_damage,
    )
    function = score_function(network.config)
    settings = dict(
        weights=weights_code(network),
        videos=videos.fingerprint(),
        view_pooling=view_pooling or default_pooling(function),
        mixed_precision=accelerator.mixed_precision,
    )
    computed = settings | processor.clip_options() | vars(processor.eval_transform())
    computed |= dict(clips=clips, crops=crops, views_per_forward=views_per_forward)
    computed |= dict(decoder=decoder, max_pixels=max_pixels, on_damage=on_damage)
    computed |= dict(save_logits=save_logits)
    with _partial(folder, computed, resume, accelerator) as partial:
        results, scores = evaluate_videos(
            network.to(accelerator.device),
            dataset,
            processor,
            accelerator,
            views_per_forward=views_per_forward,
            num_workers=num_workers,
            pooling=settings["view_pooling"],
            keep_views=save_logits,
            partial=partial,
        )
        results.update(num_missing=videos.num_missing)
        results.update(settings, data=str(data), model=origin(place), environment=environment(cpu))
        if results["num_evaluated"]:
            results["intervals"] = confidence_intervals(scores.logits, videos.labels, function)
            rows = class_rows(scores.logits, videos.labels, videos.class_names, function)
            results |= dict(classes=rows) if rows else {}
        if accelerator.is_main_process:
            print_report(results)
            written = write_report(folder, "evaluation.json", results, scores.logits, videos)
            if scores.views is not None:
                written += _write_logits(folder, function, videos, scores, results)
            partial.delete()
            _check_readable(results, max_bad_fraction)
            written += _enter(results, folder, place)
            print(f"wrote {', '.join(dict.fromkeys(written))} to {folder}")
    return results


def _settings_of(place: Path) -> dict:
    """The options that a model folder was trained with; empty where it does not say."""
    file = place / "results.json"
    settings = read_object(file).get("settings") if file.is_file() else None
    return settings if isinstance(settings, dict) else {}


@contextmanager
def _partial(
    folder: Path, settings: dict, resume: bool, accelerator: Accelerator
) -> Iterator[PartialScores]:
    """Where an evaluation keeps what it has scored, for this block alone."""
    partial = PartialScores(folder / _PARTIAL, settings)
    with usage():
        partial.check(resume)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield partial
        return
    with only_run(partial.folder, "--output_dir"):
        partial.begin()
        accelerator.wait_for_everyone()
        try:
            yield partial
        finally:
            if not partial.has_parts():
                partial.delete()


def _check_readable(results: dict, max_bad_fraction: float) -> None:
    listed, bad = results["num_listed"], len(results["failures"])
    if bad == listed:
        raise Failure(f"None of the {listed} videos could be read: {_first(results)}")
    if bad > (max(max_bad_fraction * listed, _ALWAYS_ALLOWED) if max_bad_fraction else 0):
        raise Failure(
            f"{bad} of {listed} videos could not be read, more than --max_bad_fraction "
            f"{max_bad_fraction:g} allows; the first: {_first(results)}"
        )


def _first(results: dict) -> str:
    return results["failures"][0]["reason"]


def _write_logits(
    folder: Path, function: str, videos: VideoList, scores: Scores, results: dict
) -> list[str]:
    stored = ScoreFile(
        logits=scores.views,
        labels=videos.labels,
        paths=list(videos.paths),
        class_names=videos.class_names,
        function=function,
        pooling=results["view_pooling"],
        protocol=results["protocol"],
        model=results["model"],
    )
    write_scores(folder / "logits.safetensors", stored)
    write_text(folder / "scores.csv", score_table(scores_of(scores.logits, function), videos))
    return ["logits.safetensors", "scores.csv"]


def _enter(results: dict, folder: Path, place: Path) -> list[str]:
    """Enter figures into the model folder's own record and card, where they go there."""
    if folder.resolve() != place.resolve():
        return []
    entry = {name: value for name, value in results.items() if name not in _AT_LENGTH}
    try:
        return add_evaluation(folder, entry)
    except ValueError as error:
        print(f"results.json and the card were left as they are: {error}")
        return []


def make_accelerator(mixed_precision: str | None, cpu: bool, **options) -> Accelerator:
    """An Accelerator that does what was asked, or UsageError."""
    check_launch()
    try:
        accelerator = Accelerator(
            mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=start_handlers(), **options
        )
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"--mixed_precision {mixed_precision} is not available here: {error}"
        ) from error
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UsageError("--mixed_precision fp16 needs a GPU: use bf16 or no.")
    return accelerator
