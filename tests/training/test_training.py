"""Runs that are killed, resumed, split over processes or accumulated end as the plain run does."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import launch
from huggingface_hub import ModelCard
from runs import ARGS, FAST, SCRIPT, rows, start, weights
from safetensors.torch import load_file

from lvt_ff import LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.data import TrainDataset, VideoReadError
from lvt_ff.hub import model_folder
from lvt_ff.hub.model_folder import build_model, load_folder, write_model_folder
from lvt_ff.training import evaluate as evaluate_module
from lvt_ff.training import loop
from lvt_ff.training.batches import MicroBatches
from lvt_ff.training.divergence import Diverged
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune
from lvt_ff.training.optim import freeze_blocks, learning_rate, make_optimizer, set_learning_rate
from lvt_ff.utils.atomic_io import atomic_folder, write_text
from lvt_ff.utils.errors import Failure, UsageError
from lvt_ff.utils.output import LOCK_NAME, only_run


@pytest.fixture(scope="module")
def videos(two_classes):
    return two_classes


@pytest.fixture(scope="module")
def plain_run(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    finetune(train_data=videos, eval_data=videos, output_dir=folder, **FAST)
    return folder


# Batches and learning rates


@pytest.mark.parametrize("world, accumulation", [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_micro_batches_of_all_processes_make_the_global_batch(world, accumulation):
    batches = [
        MicroBatches(
            23,
            batch_size=2,
            accumulation=accumulation,
            num_processes=world,
            rank=rank,
            epochs=2,
            seed=5,
        )
        for rank in range(world)
    ]
    per_rank = [list(b) for b in batches]
    assert {len(b) for b in per_rank} == {len(batches[0])}
    for step in range(batches[0].num_steps):
        epoch, indices = batches[0].step_indices(step)
        micro = [
            per_rank[rank][step * accumulation + number]
            for number in range(accumulation)
            for rank in range(world)
        ]
        assert [item for batch in micro for item in batch] == [(epoch, i) for i in indices]
    for epoch in range(2):
        seen = {i for batch in per_rank for items in batch for e, i in items if e == epoch}
        assert seen == set(range(23))


def test_two_processes_see_the_slices_of_one_that_accumulates():
    def make(**changes):
        options = dict(accumulation=1, num_processes=1, rank=0, epochs=1, seed=0, batch_size=2)
        return list(MicroBatches(12, **{**options, **changes}))

    one = make(accumulation=2)
    two = [make(num_processes=2, rank=rank) for rank in range(2)]
    assert one == [batch for pair in zip(*two, strict=True) for batch in pair]


def test_learning_rate_is_a_warm_up_and_a_cosine():
    rates = [learning_rate(step, 100, 2.0, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0
    assert max(rates) == 2.0 and rates[55] == pytest.approx(1.0) and rates[99] < 0.002
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_and_layer_decay(name):
    model, *_ = build_model("test_lvt_ff", ["a", "b"])
    options = dict(lr=1.0, weight_decay=0.1, momentum=0.8)
    optimizer = make_optimizer(model.model, name, layer_decay=0.5, **options)
    set_learning_rate(optimizer, 2.0)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == 2.0 and len(rates) > 3
    first = optimizer.param_groups[0]
    if name == "sgd":
        assert first["momentum"] == 0.8 and first["nesterov"]
    plain = make_optimizer(model.model, name, layer_decay=1.0, **options)
    assert {group["weight_decay"] for group in plain.param_groups} == {0.0, 0.1}


def test_frozen_blocks_do_not_train():
    model, *_ = build_model("test_lvt_ff", ["a", "b"])
    core = model.model
    freeze_blocks(core, 2)
    trained = {name for name, p in core.named_parameters() if p.requires_grad}
    assert all(name.startswith(("blocks.2", "norm", "head")) for name in trained)
    with pytest.raises(ValueError, match="--freeze must be between 0 and 3"):
        freeze_blocks(core, -1)
    with pytest.raises(ValueError, match="--freeze must be between 0 and 3"):
        freeze_blocks(core, 9)


# Whole files


def test_folder_and_file_are_whole_or_absent(tmp_path):
    with pytest.raises(OSError, match="disk full"), atomic_folder(tmp_path / "a") as new:
        (new / "file").write_text("half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "a") as new:
            (new / "file").write_text(text)
        assert (tmp_path / "a/file").read_text() == text
    write_text(tmp_path / "b", "x")
    with pytest.raises(TypeError):
        write_text(tmp_path / "b", 3)
    assert (tmp_path / "b").read_text() == "x"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def killed_at_rename(number, action):
    """Run an action in a child that dies at its n-th rename; whether it got that far."""
    child = os.fork()
    if child == 0:
        count = iter(range(1000))

        def counted(function):
            def wrapper(*args, **kwargs):
                if next(count) == number:
                    os._exit(9)
                return function(*args, **kwargs)

            return wrapper

        os.rename, os.replace = counted(os.rename), counted(os.replace)
        with contextlib.suppress(BaseException):
            action()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_model_folder_killed_at_any_rename_loads_nowhere_or_whole(hf_model, tmp_path, monkeypatch):
    size = dict(height=64, width=64)
    processor = LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size)
    # Children have none of the threads that torch computes with.
    kept = model_folder.make_verification(hf_model, processor)
    monkeypatch.setattr(model_folder, "make_verification", lambda *_: kept)
    names = set()
    for number in range(20):
        folder = tmp_path / str(number)

        def write(folder=folder):
            write_model_folder(folder, hf_model, processor, ModelCard("---\n---\n"), {})

        killed = killed_at_rename(number, write)
        complete = (folder / "config.json").exists()
        if complete:
            load_folder(folder)
        write()
        load_folder(folder)
        names.add((killed, complete))
        if not killed:
            break
    assert (True, False) in names and (False, True) in names


# Runs


def test_output_is_a_finished_model_folder(plain_run, videos):
    names = {path.name for path in plain_run.iterdir()}
    assert names >= {
        *("config.json", "model.safetensors", "video_preprocessor_config.json", "README.md"),
        *("results.json", "curve.png", "steps.jsonl", "bad_files.csv", "checkpoints"),
    }
    assert not [name for name in names if name.startswith(".")]
    results = json.loads((plain_run / "results.json").read_text())
    assert results["settings"]["lr"] == 1e-3 and len(results["epochs"]) == 3
    assert results["epochs"][0]["eval_num_listed"] == 10
    card = (plain_run / "README.md").read_text()
    assert "pipeline_tag: video-classification" in card and "class 1" in card
    assert "1 clip × 1 crop, 2 frames of 32×32" in card
    stored = json.loads((plain_run / "config.json").read_text())
    assert stored["id2label"] == {"0": "class 0", "1": "class 1"}
    assert rows(plain_run, "lr")[0][0] == pytest.approx(1e-3 / 5)


@pytest.mark.parametrize("kill_after, save_steps", [(8, 3)])
def test_killed_run_resumes_to_the_same_weights(
    plain_run, videos, tmp_path, kill_after, save_steps
):
    folder = tmp_path / "run"
    options = dict(
        FAST,
        train_data=str(videos),
        eval_data=str(videos),
        output_dir=str(folder),
        save_steps=save_steps,
    )
    assert start(options, kill_after).returncode == -signal.SIGKILL
    assert not (folder / "config.json").exists()
    resumed = start(dict(options, resume=True))
    assert resumed.returncode == 0, resumed.stderr
    assert rows(folder, "order", "lr", "loss") == rows(plain_run, "order", "lr", "loss")
    ours, plain = weights(folder), weights(plain_run)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_killed_while_saving_keeps_the_last_checkpoint(plain_run, videos, tmp_path):
    folder = tmp_path / "run"
    options = dict(
        FAST, train_data=str(videos), eval_data=str(videos), output_dir=str(folder), save_steps=1
    )
    script = SCRIPT.replace(
        "finetune(**options)",
        """
