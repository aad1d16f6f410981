"""What options of a run change: averages, best weights, early ends, trackers, labels, shares."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import torchrun
from runs import ARGS, FAST, rows, weights
from safetensors.torch import load_file

from lvt_ff import LVTFFForVideoClassification
from lvt_ff.cli import main
from lvt_ff.training import loop, run_setup
from lvt_ff.training.divergence import Diverged
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.errors import UsageError


@pytest.fixture
def options(two_classes, tmp_path):
    return dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", epochs=2)


def evaluations(monkeypatch, *accuracies):
    """Let evaluations of a run give these accuracies."""
    left = iter(accuracies)
    monkeypatch.setattr(run_setup, "evaluate_videos", lambda *a, **k: (_figures(next(left)), None))


def _figures(top1):
    counts = dict(num_listed=10, num_evaluated=10, failures=[])
    return dict(top1=top1, top5=1.0, protocol="a view", **counts)


def kept(folder):
    return sorted(int(path.name.split("_")[1]) for path in (folder / "checkpoints").glob("best_*"))


def test_averaged_weights_are_evaluated_and_exported(options, tmp_path, monkeypatch):
    seen = []
    original = run_setup.evaluate_videos

    def noting(network, *args, **kwargs):
        seen.append({name: p.detach().clone() for name, p in network.named_parameters()})
        return original(network, *args, **kwargs)

    monkeypatch.setattr(run_setup, "evaluate_videos", noting)
    finetune(**options, eval_data=options["train_data"], ema_decay=0.9)
    (file,) = (tmp_path / "run/checkpoints/step_00000010").glob("average.safetensors")
    average, plain = load_file(file), load_file(file.with_name("model.safetensors"))
    assert all(torch.equal(seen[-1][name], average[name]) for name in average)
    assert not all(torch.equal(plain[name], average[name]) for name in average)
    results = json.loads((tmp_path / "run/results.json").read_text())
    exported = weights(tmp_path / "run")
    best = seen[[row["step"] for row in results["epochs"]].index(results["best"]["step"])]
    assert all(torch.equal(exported[name.removeprefix("model.")], best[name]) for name in average)


def test_the_best_weights_are_kept_as_many_as_asked(options, monkeypatch, tmp_path):
    evaluations(monkeypatch, 0.5, 0.9, 0.1, 0.9, 0.7)
    results = finetune(**dict(options, epochs=5), eval_data=options["train_data"], keep_best=3)
    # And the one that the checkpoint before the last speaks of.
    assert kept(tmp_path / "run") == [5, 10, 20, 25]
    assert results["best"]["step"] == 10  # the first of two that are as good
    best = load_file(tmp_path / "run/checkpoints/best_00000010/model.safetensors")
    exported = weights(tmp_path / "run")
    assert all(torch.equal(best[f"model.{name}"], exported[name]) for name in exported)


def test_a_run_stops_early_where_nothing_gets_better(options, monkeypatch, tmp_path, capsys):
    evaluations(monkeypatch, 0.5, 0.9, 0.8, 0.7, 0.6)
    results = finetune(**dict(options, epochs=9), eval_data=options["train_data"], early_stopping=2)
    assert [row["epoch"] for row in results["epochs"]] == [1, 2, 3, 4]
    assert "no better evaluation in 2 evaluations: stopped early" in capsys.readouterr().out
    assert len(rows(tmp_path / "run", "lr")) == 20


def test_checkpoints_come_by_the_clock(options, monkeypatch, tmp_path):
    saved = []
    save = loop.save_checkpoint
    monkeypatch.setattr(
        loop,
        "save_checkpoint",
        lambda folder, step, *a: saved.append(step) or save(folder, step, *a),
    )
    finetune(**options, save_minutes=1e-9)
    assert saved == [*range(1, 11)]


def test_trackers_get_steps_and_evaluations(options, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finetune(**options, eval_data=options["train_data"], tracker="tensorboard,csv")
    with open(tmp_path / "run/metrics.csv", newline="") as file:
        lines = [*csv.DictReader(file)]
    losses = [float(line["value"]) for line in lines if line["name"] == "loss"]
    assert losses == [loss for (loss,) in rows(tmp_path / "run", "loss")]
    told = {(line["step"], line["name"]): float(line["value"]) for line in lines}
    results = json.loads((tmp_path / "run/results.json").read_text())
    for row in results["epochs"]:
        for name in ("eval_top1", "eval_loss", "eval_mean_class_accuracy"):
            assert told[str(row["step"]), name] == row[name]
    tags = []
    for file in (tmp_path / "run").rglob("*tfevents*"):
        events = EventAccumulator(str(file))
        events.Reload()
        tags += events.Tags()["scalars"]
    assert {"loss", "lr", "eval_top1", "eval_loss"} <= set(tags)


def test_wandb_tracks_without_a_network(options, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    finetune(**dict(options, epochs=1), tracker="wandb")
    (file,) = tmp_path.rglob("run-*.wandb")
    assert b"grad_norm" in file.read_bytes()


@pytest.mark.parametrize(
    "name, told", [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "")]
)
def test_unknown_or_absent_trackers_are_refused(options, monkeypatch, name, told):
    monkeypatch.setattr("lvt_ff.training.trackers.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=told or "--tracker wandb is not installed"):
        finetune(**options, tracker=name)


# Numbers that are not finite


def poisoned(monkeypatch, step, what):
    """Let a layer give NaN in a step, or its gradient be NaN."""
    backward, count = loop.TrainingLoop._backward, []

    def poison(self, number, *args):
        if number == step and not count:
            count.append(1)
            layer = self.network.model.blocks[0].mlp.fc2
            if what == "output":
                layer.register_forward_hook(lambda module, args, output: output * math.nan)
            else:
                layer.weight.register_hook(lambda gradient: gradient * math.inf)
        return backward(self, number, *args)

    monkeypatch.setattr(loop.TrainingLoop, "_backward", poison)


@pytest.mark.parametrize(
    "what, told",
    [
        ("output", "The loss is not a finite number at step 4; first in model.blocks.0.mlp.fc2"),
        ("gradient", "Gradients are not a finite number at step 4; first in the gradient of"),
    ],
)
def test_a_run_stops_before_it_takes_in_what_is_not_finite(
    options, monkeypatch, tmp_path, what, told
):
    poisoned(monkeypatch, 3, what)
    with pytest.raises(Diverged, match=f"{told}.*Clips: .*class . *") as raised:
        finetune(**options, save_steps=1)
    named = set(re.findall(r"class \d/\d\.mp4", str(raised.value)))
    assert 1 <= len(named) <= 2  # of a batch of two
    last = tmp_path / "run/checkpoints/step_00000003/model.safetensors"
    assert all(tensor.isfinite().all() for tensor in load_file(last).values())
    assert len(rows(tmp_path / "run", "loss")) == 3
    assert not (tmp_path / "run/config.json").exists()
    monkeypatch.undo()
    finetune(**options, resume=True)


def test_an_evaluation_that_gives_no_numbers_ends_the_run(options, tmp_path):
    wild = dict(options, epochs=1, batch_size=10, warmup_epochs=0.0, lr=1e8, optimizer="sgd")
    with pytest.raises(Exception, match="not numbers|not finite|NaN") as raised:
        finetune(**wild, eval_data=options["train_data"], clip_grad=0.0)
    assert not isinstance(raised.value, AssertionError)
    assert not (tmp_path / "run/config.json").exists()


def test_steps_that_the_scaler_of_fp16_skips_are_counted_and_end_the_run_if_many(
    options, monkeypatch, tmp_path
):
    steps = iter(range(100))
    skipped = property(lambda self: next(steps) % 10 in (1, 2, 5))
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", skipped)
    assert finetune(**options)["skipped_steps"] == 3
    monkeypatch.setattr(loop, "_MAX_SKIPPED", 1)
    with pytest.raises(
        Diverged, match="in 2 steps in a row up to step 3.*use --mixed_precision bf16"
    ):
        finetune(**dict(options, output_dir=tmp_path / "other"))


# Labels


@pytest.fixture
def several(two_classes, tmp_path):
    """A list whose videos have one, two or no label."""
    lines = [
        json.dumps(dict(path=str(path), labels=["bright", "all"][int("1" in path.parent.name) :]))
        for path in sorted(two_classes.glob("*/*.mp4"))
    ]
    file = tmp_path / "several.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_several_labels_train_with_bce_and_are_measured_by_precision(several, tmp_path, capsys):
    options = dict(FAST, train_data=several, eval_data=several, output_dir=tmp_path / "run")
    results = finetune(**options)
    assert results["settings"]["loss"] == "bce"
    assert 0 < results["best"]["eval_mean_average_precision"] <= 1
    config = LVTFFForVideoClassification.from_pretrained(tmp_path / "run").config
    assert config.problem_type == "multi_label_classification"
    out = capsys.readouterr().out
    assert "evaluation mean average precision" in out
    assert main(["evaluate", f"--model={tmp_path}/run", f"--data={several}", "--cpu"]) == 0
    assert "| mAP |" in (tmp_path / "run/README.md").read_text()


def test_one_label_of_several_classes_may_train_with_bce(options):
    results = finetune(**options, loss="bce", eval_data=options["train_data"])
    assert "eval_top1" in results["best"]


# Speed and processes


@torch._dynamo.config.patch(suppress_errors=False)  # pytest's own way may hide it for ever
def test_compiled_training_gives_the_losses_of_plain_training(options, tmp_path):
    plain = dict(options, epochs=1, batch_size=5, drop_path_rate=0.0)
    plain["model_args"] = dict(ARGS, drop_rate=0.0)  # compiled dropout draws otherwise
    finetune(**dict(plain, output_dir=tmp_path / "plain"))
    torch._dynamo.reset()
    finetune(**dict(plain, output_dir=tmp_path / "compiled"), compile=True)
    ours, theirs = (rows(tmp_path / name, "loss") for name in ("compiled", "plain"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


EACH = """
import json, sys
from accelerate.state import AcceleratorState
from lvt_ff.training.finetune import finetune
for options in json.loads(sys.argv[1]):
    finetune(**options)
    AcceleratorState._reset_state()
