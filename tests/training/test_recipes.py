"""Recipes: all of them run, their values reach the run, and what is given goes before them."""

import inspect
import json
from typing import get_args

import pytest
import yaml
from runs import ARGS, rows

from lvt_ff.training import loop
from lvt_ff.training.finetune import finetune
from lvt_ff.training.recipes import Recipe, chosen_recipe, load_recipe, warmup_steps
from lvt_ff.utils.errors import UsageError

NAMES = [name for name in get_args(Recipe) if name != "auto"]
OPTIONS = inspect.signature(finetune).parameters
TINY = dict(model="test_lvt_ff", model_args=ARGS, num_workers=0, cpu=True)


class Ended(Exception):
    """Ends a run after two steps."""


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_options_with_values_that_they_take(name):
    recipe = load_recipe(name)
    assert set(recipe) <= set(OPTIONS)
    assert all(OPTIONS[key].default is None for key in recipe)


def test_every_option_that_recipes_may_set_has_a_value():
    """What no recipe sets has a default elsewhere, which its help text says."""
    asked = {"sampling", "sampling_stride", "drop_rate", "loss", "num_frames", "img_size"}
    for name in ("epochs", "batch_size", "lr", "clip_grad", "ema_decay", "test_clips", "balance"):
        assert load_recipe("scratch")[name] is not None and name not in asked


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_two_steps_with_its_values(name, two_classes, tmp_path, monkeypatch):
    recipe = load_recipe(name)
    after = loop.TrainingLoop._after_step

    def end(self, done, *args):
        after(self, done, *args)
        if done == 2:
            assert self.settings["recipe"] == name
            for key, value in recipe.items():
                if key not in ("sampling", "sampling_stride", "warmup_epochs"):
                    assert self.settings[key] == value, key
            raise Ended

    monkeypatch.setattr(loop.TrainingLoop, "_after_step", end)
    with pytest.raises(Ended):
        finetune(**TINY, recipe=name, train_data=two_classes, output_dir=tmp_path / "run")
    assert len(rows(tmp_path / "run", "loss")) == 2


def test_given_options_go_before_a_recipe_and_the_whole_is_kept(two_classes, tmp_path):
    results = finetune(
        **TINY,
        recipe="kinetics",
        epochs=1,
        mixup=0.0,
        warmup_epochs=0.0,
        train_data=two_classes,
        output_dir=tmp_path / "run",
    )
    settings = json.loads((tmp_path / "run/results.json").read_text())["settings"]
    assert settings == results["settings"]
    assert (settings["mixup"], settings["hflip"], settings["epochs"]) == (0.0, 0.5, 1)
    assert (settings["sampling"], settings["sampling_stride"]) == ("dense", 16)
    assert (settings["optimizer"], settings["lr"]) == ("sgd", 0.035)


@pytest.mark.parametrize(
    "num_videos, pretrained, expected",
    [(499, True, "small"), (500, True, "pretrained"), (50, False, "scratch")],
)
def test_auto_follows_start_and_number_of_videos(num_videos, pretrained, expected):
    assert chosen_recipe("auto", num_videos, pretrained) == expected
    assert chosen_recipe("ssv2", num_videos, pretrained) == "ssv2"


def test_warmup_of_a_recipe_is_shortened_and_a_given_one_must_end():
    recipe = dict(warmup_epochs=5.0)
    assert warmup_steps(None, recipe, 100, 3000) == 500
    assert warmup_steps(None, recipe, 100, 1000) == 200
    assert warmup_steps(2.0, recipe, 100, 200) == 200
    with pytest.raises(ValueError, match="--warmup_epochs 3 is longer than the run of 200 steps"):
        warmup_steps(3.0, recipe, 100, 200)


def test_a_run_of_one_epoch_reaches_its_peak_rate(two_classes, tmp_path, capsys):
    finetune(**TINY, train_data=two_classes, output_dir=tmp_path / "run", epochs=1, batch_size=1)
    assert max(rate for (rate,) in rows(tmp_path / "run", "lr")) == load_recipe("scratch")["lr"]
    assert "peak learning rate 0.001, reached in step 2" in capsys.readouterr().out


def test_a_step_of_another_size_than_the_recipe_means_is_told(two_classes, tmp_path, capsys):
    options = dict(TINY, train_data=two_classes, recipe="ssv2", epochs=1, batch_size=2)
    finetune(**options, output_dir=tmp_path / "a")
    assert "meant for steps of 32 clips: --lr_scaling linear would make it 0.0021875" in (
        capsys.readouterr().out
    )
    finetune(**options, output_dir=tmp_path / "b", lr_scaling="linear")
    out = capsys.readouterr().out
    assert "meant for" not in out and "peak learning rate 0.0021875 (0.035 × 2 / 32)" in out
    assert max(rate for (rate,) in rows(tmp_path / "b", "lr")) == 0.0021875


def test_a_stored_run_is_a_recipe_of_its_own(two_classes, tmp_path):
    from lvt_ff.cli import main

    options = dict(TINY, recipe="pretrained", epochs=1, lr=1e-4, batch_size=2)
    finetune(**options, train_data=two_classes, output_dir=tmp_path / "a")
    command = ["finetune", f"--config={tmp_path}/a/results.json", f"--output_dir={tmp_path}/b"]
    assert main(command) == 0
    a, b = (json.loads((tmp_path / f / "results.json").read_text())["settings"] for f in "ab")
    assert {k for k in a if a[k] != b[k]} <= {"output_dir"}
    assert rows(tmp_path / "a", "loss", "lr") == rows(tmp_path / "b", "loss", "lr")


def test_unknown_recipe_is_refused(two_classes, tmp_path):
    with pytest.raises(UsageError, match="recipe must be one of auto, pretrained"):
        finetune(**TINY, recipe="ssv3", train_data=two_classes, output_dir=tmp_path / "run")


def test_recipe_files_are_in_the_package_and_say_what_they_are_for():
    from importlib.resources import files

    for name in ("common", *NAMES):
        text = (files("lvt_ff.training") / "recipe_files" / f"{name}.yaml").read_text()
        assert text.startswith("# ") and isinstance(yaml.safe_load(text), dict)


def test_evaluation_takes_the_views_that_a_model_was_trained_for(two_classes, tmp_path):
    from lvt_ff.training.evaluate import evaluate

    options = dict(TINY, recipe="ssv2", epochs=1, train_data=two_classes)
    finetune(**options, eval_data=two_classes, output_dir=tmp_path / "run")
    record = json.loads((tmp_path / "run/results.json").read_text())
    assert record["best"]["eval_protocol"].startswith("1 clip × 1 crop")
    options = dict(num_workers=0, cpu=True)
    results = evaluate(tmp_path / "run", two_classes, **options)
    assert results["protocol"].startswith("2 clips × 3 crops")
    results = evaluate(tmp_path / "run", two_classes, clips=1, **options)
    assert results["protocol"].startswith("1 clip × 3 crops")