from lvt_ff.training import checkpoint
save = checkpoint.save_file
def half(tensors, path):
    save(tensors, path)
    if "step_00000003" in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
finetune(**options)
""",
    )
    command = [sys.executable, "-c", script, json.dumps([options, None, 9])]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert "step_00000002" in names and "step_00000003" not in names
    assert start(dict(options, resume=True)).returncode == 0
    assert all(torch.equal(weights(folder)[n], t) for n, t in weights(plain_run).items())


def test_resume_refuses_other_settings_and_fresh_start_refuses_old_checkpoints(videos, tmp_path):
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    with pytest.raises(UsageError, match="holds checkpoints of an earlier run: pass --resume"):
        finetune(**options)
    with pytest.raises(UsageError, match="lr was 0.001, is 0.002"):
        finetune(**{**options, "lr": 2e-3, "resume": True})


def test_a_second_run_into_one_folder_is_refused(videos, tmp_path):
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run", epochs=1)
    with only_run(tmp_path / "run", "--output_dir"):
        with pytest.raises(UsageError, match="Another run is writing to .*process .* started"):
            finetune(**options)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_NAME]
    finetune(**options)
    assert not (tmp_path / "run" / LOCK_NAME).exists()


def test_two_runs_at_once_leave_one_whole_model(plain_run, videos, tmp_path):
    options = dict(FAST, train_data=str(videos), eval_data=str(videos), resume=True)
    options |= dict(output_dir=str(tmp_path / "run"), save_steps=1)
    command = [sys.executable, "-m", "lvt_ff", "finetune"]
    command += [f"--{name}={json.dumps(value).strip(chr(34))}" for name, value in options.items()]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate()[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    # One may have ended before the other began: then there was nothing left to do.
    assert codes in ([0, 2], [0, 0]) and not any("Traceback" in error for error in errors)
    assert codes == [0, 0] or any("Another run is writing to" in error for error in errors)
    load_folder(tmp_path / "run")
    assert rows(tmp_path / "run", "order", "lr") == rows(plain_run, "order", "lr")


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named(videos, tmp_path, name):
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    (file,) = (tmp_path / "run/checkpoints").glob(f"step_*/{name}")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(Failure, match="step_00000005 is damaged .*: delete it and start again"):
        finetune(**options, resume=True)


def test_checkpoints_of_a_version_with_one_kind_of_settings_are_resumed(videos, tmp_path):
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    (state,) = (tmp_path / "run").glob("checkpoints/*/state.json")
    stored = json.loads(state.read_text())["settings"]
    assert stored["global_batch"] == 2 and stored["train_videos"].startswith("10 videos")
    finetune(**options, resume=True)


def test_resume_refuses_other_data_and_other_sizes(videos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    options = dict(FAST, train_data=data, output_dir=tmp_path / "run", epochs=1, resume=True)
    finetune(**options)
    with pytest.raises(UsageError, match="Cannot resume.*architecture.num_frames was 2, is 3"):
        finetune(**{**options, "num_frames": 3})
    (data / "class 1").rename(data / "another class")
    with pytest.raises(UsageError, match="Cannot resume.*train_videos was"):
        finetune(**options)
    (data / "another class").rename(data / "class 1")
    data.rename(tmp_path / "moved")
    finetune(**{**options, "train_data": tmp_path / "moved"})


def test_classifier_is_kept_for_the_same_classes_in_another_order(plain_run, videos, tmp_path):
    model = LVTFFForVideoClassification.from_pretrained(plain_run, dtype=torch.bfloat16)
    model.config.id2label = {0: "class 1", 1: "class 0"}
    model.save_pretrained(tmp_path / "turned")
    LVTFFVideoProcessor.from_pretrained(plain_run).save_pretrained(tmp_path / "turned")
    options = dict(FAST, model=str(tmp_path / "turned"), model_args=None, epochs=1, lr=1e-9)
    results = finetune(**options, train_data=videos, output_dir=tmp_path / "run")
    assert "with its classifier" in results["start"]
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored["id2label"] == {"0": "class 1", "1": "class 0"}
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.float32}


def test_evaluation_fills_its_batches(plain_run, videos, tmp_path, monkeypatch):
    sizes = []
    forward = LVTFFForVideoClassification.forward

    def noting(self, pixel_values_videos, **kwargs):
        sizes.append(len(pixel_values_videos))
        return forward(self, pixel_values_videos, **kwargs)

    monkeypatch.setattr(LVTFFForVideoClassification, "forward", noting)
    outputs = {}
    for number in (1, 4, 6):
        sizes.clear()
        options = dict(clips=2, crops=1, num_workers=0, cpu=True, views_per_forward=number)
        outputs[number] = evaluate(plain_run, videos, output_dir=tmp_path, **options)
        assert max(sizes) == number and sum(sizes) == 20
    assert outputs[1]["top1"] == outputs[4]["top1"] == outputs[6]["top1"]


def test_a_model_is_evaluated_with_the_views_that_its_run_was_given(videos, tmp_path):
    views = dict(test_clips=2, test_crops=3)
    finetune(**dict(FAST, epochs=1), train_data=videos, output_dir=tmp_path / "run", **views)
    result = evaluate(tmp_path / "run", videos, num_workers=0, cpu=True, save_logits=True)
    assert result["protocol"].startswith("2 clips × 3 crops")
    assert load_file(tmp_path / "run/logits.safetensors")["logits"].shape == (10, 6, 2)
    result = evaluate(tmp_path / "run", videos, clips=1, crops=1, num_workers=0, cpu=True)
    assert result["protocol"].startswith("1 clip × 1 crop")


def test_number_of_workers_changes_nothing(plain_run, videos, tmp_path):
    options = dict(FAST, train_data=videos, eval_data=videos, output_dir=tmp_path / "run")
    finetune(**{**options, "num_workers": 2})
    assert rows(tmp_path / "run", "loss", "order") == rows(plain_run, "loss", "order")


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(lr=2e-3),
        dict(optimizer="sgd"),
        dict(momentum=0.5),
        dict(weight_decay=0.5),
        dict(warmup_epochs=0.0),
        dict(layer_decay=0.5),
        dict(freeze=1),
        dict(label_smoothing=0.2),
        dict(clip_grad=0.01),
        dict(recipe="modern"),
        dict(lr_scaling="linear"),
        dict(lr_scaling="sqrt"),
        dict(lr_batch=4),
        dict(drop_rate=0.1),
        dict(loss="bce"),
        dict(loss="asymmetric"),
        dict(balance="sampling"),
        dict(ema_decay=0.5),
        dict(num_repeats=2),
        dict(mixed_precision="bf16"),
        dict(batch_size=3),
        dict(accumulation=2),
        dict(scale_jitter=(2.0, 2.0)),
        dict(hflip=1.0),
        dict(sampling="dense"),
        dict(model_args=dict(ARGS, drop_rate=0.0)),
        dict(num_frames=3),
        dict(img_size=48),
    ],
    ids=str,
)
def test_every_option_changes_the_result(videos, tmp_path, change):
    plain = dict(FAST, train_data=videos, epochs=2)
    if "momentum" in change:
        plain["optimizer"] = "sgd"
    if "lr_batch" in change:
        plain["lr_scaling"] = "linear"
    for name, options in (("a", plain), ("b", {**plain, **change})):
        finetune(output_dir=tmp_path / name, **options)
        AcceleratorState._reset_state(reset_partial_state=True)  # precision is per process
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert any(a[n].shape != b[n].shape or not torch.equal(a[n], b[n]) for n in a)


def test_evaluations_come_every_so_many_epochs_and_at_the_end(videos, tmp_path):
    options = dict(FAST, train_data=videos, eval_data=videos, output_dir=tmp_path / "run")
    results = finetune(**options, eval_epochs=2)
    assert [epoch["epoch"] for epoch in results["epochs"]] == [2, 3]


def test_forced_decoder_reaches_the_readers(plain_run, videos, tmp_path, without_decord):
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run")
    with pytest.raises(VideoReadError, match="decord: not installed"):
        finetune(**options, decoder="decord")
    with pytest.raises(Failure, match="None of the 10 videos"):
        evaluate(plain_run, videos, decoder="decord", output_dir=tmp_path / "out", cpu=True)


def test_precision_of_an_evaluation_changes_its_scores(plain_run, videos, tmp_path, monkeypatch):
    kept = []
    score = evaluate_module.score_videos

    def keeping(*args, **options):
        kept.append(score(*args, **options))
        return kept[-1]

    monkeypatch.setattr(evaluate_module, "score_videos", keeping)
    for precision in ("no", "bf16"):
        evaluate(
            plain_run,
            videos,
            mixed_precision=precision,
            output_dir=tmp_path / precision,
            num_workers=0,
            cpu=True,
        )
        AcceleratorState._reset_state(reset_partial_state=True)
    ours, theirs = (scores.logits for scores in kept)
    assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_gradient_checkpointing_changes_nothing(plain_run, videos, tmp_path):
    options = dict(FAST, train_data=videos, eval_data=videos, output_dir=tmp_path / "run")
    finetune(**options, grad_checkpointing=True)
    losses, plain = rows(tmp_path / "run", "loss"), rows(plain_run, "loss")
    np.testing.assert_allclose(losses, plain, rtol=1e-5)


def test_best_epoch_is_kept(plain_run):
    results = json.loads((plain_run / "results.json").read_text())
    accuracies = [epoch["eval_top1"] for epoch in results["epochs"]]
    assert results["best"]["eval_top1"] == max(accuracies)
    assert results["best"]["epoch"] == 1 + int(np.argmax(accuracies))
    (folder,) = (plain_run / "checkpoints").glob("best_*")
    best = load_file(folder / "model.safetensors")
    assert all(torch.equal(best[f"model.{n}"], t) for n, t in weights(plain_run).items())


def test_finetuning_a_folder_goes_on_from_its_weights(plain_run, videos, tmp_path):
    options = dict(FAST, model=str(plain_run), train_data=videos, epochs=1, lr=1e-9)
    results = finetune(**{**options, "model_args": None}, output_dir=tmp_path / "same")
    assert "with its classifier" in results["start"]
    a, b = weights(tmp_path / "same"), weights(plain_run)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in b)
    (tmp_path / "other").mkdir()
    for name in ("class 0", "class 1"):
        (tmp_path / "other" / f"new {name}").symlink_to(videos / name)
    options = dict(options, train_data=tmp_path / "other", model_args=None, num_frames=3)
    results = finetune(**options, output_dir=tmp_path / "new")
    assert "a new classifier for 2 classes" in results["start"]
    c = weights(tmp_path / "new")
    assert c["temp_embed"].shape[1] == 3
    assert torch.allclose(c["blocks.0.attn.qkv.weight"], b["blocks.0.attn.qkv.weight"], atol=1e-6)
    assert not torch.allclose(c["head.fc.weight"], b["head.fc.weight"], atol=1e-3)


def test_bad_training_files_are_replaced_and_listed_up_to_a_limit(videos, tmp_path):
    data = tmp_path / "data"
    for label in videos.iterdir():
        (data / label.name).mkdir(parents=True)
        for file in label.iterdir():
            (data / label.name / file.name).symlink_to(file)
    names = ["class 0/bad.mp4", "class 0/bad\udcff.mp4", "class 1/bad.mp4"]  # one is not UTF-8
    for name in names:
        (data / name).write_bytes(b"bad")
    options = dict(FAST, train_data=data, epochs=1)
    finetune(**options, output_dir=tmp_path / "run", max_bad_fraction=0.01)
    with open(tmp_path / "run/bad_files.csv", errors="surrogateescape", newline="") as file:
        reasons = dict(csv.reader(file))
    assert set(reasons) == {"path", *(str(data / name) for name in names)}
    assert "pyav" in reasons[str(data / names[0])]
    with pytest.raises(Failure, match="more than --max_bad_fraction allows.*bad.*mp4"):
        finetune(**options, output_dir=tmp_path / "strict", max_bad_fraction=0.0)
    assert not (tmp_path / "strict/config.json").exists()
    (data / "class 1/worse.mp4").write_bytes(b"bad")
    with pytest.raises(Failure, match="4 training videos could not be read"):
        finetune(**options, output_dir=tmp_path / "four", max_bad_fraction=0.01)
    finetune(**options, output_dir=tmp_path / "many", max_bad_fraction=0.5)


def test_a_run_begins_with_the_number_of_videos_of_each_class(videos, tmp_path, capsys):
    test = tmp_path / "test"
    test.mkdir()
    (test / "class 1").symlink_to(videos / "class 1")
    finetune(**dict(FAST, epochs=1), train_data=videos, eval_data=test, output_dir=tmp_path / "run")
    start, recipe, videos_line, *table = capsys.readouterr().out.splitlines()[:9]
    assert start.startswith("start: ") and recipe == "recipe: pretrained"
    assert videos_line.startswith("10 training videos of 2 classes; ")
    assert table == [
        "training  evaluation  class",
        "       5           0  class 0",
        "       5           5  class 1",
        "training: smallest class class 0 (5 videos), largest class 0 (5 videos)",
        "evaluation: smallest class class 0 (0 videos), largest class 1 (5 videos)",
        "evaluation: 1 class without a video: class 0",
    ]


def test_loss_that_is_not_a_number_ends_the_run(videos, tmp_path):
    options = dict(FAST, lr=1e30, optimizer="sgd", clip_grad=0.0, warmup_epochs=0.0)
    with pytest.raises(Diverged, match="The loss is not a finite number at step .*first in"):
        finetune(**options, train_data=videos, output_dir=tmp_path / "run")


# Processes


def test_metrics_over_97_clips_are_equal_on_1_2_and_3_processes(plain_run, videos, tmp_path):
    data = tmp_path / "data"
    files = sorted(videos.glob("*/*.mp4"))
    for number in range(97):
        source = files[number % len(files)]
        label = data / source.parent.name
        label.mkdir(parents=True, exist_ok=True)
        (label / f"{number:03d}.mp4").symlink_to(source)
    (data / "class 0/999.mp4").write_bytes(b"cannot be read")  # the 98th: listed, counted as wrong
    results = []
    for world in (1, 2, 3):
        folder = tmp_path / str(world)
        options = dict(model=str(plain_run), data=str(data), output_dir=str(folder))
        options |= dict(num_workers=0, cpu=True)
        launch(world, "evaluate", options)
        results.append(json.loads((folder / "evaluation.json").read_text()))
    for result in results:
        assert (result["num_listed"], result["num_evaluated"]) == (98, 97)
        assert len(result["failures"]) == 1
        result.pop("environment")
    assert results[0] == results[1] == results[2]
    assert sum(row["num_videos"] for row in results[0]["classes"]) == 98


def test_step_time_is_told_from_waiting_for_data(videos, tmp_path, monkeypatch):
    clock = [0.0]  # which only reading and computing move on
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def takes(seconds, function):
        def wrapper(*args, **kwargs):
            clock[0] += seconds
            return function(*args, **kwargs)

        return wrapper

    for kind, name, seconds in (
        (TrainDataset, "_read", 1),
        (LVTFFForVideoClassification, "forward", 10),
    ):
        monkeypatch.setattr(kind, name, takes(seconds, getattr(kind, name)))
    options = dict(FAST, train_data=videos, output_dir=tmp_path / "run", accumulation=2)
    finetune(**options)
    # A step has two batches of two clips.
    assert set(rows(tmp_path / "run", "time_s", "wait_s")) == {(24.0, 4.0)}