"""


def test_rates_and_losses_do_not_depend_on_how_a_step_is_shared_out(options, two_classes, tmp_path):
    """1 and 2 processes, each with 1, 2 and 4 forward passes, at eight clips a step."""
    plain = dict(options, train_data=str(two_classes), drop_path_rate=0.0)
    plain["model_args"] = dict(ARGS, drop_rate=0.0)
    shared = {}
    for world in (1, 2):
        for passes in (1, 2, 4):
            folder = tmp_path / f"{world} processes, {passes} passes"
            sizes = dict(batch_size=8 // world // passes, accumulation=passes)
            shared.setdefault(world, []).append(dict(plain, output_dir=str(folder), **sizes))
    for one in shared[1]:
        finetune(**one)
    (tmp_path / "each.py").write_text(EACH)
    torchrun(2, str(tmp_path / "each.py"), json.dumps(shared[2]))
    found = {folder.name: rows(folder, "loss", "lr") for folder in tmp_path.glob("*passes")}
    assert len(found) == 6
    for name, values in found.items():
        first = found["1 processes, 1 passes"]
        np.testing.assert_allclose(values, first, atol=2e-5, err_msg=name)


def test_a_run_tells_of_itself_without_a_terminal(options, monkeypatch, capsys):
    monkeypatch.setattr("lvt_ff.utils.progress._EVERY_S", 0)
    finetune(**dict(options, epochs=1))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(lines) == 5
    assert re.match(r"step 1/5: loss \d.*clips/s, waiting for data \d+ %, \S+ left", lines[0])


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(early_stopping=3), "--early_stopping goes with evaluation data"),
        (dict(keep_best=2), "--keep_best goes with evaluation data"),
        (dict(eval_video_root="x"), "--eval_video_root goes with evaluation data"),
        (dict(hub_private=True), "--hub_private goes with --push_to_hub"),
        (dict(warmup_epochs=9.0), "--warmup_epochs 9 is longer than the run"),
        (dict(total_batch_size=8, accumulation=2), "--accumulation follows from"),
    ],
)
def test_options_without_an_effect_are_refused_before_anything_is_written(
    options, tmp_path, change, told
):
    with pytest.raises(UsageError, match=told):
        finetune(**{**options, **change})
    assert not list(tmp_path.glob("run/*.*"))


def test_a_csv_tracker_has_each_step_once_after_a_resume(options, tmp_path, monkeypatch):
    count = iter(range(100))
    after = loop.TrainingLoop._after_step

    def dies(self, *args):
        if next(count) == 6:
            raise KeyboardInterrupt
        after(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.TrainingLoop, "_after_step", dies)
        finetune(**options, tracker="csv", save_steps=5)
    finetune(**options, tracker="csv", save_steps=5, resume=True)
    with open(tmp_path / "run/metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert steps == [*range(1, 11)]
