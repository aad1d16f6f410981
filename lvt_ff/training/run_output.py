"""What a fine-tuning run leaves behind: the model folder and its records."""

import csv
import io
from pathlib import Path
from typing import Any

from lvt_ff.hf import LVTFFForVideoClassification
from lvt_ff.hub.model_card import model_card
from lvt_ff.hub.model_folder import write_model_folder
from lvt_ff.training.history import History
from lvt_ff.training.loop import TrainingLoop
from lvt_ff.training.lora import merge_lora, save_adapter
from lvt_ff.training.run_setup import Run
from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.environment import environment
from lvt_ff.utils.plots import curve_picture

__all__ = ["run_results", "write_bad_files", "write_output"]


def run_results(run: Run, loop: TrainingLoop) -> dict[str, Any]:
    """What `results.json` keeps of a run that has ended."""
    history, report = loop.history, run.network.pretrained_report
    return dict(
        best=history.best,
        epochs=history.epochs,
        start=run.origin,
        conversion=report.lines() if report else [],
        settings=run.settings(),
        derived=run.derived,
        changes=history.notes,
        num_train=len(run.videos),
        num_eval=len(run.eval_videos) if run.eval_videos else 0,
        bad_files=len(history.bad_files),
        damaged_files=len(history.damaged_files),
        skipped_steps=history.skipped_steps,
        environment=environment(run.options.cpu),
    )


def write_output(
    run: Run,
    network: LVTFFForVideoClassification,
    history: History,
    steps: list[dict],
    results: dict[str, Any],
) -> None:
    """Write the model folder of a run that has ended.

    Args:
        run: what it was made of.
        network: with the weights to keep.
        history: of the run.
        steps: a row for each.
        results: see `run_results`.
    """
    folder, best, settings = run.options.output_dir, results["best"], results["settings"]
    evaluated = {key.removeprefix("eval_"): value for key, value in best.items()}
    curve = folder / "checkpoints" / "curve.png"
    curve_picture(curve, steps, history.epochs, f"{folder.name}: {settings['model']}")
    card = model_card(
        folder.name,
        base=[results["start"], *results["conversion"]],
        config=network.config,
        results=evaluated if results["num_eval"] else None,
        settings=settings | results["derived"],
        data=dict(
            train=f"{settings['train_data']} ({results['num_train']} videos)",
            eval=f"{settings['eval_data']} ({results['num_eval']} videos)",
        ),
    )
    if run.options.lora_keep_adapter:
        save_adapter(network, folder / "adapter", run.options.model)
    if run.options.lora_rank is not None:
        merge_lora(network)
    write_model_folder(folder, network, run.processor, card, {"results.json": results}, [curve])


def write_bad_files(folder: Path, history: History) -> None:
    """Write `bad_files.csv`, with a row for each training video that was not, or not wholly, read.

    Args:
        folder: of the run, which may have ended early.
        history: of the run.
    """
    table = io.StringIO()
    damaged = [
        (path, f"damaged, used with what was left: {damage}")
        for path, damage in history.damaged_files.items()
    ]
    csv.writer(table).writerows([("path", "reason"), *history.bad_files.items(), *damaged])
    write_text(folder / "bad_files.csv", table.getvalue())
