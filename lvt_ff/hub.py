"""Model folders: building a model by name or folder, writing a folder for both libraries."""

import json
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lvt_ff.console import suggest
from lvt_ff.files import whole_folder
from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.variants import VARIANTS

__all__ = [
    "build_model",
    "environment",
    "load_folder",
    "model_card",
    "write_model_folder",
]

_PACKAGES = ("lvt-ff", "torch", "torchvision", "timm", "transformers", "accelerate", "decord", "av")


def environment() -> dict[str, str]:
    """Versions and machine behind a figure."""
    found = dict(python=platform.python_version(), machine=platform.machine())
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["device"] = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    )
    return found


def _folder_problem(folder: Path) -> str | None:
    if not folder.is_dir():
        known = suggest(str(folder), [*VARIANTS])
        return f"{str(folder)!r} is neither a model folder nor a variant: {known}"
    if not (folder / "config.json").is_file():
        return (
            f"{folder} has no config.json: give a folder written by fine-tuning or save_pretrained"
        )
    return None


def load_folder(
    folder: str | Path, **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor]:
    """A trained model and its processor from a folder of either library.

    Args:
        folder: with `config.json` and `model.safetensors`; without a processor file, one with the
            variant's statistics is made.
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
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be loaded as an lvt_ff model: {error}") from error
    renewed = {name for name, *_ in report["mismatched_keys"]} | set(report["missing_keys"])
    lost = sorted(name for name in renewed if ".head.fc." not in name)
    if lost:
        raise ValueError(
            f"{folder} lacks weights of the backbone: {len(lost)} tensors such as {lost[0]}. "
            "Its config.json and model.safetensors do not belong together."
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


def build_model(
    name_or_folder: str, class_names: Sequence[str], **overrides: Any
) -> tuple[LVTFFForVideoClassification, LVTFFVideoProcessor, str]:
    """A model to train on these classes, its processor, and a line on where its weights come from.

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
    if name_or_folder in VARIANTS:
        config = LVTFFConfig.from_variant(name_or_folder, id2label=labels, **overrides)
        model = LVTFFForVideoClassification(config)
        origin = f"random weights of {name_or_folder} (no trained weights are published yet)"
        return model, _variant_processor(config), origin
    problem = _folder_problem(Path(name_or_folder))
    if problem:
        raise ValueError(problem)
    stored = LVTFFConfig.from_pretrained(name_or_folder)
    same = list(stored.id2label.values()) == list(class_names)
    model, processor = load_folder(
        name_or_folder, **overrides, **({} if same else dict(num_labels=len(labels)))
    )
    model.config.id2label = labels
    model.config.label2id = {name: index for index, name in labels.items()}
    if not same:
        model.model.reset_classifier(len(labels))
    head = "its classifier" if same else f"a new classifier for {len(labels)} classes"
    return model, processor, f"weights of {name_or_folder} with {head}"


def model_card(
    name: str,
    *,
    base: str,
    class_names: Sequence[str],
    results: dict | None,
    settings: dict,
    data: dict,
) -> ModelCard:
    """The card of a fine-tuned folder.

    Args:
        name: of the model.
        base: where the weights came from.
        class_names: in order.
        results: `protocol`, `top1`, `top5`, `num_evaluated`, `num_listed`; None if not evaluated.
        settings: every option of the run.
        data: with `train`, `eval` and their counts.
    """
    evaluation = []
    result_lines = ["Nothing was evaluated: no evaluation data was given."]
    if results is not None:
        evaluation = [
            EvalResult(
                task_type="video-classification",
                dataset_type="custom",
                dataset_name=Path(str(data["eval"])).name,
                metric_type="accuracy",
                metric_name=f"{metric} ({results['protocol']})",
                metric_value=round(100 * results[key], 2),
            )
            for metric, key in (("top-1", "top1"), ("top-5", "top5"))
        ]
        result_lines = [
            "| top-1 | top-5 | protocol | videos |",
            "|---|---|---|---|",
            f"| {100 * results['top1']:.2f} % | {100 * results['top5']:.2f} % "
            f"| {results['protocol']} "
            f"| {results['num_evaluated']} of {results['num_listed']} |",
        ]
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        license="apache-2.0",
        tags=["lvt_ff", "timm", "transformers", "video-classification", "linear-attention"],
        model_name=name,
        eval_results=evaluation or None,
    )
    shown = list(class_names[:50])
    more = f" … and {len(class_names) - 50} more" if len(class_names) > 50 else ""
    lines = [
        "---",
        card_data.to_yaml(),
        "---",
        "",
        f"# {name}",
        "",
        "A [linear video transformer with feature fixation](https://arxiv.org/abs/2210.08164), "
        "fine-tuned with `lvt-ff finetune`.",
        "",
        "```python",
        "import lvt_ff  # pip install lvt-ff",
        "from transformers import pipeline",
        "",
        'classify = pipeline("video-classification", model="PATH_OR_REPO")',
        'print(classify("clip.mp4"))',
        "```",
        "",
        '`timm.create_model("local-dir:PATH", pretrained=True)` loads the same folder.',
        "",
        "## Results",
        "",
        *result_lines,
        "",
        "![learning curve](curve.png)",
        "",
        "## Data",
        "",
        *(f"- {key}: {value}" for key, value in data.items()),
        f"- {len(class_names)} classes: {', '.join(shown)}{more}",
        "",
        "## Training",
        "",
        f"- start: {base}",
        *(f"- {key}: `{value}`" for key, value in settings.items()),
        "",
        "## Environment",
        "",
        *(f"- {key} {value}" for key, value in environment().items()),
        "",
        "## Limits",
        "",
        "Measured on the data above only; other cameras, lengths and classes are untested.",
        "",
    ]
    return ModelCard("\n".join(lines))


def write_model_folder(
    folder: Path,
    model: LVTFFForVideoClassification,
    processor: LVTFFVideoProcessor,
    card: ModelCard,
    results: dict,
    pictures: Sequence[Path] = (),
) -> None:
    """Write a finished model folder; `config.json` comes last, so a half-written one loads nowhere.

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
    files = sorted((folder / ".model").iterdir(), key=lambda file: file.name == "config.json")
    for file in files:
        os.replace(file, folder / file.name)
    (folder / ".model").rmdir()
