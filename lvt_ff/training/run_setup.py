"""What a fine-tuning run is made of, from its options: data, model, engine, loop."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from timm.models import split_model_name_tag
from torch.utils.data import DataLoader

from lvt_ff.data import (
    EvalDataset,
    TrainDataset,
    TrainTransform,
    VideoList,
    collate,
    load_video_list,
)
from lvt_ff.hf import LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.hub.model_folder import build_model, is_variant, stored_classes
from lvt_ff.hub.resolve import local_folder
from lvt_ff.timm_models import SOURCES
from lvt_ff.training.batch_size import scaled_lr
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.class_table import class_table
from lvt_ff.training.evaluate import evaluate_videos, make_accelerator
from lvt_ff.training.history import STEPS_NAME, StepLog
from lvt_ff.training.loop import LoopOptions, TrainingLoop
from lvt_ff.training.losses import class_weights, make_loss, video_chances
from lvt_ff.training.optim import freeze_blocks, make_optimizer
from lvt_ff.training.recipes import chosen_recipe, load_recipe, take_recipe, warmup_steps
from lvt_ff.training.signals import ignore_interrupt
from lvt_ff.training.trackers import check_trackers, start_trackers, tracker_names
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.validation import check_rgb

__all__ = [
    "Run",
    "check_options",
    "prepared_run",
    "told_start",
    "training_loader",
    "training_loop",
]

_ALWAYS_ALLOWED = 3  # unreadable videos: of a short list, one would be more than most fractions
_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
_USUAL = 2  # factor between a run's clips of a step and its recipe's, up to which nothing is said


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Args:
        options: as given, with the recipe's values where there were none.
        asked_warmup: the warm-up as given.
        recipe: the values of the recipe, and its name.
        videos, eval_videos: to train on and to evaluate.
        network, processor, origin: see `build_model`.
        accelerator: devices and precision.
    """

    options: SimpleNamespace
    asked_warmup: float | None
    recipe: dict[str, Any]
    videos: VideoList
    eval_videos: VideoList | None
    network: LVTFFForVideoClassification
    processor: LVTFFVideoProcessor
    origin: str
    accelerator: Accelerator
    told: list[str] = field(default_factory=list)

    @property
    def several_labels(self) -> bool:
        """Whether a video may have several labels."""
        return self.videos.labels.ndim == 2

    @cached_property
    def batches(self) -> MicroBatches:
        options, accelerator = self.options, self.accelerator
        chances = None
        if options.balance == "sampling":
            chances = video_chances(self.videos.labels, len(self.videos.class_names))
        return MicroBatches(
            len(self.videos),
            batch_size=options.batch_size,
            accumulation=options.accumulation,
            num_processes=accelerator.num_processes,
            rank=accelerator.process_index,
            epochs=options.epochs,
            seed=options.seed,
            num_repeats=options.num_repeats,
            chances=chances,
        )

    @cached_property
    def peak_lr(self) -> tuple[float, str]:
        """The learning rate, and how it came about."""
        options = self.options
        return scaled_lr(
            options.lr,
            self.batches.global_batch,
            scaling=options.lr_scaling,
            reference=options.lr_batch,
        )

    def settings(self) -> dict:
        """The run's options as JSON holds them, with what was chosen where none was given."""
        chosen = dict(
            recipe=self.recipe["name"],
            sampling=self.processor.sampling,
            sampling_stride=self.processor.sampling_stride,
            mixed_precision=self.accelerator.mixed_precision,
        )
        left_out = ("resume", "allow_changes")
        settings = {name: v for name, v in vars(self.options).items() if name not in left_out}
        return json.loads(json.dumps(settings | chosen, default=str))

    def derived(self) -> dict:
        """What a resumed run must share beside its options."""
        return dict(
            train_videos=self.videos.fingerprint(),
            eval_videos=self.eval_videos.fingerprint() if self.eval_videos else None,
            global_batch=self.batches.global_batch,
            architecture=json.loads(json.dumps(self.network.config.core_kwargs())),
        )


