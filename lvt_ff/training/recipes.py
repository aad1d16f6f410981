"""Recipes: values of fine-tuning options that belong together, in YAML files of this package."""

from dataclasses import asdict
from importlib.resources import files
from types import SimpleNamespace
from typing import Any, Literal

import yaml

from lvt_ff.data import Augmentation

__all__ = ["Recipe", "chosen_recipe", "load_recipe", "take_recipe", "warmup_steps"]

Recipe = Literal["auto", "pretrained", "scratch", "small", "modern", "ssv2", "kinetics", "charades"]

_SMALL = 500  # clips below which a data set is small
_LONGEST_WARMUP = 0.2  # of a run, where nobody asked for more


def load_recipe(name: str) -> dict[str, Any]:
    """A recipe's values by the options' names, with those that all recipes begin with."""
    return _read("common") | _read(name)


def chosen_recipe(name: str, num_videos: int, pretrained: bool) -> str:
    """The recipe that "auto" stands for; any other name is itself.

    Args:
        name: of a recipe, or "auto".
        num_videos: to train on.
        pretrained: whether the run starts from trained weights.
    """
    if name != "auto":
        return name
    if not pretrained:
        return "scratch"
    return "small" if num_videos < _SMALL else "pretrained"


def take_recipe(options: SimpleNamespace, recipe: dict[str, Any]) -> Augmentation:
    """Give those options that are None the recipe's values, and those of augmentation that still
    are, their defaults; the latter as one."""
    for name in recipe.keys() & vars(options).keys():
        if getattr(options, name) is None:
            setattr(options, name, recipe[name])
    augmentation = Augmentation.from_options(vars(options))
    vars(options).update(asdict(augmentation))
    return augmentation


def warmup_steps(
    asked: float | None, recipe: dict[str, Any], steps_per_epoch: int, num_steps: int
) -> int:
    """Steps of the warm-up; in a short run the recipe's is shortened, so that the peak is reached.

    Args:
        asked: epochs of the warm-up as the user gave them, or None for the recipe's.
        recipe: with `warmup_epochs`.
        steps_per_epoch, num_steps: of the run.

    Raises:
        ValueError: the user asked for a warm-up that the run would end in.
    """
    if asked is None:
        longest = int(_LONGEST_WARMUP * num_steps)
        return min(round(recipe["warmup_epochs"] * steps_per_epoch), longest)
    steps = round(asked * steps_per_epoch)
    if steps > num_steps:
        raise ValueError(
            f"--warmup_epochs {asked:g} is longer than the run of {num_steps} steps: give less, or "
            "more --epochs."
        )
    return steps


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((files("lvt_ff.training") / "recipe_files" / f"{name}.yaml").read_text())
