"""The paper's comparisons, trained again: every row's model under one recipe.

Source: arXiv 2210.08164, Tables 1, 3, 4, 5, 6 and 9.
"""

import json
import shlex
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from lvt_ff.ablation.recipe import (
    FINETUNE_DEFAULTS,
    SCALES,
    checked_recipe,
    distinct_models,
    merged,
    run_name,
)
from lvt_ff.ablation.report import markdown, write_report
from lvt_ff.ablation.tables import Table, table_of
from lvt_ff.data import load_video_list
from lvt_ff.data.synthetic.motion import MOTION_CLASSES, draw_motion
from lvt_ff.data.synthetic.writer import write_dataset
from lvt_ff.training.divergence import Diverged
from lvt_ff.training.evaluate import make_accelerator
from lvt_ff.training.finetune import finetune
from lvt_ff.training.recipes import load_recipe, take_recipe
from lvt_ff.training.resume_rules import changed_settings, noted_changes, told_settings
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import UsageError, usage
from lvt_ff.utils.option_types import NonNegativeInt, PositiveInt
from lvt_ff.utils.output import check_output_folder, only_run

__all__ = ["ablate"]


@command(stores_options=True)
def ablate(
    output: Path = Path("lvt_ff_ablation"),
    tables: str = "3",
    seeds: PositiveInt = 3,
    data: Path | None = None,
    scale: Literal["auto", "small", "large"] = "auto",
    recipe: dict[str, Any] | None = None,
    num_workers: NonNegativeInt = 2,
    cpu: bool = False,
    dry_run: bool = False,
) -> dict:
    """Train the rows of the paper's tables under one recipe, and set them beside its figures.

    Accuracies are those of the last weights on held-out videos. A row that several tables have is
    trained once. The same command goes on after an interruption; with more tables or seeds it
    trains what is new. It reports the tables that it is given, with all seeds in the folder.

    Args:
        output: Folder for videos, runs, results.json, tables.md and tables.png.
        tables: Numbers of the paper's tables, such as 3,4,5,6,9,1; table 1 has a row for every
            kernel of lvt_ff.
        seeds: Runs of each row, with the seeds 0, 1, ….
        data: Folder with train and test in it, each a folder with one subfolder per class, or
            train.csv and test.csv; without it, videos of two objects that move about each other
            are made up. Real videos need a recipe of their own: model, epochs and more.
        scale: Size of models, and of made-up data: small takes minutes per run on two CPU cores,
            large is for a GPU; auto takes large where there is one.
        recipe: Options of `lvt-ff finetune` that differ from the scale's, such as {"epochs": 4};
            with a model (a variant) among them, the scale's model and frame sizes are not used.
        num_workers: Processes that write and read videos.
        cpu: Use the CPU where there is a GPU.
        dry_run: Only print the rows.
    """
    options = SimpleNamespace(**locals())
    options.output = output = Path(output)
    with usage():
        chosen = {number: table_of(number) for number in _numbers(tables)}
        rows = [row.options for table in chosen.values() for row in table.rows]
        models = distinct_models(rows)
        if scale == "auto":
            options.scale = "large" if torch.cuda.is_available() and not cpu else "small"
        full_recipe = checked_recipe(options.scale, recipe or {}, rows)
        if data is None:
            parts = _made_up_parts(output / "data", options.scale)
        else:
            parts = [_part(Path(data), name) for name in ("train", "test")]
            _video_lists(parts)  # which may have mistakes
        if not dry_run:
            check_output_folder(output, "--output")
    if dry_run:
        for number, table in chosen.items():
            print(f"Table {number}: {table.title}")
            for row in table.rows:
                print(f"  {row.name:<28} {run_name(row.options)}")
        print(
            f"{len(models)} models × {seeds} seeds = {len(models) * seeds} runs at scale "
            f"{options.scale}"
        )
        return {}
    accelerator = make_accelerator(full_recipe.get("mixed_precision"), cpu)
    first = accelerator.is_main_process
    with only_run(output, "--output") if first else nullcontext():
        accelerator.wait_for_everyone()
        return _compare(options, chosen, models, full_recipe, parts, accelerator)


