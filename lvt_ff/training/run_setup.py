"""What a fine-tuning run is made of, from its options: data, model, engine, loop."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from timm.models import split_model_name_tag
from torch.utils.data import DataLoader

from lvt_ff.data import (
    Augmentation,
    EvalDataset,
    TrainDataset,
    TrainTransform,
    VideoList,
    collate,
    flip_warning,
    load_video_list,
)
from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.hub.model_folder import build_model, is_variant, stored_classes
from lvt_ff.hub.resolve import local_folder
from lvt_ff.timm_models import SOURCES
from lvt_ff.training.batch_size import check_memory, find_batch_size, scaled_lr, split_batch
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.checkpoint import last_checkpoint, read_state, undamaged
from lvt_ff.training.class_table import class_table
from lvt_ff.training.engine import check_engine, shard_on_cpu, sharding_plugin
from lvt_ff.training.evaluate import evaluate_videos, make_accelerator
from lvt_ff.training.history import STEPS_NAME, StepLog
from lvt_ff.training.loop import LoopOptions, TrainingLoop
from lvt_ff.training.lora import add_lora, check_adapter, check_lora_options
from lvt_ff.training.losses import class_weights, make_loss, video_chances
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.training.optim import freeze_blocks, make_optimizer
from lvt_ff.training.recipes import chosen_recipe, load_recipe, take_recipe, warmup_steps
from lvt_ff.training.signals import leave_group
from lvt_ff.training.trackers import check_trackers, tracker_names
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.short_text import counted
from lvt_ff.utils.validation import check_rgb

__all__ = [
    "Run",
    "check_options",
    "load_videos",
    "micro_batches",
    "prepared_run",
    "starts_trained",
    "take_sampling",
    "told_start",
    "training_dataset",
    "training_loader",
    "training_loop",
]

_ALWAYS_ALLOWED = 3  # unreadable videos: of a short list, one would be more than most fractions
_USUAL = 2  # factor between a run's clips of a step and its recipe's, up to which nothing is said


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Args:
        options: as given, with the recipe's values where there were none.
        asked_warmup: the warm-up as given.
        recipe_name, recipe: which one, and its values.
        videos, eval_videos: to train on and to evaluate.
        network, processor, origin: see `build_model`.
        accelerator: devices and precision.
        augmentation: of the training clips.
        step_clips: in a step, where that was asked for, or is that of a run which other processes
            began; None where it follows from the other options.
        told: lines that were not printed yet.
    """

    options: SimpleNamespace
    asked_warmup: float | None
    recipe_name: str
    recipe: dict[str, Any]
    videos: VideoList
    eval_videos: VideoList | None
    network: LVTFFForVideoClassification
    processor: LVTFFVideoProcessor
    origin: str
    accelerator: Accelerator
    augmentation: Augmentation
    step_clips: int | None
    told: list[str]

    @property
    def several_labels(self) -> bool:
        """Whether a video may have several labels."""
        return self.videos.task == "multi"

    @cached_property
    def batches(self) -> MicroBatches:
        options, accelerator = self.options, self.accelerator
        world = accelerator.num_processes
        return micro_batches(
            options,
            self.videos,
            accumulation=_passes(options, self.step_clips, world),
            num_processes=world,
            rank=accelerator.process_index,
            epochs=options.epochs,
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

    @cached_property
    def warmup_steps(self) -> int:
        batches = self.batches
        return warmup_steps(
            self.asked_warmup, self.recipe, batches.steps_per_epoch, batches.num_steps
        )

    def _warmup_epochs(self) -> float:
        if self.asked_warmup is not None:
            return self.asked_warmup
        return self.warmup_steps / self.batches.steps_per_epoch

    def settings(self) -> dict:
        """The run's options as JSON holds them, with what was chosen where none was given."""
        chosen = dict(
            recipe=self.recipe_name,
            warmup_epochs=self._warmup_epochs(),
            sampling=self.processor.sampling,
            sampling_stride=self.processor.sampling_stride,
            mixed_precision=self.accelerator.mixed_precision,
        )
        left_out = ("resume", "allow_changes")
        settings = {name: v for name, v in vars(self.options).items() if name not in left_out}
        return json.loads(json.dumps(settings | chosen, default=str))

    @cached_property
    def derived(self) -> dict:
        """What a resumed run must share beside its options."""
        return dict(
            train_videos=self.videos.fingerprint(),
            eval_videos=self.eval_videos.fingerprint() if self.eval_videos else None,
            global_batch=self.batches.global_batch,
            architecture=json.loads(json.dumps(self.network.config.core_kwargs())),
        )


def micro_batches(
    options: SimpleNamespace,
    videos: VideoList,
    *,
    accumulation: int,
    num_processes: int,
    rank: int,
    epochs: int,
) -> MicroBatches:
    """Which videos make which step, drawn with the options' balance; see `MicroBatches`."""
    chances = None
    if options.balance == "sampling":
        chances = video_chances(videos.labels, len(videos.class_names))
    return MicroBatches(
        len(videos),
        batch_size=options.batch_size,
        accumulation=accumulation,
        num_processes=num_processes,
        rank=rank,
        epochs=epochs,
        seed=options.seed,
        num_repeats=options.num_repeats,
        chances=chances,
    )


def check_options(options: SimpleNamespace) -> None:
    """Raise ValueError for options that can be told wrong before anything is loaded."""
    check_output_folder(options.output_dir, "--output_dir")
    check_trackers(options.tracker)
    check_lora_options(options)
    for name in ("early_stopping", "eval_data_format", "eval_video_root"):
        if getattr(options, name) and not options.eval_data:
            raise ValueError(f"--{name} goes with evaluation data: give --eval_data too.")
    if options.keep_best > 1 and not options.eval_data:
        raise ValueError("--keep_best goes with evaluation data: give --eval_data too.")
    if options.hub_private and not options.push_to_hub:
        raise ValueError("--hub_private goes with --push_to_hub: give that too.")
    if options.total_batch_size and options.accumulation != 1:
        raise ValueError("--accumulation follows from --total_batch_size: give one of them.")
    for other in ("compile", "find_batch_size"):
        if options.shard and getattr(options, other):
            raise ValueError(f"--shard and --{other} do not go together: leave one out.")


def prepared_run(options: SimpleNamespace) -> Run:
    """Load data and model, choose the recipe, start the engine; raises ValueError or UsageError."""
    start = options.model if is_variant(options.model) else local_folder(options.model)
    videos, eval_videos = load_videos(options, start)
    asked, asked_warmup = dict(vars(options)), options.warmup_epochs
    trained = starts_trained(options)
    name = chosen_recipe(options.recipe, len(videos), trained)
    recipe = load_recipe(name)
    augmentation = take_recipe(options, recipe)
    augmentation.check_effects(asked)
    network, processor, origin = _build_network(options, start, videos)
    options.loss = options.loss or ("bce" if videos.task == "multi" else "cross_entropy")
    told = _adapt(options, start, network)
    accelerator = _accelerator(options)
    step_clips = _share_out(options, network, accelerator)
    if step_clips is not None:
        told.append(_told_shares(options, step_clips, accelerator.num_processes))
    augmentation.check_batch_size(options.batch_size)
    told += filter(None, [flip_warning(videos.class_names, augmentation)])
    return Run(
        options=options,
        asked_warmup=asked_warmup,
        recipe_name=name,
        recipe=recipe,
        videos=videos,
        eval_videos=eval_videos,
        network=network,
        processor=processor,
        origin=origin,
        accelerator=accelerator,
        augmentation=augmentation,
        step_clips=step_clips,
        told=told,
    )


def load_videos(options: SimpleNamespace, start: str | Path) -> tuple[VideoList, VideoList | None]:
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


def starts_trained(options: SimpleNamespace) -> bool:
    """Whether the weights that a run starts from were trained."""
    if not is_variant(options.model):
        return True
    variant, tag = split_model_name_tag(options.model)
    return bool(tag) or (options.pretrained is not False and variant in SOURCES)


def _build_network(
    options: SimpleNamespace, start: str | Path, videos: VideoList
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """The model as it starts, its processor with the run's sampling, and where it comes from."""
    # Rates may be the recipe's: fields that were named go before them.
    fields = _given(options, "drop_rate", "drop_path_rate") | (options.model_args or {})
    fields |= _given(options, "num_frames", "img_size")
    torch.manual_seed(options.seed)
    network, processor, origin = build_model(
        start, videos.class_names, options.pretrained, **fields
    )
    check_rgb(network.config.in_chans)
    if not network.config.global_pool:
        raise ValueError("A model with global_pool '' gives no class scores: leave it out.")
    if videos.task == "multi":
        network.config.problem_type = "multi_label_classification"
    freeze_blocks(network.model, options.freeze)
    network.model.set_grad_checkpointing(options.grad_checkpointing)
    take_sampling(options, processor)
    return network, processor, origin


def take_sampling(options: SimpleNamespace, processor: LVTFFVideoProcessor) -> None:
    """Give a processor the run's sampling, where it has one of its own."""
    processor.sampling = options.sampling or processor.sampling
    processor.sampling_stride = options.sampling_stride or processor.sampling_stride


def _given(options: SimpleNamespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _adapt(
    options: SimpleNamespace, start: str | Path, network: LVTFFForVideoClassification
) -> list[str]:
    """Give the model adapters if they are asked for; a line that tells of them."""
    if options.lora_rank is None:
        return []
    if not starts_trained(options):
        raise ValueError(
            "--lora_rank adapts trained weights, and this run starts from random ones: leave it "
            "out, or give --model trained weights."
        )
    targets = options.lora_targets.split(",") if options.lora_targets else None
    layers = add_lora(
        network,
        options.lora_rank,
        alpha=options.lora_alpha,
        dropout=options.lora_dropout,
        targets=targets,
    )
    if options.lora_keep_adapter:
        named = is_variant(str(start))
        check_adapter(
            network,
            LVTFFConfig.from_variant(start) if named else LVTFFConfig.from_pretrained(start),
        )
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    trained = sum(size for size, trains in sizes if trains)
    return [
        f"LoRA: rank {options.lora_rank} in {counted(len(layers), 'layer')}; "
        f"{trained:,} of {sum(size for size, _ in sizes):,} parameters train"
    ]


def _accelerator(options: SimpleNamespace) -> Accelerator:
    plugin = sharding_plugin() if options.shard else None
    accelerator = make_accelerator(
        options.mixed_precision,
        options.cpu,
        log_with=tracker_names(options.tracker, options.output_dir),
        project_dir=options.output_dir,
        fsdp_plugin=plugin,
    )
    if plugin and accelerator.device.type == "cpu":
        shard_on_cpu(accelerator, plugin)
    check_engine(accelerator)
    return accelerator


def _share_out(
    options: SimpleNamespace, network: LVTFFForVideoClassification, accelerator: Accelerator
) -> int | None:
    """Choose the clips of a forward pass where that is asked for; the clips of a step where these
    are given, or another number of processes goes on."""
    world, earlier = accelerator.num_processes, _earlier_settings(options)
    if options.find_batch_size:
        check_memory(accelerator.device)
        if options.total_batch_size is None:
            clips = earlier.get("global_batch") or options.batch_size * options.accumulation * world
            options.total_batch_size, options.accumulation = clips, 1
        # That of a run that is resumed, which dropout was drawn with.
        options.batch_size = earlier.get("batch_size") or find_batch_size(
            network,
            accelerator,
            options.total_batch_size,
            clip_shape=(network.model.num_frames, network.config.in_chans, *network.model.img_size),
            copies=(1 if options.optimizer == "sgd" else 2) + bool(options.ema_decay),
        )
    elif options.total_batch_size is None and _has_other_world(options, earlier, world):
        return earlier["global_batch"]
    return options.total_batch_size


def _told_shares(options: SimpleNamespace, step_clips: int, num_processes: int) -> str:
    passes = _passes(options, step_clips, num_processes)
    return (
        f"a step: {counted(passes, 'forward pass', 'forward passes')} of "
        f"{counted(options.batch_size, 'clip')} on "
        f"{counted(num_processes, 'process', 'processes')}"
    )


def _has_other_world(options: SimpleNamespace, earlier: dict, world: int) -> bool:
    """Whether a run goes on with the same options on another number of processes."""
    names = ("batch_size", "accumulation")
    same = all(earlier.get(name) == getattr(options, name) for name in names)
    return same and earlier["global_batch"] != options.batch_size * options.accumulation * world


def _passes(options: SimpleNamespace, step_clips: int | None, num_processes: int) -> int:
    """Forward passes of a process in a step."""
    if step_clips is None:
        return options.accumulation
    return split_batch(step_clips, options.batch_size, num_processes)


def _earlier_settings(options: SimpleNamespace) -> dict:
    """Those of the run that is resumed; empty for a new run."""
    checkpoint = last_checkpoint(options.output_dir / "checkpoints") if options.resume else None
    if checkpoint is None:
        return {}
    with undamaged(checkpoint):
        return read_state(checkpoint)["settings"]


def training_loop(run: Run) -> TrainingLoop:
    """The loop, at its first step; raises ValueError for options that do not go together."""
    options, batches = run.options, run.batches
    weights = None
    if options.balance == "loss":
        weights = class_weights(run.videos.labels, len(run.videos.class_names))
    criterion = make_loss(
        options.loss, options.label_smoothing, weights, several=run.several_labels
    )
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
        run.settings() | run.derived,
        _loop_options(run),
        batch_transform=BatchTransform(
            run.processor.eval_transform(),
            run.augmentation,
            len(run.videos.class_names),
            options.seed,
        ),
        criterion=criterion,
        ema_decay=options.ema_decay or None,
        evaluate=_evaluation(run),
    )


def _loop_options(run: Run) -> LoopOptions:
    options = run.options
    fraction = options.max_bad_fraction
    return LoopOptions(
        peak_lr=run.peak_lr[0],
        warmup_steps=run.warmup_steps,
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


def _evaluation(run: Run) -> Callable[[Callable[[], int]], dict] | None:
    """A function that measures the present weights, until it is told to stop; None where there is
    no evaluation data."""
    if run.eval_videos is None:
        return None
    options = run.options
    dataset = EvalDataset(
        run.eval_videos,
        run.processor.eval_transform(),
        num_clips=1,
        num_crops=1,
        **_reading_options(run.options, run.processor),
    )

    def evaluate(stop: Callable[[], int]) -> dict:
        results, _ = evaluate_videos(
            run.network,
            dataset,
            run.processor,
            run.accelerator,
            views_per_forward=options.batch_size,
            num_workers=options.num_workers,
            stop=stop,
        )
        return results

    return evaluate


def _reading_options(options: SimpleNamespace, processor: LVTFFVideoProcessor) -> dict[str, Any]:
    names = ("decoder", "max_pixels", "on_damage")
    return processor.clip_options() | {name: getattr(options, name) for name in names}


def training_dataset(
    options: SimpleNamespace,
    videos: VideoList,
    processor: LVTFFVideoProcessor,
    augmentation: Augmentation,
) -> TrainDataset:
    """The training clips as a run draws them."""
    augment = TrainTransform(processor.eval_transform(), augmentation)
    reading = _reading_options(options, processor)
    return TrainDataset(videos, augment, seed=options.seed, **reading)


def training_loader(run: Run) -> DataLoader:
    """The training clips of this process, from the loop's first step on."""
    options = run.options
    return DataLoader(
        training_dataset(options, run.videos, run.processor, run.augmentation),
        batch_sampler=run.batches,
        collate_fn=collate,
        num_workers=options.num_workers,
        pin_memory=run.accelerator.device.type == "cuda",
        worker_init_fn=leave_group,
    )


def told_start(run: Run, loop: TrainingLoop) -> list[str]:
    """What a run prints before its first step, in lines."""
    batches, videos = run.batches, run.videos
    told = [
        f"start: {run.origin}",
        f"recipe: {run.recipe_name}",
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
