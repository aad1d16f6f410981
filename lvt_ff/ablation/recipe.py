"""How the models of a comparison are trained: two scales, and what a user may change of them."""

import inspect
from typing import Any

import torch

from lvt_ff.data.synthetic.motion import MOTION_SIZE
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.option_parser import checked_options
from lvt_ff.variants import VARIANTS

__all__ = [
    "FINETUNE_DEFAULTS",
    "SCALES",
    "checked_recipe",
    "distinct_models",
    "merged",
    "run_name",
]

_RECIPE = dict(
    img_size=MOTION_SIZE,
    scale_jitter=(1.0, 1.0),
    recipe="scratch",
    optimizer="adamw",
    weight_decay=0.05,
    label_smoothing=0.0,
)
# Videos made up where none are given, and the recipe on them; "small" is for CPU cores.
SCALES: dict[str, dict[str, Any]] = {
    "small": dict(
        train_videos=8000,
        test_videos=1600,
        recipe=dict(
            _RECIPE,
            model="test_lvt_ff",
            model_args=dict(
                depth=1, num_frames=8, patch_size=8, patch_stride=8, patch_padding=0, drop_rate=0.0
            ),
            epochs=4,
            warmup_epochs=0.1,
            batch_size=4,
            lr=5e-4,
        ),
    ),
    "large": dict(
        train_videos=16000,
        test_videos=3200,
        recipe=dict(
            _RECIPE,
            model="lvt_ff_tiny",
            model_args=dict(
                depth=4, num_frames=16, patch_size=4, patch_stride=4, patch_padding=0, drop_rate=0.0
            ),
            pretrained=False,
            epochs=10,
            warmup_epochs=0.5,
            batch_size=64,
            lr=1e-3,
        ),
    ),
}
# Options of a scale that fit its own small model and frames only: a recipe that names another model
# starts without them.
_OF_THE_SCALE = ("model_args", "img_size", "pretrained", "scale_jitter")
# Options of fine-tuning that the comparison sets itself.
_OURS = ("train_data", "eval_data", "output_dir", "seed", "resume", "eval_epochs", "save_steps")
_OURS += ("push_to_hub", "hub_private", "num_workers", "cpu", "allow_changes")
FINETUNE_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(finetune).parameters.items()
    if name not in _OURS
}
_MODEL_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(LinearVideoTransformer).parameters.items()
}


def checked_recipe(
    scale: str, changes: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Options of `finetune` of a comparison.

    Args:
        scale: name in `SCALES`.
        changes: options that replace the scale's; with a `model` among them, the scale's sizes of
            model and frames are not taken over.
        rows: model options of every row of the chosen tables.

    Raises:
        ValueError: an option that is unknown, out of its range or told by a row, or one with which
            a row's model cannot be built.
    """
    known = [name for name in inspect.signature(finetune).parameters if name not in _OURS]
    for name in changes:
        if name not in known:
            raise ValueError(f"--recipe has no option {name!r}: choose from {known}.")
    needed = dict(model="model", train_data="train", output_dir="runs")
    parsed = checked_options(finetune, {**needed, **changes}, "--recipe: ")
    changes = {name: parsed[name] for name in changes}
    if changes.get("recipe") == "auto":
        raise ValueError("--recipe: recipe must be one that is named: auto depends on the data.")
    for name, value in changes.items():
        if value is None and SCALES[scale]["recipe"].get(name) is not None:
            raise ValueError(f"--recipe: {name} cannot be null.")
    recipe = dict(SCALES[scale]["recipe"])
    if "model" in changes:
        recipe = {key: value for key, value in recipe.items() if key not in _OF_THE_SCALE}
    recipe = merged(recipe, changes)
    try:
        _check_models(recipe, rows, changes.get("model_args") or {})
    except ValueError as error:
        raise ValueError(f"--recipe: {error}") from error
    return recipe


def _check_models(recipe: dict, rows: list[dict], asked: dict) -> None:
    variant = str(recipe["model"]).partition(".")[0]
    if variant not in VARIANTS:
        raise ValueError(
            f"model must be a variant, with or without the tag of its weights, got "
            f"{recipe['model']!r}: choose from {sorted(VARIANTS)}."
        )
    if "img_size" in asked:
        raise ValueError("give img_size beside model_args, not in it.")
    named = {key for row in rows for key in row}
    if named & asked.keys():
        raise ValueError(
            f"model_args may not have {sorted(named & asked.keys())}: rows differ in these."
        )
    fields = {key: recipe[key] for key in ("img_size", "num_frames") if recipe.get(key)}
    for row in distinct_models(rows).values():
        options = {**VARIANTS[variant], **recipe["model_args"], **fields, **row}
        try:
            with torch.device("meta"):
                LinearVideoTransformer(**options)
        except TypeError as error:  # a field that there is not
            raise ValueError(str(error).replace("LinearVideoTransformer.", "")) from error


def merged(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe with some options replaced, and some of its `model_args`."""
    args = {**recipe.get("model_args", {}), **(changes.get("model_args") or {})}
    return {**recipe, **changes, "model_args": args}


def distinct_models(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Model options by the names of their folders; rows of the same model are one."""
    return {run_name(row): _told_options(row) for row in rows}


def _told_options(options: dict[str, Any]) -> dict[str, Any]:
    """Model options that differ from the model's defaults."""
    return {key: value for key, value in options.items() if value != _MODEL_DEFAULTS[key]}


def run_name(options: dict[str, Any]) -> str:
    """A folder's name for model options: those that differ from the model's defaults."""
    told = _told_options(options)
    return ",".join(f"{key}={told[key]}" for key in sorted(told)) or "default"
