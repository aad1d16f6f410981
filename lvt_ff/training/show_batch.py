"""A picture of what a model sees in training: a batch, after everything that is drawn for it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lvt_ff.data import (
    MAX_PIXELS,
    Augmentation,
    Decoder,
    EvalTransform,
    OnDamage,
    TrainDataset,
    TrainTransform,
    collate,
    flip_warning,
    load_video_list,
)
from lvt_ff.hf import LVTFFConfig, LVTFFVideoProcessor
from lvt_ff.hub.model_folder import is_variant, load_folder, stored_classes
from lvt_ff.hub.resolve import local_folder
from lvt_ff.timm_models import with_tag
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.utils.command_line import command
from lvt_ff.utils.contact_sheet import contact_sheet
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import PositiveInt, Seed
from lvt_ff.utils.output import check_output_file
from lvt_ff.utils.short_text import counted, shortened

__all__ = ["show_batch"]


@command(
    {
        "train_data": "data, model and output",
        "num_frames": "clips",
        "scale_jitter": "augmentation",
        "batch_size": "which batch",
        "decoder": "reading",
    }
)
def show_batch(
    train_data: Path,
    model: str,
    output_file: Path = Path("batch.png"),
    columns: PositiveInt = 8,
    *,
    num_frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    sampling: Literal["uniform", "dense"] | None = None,
    sampling_stride: PositiveInt | None = None,
    augmentation: Augmentation,
    batch_size: PositiveInt = 8,
    epoch: PositiveInt = 1,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    max_pixels: PositiveInt = MAX_PIXELS,
    on_damage: OnDamage = "skip",
) -> None:
    """Draw the clips and labels that a model is given in training, as a contact sheet.

    They are those of the first batch of an epoch of `lvt-ff finetune` with the same options, one
    process and no accumulation, with the colours that pixels have before they are normalised.

    Args:
        train_data: Folder with one subfolder per class, or CSV file with the columns path,label.
        model: Variant, model folder, or ORG/NAME[@REVISION] on the Hub: the size of its clips.
        output_file: PNG file to write.
        columns: Frames to draw of each clip, evenly from its first to its last.
        num_frames: Frames of a clip, if not the model's.
        img_size: Pixels of a frame's side, if not the model's.
        sampling: One frame of each of num_frames segments (uniform), or every sampling_stride-th
            frame (dense); the model's, or uniform, if not given.
        sampling_stride: Frames from one of a dense clip to the next; the model's, else 4.
        batch_size: Clips in one forward pass of one process.
        epoch: Pass over the training videos, from 1.
        seed: Random seed.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
    """
    output_file = Path(output_file)
    with usage():
        check_output_file(output_file, "--output_file")
        augmentation.check_batch_size(batch_size)
        start = model if is_variant(model) else local_folder(model)
        videos = load_video_list(train_data)
        stored = stored_classes(start)
        if stored is not None and set(stored) == set(videos.class_names):
            videos = videos.with_class_order(stored)
        sizes = dict(num_frames=num_frames, img_size=img_size)
        processor = _processor(start, {k: v for k, v in sizes.items() if v is not None})
    processor.sampling = sampling or processor.sampling
    processor.sampling_stride = sampling_stride or processor.sampling_stride
    if warning := flip_warning(videos.class_names, augmentation):
        print(warning)
    like = processor.eval_transform()
    dataset = TrainDataset(
        videos,
        TrainTransform(like, augmentation),
        **processor.clip_options(),
        seed=seed,
        decoder=decoder,
        max_pixels=max_pixels,
        on_damage=on_damage,
    )
    batches = MicroBatches(
        len(videos),
        batch_size=batch_size,
        accumulation=1,
        num_processes=1,
        rank=0,
        epochs=epoch,
        seed=seed,
    )
    batches.first_step = (epoch - 1) * batches.steps_per_epoch
    batch = collate([dataset[key] for key in next(iter(batches))])
    mix = BatchTransform(like, augmentation, len(videos.class_names), seed)
    clips, targets = mix(batch["clip"], torch.tensor(batch["label"]), batches.first_step, 0)
    heading = (
        f"epoch {epoch}, seed {seed}: {counted(len(clips), 'clip')} of {processor.num_frames} "
        f"frames of {like.crop_size[0]}×{like.crop_size[1]}"
    )
    titles = [_title(target, videos.class_names) for target in targets]
    contact_sheet(output_file, _pictures(clips, like), titles, heading, columns)
    for path, reason in (failure for item in batch["failures"] for failure in item):
        print(f"not read, another in its place: {path}: {reason}")
    for path, damage in filter(None, batch["damage"]):
        print(f"damaged, drawn with what was left: {path}: {damage}")
    print(f"wrote {output_file}")


def _processor(start: str | Path, sizes: dict[str, Any]) -> LVTFFVideoProcessor:
    if is_variant(str(start)):
        return LVTFFVideoProcessor.from_config(LVTFFConfig.from_variant(with_tag(start), **sizes))
    return load_folder(start, new_head=True, **sizes)[1]


def _pictures(clips: torch.Tensor, like: EvalTransform) -> list[np.ndarray]:
    """Normalised clips (B, T, C, H, W) as frames (T, H, W, C) uint8."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (like.mean, like.std))
    pixels = (255 * (clips * std + mean)).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.permute(0, 1, 3, 4, 2).numpy())


def _title(target: torch.Tensor, class_names: tuple[str, ...]) -> str:
    """A label in words: a class, or all that have a share, the largest first."""
    if target.ndim == 0:
        return shortened(class_names[int(target)], 80)
    found = target.argsort(descending=True, stable=True)[: int((target > 0).sum())].tolist()
    shares = [f"{target[number]:.2f} ".replace("1.00 ", "") for number in found]
    names = [shortened(class_names[number], 60) for number in found]
    return " + ".join(map("".join, zip(shares, names, strict=True))) or "no label"
