"""Evaluate a model folder on labelled videos, every view of every video accounted for."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader, Subset

from lvt_ff.data import (
    MAX_PIXELS,
    Decoder,
    EvalDataset,
    OnDamage,
    VideoList,
    collate,
    load_video_list,
)
from lvt_ff.data.video_list import load_multi_label_list, load_value_list
from lvt_ff.hf import LVTFFConfig, LVTFFVideoProcessor
from lvt_ff.hf.scores import score_function, scores_from_logits
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.hub.resolve import is_repository, local_folder, origin
from lvt_ff.training.engine import check_launch
from lvt_ff.training.metrics import (
    class_accuracy,
    class_average_precision,
    confusion_matrix,
    regression_errors,
    topk_accuracy,
)
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import Failure, UsageError, usage
from lvt_ff.utils.option_types import NonNegativeInt, PositiveInt
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.plots import confusion_picture
from lvt_ff.utils.progress import progress_bar
from lvt_ff.utils.short_text import counted
from lvt_ff.utils.validation import check_rgb

__all__ = ["evaluate", "evaluate_videos", "make_accelerator", "protocol", "score_videos"]


def protocol(num_clips: int, num_crops: int, processor: LVTFFVideoProcessor) -> str:
    """What an accuracy was measured with, in a line."""
    height, width = processor.crop_size["height"], processor.crop_size["width"]
    stride = f", stride {processor.sampling_stride}" if processor.sampling == "dense" else ""
    return (
        f"{counted(num_clips, 'clip')} × {counted(num_crops, 'crop')}, "
        f"{processor.num_frames} frames of {height}×{width}, {processor.sampling} sampling{stride}"
    )


def score_videos(
    model: nn.Module,
    dataset: EvalDataset,
    accelerator: Accelerator,
    *,
    batch_size: int,
    num_workers: int,
    progress: str,
) -> tuple[np.ndarray, list[tuple[str, str]], list[tuple[str, str]]]:
    """Scores of every listed video, averaged over its views, on all processes.

    Args:
        model: gives an output with `logits` (B, K); its `config` says what makes scores of them.
        dataset: all views of each video.
        accelerator: processes share the videos.
        batch_size: views in one forward pass.
        num_workers: of the data loader, per process.
        progress: text before the bar.

    Returns:
        (n, K) float64, a row of NaN for each video that could not be read; (path, reason) of
        those; and (path, what was lost) of those that are damaged in part.
    """
    mine = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    views_of_a_video = dataset.num_clips * dataset.num_crops
    loader = DataLoader(
        Subset(dataset, mine),
        batch_size=max(batch_size // views_of_a_video, 1),
        collate_fn=collate,
        num_workers=num_workers,
    )
    rows, failures, damages = [], [], []
    was_training = model.training
    model.eval()
    bar = progress_bar(len(mine), "video", desc=progress, shown=accelerator.is_main_process)
    with torch.inference_mode(), bar:
        for batch in loader:
            bar.update(len(batch["index"]))
            read = [
                i for i, failed in zip(batch["index"], batch["failure"], strict=True) if not failed
            ]
            failures += [failure for failure in batch["failure"] if failure]
            damages += [damage for damage in batch["damage"] if damage]
            if not read:
                continue
            views = batch["clip"].flatten(0, 1)  # (videos · views, T, C, H, W)
            with accelerator.autocast():
                logits = [
                    model(some.to(accelerator.device)).logits.float().cpu()
                    for some in views.split(batch_size)
                ]
            scores = scores_from_logits(torch.cat(logits).double(), score_function(model.config))
            scores = scores.unflatten(0, (len(read), views_of_a_video)).mean(dim=1).numpy()
            rows += zip(read, scores, strict=True)
    model.train(was_training)
    rows, failures, damages = (gather_object(part) for part in (rows, failures, damages))
    num_classes = len(rows[0][1]) if rows else len(dataset.videos.class_names)
    scores = np.full((len(dataset), num_classes), np.nan)
    for index, row in rows:  # by number: nothing counts twice, whoever scored it
        scores[index] = row
    return scores, failures, damages


def evaluate_videos(
    model: nn.Module,
    dataset: EvalDataset,
    processor: LVTFFVideoProcessor,
    accelerator: Accelerator,
    **options,
) -> tuple[dict, np.ndarray]:
    """`score_videos` with how right they are: a dict for `results.json`, and the scores."""
    scores, failures, damages = score_videos(model, dataset, accelerator, **options)
    results = dict(
        protocol=protocol(dataset.num_clips, dataset.num_crops, processor),
        **_measures(scores, dataset.videos, score_function(model.config)),
        num_listed=len(dataset),
        num_evaluated=len(dataset) - len(failures),
        failures=[dict(path=path, reason=reason) for path, reason in failures],
        damaged=[dict(path=path, damage=damage) for path, damage in damages],
    )
    return results, scores


def _measures(scores: np.ndarray, videos: VideoList, function: str) -> dict[str, float]:
    labels = videos.labels
    if function == "softmax":
        return {f"top{k}": topk_accuracy(scores, labels, k) for k in (1, 5)}
    if function == "none":
        return regression_errors(scores[:, 0], labels)
    rows = class_average_precision(scores, labels, videos.class_names)
    mean = np.mean([row["average_precision"] for row in rows])
    return dict(mean_average_precision=float(mean))


def _load_data(data: Path, config: LVTFFConfig) -> VideoList:
    """What a model is evaluated on, by the kind of problem that it was trained for."""
    function, names = score_function(config), config.class_names
    if function == "softmax":
        return load_video_list(data, names)
    if function == "sigmoid":
        return load_multi_label_list(data, names)
    if len(names) != 1:
        raise ValueError(
            f"The model predicts {len(names)} numbers for a video: a list of videos has only one "
            "for each, so that only models of one can be evaluated."
        )
    return load_value_list(data, names[0])


@command(
    {
        "model": "model and data",
        "clips": "views",
        "output_dir": "output",
        "batch_size": "hardware and speed",
    }
)
def evaluate(
    model: str,
    data: Path,
    clips: PositiveInt = 1,
    crops: PositiveInt = 1,
    output_dir: Path | None = None,
    batch_size: PositiveInt = 8,
    num_workers: NonNegativeInt = 2,
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    cpu: bool = False,
) -> dict:
    """Top-1 and top-5 accuracy, a per-class table and a confusion matrix.

    Scores are averaged over all views of a video. Videos that cannot be read count as wrong and are
    listed. By the model's `problem_type` other figures take the place of accuracy: average
    precision for several labels a video (multi_label_classification; a video with several has a
    line in the CSV file for each), and mean absolute and root mean square error for numbers
    (regression; labels in the CSV file are numbers, videos that cannot be read are left out).

    Args:
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        data: Folder with one subfolder per class, or CSV file with the columns path,label.
        clips: Clips in time per video.
        crops: Crops along the longer side per clip.
        output_dir: Where evaluation.json and confusion.png go; the model folder if not given.
        batch_size: Views in one forward pass.
        num_workers: Processes that read videos.
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
        folder = Path(output_dir or model)
        check_output_folder(folder, "--output_dir")
        check_rgb(network.config.in_chans)
        videos = _load_data(data, network.config)
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
    results, scores = evaluate_videos(
        network.to(accelerator.device),
        dataset,
        processor,
        accelerator,
        batch_size=batch_size,
        num_workers=num_workers,
        progress="evaluating",
    )
    results.update(model=origin(place), data=str(data), environment=environment())
    if "top1" in results:
        results["classes"] = class_accuracy(scores, videos.labels, videos.class_names)
    elif "mean_average_precision" in results:
        results["classes"] = class_average_precision(scores, videos.labels, videos.class_names)
    if accelerator.is_main_process:
        _report(results, folder, scores, videos)
    if not results["num_evaluated"]:
        raise Failure(f"None of the {len(videos)} videos could be read.")
    return results