def check_options(options: SimpleNamespace) -> None:
    """Raise ValueError for options that can be told wrong before anything is loaded."""
    check_output_folder(options.output_dir, "--output_dir")
    check_trackers(options.tracker)
    jitter = options.scale_jitter
    if jitter and jitter[0] > jitter[1]:
        raise ValueError(f"--scale_jitter takes the smaller factor first, got {jitter}.")


def prepared_run(options: SimpleNamespace) -> Run:
    """Load data and model, choose the recipe, start the engine; raises ValueError or UsageError."""
    start = options.model if is_variant(options.model) else local_folder(options.model)
    videos, eval_videos = _load_videos(options, start)
    asked_warmup = options.warmup_epochs
    trained = _starts_trained(options)
    name = chosen_recipe(options.recipe, len(videos), trained)
    recipe = dict(load_recipe(name), name=name)
    take_recipe(options, {key: value for key, value in recipe.items() if key != "name"})
    network, processor, origin = _build_network(options, start, videos)
    options.loss = options.loss or ("bce" if videos.labels.ndim == 2 else "cross_entropy")
    accelerator = _accelerator(options)
    return Run(
        options,
        asked_warmup,
        recipe,
        videos,
        eval_videos,
        network,
        processor,
        origin,
        accelerator,
    )


def _load_videos(options: SimpleNamespace, start: str | Path) -> tuple[VideoList, VideoList | None]:
    """Videos to train on and to evaluate, with the same classes in the same order."""
    how = dict(missing=options.missing, class_file=options.class_file)
    videos = load_video_list(
        options.train_data,
        data_format=options.data_format,
        video_root=options.video_root,
        **how,
    )
    stored = stored_classes(start)
    if stored not in (None, videos.class_names) and set(stored) == set(videos.class_names):
        videos = videos.with_class_order(stored)  # as in the model's classifier
    if not options.eval_data:
        return videos, None
    eval_videos = load_video_list(
        options.eval_data,
        videos.class_names,
        data_format=options.eval_data_format or options.data_format,
        video_root=options.eval_video_root or options.video_root,
        task=videos.task,
        **how,
    )
    return videos, eval_videos


def _starts_trained(options: SimpleNamespace) -> bool:
    """Whether the weights that a run starts from were trained."""
    if not is_variant(options.model):
        return True
    variant, tag = split_model_name_tag(options.model)
    return bool(tag) or (options.pretrained is not False and variant in SOURCES)


