"""The paper's comparisons, trained again: every row's model under one recipe.

Source: arXiv 2210.08164, Tables 1, 3, 4, 5, 6 and 9.
"""

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from lvt_ff.ablation_report import markdown, write_report
from lvt_ff.ablation_tables import table_of
from lvt_ff.cards import environment
from lvt_ff.console import UsageError, check_options, check_ranges, run, usage
from lvt_ff.data import load_video_list
from lvt_ff.data.motion import MOTION_CLASSES, MOTION_SIZE, draw_motion
from lvt_ff.data.synthetic import write_dataset
from lvt_ff.evaluate import make_accelerator
from lvt_ff.files import write_text
from lvt_ff.finetune import finetune
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.training.loop import Diverged, told_changes

__all__ = ["SCALES", "ablate", "run_name"]

_RECIPE = dict(
    img_size=MOTION_SIZE,
    scale_jitter=(1.0, 1.0),
    optimizer="adamw",
    weight_decay=0.05,
    warmup_epochs=0.5,
)
# Videos made up where none are given, and the recipe on them; "small" is for CPU cores.
SCALES: dict[str, dict[str, Any]] = {
    "small": dict(
        train_videos=4000,
        test_videos=800,
        recipe=dict(
            _RECIPE,
            model="test_lvt_ff",
            model_args=dict(
                depth=1, num_frames=8, patch_size=8, patch_stride=8, patch_padding=0, drop_rate=0.0
            ),
            epochs=5,
            batch_size=8,
            lr=1e-3,
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
            batch_size=64,
            lr=1e-3,
        ),
    ),
}
# Options of fine-tuning that the comparison sets itself.
_OURS = ("train_data", "eval_data", "output_dir", "seed", "resume", "eval_epochs", "save_steps")
_OURS += ("push_to_hub", "hub_private", "num_workers", "cpu")
_FINETUNE = {
    name: parameter.default
    for name, parameter in inspect.signature(finetune).parameters.items()
    if name not in ("resume", "output_dir", "push_to_hub", "hub_private", "cpu")
}
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(LinearVideoTransformer).parameters.items()
}


def ablate(
    output: Path = Path("lvt_ff_ablation"),
    tables: str = "3",
    seeds: int = 3,
    data: Path | None = None,
    scale: Literal["auto", "small", "large"] = "auto",
    recipe: dict[str, Any] | None = None,
    num_workers: int = 2,
    cpu: bool = False,
    dry_run: bool = False,
) -> dict:
    """Train the rows of the paper's tables under one recipe, and set them beside its figures.

    Accuracies are those of the last weights on held-out videos. A row that several tables have is
    trained once. The same command goes on after an interruption, and adds tables or seeds.

    Args:
        output: Folder for videos, runs, results.json, tables.md and tables.png.
        tables: Numbers of the paper's tables, such as 3,4,5,6,9,1; table 1 has a row for every
            kernel of lvt_ff.
        seeds: Runs of each row, with the seeds 0, 1, ….
        data: Folder with train and test in it, each a folder with one subfolder per class, or
            train.csv and test.csv; without it, videos of two objects that move about each other
            are made up. Real videos need a recipe of their own: model, img_size and more.
        scale: Size of models, and of made-up data: small takes minutes per run on two CPU cores,
            large is for a GPU; auto takes large where there is one.
        recipe: Options of `lvt-ff finetune` that differ from the scale's, such as {"epochs": 4}.
        num_workers: Processes that write and read videos.
        cpu: Use the CPU where there is a GPU.
        dry_run: Only print the rows.
    """
    with usage():
        check_ranges(seeds=(seeds, 1, None), num_workers=(num_workers, 0, None))
        chosen = {number: table_of(number) for number in _numbers(tables)}
        if scale == "auto":
            scale = "large" if torch.cuda.is_available() and not cpu else "small"
        _check_recipe(recipe or {})
        full_recipe = _merged(SCALES[scale]["recipe"], recipe or {})
        if data is not None:
            parts = [_part(Path(data), name) for name in ("train", "test")]
    runs = {
        run_name(row.options): _differing(row.options)
        for table in chosen.values()
        for row in table.rows
    }
    if dry_run:
        for number, table in chosen.items():
            print(f"Table {number}: {table.title}")
            for row in table.rows:
                print(f"  {row.name:<28} {run_name(row.options)}")
        print(f"{len(runs)} models × {seeds} seeds = {len(runs) * seeds} runs at scale {scale}")
        return {}
    output = Path(output)
    accelerator = make_accelerator(full_recipe.get("mixed_precision"), cpu)
    if data is None:
        parts = [output / "data" / scale / name for name in ("train", "test")]
        if accelerator.is_main_process:
            _write_videos(parts, scale, num_workers)
        accelerator.wait_for_everyone()
    settings = dict(
        recipe=full_recipe,
        scale=scale if data is None else None,
        train_videos=load_video_list(parts[0]).fingerprint(),
        test_videos=load_video_list(parts[1]).fingerprint(),
    )
    words = [f"--tables {tables} --seeds {seeds}", f"--data {data}" if data else f"--scale {scale}"]
    words += [f"--recipe '{json.dumps(recipe)}'"] if recipe else []
    command = " ".join(["lvt-ff ablate", *words])
    results = {name: [] for name in runs}
    number = 0
    for seed in range(seeds):
        for name, options in runs.items():
            number += 1
            accelerator.print(f"run {number}/{len(runs) * seeds}: {name}, seed {seed}")
            found = _trained(
                output / "runs" / name / f"seed_{seed}",
                dict(
                    _merged(full_recipe, dict(model_args=options)),
                    train_data=parts[0],
                    eval_data=parts[1],
                    seed=seed,
                    eval_epochs=full_recipe["epochs"],  # once, at the end
                    save_steps=500,
                    num_workers=num_workers,
                    cpu=cpu,
                ),
                settings,
                accelerator,
            )
            results[name].append(found)
            summary = _summary(chosen, results, settings, command)
            if accelerator.is_main_process:
                write_report(output, summary)
    accelerator.print(markdown(summary))
    accelerator.print(f"wrote results.json, tables.md and tables.png to {output}")
    return summary