def _compare(
    options: SimpleNamespace,
    chosen: dict[int, Table],
    models: dict[str, dict],
    recipe: dict,
    parts: list[Path],
    accelerator: Accelerator,
) -> dict:
    """Train what is not there yet, and report after every run."""
    output = options.output
    if options.data is None:
        if accelerator.is_main_process:
            _write_videos(parts, options.scale, options.num_workers)
        accelerator.wait_for_everyone()
    videos = _video_lists(parts)
    derived = dict(
        defaults=_defaults(recipe),
        train_videos=videos[0].fingerprint(),
        test_videos=videos[1].fingerprint(),
        num_classes=len(videos[0].class_names),
        num_processes=accelerator.num_processes,
        mixed_precision=accelerator.mixed_precision,
    )
    made = dict(command=_command(options), settings=_settings(options, recipe), derived=derived)

    def options_of(name: str, seed: int) -> dict:
        return dict(
            merged(recipe, dict(model_args=models[name])),
            train_data=parts[0],
            eval_data=parts[1],
            seed=seed,
            eval_epochs=recipe["epochs"],  # once, at the end
            save_steps=500,
            num_workers=options.num_workers,
            cpu=options.cpu,
        )

    def report() -> dict:
        summary = dict(made, **_summary(chosen, found))
        if accelerator.is_main_process:
            write_report(output, summary)
        return summary

    jobs = _jobs(output / "runs", models, options.seeds)
    found = {}
    for name, seed in jobs:  # before hours of training
        folder = _folder(output / "runs", name, seed)
        if (folder / "results.json").exists():
            found[name, seed] = _result(folder, options_of(name, seed), derived)
    accelerator.wait_for_everyone()
    if found:
        summary = report()
    for number, (name, seed) in enumerate(jobs, 1):
        if (name, seed) in found:
            continue
        accelerator.print(f"run {number}/{len(jobs)}: {name}, seed {seed}")
        folder, asked = _folder(output / "runs", name, seed), options_of(name, seed)
        _train(folder, asked, derived, accelerator)
        found[name, seed] = _result(folder, asked, derived)
        summary = report()
    accelerator.print(markdown(summary))
    accelerator.print(f"wrote results.json, tables.md and tables.png to {output}")
    return summary


def _train(folder: Path, asked: dict, derived: dict, accelerator: Accelerator) -> None:
    """One run, from its start or its last checkpoint; a loss of NaN is a result too."""
    try:
        finetune(output_dir=folder, resume=True, **asked)
    except Diverged as error:
        if accelerator.is_main_process:
            told = dict(diverged=str(error), environment=environment(asked["cpu"]))
            told |= _expected(asked, derived)
            write_text(folder / "results.json", json.dumps(told) + "\n")
    accelerator.wait_for_everyone()


def _settings(options: SimpleNamespace, recipe: dict) -> dict:
    """The options as JSON holds them, with the scale that was chosen and all of the recipe."""
    settings = {name: value for name, value in vars(options).items() if name != "dry_run"}
    return json.loads(json.dumps(dict(settings, recipe=recipe), default=str))


def _command(options: SimpleNamespace) -> str:
    """What to type for these tables again."""
    words = [f"--{name}={getattr(options, name)}" for name in ("tables", "seeds")]
    words += [f"--data={options.data}"] if options.data is not None else []
    words += [f"--scale={options.scale}"]
    words += [f"--recipe={json.dumps(options.recipe)}"] if options.recipe else []
    return shlex.join(["lvt-ff", "ablate", *words, *(["--cpu"] if options.cpu else [])])


def _numbers(tables: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in tables.split(",")))
    except ValueError:
        raise ValueError(
            f"--tables must be numbers with commas between, such as 3,4,5; got {tables!r}."
        ) from None


def _part(data: Path, name: str) -> Path:
    for path in (data / name, data / f"{name}.csv"):
        if path.exists():
            return path
    raise ValueError(f"{data} has neither a folder {name} nor a file {name}.csv.")


def _video_lists(parts: list[Path]) -> list:
    train = load_video_list(parts[0])
    return [train, load_video_list(parts[1], train.class_names)]


