"""The card of a fine-tuned model, and what a figure was measured with."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

__all__ = ["conversion_card", "environment", "model_card"]

_FAMILY = "A [linear video transformer with feature fixation](https://arxiv.org/abs/2210.08164)"
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


def _header(name: str, license: str | None, **data: Any) -> list[str]:
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        license=license,
        tags=["lvt_ff", "timm", "transformers", "video-classification", "linear-attention"],
        model_name=name,
        **data,
    )
    return ["---", card_data.to_yaml(), "---", "", f"# {name}", ""]


def conversion_card(
    name: str, origin: str, lines: Sequence[str], license: str | None, trained: bool
) -> ModelCard:
    """The card of a converted folder.

    Args:
        name: of the model.
        origin: what was converted.
        lines: what was done with its tensors.
        license: of the source, where known.
        trained: the classifier is the source's; without one the model is a start for fine-tuning.
    """
    use = (
        "Its classifier is the source's."
        if trained
        else "It has no classifier and parts of it are untrained: fine-tune it with "
        "`lvt-ff finetune --model PATH`."
    )
    body = [
        *_header(name, license),
        f"{_FAMILY}, converted from {origin} with `lvt-ff convert`. {use}",
        "",
        "## Conversion",
        "",
        *(f"- {line}" for line in lines),
        "- `conversion.json` lists every tensor.",
        "",
        "## Environment",
        "",
        *(f"- {key} {value}" for key, value in environment().items()),
        "",
    ]
    return ModelCard("\n".join(body))


def model_card(
    name: str,
    *,
    base: Sequence[str],
    class_names: Sequence[str],
    results: dict | None,
    settings: dict,
    data: dict,
    license: str | None = None,
) -> ModelCard:
    """The card of a fine-tuned folder.

    Args:
        name: of the model.
        base: where the weights came from, and what was done with them, in lines.
        class_names: in order.
        results: `protocol`, `top1`, `top5`, `num_evaluated`, `num_listed`; None if not evaluated.
        settings: every option of the run.
        data: with `train`, `eval` and their counts.
        license: of the weights that it started from, where known.
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
    header = _header(name, license, eval_results=evaluation or None)
    shown = list(class_names[:50])
    more = f" … and {len(class_names) - 50} more" if len(class_names) > 50 else ""
    lines = [
        *header,
        f"{_FAMILY}, fine-tuned with `lvt-ff finetune`.",
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
        f"- start: {base[0]}",
        *(f"  - {line}" for line in base[1:]),
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
