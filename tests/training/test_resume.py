"""A run that ends anywhere and is resumed leaves what an uninterrupted one leaves, bit for bit."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import launch, torchrun
from runs import ARGS, FAST, SCRIPT, rows, weights

from lvt_ff.data import EvalDataset
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.training import checkpoint, loop, run_setup
from lvt_ff.training.divergence import Diverged
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.errors import Failure, Stopped, UsageError

NUM_STEPS = 10  # five in each of two epochs


@pytest.fixture(scope="module")
def trained(tmp_path_factory, two_classes):
    """A small model folder to adapt."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    finetune(**dict(FAST, epochs=1), train_data=two_classes, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def everything(trained, two_classes):
    """Options of a run that draws at random wherever it can."""
    return dict(
        FAST,
        model=str(trained),
        model_args=None,
        epochs=2,
        batch_size=2,
        accumulation=2,
        num_repeats=2,
        balance="sampling",
        mixup=0.8,
        cutmix=1.0,
        auto_augment="rand-m7-n2-mstd0.5",
        random_erasing=0.5,
        hflip=0.5,
        ema_decay=0.9,
        lora_rank=2,
        lora_dropout=0.1,
        save_steps=1,
        train_data=str(two_classes),
        eval_data=str(two_classes),
    )


@pytest.fixture(scope="module")
def uninterrupted(everything, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    finetune(**everything, output_dir=folder)
    return folder


class Killed(BaseException):
    """Ends a run as abruptly as a function can."""


def dies(monkeypatch, owner, name, number, how):
    """Let the `number`-th call of a function, from 1, end in `how`."""
    count, function = iter(range(1, 10**6)), getattr(owner, name)

    def counted(*args, **kwargs):
        if next(count) == number:
            return how(function, *args, **kwargs)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def kill_after(function, *args, **kwargs):
    function(*args, **kwargs)
    raise Killed


def kill_before(function, *args, **kwargs):
    raise Killed


def disk_full(function, *args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def terminate(function, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return function(*args, **kwargs)


ENDS = {
    "step": (loop.TrainingLoop, "_step", kill_after, NUM_STEPS),
    "save": (checkpoint, "save_file", kill_before, 3 * NUM_STEPS),
    "saved": (loop, "save_checkpoint", kill_after, NUM_STEPS),
    "evaluation": (loop.TrainingLoop, "_evaluated", kill_after, 2),
    "best": (loop.KeptWeights, "save", kill_after, 1),  # the second need not be better
    "state": (loop, "update_state", kill_before, 2),
    "disk": (checkpoint, "save_file", disk_full, 3 * NUM_STEPS),
    "signal": (loop.TrainingLoop, "_step", terminate, NUM_STEPS),
}


def points(number, seed):
    """Random ends of a run, of every kind."""
    rng = np.random.default_rng(seed)
    for place in range(number):
        kind = [*ENDS][place % len(ENDS)]
        yield pytest.param(kind, int(rng.integers(ENDS[kind][3])) + 1)


def resumed_is_uninterrupted(monkeypatch, options, uninterrupted, folder, kind, number):
    owner, name, how, _ = ENDS[kind]
    options = dict(options, output_dir=folder, resume=True)
    with monkeypatch.context() as patch, pytest.raises((Killed, OSError, Stopped)):
        dies(patch, owner, name, number, how)
        finetune(**options)
    assert not (folder / "config.json").exists()
    finetune(**options)
    keys = ("order", "lr", "loss", "top1", "grad_norm")
    assert rows(folder, *keys) == rows(uninterrupted, *keys)
    ours, plain = weights(folder), weights(uninterrupted)
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    ours, plain = (json.loads((f / "results.json").read_text()) for f in (folder, uninterrupted))
    assert ours["epochs"] == plain["epochs"] and ours["best"] == plain["best"]


@pytest.mark.parametrize("kind, number", [*points(8, seed=0)])
def test_a_run_that_ends_anywhere_goes_on(
    monkeypatch, everything, uninterrupted, tmp_path, kind, number
):
    folder = tmp_path / "run"
    resumed_is_uninterrupted(monkeypatch, everything, uninterrupted, folder, kind, number)


@pytest.mark.every_case
@pytest.mark.parametrize("kind, number", [*points(30, seed=1)])
def test_a_run_that_ends_at_thirty_points_goes_on(
    monkeypatch, everything, uninterrupted, tmp_path, kind, number
):
    folder = tmp_path / "run"
    resumed_is_uninterrupted(monkeypatch, everything, uninterrupted, folder, kind, number)


def test_two_processes_are_killed_and_go_on_and_one_goes_on_for_two(everything, tmp_path):
    options = dict(everything, accumulation=1)
    plain, broken, alone = (dict(options, output_dir=str(tmp_path / name)) for name in "abc")
    (tmp_path / "killed.py").write_text(SCRIPT)
    launch(2, "finetune", plain)
    with pytest.raises(AssertionError, match="SIGKILL|exitcode"):
        torchrun(2, str(tmp_path / "killed.py"), json.dumps([broken, 7, 9]))
    (tmp_path / "b").rename(tmp_path / "kept")
    (tmp_path / "b").symlink_to(tmp_path / "kept")  # another spelling of the path
    launch(2, "finetune", dict(broken, resume=True))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)
    keys = ("order", "lr", "loss")
    assert rows(tmp_path / "a", *keys) == rows(tmp_path / "b", *keys)
    with pytest.raises(AssertionError, match="SIGKILL|exitcode"):
        torchrun(2, str(tmp_path / "killed.py"), json.dumps([alone, 7, 9]))
    with pytest.raises(UsageError, match="batch_size was 2, is 4"):
        finetune(**dict(alone, batch_size=4), resume=True)
    finetune(**alone, resume=True)  # with as many clips in a step
    assert rows(tmp_path / "c", "order", "lr") == rows(tmp_path / "a", "order", "lr")
    np.testing.assert_allclose(
        rows(tmp_path / "c", "loss"), rows(tmp_path / "a", "loss"), atol=1e-5
    )


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_ends_with_its_status(
    two_classes, tmp_path, number, status
):
    folder = tmp_path / "run"
    options = dict(FAST, train_data=two_classes, output_dir=folder, num_workers=1)
    command = [sys.executable, "-m", "lvt_ff", "finetune", "--epochs=10000"]
    flags = {**options, "model_args": json.dumps(ARGS), "cpu": "true"}
    flags.pop("epochs")
    command += [f"--{name}={value}" for name, value in flags.items()]
    # As torchrun does, which signals all of a process group, workers among them.
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 60
        log = folder / "steps.jsonl"
        while not (log.exists() and log.read_text().count("\n") > 2):
            assert run.poll() is None and time.monotonic() < end, "it did not begin"
            time.sleep(0.05)
        os.killpg(run.pid, number)
        error = run.communicate(timeout=60)[1]
    finally:
        run.kill()
    assert run.returncode == status
    assert "stopped after step" in error and "--resume" in error and "Traceback" not in error
    assert list((folder / "checkpoints").glob("step_*"))
    left = {path.name for path in folder.iterdir()}
    assert left == {"checkpoints", "steps.jsonl", "bad_files.csv"}


def test_steps_are_on_disk_while_a_run_lasts(monkeypatch, two_classes, tmp_path):
    folder, seen = tmp_path / "run", []
    monkeypatch.setattr(
        loop.TrainingLoop,
        "_after_step",
        lambda self, done, *_: seen.append(len(rows(folder, "lr"))),
    )
    with pytest.raises(TypeError):  # no evaluation has said what is best
        finetune(**FAST, train_data=two_classes, output_dir=folder)
    assert seen == [*range(1, 16)]


def test_settings_that_change_nothing_may_change(two_classes, tmp_path, capsys):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    (tmp_path / "elsewhere").symlink_to(two_classes)
    changes = dict(
        train_data=f"{tmp_path}/./elsewhere/",
        num_workers=1,
        tracker="csv",
        max_bad_fraction=0.5,
        save_minutes=5.0,
    )
    results = finetune(**options | changes, resume=True)
    assert results["changes"] == []


def test_more_epochs_go_on_and_are_told(two_classes, tmp_path, capsys):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run")
    finetune(**dict(options, epochs=1))
    results = finetune(**dict(options, epochs=2), resume=True)
    assert results["changes"] == ["from step 6 on: epochs was 1, is 2"]
    assert "changed from step 6 on: epochs was 1, is 2" in capsys.readouterr().out
    assert len(rows(tmp_path / "run", "lr")) == 10
    with pytest.raises(UsageError, match="10 steps are done, and --epochs asks for 5"):
        finetune(**dict(options, epochs=1), resume=True)


def test_changes_of_what_is_computed_need_to_be_allowed_and_are_kept(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run")
    finetune(**dict(options, epochs=1))
    changed = dict(options, epochs=2, lr=1e-4)
    with pytest.raises(UsageError, match="lr was 0.001, is 0.0001. Use the same"):
        finetune(**changed, resume=True)
    results = finetune(**changed, resume=True, allow_changes=True)
    assert results["changes"] == ["from step 6 on: lr was 0.001, is 0.0001, epochs was 1, is 2"]
    assert rows(tmp_path / "run", "lr")[-1][0] < 1e-4


def test_the_checkpoint_before_the_last_can_be_gone_on_from(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", save_steps=1)
    finetune(**options)
    last = checkpoint.last_checkpoint(tmp_path / "run/checkpoints")
    before = weights(tmp_path / "run")
    (last / "model.safetensors").write_bytes(b"")
    with pytest.raises(Failure, match="delete it to go on from step_00000014"):
        finetune(**options, resume=True)
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    finetune(**options, resume=True)
    assert all(torch.equal(before[n], t) for n, t in weights(tmp_path / "run").items())


def test_evaluation_data_that_come_later_are_evaluated(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    results = finetune(**options, eval_data=two_classes, resume=True)
    assert results["best"]["eval_num_listed"] == 10 and len(results["epochs"]) == 1
    assert "10 of 10" in (tmp_path / "run/README.md").read_text()
    results = finetune(**options, resume=True)
    assert "eval_top1" not in results["best"]


def test_a_checkpoint_of_another_version_is_refused_in_words(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    for state in (tmp_path / "run").glob("checkpoints/step_*/state.json"):
        told = json.loads(state.read_text())
        told.pop("version")
        state.write_text(json.dumps(told))
    with pytest.raises(UsageError, match="written by another version of lvt_ff"):
        finetune(**options, resume=True)


def test_a_run_on_shards_is_killed_and_goes_on(monkeypatch, everything, two_classes, tmp_path):
    prepare_data(str(two_classes), tmp_path / "shards", num_workers=1)
    options = dict(everything, train_data=str(tmp_path / "shards"), lora_rank=None)
    options["lora_dropout"] = 0.0
    finetune(**options, output_dir=tmp_path / "plain")
    folder = tmp_path / "run"
    resumed_is_uninterrupted(monkeypatch, options, tmp_path / "plain", folder, "step", 7)


@pytest.mark.parametrize(
    "change",
    [
        dict(layer_decay=1.0),
        dict(freeze=1),
        dict(optimizer="sgd"),
        dict(ema_decay=0.9),
        dict(seed=3),
        dict(mixup=0.5),
    ],
    ids=str,
)
def test_changes_that_are_allowed_are_gone_on_with(two_classes, tmp_path, change):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", ema_decay=0.0)
    finetune(**dict(options, epochs=1))
    changed = {**options, "epochs": 2, **change}
    (name,) = change
    with pytest.raises(UsageError, match=f"Cannot resume.*{name} was"):
        finetune(**changed, resume=True)
    results = finetune(**changed, resume=True, allow_changes=True)
    assert f"{name} was" in results["changes"][0]


def test_weights_of_another_model_are_refused_even_so(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, output_dir=tmp_path / "run", epochs=1)
    finetune(**options)
    changed = dict(options, num_frames=3, resume=True, allow_changes=True)
    with pytest.raises(UsageError, match="num_frames was 2, is 3. That is another model"):
        finetune(**changed)


def test_the_best_of_the_checkpoint_before_stays(monkeypatch, two_classes, tmp_path):
    """A run whose last checkpoint is deleted goes on from the one before, to another best."""
    accuracies = iter([0.9, 0.95, 0.1])
    figures = dict(top5=1.0, protocol="a view", num_listed=10, num_evaluated=10)
    monkeypatch.setattr(
        run_setup, "evaluate_videos", lambda *a, **k: (dict(figures, top1=next(accuracies)), None)
    )
    options = dict(FAST, train_data=two_classes, eval_data=two_classes, epochs=2)
    options["output_dir"] = tmp_path / "run"
    finetune(**options)
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000010")
    results = finetune(**options, resume=True)
    assert results["best"]["eval_top1"] == 0.9 and results["best"]["step"] == 5


def test_a_checkpoint_whose_scores_are_not_numbers_is_set_aside(two_classes, tmp_path):
    options = dict(FAST, train_data=two_classes, eval_data=two_classes, batch_size=5)
    options |= dict(output_dir=tmp_path / "run", epochs=1, save_steps=1, warmup_epochs=0.0)
    wild = dict(options, lr=1e8, optimizer="sgd", clip_grad=0.0, layer_decay=1.0)
    with pytest.MonkeyPatch.context() as patch:  # the last update ruins the weights
        patch.setattr(loop, "learning_rate", lambda step, *_: 0.0 if step == 0 else 1e30)
        with pytest.raises(Diverged, match="checkpoint of step 2 was set aside"):
            finetune(**wild)
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["diverged_00000002", "step_00000001"]
    finetune(**dict(wild, lr=1e-4), resume=True, allow_changes=True)
    assert (tmp_path / "run/config.json").exists()


def test_a_signal_in_an_evaluation_stops_it_and_the_run_goes_on(
    monkeypatch, uninterrupted, everything, tmp_path
):
    read = EvalDataset.__getitem__

    def interrupting(self, index):
        if index == 4 and not (tmp_path / "sent").exists():
            (tmp_path / "sent").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, index)

    monkeypatch.setattr(EvalDataset, "__getitem__", interrupting)
    options = dict(everything, output_dir=tmp_path / "run", resume=True)
    with pytest.raises(Stopped, match="stopped in an evaluation.*--resume") as stopped:
        finetune(**options)
    assert stopped.value.exit_status == 143
    finetune(**options)
    ours, plain = weights(tmp_path / "run"), weights(uninterrupted)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