def _made_up_parts(folder: Path, scale: str) -> list[Path]:
    """Where made-up videos are or will be; the name tells what draws them."""
    drawn = [draw_motion(i, np.random.default_rng(0)) for i in range(len(MOTION_CLASSES))]
    named = folder / f"{scale}-{zlib.crc32(np.stack(drawn).tobytes()):08x}"
    for other in folder.glob(f"{scale}-*"):
        if other != named:
            raise ValueError(
                f"{other} was drawn by another version of lvt_ff or numpy: give another --output."
            )
    return [named / "train", named / "test"]


def _write_videos(parts: list[Path], scale: str, num_workers: int) -> None:
    counts = (SCALES[scale]["train_videos"], SCALES[scale]["test_videos"])
    for seed, (folder, count) in enumerate(zip(parts, counts, strict=True)):
        if not folder.exists():
            print(f"writing {count} videos to {folder}")
            options = dict(class_names=MOTION_CLASSES, draw=draw_motion)
            write_dataset(folder, count, seed, max(num_workers, 1), **options)


def _folder(runs: Path, name: str, seed: int) -> Path:
    return runs / name / f"seed_{seed}"


def _jobs(folder: Path, runs: dict[str, dict], seeds: int) -> list[tuple[str, int]]:
    """Names and seeds, seed by seed: those asked for, and those that are trained already."""
    counts = dict.fromkeys(runs, seeds)
    for name in runs:
        while (_folder(folder, name, counts[name]) / "results.json").exists():
            counts[name] += 1
    numbers = range(max(counts.values()))
    return [(name, seed) for seed in numbers for name in runs if seed < counts[name]]


def _defaults(recipe: dict) -> dict:
    """Options of a comparison that its recipe leaves as they are, and their values if known."""
    values = FINETUNE_DEFAULTS | load_recipe(recipe["recipe"])
    return {name: value for name, value in values.items() if name not in recipe}


def _expected(options: dict, derived: dict) -> dict:
    """Settings, and what is derived, as a run's folder tells them if it is of this comparison."""
    chosen = SimpleNamespace(**{**FINETUNE_DEFAULTS, **options})
    take_recipe(chosen, load_recipe(chosen.recipe))
    # What is still open is told by data or model.
    expected = {name: value for name, value in vars(chosen).items() if value is not None}
    steps = expected["batch_size"] * expected["accumulation"]
    expected["mixed_precision"] = derived["mixed_precision"]
    shared = dict(
        train_videos=derived["train_videos"],
        eval_videos=derived["test_videos"],
        global_batch=steps * derived["num_processes"],
    )
    return json.loads(json.dumps(dict(settings=expected, derived=shared), default=str))


def _result(folder: Path, options: dict, derived: dict) -> dict:
    """What a finished run came to.

    Args:
        folder: of the run.
        options: of `finetune`, without the folder.
        derived: what all runs of the comparison share.

    Raises:
        UsageError: it is a run of another comparison.
    """
    file = folder / "results.json"
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is damaged ({error}): delete it and go on.") from error
    expected = told_settings(_expected(options, derived))
    before = told_settings(stored)
    told = changed_settings(before, expected), noted_changes(before, expected)
    if told := ", ".join(filter(None, told)):
        raise UsageError(f"{folder} was made otherwise: {told}. Give another --output.")
    result = dict(environment=stored["environment"])
    if "diverged" in stored:
        return dict(result, top1=None, train_loss=None, train_s=0.0)
    steps = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(
        result,
        top1=100 * stored["epochs"][-1]["eval_top1"],
        train_loss=stored["epochs"][-1]["train_loss"],
        train_s=round(sum(json.loads(line)["time_s"] for line in steps), 1),
    )


def _summary(chosen: dict[int, Table], found: dict) -> dict:
    """What the runs came to, row by row."""

    def row_of(row) -> dict:
        name = run_name(row.options)
        runs = [result for (other, _), result in sorted(found.items()) if other == name]
        return dict(
            name=row.name,
            options=row.options,
            run=name,
            paper_top1=row.paper,
            **{key: [run[key] for run in runs] for key in ("top1", "train_loss", "train_s")},
        )

    environments = []
    for result in found.values():
        if result["environment"] not in environments:
            environments.append(result["environment"])
    return dict(
        environments=environments,
        train_s=round(sum(result["train_s"] for result in found.values()), 1),
        tables={
            number: dict(
                title=table.title, note=table.note, rows=[row_of(row) for row in table.rows]
            )
            for number, table in chosen.items()
        },
    )
