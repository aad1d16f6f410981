"""Fine-tune a model on labelled videos with Accelerate.

Batches, augmentation, dropout and learning rate are functions of (seed, step): a run that was
killed anywhere and resumed computes what an uninterrupted one on the same machine computes.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader

from lvt_ff.data import EvalDataset, TrainDataset, TrainTransform, collate, load_video_list
from lvt_ff.hub.model_card import model_card
from lvt_ff.hub.model_folder import build_model, stored_classes, write_model_folder
from lvt_ff.hub.push import check_login, push
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.checkpoint import last_checkpoint
from lvt_ff.training.evaluate import evaluate_videos, make_accelerator
from lvt_ff.training.loop import History, TrainingLoop
from lvt_ff.training.optim import freeze_blocks, make_optimizer
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
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
from lvt_ff.utils.plots import curve_picture

__all__ = ["finetune"]

_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


@command(
    {
        "model": "model, data and output",
        "num_frames": "clips",
        "epochs": "optimisation",
        "eval_epochs": "evaluation, checkpoints and sharing",
        "num_workers": "hardware and speed",
    }
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
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None,
    grad_checkpointing: bool = False,
    cpu: bool = False,
) -> dict:
    """Fine-tune a model on a folder of videos; the output folder loads in timm and transformers.

    Args:
        model: Variant, such as lvt_ff_default, or lvt_ff_default.fb_in22k_ft_in1k with the tag of
            its weights (`lvt-ff models` lists them); or model folder.
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
        sampling_stride: Frames between two of a dense clip; as the model folder, or 4.
        scale_jitter: Frames are resized to cover the crop times a random factor between these.
        hflip: Probability of a horizontal flip; leave 0 where left and right are classes.
        epochs: Passes over the training videos.
        batch_size: Clips in one forward pass of one process.
        accumulation: Forward passes of a process in an optimizer step.
        optimizer: AdamW, or SGD with Nesterov momentum (the paper's).
        lr: Peak learning rate, for the global batch; it is not scaled.
        weight_decay: Of matrices.
        momentum: Of SGD.
        warmup_epochs: Linear warm-up before the cosine; may be a part of an epoch.
        layer_decay: Factor of the learning rate from each block to the one before it.
        freeze: Number of first blocks, and the stem, that do not train.
        label_smoothing: Of the cross entropy.
        clip_grad: Largest gradient norm; null switches it off.
        seed: Of everything random.
        eval_epochs: Epochs between evaluations and checkpoints; the last epoch always has both.
        save_steps: Also write a checkpoint every so many steps.
        resume: Go on from the last checkpoint in output_dir, or start where there is none.
        max_bad_fraction: Stop when more of the listed videos than this could not be read (others
            take their place until then; bad_files.csv names them).
        tracker: Also log to tensorboard, a package of its own.
        push_to_hub: Repository ORG/NAME that the finished folder is pushed to.
        hub_private: Make that repository private where it is new.
        num_workers: Processes that read videos, per process.
        decoder: Video backend; auto falls back from one to the next.
        mixed_precision: Autocast dtype; what `accelerate launch` says if not given.
        grad_checkpointing: Recompute blocks in the backward pass to save memory.
        cpu: Use the CPU where there is a GPU.
    """
    settings = {name: value for name, value in locals().items() if name != "resume"}
    settings = json.loads(json.dumps(settings, default=str))
    checkpoints = Path(output_dir) / "checkpoints"
    with usage():
        if Path(output_dir).is_file():
            raise ValueError(f"{output_dir} is a file: give a folder with --output_dir.")
        videos = load_video_list(train_data)
        stored = stored_classes(model)
        if stored not in (None, videos.class_names) and set(stored) == set(videos.class_names):
            videos = load_video_list(train_data, stored)  # in the order of the model's classifier
        eval_videos = load_video_list(eval_data, videos.class_names) if eval_data else None
        settings |= dict(
            train_videos=videos.fingerprint(),
            eval_videos=eval_videos.fingerprint() if eval_videos else None,
        )
        fields = dict(num_frames=num_frames, img_size=img_size)
        fields = {key: value for key, value in fields.items() if value is not None}
        torch.manual_seed(seed)
        network, processor, origin = build_model(
            model, videos.class_names, pretrained, **dict(model_args or {}, **fields)
        )
        freeze_blocks(network.model, freeze)
        checkpoint = last_checkpoint(checkpoints)
        if checkpoint and not resume:
            raise ValueError(
                f"{output_dir} holds checkpoints of an earlier run: pass --resume to go on with "
                "it, or another --output_dir."
            )
    if push_to_hub:
        check_login(push_to_hub)
    accelerator = _accelerator(mixed_precision, cpu, tracker, Path(output_dir))
    checkpoints.mkdir(parents=True, exist_ok=True)
    processor.sampling = sampling or processor.sampling
    processor.sampling_stride = sampling_stride or processor.sampling_stride
    settings |= dict(
        sampling=processor.sampling,
        sampling_stride=processor.sampling_stride,
        mixed_precision=accelerator.mixed_precision,
    )
    network.model.set_grad_checkpointing(grad_checkpointing)
    batches = MicroBatches(
        len(videos),
        batch_size=batch_size,
        accumulation=accumulation,
        num_processes=accelerator.num_processes,
        rank=accelerator.process_index,
        epochs=epochs,
        seed=seed,
    )
    settings["global_batch"] = batches.global_batch
    reading = dict(processor.clip_options(), decoder=decoder)
    transform = processor.eval_transform()
    eval_set = EvalDataset(eval_videos, transform, num_clips=1, num_crops=1, **reading)

    def evaluate() -> dict:
        options = dict(batch_size=batch_size, num_workers=num_workers, progress="evaluating")
        return evaluate_videos(network, eval_set, processor, accelerator, **options)[0]

    loop = TrainingLoop(
        network,
        make_optimizer(
            network.model,
            optimizer,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            layer_decay=layer_decay,
        ),
        accelerator,
        batches,
        checkpoints,
        settings,
        peak_lr=lr,
        warmup_steps=round(warmup_epochs * batches.steps_per_epoch),
        label_smoothing=label_smoothing,
        clip_grad=clip_grad,
        max_bad_files=max_bad_fraction * len(videos),
        eval_epochs=eval_epochs,
        save_steps=save_steps,
        evaluate=evaluate if eval_videos else None,
    )
    if checkpoint:
        loop.resume(checkpoint)
    loader = DataLoader(
        TrainDataset(videos, TrainTransform(transform, scale_jitter, hflip), seed=seed, **reading),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    conversion = network.pretrained_report.lines() if network.pretrained_report else []
    accelerator.print(
        f"start: {origin}\n{len(videos)} training videos of {len(videos.class_names)} classes; "
        f"{batches.num_steps} steps of {batches.global_batch} clips, {batches.first_step} done; "
        f"peak learning rate {lr:g}"
    )
    history = loop.run(iter(loader))
    results = dict(
        best=history.best,
        epochs=history.epochs,
        start=origin,
        conversion=conversion,
        settings=settings,
        num_train=len(videos),
        num_eval=len(eval_videos) if eval_videos else 0,
        bad_files=len(history.bad_files),
        environment=environment(cpu),
    )
    if accelerator.is_main_process:
        _write_output(Path(output_dir), loop.load_best(), processor, history, results)
        print(f"wrote the model folder {output_dir}")
        if push_to_hub:
            push(Path(output_dir), push_to_hub, private=hub_private)
    accelerator.wait_for_everyone()
    for log in accelerator.trackers:
        log.finish()
    return results


def _accelerator(mixed_precision: str | None, cpu: bool, tracker: str, folder: Path) -> Accelerator:
    log_with = None if tracker == "none" else tracker
    accelerator = make_accelerator(mixed_precision, cpu, log_with=log_with, project_dir=folder)
    if log_with:
        accelerator.init_trackers("lvt_ff")
        if accelerator.is_main_process and not accelerator.trackers:
            raise UsageError(f"--tracker {tracker} is not installed: pip install 'lvt-ff[track]'.")
    if accelerator.distributed_type not in _SUPPORTED:
        raise UsageError(
            f"Fine-tuning runs on one device or with data parallelism, got "
            f"{accelerator.distributed_type}: change it with `accelerate config`."
        )
    return accelerator


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
        settings=settings,
        data=dict(
            train=f"{settings['train_data']} ({results['num_train']} videos)",
            eval=f"{settings['eval_data']} ({results['num_eval']} videos)",
        ),
    )
    write_text(folder / "steps.jsonl", "".join(json.dumps(row) + "\n" for row in history.steps))
    table = io.StringIO()
    csv.writer(table).writerows([("path", "reason"), *history.bad_files.items()])
    write_text(folder / "bad_files.csv", table.getvalue())
    write_model_folder(folder, network, processor, card, {"results.json": results}, [curve])