def make_accelerator(mixed_precision: str | None, cpu: bool, **options) -> Accelerator:
    """An Accelerator that does what was asked, or UsageError."""
    check_launch()
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"--mixed_precision {mixed_precision} is not available here: {error}"
        ) from error
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UsageError("--mixed_precision fp16 needs a GPU: use bf16 or no.")
    return accelerator


_TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "average_precision": "average precision",
    "mean_average_precision": "mean average precision",
    "mean_absolute_error": "mean absolute error",
    "root_mean_square_error": "root mean square error",
}


def _report(results: dict, folder: Path, scores: np.ndarray, videos: VideoList) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    what = f"[{results['protocol']}]"
    rows = results.get("classes", [])
    if rows:
        key = next(key for key in rows[0] if key in _TITLES)
        print(f"{_TITLES[key]} per class  {what}")
        for row in rows:
            print(f"{100 * row[key]:6.1f} %  {row['num_videos']:5d} videos  {row['name']}")
    for key in [key for key in results if key in _TITLES and results[key] is not None]:
        figure = f"{results[key]:.4g}" if key.endswith("error") else f"{100 * results[key]:.2f} %"
        print(f"{_TITLES[key]} {figure}  {what}")
    print(f"{results['num_evaluated']} of {results['num_listed']} listed videos evaluated")
    outcome = "counted as wrong" if rows else "left out"
    for failure in results["failures"]:
        print(f"not read, {outcome}: {failure['reason']}")
    for damaged in results["damaged"]:
        print(f"damaged, evaluated with what was left: {damaged['path']}: {damaged['damage']}")
    write_text(folder / "evaluation.json", json.dumps(results, indent=2) + "\n")
    written = ["evaluation.json"]
    if results["num_evaluated"] and "top1" in results:
        written.append("confusion.png")
        title = f"top-1 {100 * results['top1']:.1f} %\n{results['protocol']}"
        counts = confusion_matrix(scores, videos.labels)
        confusion_picture(folder / "confusion.png", counts, videos.class_names, title)
    print(f"wrote {' and '.join(written)} to {folder}")