def run_name(options: dict[str, Any]) -> str:
    """A folder's name for model options: those that differ from the model's defaults."""
    told = _differing(options)
    return ",".join(f"{key}={told[key]}" for key in sorted(told)) or "default"


def _differing(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value != _DEFAULTS[key]}


def _numbers(tables: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(part) for part in tables.split(",")))
    except ValueError:
        raise ValueError(
            f"--tables must be numbers with commas between, such as 3,4,5; got {tables!r}."
        ) from None


def _check_recipe(recipe: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(finetune).parameters if name not in _OURS]
    for name in recipe:
        if name not in known:
            raise ValueError(f"--recipe has no option {name!r}: choose from {known}.")
    needed = dict(model="model", train_data="train", output_dir="runs")
    check_options(finetune, {**needed, **recipe}, "--recipe")


def _merged(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    args = {**recipe.get("model_args", {}), **(changes.get("model_args") or {})}
    return {**recipe, **changes, "model_args": args}


def _part(data: Path, name: str) -> Path:
    for path in (data / name, data / f"{name}.csv"):
        if path.exists():
            return path
    raise ValueError(f"{data} has neither a folder {name} nor a file {name}.csv.")


def _write_videos(parts: list[Path], scale: str, num_workers: int) -> None:
    counts = (SCALES[scale]["train_videos"], SCALES[scale]["test_videos"])
    for seed, (folder, count) in enumerate(zip(parts, counts, strict=True)):
        if not folder.exists():
            print(f"writing {count} videos to {folder}")
            options = dict(class_names=MOTION_CLASSES, draw=draw_motion)
            write_dataset(folder, count, seed, max(num_workers, 1), **options)


def _trained(folder: Path, options: dict, settings: dict, accelerator: Accelerator) -> dict:
    """What a run came to, from its folder where it is finished.

    Args:
        folder: of the run.
        options: of `finetune`, without the folder.
        settings: of the comparison.
        accelerator: of this process.
    """
    file = folder / "results.json"
    expected = {**_FINETUNE, **options}
    if expected["sampling"] is None:  # told by the model
        expected = {k: v for k, v in expected.items() if not k.startswith("sampling")}
    processes = accelerator.num_processes
    expected |= dict(
        train_videos=settings["train_videos"],
        eval_videos=settings["test_videos"],
        global_batch=expected["batch_size"] * expected["accumulation"] * processes,
        mixed_precision=accelerator.mixed_precision,
    )
    expected = json.loads(json.dumps(expected, default=str))
    if not file.exists():
        try:
            finetune(output_dir=folder, resume=True, **options)
        except Diverged as error:
            if accelerator.is_main_process:
                write_text(file, json.dumps(dict(settings=expected, diverged=str(error))) + "\n")
        accelerator.wait_for_everyone()
    stored = json.loads(file.read_text(encoding="utf-8"))
    told = told_changes(stored["settings"], expected)
    if told:
        raise UsageError(f"{folder} was made otherwise: {told}. Give another --output.")
    if "diverged" in stored:
        return dict(top1=None, train_loss=None, train_s=0.0)
    steps = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(
        top1=100 * stored["epochs"][-1]["eval_top1"],
        train_loss=stored["epochs"][-1]["train_loss"],
        train_s=round(sum(json.loads(line)["time_s"] for line in steps), 1),
    )


def _summary(chosen, results: dict, settings: dict, command: str) -> dict:
    def row_of(row) -> dict:
        runs = results[run_name(row.options)]
        return dict(
            name=row.name,
            options=row.options,
            run=run_name(row.options),
            paper_top1=row.paper,
            top1=[run["top1"] for run in runs],
            train_loss=[run["train_loss"] for run in runs],
            train_s=[run["train_s"] for run in runs],
        )

    return dict(
        command=command,
        settings=settings,
        environment=environment(),
        train_s=round(sum(run["train_s"] for runs in results.values() for run in runs), 1),
        tables={
            number: dict(
                title=table.title, note=table.note, rows=[row_of(row) for row in table.rows]
            )
            for number, table in chosen.items()
        },
    )


if __name__ == "__main__":
    raise SystemExit(run(ablate, "lvt_ff.ablate"))
