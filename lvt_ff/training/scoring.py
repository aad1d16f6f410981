"""What a model gives for every listed video: all its views, on all processes, each video once."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lvt_ff.data import EvalDataset, collate
from lvt_ff.hf.pooling import Pooling, default_pooling, pool_logits
from lvt_ff.hf.scores import score_function
from lvt_ff.training.partial_scores import PartialScores, ScoredPart
from lvt_ff.training.signals import leave_group
from lvt_ff.utils.errors import Failure, Stopped
from lvt_ff.utils.progress import progress_bar

__all__ = ["NotFinite", "Scores", "central_view", "score_videos", "weights_code"]

SAVE_S = 30.0  # between two parts that a process writes


class NotFinite(Failure):
    """A model whose scores are not numbers."""


@dataclass(frozen=True)
class Scores:
    """What a model gave for n listed videos; rows of NaN are videos that could not be read.

    Args:
        logits: of all views of a video together, (n, K) float32; see `pool_logits`.
        one_view: of the view nearest to the centre, (n, K); None where there is only one.
        views: of every view, by clip, then crop, (n, V, K); None if not asked for.
        failures: path and reason of each video that could not be read.
        damages: path, and what was lost, of each that is damaged in part.
        decoders: how many videos each backend read.
    """

    logits: np.ndarray
    one_view: np.ndarray | None
    views: np.ndarray | None
    failures: list[tuple[str, str]]
    damages: list[tuple[str, str]]
    decoders: dict[str, int]


def score_videos(
    model: nn.Module,
    dataset: EvalDataset,
    accelerator: Accelerator,
    *,
    views_per_forward: int,
    num_workers: int,
    pooling: Pooling | None = None,
    keep_views: bool = False,
    partial: PartialScores | None = None,
    progress: str = "evaluating",
    stop: Callable[[], int] | None = None,
) -> Scores:
    """Logits of every listed video, on all processes the same.

    Videos go through the model in the same batches whatever the number of processes, which take
    them in turn, so that results do not depend on it.

    Args:
        model: gives an output with `logits` (B, K); its `config` says what makes scores of them.
        dataset: all views of each video.
        accelerator: processes share the videos.
        views_per_forward: views in one forward pass, of one video or of several.
        num_workers: of the data loader, per process.
        pooling: of the views of a video; by the kind of problem if not given.
        keep_views: also give the logits of every view.
        partial: where to put what is scored, and to take what was scored before.
        progress: text before the bar.
        stop: gives the number of a signal that asks to stop, 0 for none.

    Raises:
        NotFinite: the model's scores are not numbers.
        Stopped: `stop` asked for it, in this process or another.
        Failure: a video was scored by no process.
    """
    function = score_function(model.config)
    pooling = pooling or default_pooling(function)
    done = partial.parts() if partial else []
    accelerator.wait_for_everyone()  # all have seen the same parts before there are new ones
    batches = _remaining(dataset, views_per_forward, done)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    loader = DataLoader(
        dataset,
        batch_sampler=mine,
        collate_fn=collate,
        num_workers=num_workers,
        worker_init_fn=leave_group,
    )
    total = sum(map(len, mine))
    bar = progress_bar(total, "video", desc=progress, shown=accelerator.is_main_process)
    views = dataset.num_clips * dataset.num_crops
    part, scored, written = ScoredPart(), [], time.monotonic()
    was_training = model.training
    model.eval()
    with torch.inference_mode(), bar:
        for batch in loader:
            if stop and stop():
                break
            bar.update(len(batch["index"]))
            part.told += _told(batch)
            if batch["clip"] is not None:
                clips = batch["clip"].flatten(0, 1)  # (videos · V, T, C, H, W)
                with accelerator.autocast():
                    logits = [
                        model(some.to(accelerator.device)).logits.float().cpu()
                        for some in clips.split(views_per_forward)
                    ]
                logits = torch.cat(logits).unflatten(0, (-1, views))  # (videos, V, K)
                bad = ~logits.isfinite().flatten(1).all(1)
                logits[bad] = torch.nan  # so that no view, pooled with others, hides it
                part.add(_kept(logits, function, pooling, dataset, keep_views))
                if bad.any():
                    break  # weights that are NaN are so for all processes, and for all videos
            if partial and time.monotonic() - written > SAVE_S:
                partial.save(part)
                scored.append(part)
                part, written = ScoredPart(), time.monotonic()
    model.train(was_training)
    if partial and part.is_finite():
        partial.save(part)
    if stop and (number := max(gather_object([stop()]))):
        raise Stopped("stopped in an evaluation, which is done again", number)
    scored += [*(done if accelerator.is_main_process else []), part]
    return _merged(gather_object(scored), dataset)


def central_view(num_clips: int, num_crops: int, sampling: str) -> int:
    """Which of the views, by clip, then crop, is nearest to the middle of a video.

    With odd numbers it is the one of `1 clip × 1 crop`.
    """
    # Of up to three uniform clips the authors' first one is in the middle.
    clip = 0 if sampling == "uniform" and num_clips <= 3 else num_clips // 2
    return clip * num_crops + num_crops // 2


def weights_code(model: nn.Module) -> str:
    """A short text that other weights change."""
    code = 0
    for name, tensor in model.state_dict().items():
        code = zlib.crc32(name.encode(), code)
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        code = zlib.crc32(flat.numpy(), code)
    return f"{code:08x}"


def _remaining(
    dataset: EvalDataset, views_per_forward: int, done: list[ScoredPart]
) -> list[list[int]]:
    """Numbers of the videos that go through the model together, without those that went."""
    at_once = max(views_per_forward // (dataset.num_clips * dataset.num_crops), 1)
    seen = {told["index"] for part in done for told in part.told}
    firsts = range(0, len(dataset), at_once)
    batches = [list(range(first, min(first + at_once, len(dataset)))) for first in firsts]
    return [batch for batch in batches if not seen.issuperset(batch)]


def _told(batch: dict) -> list[dict]:
    """What there is to say of each video of a batch, whether it was read or not."""
    columns = (batch[name] for name in ("index", "failure", "damage", "decoder"))
    return [
        dict(index=index, failure=failure, damage=damage, decoder=decoder)
        for index, failure, damage, decoder in zip(*columns, strict=True)
    ]


def _kept(
    logits: Tensor, function: str, pooling: Pooling, dataset: EvalDataset, keep_views: bool
) -> dict[str, np.ndarray]:
    """What is kept of logits (videos, V, K)."""
    kept = dict(logits=pool_logits(logits, function, pooling).float())
    if logits.shape[1] > 1:
        sampling = dataset.clip_options["sampling"]
        kept["one_view"] = logits[:, central_view(dataset.num_clips, dataset.num_crops, sampling)]
    if keep_views:
        kept["views"] = logits
    return {name: tensor.numpy() for name, tensor in kept.items()}


def _merged(parts: list[ScoredPart], dataset: EvalDataset) -> Scores:
    """All that was scored, by number: nothing counts twice, whoever scored it."""
    videos = dataset.videos
    told = sorted((told for part in parts for told in part.told), key=lambda told: told["index"])
    told = list({told["index"]: told for told in told}.values())
    for part in parts:
        if (index := part.first_not_finite()) is not None:
            raise NotFinite(
                f"The model's scores are not numbers (NaN), first for {videos.paths[index]}: its "
                "weights are damaged, its training diverged, or fp16 has too small a range for "
                "it; nothing was evaluated."
            )
    if len(told) < len(dataset):
        raise Failure(
            f"{len(dataset) - len(told)} of {len(dataset)} videos were scored by no process: all "
            "nodes need the same --output_dir. Evaluate without --resume."
        )
    tables: dict[str, np.ndarray] = {}
    for part in parts:
        for name, rows in part.tensors().items():
            if name not in tables:
                shape = (len(dataset), *rows.shape[1:])
                tables[name] = np.full(shape, np.nan, dtype=np.float32)
            tables[name][part.indices()] = rows
    unread = np.full((len(dataset), len(videos.class_names)), np.nan, dtype=np.float32)
    read = [row["decoder"] for row in told if row["failure"] is None]
    return Scores(
        logits=tables.get("logits", unread),
        one_view=tables.get("one_view"),
        views=tables.get("views"),
        failures=[tuple(row["failure"]) for row in told if row["failure"]],
        damages=[tuple(row["damage"]) for row in told if row["damage"]],
        decoders={name: read.count(name) for name in sorted(set(read))},
    )