def _build_network(
    options: SimpleNamespace, start: str | Path, videos: VideoList
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """The model as it starts, its processor with the run's sampling, and where it comes from."""
    names = ("num_frames", "img_size", "drop_rate", "drop_path_rate")
    fields = {name: getattr(options, name) for name in names}
    fields = {name: value for name, value in fields.items() if value is not None}
    torch.manual_seed(options.seed)
    network, processor, origin = build_model(
        start, videos.class_names, options.pretrained, **fields | (options.model_args or {})
    )
    check_rgb(network.config.in_chans)
    if not network.config.global_pool:
        raise ValueError("A model with global_pool '' gives no class scores: leave it out.")
    if videos.labels.ndim == 2:
        network.config.problem_type = "multi_label_classification"
    freeze_blocks(network.model, options.freeze)
    network.model.set_grad_checkpointing(options.grad_checkpointing)
    processor.sampling = options.sampling or processor.sampling
    processor.sampling_stride = options.sampling_stride or processor.sampling_stride
    return network, processor, origin


def _accelerator(options: SimpleNamespace) -> Accelerator:
    accelerator = make_accelerator(
        options.mixed_precision,
        options.cpu,
        log_with=tracker_names(options.tracker, options.output_dir),
        project_dir=options.output_dir,
    )
    start_trackers(accelerator, options.tracker)
    if accelerator.distributed_type not in _SUPPORTED:
        raise UsageError(
            f"Fine-tuning runs on one device or with data parallelism, got "
            f"{accelerator.distributed_type}: change it with `accelerate config`."
        )
    return accelerator


def training_loop(run: Run) -> TrainingLoop:
    """The loop, at its first step; raises ValueError for options that do not go together."""
    options, batches = run.options, run.batches
    weights = None
    if options.balance == "loss":
        weights = class_weights(run.videos.labels, len(run.videos.class_names))
    criterion = make_loss(options.loss, options.label_smoothing, weights)
    if options.compile:
        run.network.compile()
    optimizer = make_optimizer(
        run.network.model,
        options.optimizer,
        lr=run.peak_lr[0],
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
        StepLog(options.output_dir / STEPS_NAME),
        run.settings() | run.derived(),
        _loop_options(run),
        criterion=criterion,
        ema_decay=options.ema_decay or None,
        evaluate=_evaluation(run),
    )


def _loop_options(run: Run) -> LoopOptions:
    options, batches = run.options, run.batches
    fraction = options.max_bad_fraction
    return LoopOptions(
        peak_lr=run.peak_lr[0],
        warmup_steps=warmup_steps(
            run.asked_warmup, run.recipe, batches.steps_per_epoch, batches.num_steps
        ),
        clip_grad=options.clip_grad,
        max_bad_files=max(fraction * len(run.videos), _ALWAYS_ALLOWED) if fraction else 0,
        eval_epochs=options.eval_epochs,
        save_steps=options.save_steps,
        save_minutes=options.save_minutes,
        keep_best=options.keep_best,
        early_stopping=options.early_stopping,
        metric="mean_average_precision" if run.several_labels else "top1",
        allow_changes=options.allow_changes,
    )


def _evaluation(run: Run) -> Callable[[], dict] | None:
    """A function that measures the present weights; None where there is no evaluation data."""
    if run.eval_videos is None:
        return None
    options = run.options
    dataset = EvalDataset(
        run.eval_videos,
        run.processor.eval_transform(),
        num_clips=options.eval_clips,
        num_crops=options.eval_crops,
        **_reading_options(run),
    )

    def evaluate() -> dict:
        results, _ = evaluate_videos(
            run.network,
            dataset,
            run.processor,
            run.accelerator,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            progress="evaluating",
        )
        return results

    return evaluate


def _reading_options(run: Run) -> dict[str, Any]:
    names = ("decoder", "max_pixels", "on_damage")
    return run.processor.clip_options() | {name: getattr(run.options, name) for name in names}


def training_loader(run: Run) -> DataLoader:
    """The training clips of this process, from the loop's first step on."""
    options, transform = run.options, run.processor.eval_transform()
    augment = TrainTransform(transform, options.scale_jitter, options.hflip)
    return DataLoader(
        TrainDataset(run.videos, augment, seed=options.seed, **_reading_options(run)),
        batch_sampler=run.batches,
        collate_fn=collate,
        num_workers=options.num_workers,
        pin_memory=run.accelerator.device.type == "cuda",
        worker_init_fn=ignore_interrupt,
    )


def told_start(run: Run, loop: TrainingLoop) -> list[str]:
    """What a run prints before its first step, in lines."""
    batches, videos = run.batches, run.videos
    told = [
        f"start: {run.origin}",
        f"recipe: {run.recipe['name']}",
        f"{len(videos)} training videos of {len(videos.class_names)} classes; "
        f"{batches.num_steps} steps of {batches.global_batch} clips, {batches.first_step} done; "
        f"peak learning rate {run.peak_lr[1]}, reached in step {max(loop.options.warmup_steps, 1)}",
        *_about_batch(run),
        class_table(videos, run.eval_videos),
    ]
    return told + run.told


def _about_batch(run: Run) -> list[str]:
    """Whether a step has far more or fewer clips than the learning rate is meant for."""
    options, clips = run.options, run.batches.global_batch
    factor = clips / options.lr_batch
    if options.lr_scaling != "none" or 1 / _USUAL <= factor <= _USUAL:
        return []
    if options.lr != run.recipe["lr"]:
        return []
    scaled, _ = scaled_lr(options.lr, clips, scaling="linear", reference=options.lr_batch)
    return [
        f"the recipe's learning rate is meant for steps of {options.lr_batch} clips: "
        f"--lr_scaling linear would make it {scaled:g}, and --accumulation makes steps larger"
    ]
