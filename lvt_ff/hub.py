"""Model folders: building a model by name or folder, writing a folder for both libraries."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError

from lvt_ff.console import suggest
from lvt_ff.files import whole_folder
from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.variants import VARIANTS

__all__ = [
    "build_model",
    "load_folder",
    "stored_classes",
    "write_model_folder",
]


def _folder_problem(folder: Path) -> str | None:
    if str(folder) in VARIANTS:
        return f"{folder} is a variant without trained weights: fine-tune it, then give that folder"
    if not folder.is_dir():
        return f"{folder} is not a folder: give one written by fine-tuning or save_pretrained"
    if not (folder / "config.json").is_file():
        return (
            f"{folder} has no config.json: give a folder written by fine-tuning or save_pretrained"
        )
    return None


def load_folder(
    folder: str | Path, new_head: bool = False, **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor]:
    """A trained model and its processor from a folder of either library.

    Args:
        folder: with `config.json` and `model.safetensors`; without a processor file, one with the
            variant's statistics is made.
        new_head: a classifier that is not in the folder, or does not fit, is no error.
        **overrides: configuration fields, such as `num_frames`.

    Raises:
        ValueError: not a model folder, or one whose weights are not all there.
    """
    folder = Path(folder)
    problem = _folder_problem(folder)
    if problem:
        raise ValueError(problem)
    try:
        model, report = LVTFFForVideoClassification.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **overrides
        )
    except (OSError, SafetensorError, TypeError) as error:
        raise ValueError(f"{folder} cannot be loaded as an lvt_ff model: {error}") from error
    renewed = {name for name, *_ in report["mismatched_keys"]} | set(report["missing_keys"])
    lost = sorted(name for name in renewed if not (new_head and ".head.fc." in name))
    if lost:
        raise ValueError(
            f"{folder} lacks weights: {len(lost)} tensors such as {lost[0]}. Its config.json and "
            "model.safetensors do not belong together, or it was saved without a classifier."
        )
    if (folder / "video_preprocessor_config.json").is_file():
        processor = LVTFFVideoProcessor.from_pretrained(folder)
        processor.num_frames = model.config.num_frames
        height, width = model.model.img_size
        if (processor.crop_size["height"], processor.crop_size["width"]) != (height, width):
            processor = _resized(processor, height, width)
    else:
        processor = _variant_processor(model.config)
    return model, processor


def _resized(processor: LVTFFVideoProcessor, height: int, width: int) -> LVTFFVideoProcessor:
    factor = processor.size["height"] / processor.crop_size["height"]
    return LVTFFVideoProcessor(
        **{
            **processor.to_dict(),
            "size": {"height": round(height * factor), "width": round(width * factor)},
            "crop_size": {"height": height, "width": width},
        }
    )


def _variant_processor(config: LVTFFConfig) -> LVTFFVideoProcessor:
    cfg = timm.models.get_pretrained_cfg(config.architecture)
    img_size = config.img_size
    return LVTFFVideoProcessor.from_data_config(
        num_frames=config.num_frames,
        img_size=(img_size, img_size) if isinstance(img_size, int) else tuple(img_size),
        mean=cfg.mean,
        std=cfg.std,
        interpolation=cfg.interpolation,
        crop_pct=cfg.crop_pct,
    )


def stored_classes(name_or_folder: str) -> tuple[str, ...] | None:
    """The class names of a model folder, in order; None for a variant.

    Raises:
        ValueError: neither a variant nor a model folder.
    """
    if name_or_folder in VARIANTS:
        return None
    if not Path(name_or_folder).exists():
        known = suggest(name_or_folder, [*VARIANTS])
        raise ValueError(f"{name_or_folder!r} is neither a variant nor a model folder: {known}")
    problem = _folder_problem(Path(name_or_folder))
    if problem:
        raise ValueError(problem)
    return LVTFFConfig.from_pretrained(name_or_folder).class_names


def build_model(
    name_or_folder: str, class_names: Sequence[str], **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """A float32 model to train on these classes, its processor, and a line on its weights' origin.

    Args:
        name_or_folder: a variant (random weights: no trained ones are published) or a model folder.
        class_names: in order; a folder's classifier is kept where it has the same ones.
        **overrides: configuration fields.

    Raises:
        ValueError: unknown name, not a model folder, or fields that do not fit.
    """
    labels = dict(enumerate(class_names))
    unknown = sorted(set(overrides) - set(LVTFFConfig.__annotations__))
    if unknown:
        known = suggest(unknown[0], sorted(LVTFFConfig.__annotations__))
        raise ValueError(f"Unknown configuration field {unknown[0]!r}: {known}.")
    stored = stored_classes(name_or_folder)
    if stored is None:
        config = LVTFFConfig.from_variant(name_or_folder, id2label=labels, **overrides)
        model = LVTFFForVideoClassification(config)
        origin = f"random weights of {name_or_folder} (no trained weights are published yet)"
        return model, _variant_processor(config), origin
    same = stored == tuple(class_names)
    if not same:
        overrides["num_labels"] = len(labels)
    model, processor = load_folder(
        name_or_folder, new_head=not same, dtype=torch.float32, **overrides
    )
    model.config.id2label = labels
    model.config.label2id = {name: index for index, name in labels.items()}
    if not same:
        model.model.reset_classifier(len(labels))
    head = "its classifier" if same else f"a new classifier for {len(labels)} classes"
    return model, processor, f"weights of {name_or_folder} with {head}"


def write_model_folder(
    folder: Path,
    model: LVTFFForVideoClassification,
    processor: LVTFFVideoProcessor,
    card: ModelCard,
    results: dict,
    pictures: Sequence[Path] = (),
) -> None:
    """Write a finished model folder; `config.json` comes last: a half-written one loads nowhere.

    Args:
        folder: may hold other files, which stay.
        model, processor, card: saved as transformers and the Hub expect them.
        results: goes to `results.json`.
        pictures: files to move in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder / ".model") as new:
        model.save_pretrained(new)
        processor.save_pretrained(new)
        card.save(new / "README.md")
        (new / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        for picture in pictures:
            shutil.move(picture, new / picture.name)
    (folder / "config.json").unlink(missing_ok=True)  # of an earlier model, until ours is there
    files = sorted((folder / ".model").iterdir(), key=lambda file: file.name == "config.json")
    for file in files:
        os.replace(file, folder / file.name)
    (folder / ".model").rmdir()
