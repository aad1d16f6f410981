"""A picture of what a model sees in training: a batch, after everything that is drawn for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import torch

from lvt_ff.data import (
    MAX_PIXELS,
    Augmentation,
    DataFormat,
    Decoder,
    EvalTransform,
    Missing,
    OnDamage,
    VideoList,
    collate,
    flip_warning,
)
from lvt_ff.hf import LVTFFConfig, LVTFFVideoProcessor
from lvt_ff.hub.model_folder import is_variant, load_folder
from lvt_ff.hub.resolve import local_folder
from lvt_ff.timm_models import with_tag
from lvt_ff.training.mixing import BatchTransform
from lvt_ff.training.recipes import Recipe, chosen_recipe, load_recipe, take_recipe
from lvt_ff.training.run_setup import (
    load_videos,
    micro_batches,
    starts_trained,
    take_sampling,
    training_dataset,
)
from lvt_ff.utils.command_line import command
from lvt_ff.utils.contact_sheet import contact_sheet
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import PositiveInt, Seed
from lvt_ff.utils.output import check_output_file
from lvt_ff.utils.short_text import counted, shortened

__all__ = ["show_batch"]

_MOST_DRAWN = 64  # clips of a batch, as pictures have a largest height


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
    data_format: DataFormat = "auto",
    video_root: Path | None = None,
    missing: Missing = "fail",
    class_file: Path | None = None,
    recipe: Recipe = "auto",
    pretrained: bool | None = None,
    num_frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    sampling: Literal["uniform", "dense"] | None = None,
    sampling_stride: PositiveInt | None = None,
    num_repeats: PositiveInt | None = None,
    augmentation: Annotated[dict[str, Any], Augmentation],
    batch_size: PositiveInt | None = None,
    balance: Literal["none", "sampling", "loss"] | None = None,
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
        train_data: Folder with one subfolder per class, or file that lists videos, as
            `lvt-ff finetune` takes it.
        model: Variant, model folder, or ORG/NAME[@REVISION] on the Hub: the size of its clips.
        output_file: PNG file to write.
        columns: Frames to draw of each clip, evenly from its first to its last.
        data_format: Format of train_data; auto recognises it.
        video_root: Folder that listed videos lie in; that of the list if not given.
        missing: What is done with videos that are listed and not on disk: end here (fail), or leave
            them out (skip).
        class_file: File with the names of the classes in order, one a line or JSON, for lists that
            have only numbers, or not all classes.
        recipe: Values of the options below that are not given, as in `lvt-ff finetune`.
        pretrained: Whether a variant starts from trained weights, for the recipe auto; null where
            it has any.
        num_frames: Frames of a clip, if not the model's.
        img_size: Pixels of a frame's side, if not the model's.
        sampling: One frame of each of num_frames segments (uniform), or every sampling_stride-th
            frame (dense); the recipe's, else the model's, else uniform.
        sampling_stride: Frames from one of a dense clip to the next; the recipe's, else the
            model's, else 4.
        num_repeats: Clips of each video in an epoch, in one step (repeated augmentation).
        batch_size: Clips in one forward pass of one process.
        balance: Draw the videos of rare classes more often (sampling).
        epoch: Pass over the training videos, from 1.
        seed: Random seed.
        decoder: Video backend; auto falls back from one to the next.
        max_pixels: Largest frame that is decoded, in pixels.
        on_damage: What is done with files that are damaged in part: read what they still show
            (skip), or count them as files that cannot be read (raise).
    """
    options = dict(locals(), eval_data=None, output_file=Path(output_file))
    options |= options.pop("augmentation")
    options = SimpleNamespace(**options)
    with usage():
        check_output_file(options.output_file, "--output_file")
        start = model if is_variant(model) else local_folder(model)
        videos, _ = load_videos(options, start)
        asked = dict(vars(options))
        values = load_recipe(chosen_recipe(recipe, len(videos), starts_trained(options)))
        drawn = take_recipe(options, values)
        drawn.check_effects(asked)
        drawn.check_batch_size(options.batch_size)
        processor = _processor(options, start)
    if warning := flip_warning(videos.class_names, drawn):
        print(warning)
    batch = _batch(options, videos, processor, drawn)
    like = processor.eval_transform()
    heading = (
        f"epoch {epoch}, seed {seed}: {counted(options.batch_size, 'clip')} of "
        f"{processor.num_frames} frames of {like.crop_size[0]}×{like.crop_size[1]}"
    )
    if options.batch_size > _MOST_DRAWN:
        heading += f", of which the first {_MOST_DRAWN} are drawn"
    titles = [_title(target, videos.class_names) for target in batch["target"][:_MOST_DRAWN]]
    pictures = _pictures(batch["clip"][:_MOST_DRAWN], like)
    contact_sheet(options.output_file, pictures, titles, heading, columns)
    for path, reason in (failure for item in batch["failures"] for failure in item):
        print(f"not read, another in its place: {path}: {reason}")
    for path, damage in filter(None, batch["damage"]):
        print(f"damaged, drawn with what was left: {path}: {damage}")
    print(f"wrote {options.output_file}")


def _processor(options: SimpleNamespace, start: str | Path) -> LVTFFVideoProcessor:
    sizes = dict(num_frames=options.num_frames, img_size=options.img_size)
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if is_variant(str(start)):
        config = LVTFFConfig.from_variant(with_tag(start), **sizes)
        processor = LVTFFVideoProcessor.from_config(config)
    else:
        _, processor = load_folder(start, new_head=True, **sizes)
    take_sampling(options, processor)
    return processor


def _batch(
    options: SimpleNamespace,
    videos: VideoList,
    processor: LVTFFVideoProcessor,
    augmentation: Augmentation,
) -> dict[str, Any]:
    """The first micro-batch of an epoch, with clips and targets as the model is given them."""
    dataset = training_dataset(options, videos, processor, augmentation)
    alone = dict(accumulation=1, num_processes=1, rank=0)
    batches = micro_batches(options, videos, **alone, epochs=options.epoch)
    batches.first_step = (options.epoch - 1) * batches.steps_per_epoch
    batch = collate([dataset[key] for key in next(iter(batches))])
    like, num_classes = processor.eval_transform(), len(videos.class_names)
    transform = BatchTransform(like, augmentation, num_classes, options.seed)
    labels = torch.as_tensor(np.array(batch["label"]))
    clips, targets = transform(batch["clip"], labels, batches.first_step, 0)
    return dict(batch, clip=clips, target=targets)


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
