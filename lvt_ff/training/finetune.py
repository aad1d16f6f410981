"""Fine-tune a model on labelled videos with Accelerate.

Batches, augmentation, dropout and learning rate are functions of (seed, step): a run that was
killed anywhere and resumed computes what an uninterrupted one on the same machine computes.
"""

import csv
import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader

from lvt_ff.data import (
    MAX_PIXELS,
    Decoder,
    EvalDataset,
    OnDamage,
    TrainDataset,
    TrainTransform,
    VideoList,
    collate,
    load_video_list,
)
from lvt_ff.hf import LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.hub.model_card import model_card
from lvt_ff.hub.model_folder import build_model, is_variant, stored_classes, write_model_folder
from lvt_ff.hub.push import check_login, push
from lvt_ff.hub.resolve import local_folder
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.checkpoint import last_checkpoint
from lvt_ff.training.class_table import class_table
from lvt_ff.training.evaluate import evaluate_videos, make_accelerator
from lvt_ff.training.loop import History, TrainingLoop
from lvt_ff.training.optim import freeze_blocks, make_optimizer
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment, install_hint
from lvt_ff.utils.errors import UsageError, usage
from lvt_ff.utils.option_types import (
    ClosedUnitInterval,
    Decay,
    Factor,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
    Seed,
    Share,
)
from lvt_ff.utils.output import check_output_folder, only_run
from lvt_ff.utils.plots import curve_picture
from lvt_ff.utils.validation import check_rgb

__all__ = ["finetune"]

_ALWAYS_ALLOWED = 3  # unreadable videos: of a short list, one would be more than most fractions
_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


