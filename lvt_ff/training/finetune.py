"""Fine-tune a model on labelled videos with Accelerate.

Batches, augmentation, dropout and learning rate are functions of (seed, step): a run that was
killed anywhere and resumed computes what an uninterrupted one on the same machine computes.
"""

from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from lvt_ff.data import MAX_PIXELS, Augmentation, DataFormat, Decoder, Missing, OnDamage
from lvt_ff.hub.push import check_login, push
from lvt_ff.training.batch_size import LrScaling
from lvt_ff.training.checkpoint import last_checkpoint
from lvt_ff.training.loop import TrainingLoop
from lvt_ff.training.losses import Loss
from lvt_ff.training.recipes import Recipe
from lvt_ff.training.run_output import run_results, write_bad_files, write_output
from lvt_ff.training.run_setup import (
    Run,
    check_options,
    prepared_run,
    told_start,
    training_loader,
    training_loop,
)
from lvt_ff.training.trackers import start_trackers
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import UsageError, usage
from lvt_ff.utils.option_types import (
    ClosedUnitInterval,
    Decay,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
)
from lvt_ff.utils.output import only_run

__all__ = ["finetune"]


@command(
    {
        "model": "model, data and output",
        "num_frames": "clips",
        "scale_jitter": "augmentation",
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
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    eval_data_format: DataFormat | None = None,
    eval_video_root: Path | None = None,
    missing: Missing = "fail",
    class_file: Path | None = None,
    recipe: Recipe = "auto",
    pretrained: bool | None = None,
    model_args: dict[str, Any] | None = None,
    num_frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    sampling: Literal["uniform", "dense"] | None = None,
    sampling_stride: PositiveInt | None = None,
    num_repeats: PositiveInt | None = None,
    augmentation: Annotated[dict[str, Any], Augmentation],
    epochs: PositiveInt | None = None,
    batch_size: PositiveInt | None = None,
    accumulation: PositiveInt = 1,
    total_batch_size: PositiveInt | None = None,
    find_batch_size: bool = False,
    optimizer: Literal["adamw", "sgd"] | None = None,
    lr: NonNegativeFloat | None = None,
    lr_scaling: LrScaling = "none",
    lr_batch: PositiveInt | None = None,
    weight_decay: NonNegativeFloat | None = None,
    momentum: OpenUnitInterval | None = None,
    warmup_epochs: NonNegativeFloat | None = None,
    layer_decay: Decay | None = None,
    freeze: int = 0,
    lora_rank: PositiveInt | None = None,
    lora_alpha: PositiveFloat | None = None,
    lora_dropout: Share = 0.0,
    lora_targets: str | None = None,
    lora_keep_adapter: bool = False,
    drop_rate: Share | None = None,
    drop_path_rate: Share | None = None,
    loss: Loss | None = None,
    balance: Literal["none", "sampling", "loss"] | None = None,
    label_smoothing: Share | None = None,
    clip_grad: NonNegativeFloat | None = None,
    ema_decay: Share | None = None,
    seed: Seed = 0,
    eval_epochs: PositiveInt = 1,
    test_clips: PositiveInt | None = None,
    test_crops: PositiveInt | None = None,
    early_stopping: PositiveInt | None = None,
    keep_best: PositiveInt = 1,
    save_steps: PositiveInt | None = None,
    save_minutes: PositiveFloat | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    max_bad_fraction: ClosedUnitInterval = 0.05,
    tracker: str = "none",
    push_to_hub: str | None = None,
    hub_private: bool = False,
    num_workers: NonNegativeInt = 2,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
    grad_checkpointing: bool = False,
    compile: bool = False,
    shard: bool = False,
    cpu: bool = False,
) -> dict:
    """Fine-tune a model on labelled videos; the output folder loads in timm and transformers.

    Options that are not given have the recipe's values, which a run prints and results.json keeps.

    Args:
        model: Variant, such as lvt_ff_default, or lvt_ff_default.fb_in22k_ft_in1k with the tag of
            its weights (`lvt-ff models` lists them); model folder; or ORG/NAME[@REVISION] on the
            Hub.
        train_data: Folder with one subfolder per class, or file that lists videos: CSV, TSV or JSON
            with path and label (or labels; start and end), "path number" lines, or the files of
            Something-Something V2, Kinetics or Charades.
        output_dir: Where the finished model folder goes; checkpoints lie in its checkpoints folder.
        eval_data: Like train_data; without it the last weights are kept, with it the best.
        data_format: Format of train_data; auto recognises it.
        video_root: Folder that listed videos lie in; that of the list if not given.
        eval_data_format: Format of eval_data; as data_format if not given.
        eval_video_root: Folder that videos of eval_data lie in; as video_root if not given.
        missing: What is done with videos that are listed and not on disk: end here (fail), or leave
            them out (skip).
        class_file: File with the names of the classes in order, one a line or JSON, for lists that
            have only numbers, or not all classes.
        recipe: Values of the options below that are not given. auto takes scratch for random
            weights, small for fewer than 500 videos, else pretrained; modern adds strong
            augmentation and averaged weights; ssv2, kinetics and charades are the authors'.
        pretrained: Start a variant from its ImageNet weights, downloaded from the Hub (true), or
            from random ones (false); null does the first where the variant has any.
        model_args: Configuration fields to change, such as {"fixation": "none"}.
        num_frames: Frames of a clip; embeddings are resampled.
        img_size: Pixels of a frame's side; embeddings are resampled.
        sampling: One frame of each of num_frames segments (uniform), or every sampling_stride-th
            frame (dense); the recipe's, else as the model folder was trained, else uniform.
        sampling_stride: Frames from one of a dense clip to the next; the recipe's, else the model
            folder's, else 4.
        num_repeats: Clips of each video in an epoch, in one step (repeated augmentation).
        augmentation: What is drawn for clips and batches.
        epochs: Passes over the training videos.
        batch_size: Clips in one forward pass of one process.
        accumulation: Forward passes of a process in an optimizer step.
        total_batch_size: Clips of a step on all processes; accumulation follows from it.
        find_batch_size: Take the largest batch_size that the memory of every GPU holds, of those
            that make up total_batch_size (or what batch_size and accumulation make together).
        optimizer: AdamW, or SGD with Nesterov momentum (the paper's).
        lr: Peak learning rate, for the global batch unless it is scaled.
        lr_scaling: Multiply lr by the clips of a step divided by lr_batch (linear), or by the
            square root of that (sqrt).
        lr_batch: Clips of a step that lr is meant for, where it is scaled.
        weight_decay: Weight decay, of weight matrices only.
        momentum: Momentum of SGD.
        warmup_epochs: Linear warm-up before the cosine; may be a part of an epoch. The recipe's is
            shortened to a fifth of a short run.
        layer_decay: Factor of the learning rate from a block to the one before; 1 turns it off.
        freeze: Number of first blocks, and the stem, that do not train.
        lora_rank: Train adapters of this rank (LoRA, with PEFT) in place of the blocks' linear
            layers; the head, and what an image model's weights leave new, train whole.
        lora_alpha: What adapters give is multiplied by lora_alpha / lora_rank; as lora_rank if not
            given.
        lora_dropout: Dropout on the adapters' inputs.
        lora_targets: Linear layers of a block that get adapters, by the end of their names, with
            commas between, such as attn.qkv,temporal_attn.qkv; qkv,proj,fc1,fc2 if not given.
        lora_keep_adapter: Also write the adapters, which the model folder has merged into its
            weights, as PEFT's folder `adapter`, for the model folder that was adapted.
        drop_rate: Dropout before the classifier; the model's own if neither given nor the recipe's.
        drop_path_rate: Stochastic depth of the last block, rising from 0 at the first.
        loss: Cross-entropy, binary cross-entropy of each class (bce), or the asymmetric loss for
            several labels a video; cross_entropy or bce, by the data, if neither given nor the
            recipe's.
        balance: Let all classes count alike, by drawing the videos of rare ones more often
            (sampling) or by weighing them more (loss).
        label_smoothing: Label smoothing of the loss.
        clip_grad: Largest gradient norm; 0 turns clipping off.
        ema_decay: Evaluate and keep weights averaged over the steps with this decay, such as
            0.9999; 0 turns it off.
        seed: Random seed.
        eval_epochs: Epochs between evaluations and checkpoints; the last epoch always has both.
        test_clips: Clips of a video that `lvt-ff evaluate` takes of the finished model where it is
            not told; evaluations during the run take one view.
        test_crops: Crops of a clip that it takes.
        early_stopping: Stop after so many evaluations without a better one; never if not given.
        keep_best: Number of best weights kept in checkpoints; the best becomes the model.
        save_steps: Also write a checkpoint every so many steps; only with the epochs if not given.
        save_minutes: Also write a checkpoint every so many minutes.
        resume: Go on from the last checkpoint in output_dir, or start where there is none.
        allow_changes: Resume with settings that compute something else than before; the change is
            kept in results.json.
        max_bad_fraction: Stop when more of the listed videos than this could not be read (others
            take their place until then; bad_files.csv names them, and those that are damaged).
            Three are always allowed, but none with 0.
        tracker: Also log to tensorboard, wandb (packages of their own) or csv (metrics.csv), or to
            several of them with commas between.
        push_to_hub: Repository ORG/NAME that the finished folder is pushed to.
        hub_private: Make that repository private where it is new.
        num_workers: Processes that read videos, per process.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
        mixed_precision: Autocast dtype; that of `accelerate launch` if not given.
        grad_checkpointing: Recompute blocks in the backward pass to save memory.
        compile: Compile the model with torch.compile; the first steps take minutes.
        shard: Share weights, gradients and optimizer state out among processes (FSDP2), for models
            that do not fit otherwise.
        cpu: Use the CPU where there is a GPU.
    """
    options = dict(locals())
    options |= options.pop("augmentation")
    options = SimpleNamespace(**options)
    options.output_dir = Path(output_dir)
    with usage():
        check_options(options)
        _last_checkpoint(options)
        if push_to_hub:
            check_login(push_to_hub)
        run = prepared_run(options)
    first = run.accelerator.is_main_process
    with only_run(options.output_dir, "--output_dir") if first else nullcontext():
        run.accelerator.wait_for_everyone()
        return _train(run)


def _train(run: Run) -> dict:
    """Go through the steps, from the first or the last checkpoint on, and write what they made."""
    options, accelerator = run.options, run.accelerator
    checkpoint = _last_checkpoint(options)
    with usage():
        loop = training_loop(run)
    if checkpoint:
        loop.resume(checkpoint)
    start_trackers(accelerator, options.tracker, run.batches.first_step)
    accelerator.print("\n".join(told_start(run, loop)))
    try:
        history = loop.run(iter(training_loader(run)))
    except BaseException:
        with suppress(OSError):  # which would hide what happened
            _write_bad_files(run, loop)
        raise
    _write_bad_files(run, loop)
    results = run_results(run, loop)
    if accelerator.is_main_process:
        write_output(run, loop.load_best(), history, loop.log.rows(), results)
        print(f"wrote the model folder {options.output_dir}")
    accelerator.wait_for_everyone()
    for log in accelerator.trackers:
        log.finish()
    if options.push_to_hub and accelerator.is_main_process:  # others need not wait for it
        push(options.output_dir, options.push_to_hub, private=options.hub_private)
    return results


def _write_bad_files(run: Run, loop: TrainingLoop) -> None:
    if run.accelerator.is_main_process:
        write_bad_files(run.options.output_dir, loop.history)


def _last_checkpoint(options: SimpleNamespace) -> Path | None:
    """Where to go on; raises UsageError for an earlier run that nobody asked to go on with."""
    checkpoint = last_checkpoint(options.output_dir / "checkpoints")
    if checkpoint and not options.resume:
        raise UsageError(
            f"{options.output_dir} holds checkpoints of an earlier run: pass --resume to go on "
            "with it, or another --output_dir."
        )
    return checkpoint