@command(
    {
        "model": "model, data and output",
        "num_frames": "clips",
        "epochs": "optimisation",
        "eval_epochs": "evaluation, checkpoints and sharing",
        "num_workers": "hardware and speed",
    },
    stores_options=True,
)
def finetune(
    model: str,
    train_data: Path,
    output_dir: Path,
    *,
    eval_data: Path | None = None,
    pretrained: bool | None = None,
    model_args: dict[str, Any] | None = None,
    num_frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    sampling: Literal["uniform", "dense"] | None = None,
    sampling_stride: PositiveInt | None = None,
    scale_jitter: tuple[Factor, Factor] = (256 / 224, 320 / 224),
    hflip: ClosedUnitInterval = 0.0,
    epochs: PositiveInt = 30,
    batch_size: PositiveInt = 8,
    accumulation: PositiveInt = 1,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: NonNegativeFloat = 5e-4,
    weight_decay: NonNegativeFloat = 0.05,
    momentum: OpenUnitInterval = 0.9,
    warmup_epochs: NonNegativeFloat = 2.0,
    layer_decay: Decay | None = None,
    freeze: int = 0,
    label_smoothing: Share = 0.0,
    clip_grad: NonNegativeFloat | None = 1.0,
    seed: Seed = 0,
    eval_epochs: PositiveInt = 1,
    save_steps: PositiveInt | None = None,
    resume: bool = False,
    max_bad_fraction: ClosedUnitInterval = 0.05,
    tracker: Literal["none", "tensorboard"] = "none",
    push_to_hub: str | None = None,
    hub_private: bool = False,
    num_workers: NonNegativeInt = 2,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
    grad_checkpointing: bool = False,
    cpu: bool = False,
) -> dict:
    """Fine-tune a model on a folder of videos; the output folder loads in timm and transformers.

    Args:
        model: Variant, such as lvt_ff_default, or lvt_ff_default.fb_in22k_ft_in1k with the tag of
            its weights (`lvt-ff models` lists them); model folder; or ORG/NAME[@REVISION] on the
            Hub.
        train_data: Folder with one subfolder per class, or CSV file with the columns path,label.
        output_dir: Where the finished model folder goes; checkpoints lie in its checkpoints folder.
        eval_data: Like train_data; without it the last weights are kept, with it the best.
        pretrained: Start a variant from its ImageNet weights, downloaded from the Hub (true), or
            from random ones (false); null does the first where the variant has any.
        model_args: Configuration fields to change, such as {"drop_path_rate": 0.1}.
        num_frames: Frames of a clip; embeddings are resampled.
        img_size: Pixels of a frame's side; embeddings are resampled.
        sampling: One frame of each of num_frames segments (uniform), or every sampling_stride-th
            frame (dense); as the model folder was trained, or uniform, if not given.
        sampling_stride: Frames from one of a dense clip to the next; the model folder's, else 4.
        scale_jitter: Frames are resized to cover the crop times a random factor between these.
        hflip: Probability of a horizontal flip; leave 0 where left and right are classes.
        epochs: Passes over the training videos.
        batch_size: Clips in one forward pass of one process.
        accumulation: Forward passes of a process in an optimizer step.
        optimizer: AdamW, or SGD with Nesterov momentum (the paper's).
        lr: Peak learning rate, for the global batch; it is not scaled.
        weight_decay: Weight decay, of weight matrices only.
        momentum: Momentum of SGD.
        warmup_epochs: Linear warm-up before the cosine; may be a part of an epoch.
        layer_decay: Factor of the learning rate from a block to the one before; off if not given.
        freeze: Number of first blocks, and the stem, that do not train.
        label_smoothing: Label smoothing of the cross-entropy.
        clip_grad: Largest gradient norm; null turns clipping off.
        seed: Random seed.
        eval_epochs: Epochs between evaluations and checkpoints; the last epoch always has both.
        save_steps: Also write a checkpoint every so many steps; only with the epochs if not given.
        resume: Go on from the last checkpoint in output_dir, or start where there is none.
        max_bad_fraction: Stop when more of the listed videos than this could not be read (others
            take their place until then; bad_files.csv names them, and those that are damaged).
            Three are always allowed, but none with 0.
        tracker: Also log to tensorboard, a package of its own.
        push_to_hub: Repository ORG/NAME that the finished folder is pushed to.
        hub_private: Make that repository private where it is new.
        num_workers: Processes that read videos, per process.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
        mixed_precision: Autocast dtype; that of `accelerate launch` if not given.
        grad_checkpointing: Recompute blocks in the backward pass to save memory.
        cpu: Use the CPU where there is a GPU.
    """
    options = SimpleNamespace(**locals())
    options.output_dir = Path(output_dir)
    with usage():
        check_output_folder(options.output_dir, "--output_dir")
        if scale_jitter[0] > scale_jitter[1]:
            raise ValueError(f"--scale_jitter takes the smaller factor first, got {scale_jitter}.")
        start = model if is_variant(model) else local_folder(model)
        videos, eval_videos = _load_videos(options, start)
        network, processor, origin = _build_network(options, start, videos.class_names)
    if push_to_hub:
        check_login(push_to_hub)
    accelerator = _accelerator(options)
    run = _Run(options, videos, eval_videos, network, processor, origin, accelerator)
    first = accelerator.is_main_process
    with only_run(options.output_dir, "--output_dir") if first else nullcontext():
        accelerator.wait_for_everyone()
        return _train(run)


@dataclass(frozen=True)
class _Run:
    """What a run is made of."""

    options: SimpleNamespace
    videos: VideoList
    eval_videos: VideoList | None
    network: LVTFFForVideoClassification
    processor: LVTFFVideoProcessor
    origin: str
    accelerator: Accelerator


def _load_videos(options: SimpleNamespace, start: str | Path) -> tuple[VideoList, VideoList | None]:
    """Videos to train on and to evaluate, with the same classes in the same order."""
    videos = load_video_list(options.train_data)
    stored = stored_classes(start)
    if stored not in (None, videos.class_names) and set(stored) == set(videos.class_names):
        videos = videos.with_class_order(stored)  # as in the model's classifier
    if not options.eval_data:
        return videos, None
    return videos, load_video_list(options.eval_data, videos.class_names)


def _build_network(
    options: SimpleNamespace, start: str | Path, class_names: tuple[str, ...]
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """The model as it starts, its processor with the run's sampling, and where it comes from."""
    sizes = dict(num_frames=options.num_frames, img_size=options.img_size)
    sizes = {name: value for name, value in sizes.items() if value is not None}
    torch.manual_seed(options.seed)
    network, processor, origin = build_model(
        start, class_names, options.pretrained, **dict(options.model_args or {}, **sizes)
    )
    check_rgb(network.config.in_chans)
    if not network.config.global_pool:
        raise ValueError("A model with global_pool '' gives no class scores: leave it out.")
    freeze_blocks(network.model, options.freeze)
    network.model.set_grad_checkpointing(options.grad_checkpointing)
    processor.sampling = options.sampling or processor.sampling
    processor.sampling_stride = options.sampling_stride or processor.sampling_stride
    return network, processor, origin


def _accelerator(options: SimpleNamespace) -> Accelerator:
    log_with = None if options.tracker == "none" else options.tracker
    accelerator = make_accelerator(
        options.mixed_precision, options.cpu, log_with=log_with, project_dir=options.output_dir
    )
    if log_with:
        accelerator.init_trackers("lvt_ff")
        if accelerator.is_main_process and not accelerator.trackers:
            raise UsageError(f"--tracker {log_with} is not installed: {install_hint('track')}")
    if accelerator.distributed_type not in _SUPPORTED:
        raise UsageError(
            f"Fine-tuning runs on one device or with data parallelism, got "
            f"{accelerator.distributed_type}: change it with `accelerate config`."
        )
    return accelerator


def _train(run: _Run) -> dict:
    """Go through the steps, from the first or the last checkpoint on, and write what they made."""
    options, accelerator, videos = run.options, run.accelerator, run.videos
    checkpoint = _last_checkpoint(options)
    batches = MicroBatches(
        len(videos),
        batch_size=options.batch_size,
        accumulation=options.accumulation,
        num_processes=accelerator.num_processes,
        rank=accelerator.process_index,
        epochs=options.epochs,
        seed=options.seed,
    )
    settings, derived = _settings(run), _derived(run, batches)
    loop = _training_loop(run, batches, settings | derived)
    if checkpoint:
        loop.resume(checkpoint)
    accelerator.print(
        f"start: {run.origin}\n{len(videos)} training videos of {len(videos.class_names)} classes; "
        f"{batches.num_steps} steps of {batches.global_batch} clips, {batches.first_step} done; "
        f"peak learning rate {options.lr:g}\n{class_table(videos, run.eval_videos)}"
    )
    history = loop.run(iter(_loader(run, batches)))
    results = dict(
        best=history.best,
        epochs=history.epochs,
        start=run.origin,
        conversion=run.network.pretrained_report.lines() if run.network.pretrained_report else [],
        settings=settings,
        derived=derived,
        num_train=len(videos),
        num_eval=len(run.eval_videos) if run.eval_videos else 0,
        bad_files=len(history.bad_files),
        damaged_files=len(history.damaged_files),
        environment=environment(options.cpu),
    )
    if accelerator.is_main_process:
        _write_output(options.output_dir, loop.load_best(), run.processor, history, results)
        print(f"wrote the model folder {options.output_dir}")
        if options.push_to_hub:
            push(options.output_dir, options.push_to_hub, private=options.hub_private)
    accelerator.wait_for_everyone()
    for log in accelerator.trackers:
        log.finish()
    return results


def _last_checkpoint(options: SimpleNamespace) -> Path | None:
    """Where to go on; raises UsageError for an earlier run that nobody asked to go on with."""
    checkpoint = last_checkpoint(options.output_dir / "checkpoints")
    if checkpoint and not options.resume:
        raise UsageError(
            f"{options.output_dir} holds checkpoints of an earlier run: pass --resume to go on "
            "with it, or another --output_dir."
        )
    return checkpoint


def _settings(run: _Run) -> dict:
    """The run's options as JSON holds them, with what was chosen where none was given."""
    chosen = dict(
        sampling=run.processor.sampling,
        sampling_stride=run.processor.sampling_stride,
        mixed_precision=run.accelerator.mixed_precision,
    )
    settings = {name: value for name, value in vars(run.options).items() if name != "resume"}
    return json.loads(json.dumps(settings | chosen, default=str))


def _derived(run: _Run, batches: MicroBatches) -> dict:
    """What a resumed run must share beside its options."""
    return dict(
        train_videos=run.videos.fingerprint(),
        eval_videos=run.eval_videos.fingerprint() if run.eval_videos else None,
        global_batch=batches.global_batch,
    )


def _training_loop(run: _Run, batches: MicroBatches, settings: dict) -> TrainingLoop:
    options = run.options
    optimizer = make_optimizer(
        run.network.model,
        options.optimizer,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        layer_decay=options.layer_decay,
    )
    checkpoints = options.output_dir / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    return TrainingLoop(
        run.network,
        optimizer,
        run.accelerator,
        batches,
        checkpoints,
        settings,
        peak_lr=options.lr,
        warmup_steps=round(options.warmup_epochs * batches.steps_per_epoch),
        label_smoothing=options.label_smoothing,
        clip_grad=options.clip_grad,
        max_bad_files=_max_bad_files(options.max_bad_fraction, len(run.videos)),
        eval_epochs=options.eval_epochs,
        save_steps=options.save_steps,
        evaluate=_evaluation(run),
    )


def _max_bad_files(fraction: float, num_videos: int) -> float:
    return max(fraction * num_videos, _ALWAYS_ALLOWED) if fraction else 0


def _evaluation(run: _Run) -> Callable[[], dict] | None:
    """A function that measures the present weights; None where there is no evaluation data."""
    if run.eval_videos is None:
        return None
    options, transform = run.options, run.processor.eval_transform()
    dataset = EvalDataset(
        run.eval_videos, transform, num_clips=1, num_crops=1, **_reading_options(run)
    )

    def evaluate() -> dict:
        results, _ = evaluate_videos(
            run.network,
            dataset,
            run.processor,
            run.accelerator,
            views_per_forward=options.batch_size,
            num_workers=options.num_workers,
            progress="evaluating",
        )
        return results

    return evaluate


def _reading_options(run: _Run) -> dict[str, Any]:
    names = ("decoder", "max_pixels", "on_damage")
    return run.processor.clip_options() | {name: getattr(run.options, name) for name in names}


def _loader(run: _Run, batches: MicroBatches) -> DataLoader:
    """The training clips of this process, from the loop's first step on."""
    options, transform = run.options, run.processor.eval_transform()
    augment = TrainTransform(transform, options.scale_jitter, options.hflip)
    return DataLoader(
        TrainDataset(run.videos, augment, seed=options.seed, **_reading_options(run)),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=options.num_workers,
        pin_memory=run.accelerator.device.type == "cuda",
    )


def _write_output(folder: Path, network, processor, history: History, results: dict) -> None:
    best, settings = results["best"], results["settings"]
    evaluated = {key.removeprefix("eval_"): value for key, value in best.items()}
    curve = folder / "checkpoints" / "curve.png"
    curve_picture(curve, history.steps, history.epochs, f"{folder.name}: {settings['model']}")
    card = model_card(
        folder.name,
        base=[results["start"], *results["conversion"]],
        config=network.config,
        results=evaluated if results["num_eval"] else None,
        settings=settings | results["derived"],
        data=dict(
            train=f"{settings['train_data']} ({results['num_train']} videos)",
            eval=f"{settings['eval_data']} ({results['num_eval']} videos)",
        ),
    )
    write_text(folder / "steps.jsonl", "".join(json.dumps(row) + "\n" for row in history.steps))
    table = io.StringIO()
    damaged = [
        (path, f"damaged, used with what was left: {damage}")
        for path, damage in history.damaged_files.items()
    ]
    csv.writer(table).writerows([("path", "reason"), *history.bad_files.items(), *damaged])
    write_text(folder / "bad_files.csv", table.getvalue())
    write_model_folder(folder, network, processor, card, {"results.json": results}, [curve])
