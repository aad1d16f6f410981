"""Runs over videos that are damaged, hang or vanish: they end well, and every count is exact."""

import csv
import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import random_frames
from runs import FAST, rows, weights

from lvt_ff.cli import main
from lvt_ff.data import EvalDataset, TrainDataset, load_video_list
from lvt_ff.data.prepare_data import prepare_data
from lvt_ff.data.shards import read_index
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training.finetune import finetune
from lvt_ff.training.loop import TrainingLoop
from lvt_ff.video import decoder_process, pool

NUM_SOUND = 54
# In decoder processes: PyAV, which alone reads there, does not come back from files named so.
HANGS = """
import time
from lvt_ff.video import decoders

pyav = decoders.DECODERS["pyav"]


def decode(path, found, clip, threads):
    if "hangs" in path:
        time.sleep(600)
    return pyav.decode(path, found, clip, threads)


for name in ("torchcodec", "decord"):
    decoders.DECODERS[name] = pyav._replace(refuses=lambda found: "is left to PyAV")
decoders.DECODERS["pyav"] = pyav._replace(decode=decode)
"""


def cut(path):
    os.truncate(path, 3 * path.stat().st_size // 4)


def change_codec(path):
    content = path.read_bytes()
    assert b"avc1" in content
    path.write_bytes(content.replace(b"avc1", b"zzz1"))


def become_folder(path):
    path.unlink()
    path.mkdir()


def become_loop(path):
    path.unlink()
    path.symlink_to(path)


# By the file's name: what is done to a sound one, and what its reason must say.
UNREADABLE = {
    "cut.mp4": (cut, "Invalid data found"),  # its table of contents stands at its end
    "empty.mp4": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "Invalid data found"),
    "codec.mp4": (change_codec, "codec"),
    "hangs.mp4": (lambda path: None, "no progress within 0.5 s"),
}
CUT_BEHIND_ITS_HEADER = "cut.mkv"
VANISHING = {
    "removed": (lambda path: path.unlink(), "the file does not exist"),
    "folder": (become_folder, "it is not a file, nor a folder of numbered pictures"),
    "loop": (become_loop, "Too many levels of symbolic links"),
}
OPTIONS = dict(FAST, epochs=1, batch_size=4, num_workers=1, lr=1e-4)


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """Lets files named hangs hang their decoder, which is waited for half a second."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "sabotage.py").write_text(HANGS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(decoder_process, "_CODE", f"{decoder_process._CODE}; import sabotage")
    request = pool.request

    def impatient(message, choose, timeout_s, note):  # others may be slow on a busy machine
        return request(message, choose, 0.5 if "hangs" in message["path"] else timeout_s, note)

    monkeypatch.setattr(pool, "request", impatient)
    pool.restart()
    yield
    pool.restart()


@pytest.fixture
def videos(tmp_path):
    """Small videos of two classes, one of each kind damaged."""
    folder = tmp_path / "videos"
    names = [f"{number:02d}.mp4" for number in range(NUM_SOUND)]
    for number, name in enumerate([*names, *UNREADABLE, CUT_BEHIND_ITS_HEADER]):
        path = folder / ("left", "right")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, random_frames(12, 32, 48, number), options={"g": "1"})
        if name in UNREADABLE:
            UNREADABLE[name][0](path)
        elif name == CUT_BEHIND_ITS_HEADER:
            cut(path)
    return folder


def vanish_in_the_first_step(monkeypatch, folder):
    """Lets sound videos of the last steps vanish while a run is on; the names they get here."""
    paths = load_video_list(folder).paths
    names, step = {}, TrainingLoop._step

    def vanishing(self, number, *args):
        if number == 0:
            last = [self.batches.step_indices(self.batches.num_steps - n)[1] for n in (1, 2, 3)]
            files = (Path(paths[index]) for index in np.concatenate(last))
            sound = (file for file in files if file.stem.isdigit())
            for (what, (change, _)), file in zip(VANISHING.items(), sound, strict=False):
                change(file)
                names[file.name] = what
        return step(self, number, *args)

    monkeypatch.setattr(TrainingLoop, "_step", vanishing)
    return names


def bad_files(folder):
    """Reasons by name, of videos that were not read and of those that were in part."""
    with open(folder / "bad_files.csv", newline="") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    damaged = {name for name, reason in reasons.items() if reason.startswith("damaged, used")}
    return {n: r for n, r in reasons.items() if n not in damaged}, damaged


def decoders_below():
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "worker.main()" in " ".join(process.cmdline()) else []
    return found


def test_every_kind_of_damage_is_counted_once_and_the_epoch_ends(
    videos, hanging, tmp_path, monkeypatch, capsys
):
    vanished = vanish_in_the_first_step(monkeypatch, videos)
    options = dict(OPTIONS, train_data=videos, eval_data=videos, max_bad_fraction=0.2)
    results = finetune(**options, output_dir=tmp_path / "run")
    expected = {name: told for name, (_, told) in UNREADABLE.items()}
    expected |= {name: VANISHING[what][1] for name, what in vanished.items()}
    assert len(vanished) == 3 and len(expected) == 8

    bad, damaged = bad_files(tmp_path / "run")
    assert bad.keys() == expected.keys() and damaged == {CUT_BEHIND_ITS_HEADER}
    assert all(told in bad[name] for name, told in expected.items()), bad
    assert (results["bad_files"], results["damaged_files"]) == (8, 1)
    assert len(rows(tmp_path / "run", "loss")) == 15 and results["num_train"] == 60

    evaluated = results["best"]
    failures = {Path(row["path"]).name: row["reason"] for row in evaluated["eval_failures"]}
    assert failures == bad  # the same reasons, word for word
    assert len(evaluated["eval_failures"]) == 8
    assert (evaluated["eval_num_listed"], evaluated["eval_num_evaluated"]) == (60, 52)
    (row,) = evaluated["eval_damaged"]
    assert Path(row["path"]).name == CUT_BEHIND_ITS_HEADER
    out = capsys.readouterr().out
    assert "8 videos could not be read, evaluation" in out
    assert "8 of 60 videos could not be read" in out
    assert not decoders_below()


def test_too_many_unreadable_videos_end_a_run_and_all_are_named(videos, tmp_path, capsys):
    (videos / "right/hangs.mp4").write_text("no video either")
    flags = OPTIONS | dict(train_data=videos, output_dir=tmp_path / "run", num_workers=0)
    assert run_main(flags) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "4 training videos could not be read, more than --max_bad_fraction allows" in error
    assert "bad_files.csv has all of them" in error
    bad, _ = bad_files(tmp_path / "run")
    assert len(bad) == 4 and bad.keys() < UNREADABLE.keys()
    assert not (tmp_path / "run/config.json").exists()


def run_main(options):
    flags = options | dict(model_args=json.dumps(options["model_args"]), cpu="true")
    flags = {name: str(value).lower() if value is True else value for name, value in flags.items()}
    return main(["finetune", *(f"--{name}={value}" for name, value in flags.items())])


def test_nothing_that_can_be_read_ends_a_run_in_words(two_classes, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(two_classes, tmp_path / "data")
    step = TrainingLoop._step

    def unmounted(self, *args):
        shutil.rmtree(data, ignore_errors=True)
        return step(self, *args)

    monkeypatch.setattr(TrainingLoop, "_step", unmounted)
    options = OPTIONS | dict(train_data=data, output_dir=tmp_path / "run", batch_size=1)
    assert run_main(options | dict(max_bad_fraction=1.0)) == 1
    (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "videos in a row could not be read, perhaps as the place" in error
    assert "the file does not exist" in error


def test_most_videos_may_be_unreadable_where_that_is_allowed(two_classes, tmp_path):
    """So many that a clip may meet ten of them in a row."""
    data = shutil.copytree(two_classes, tmp_path / "data")
    for number in range(20):
        (data / f"class {number % 2}/bad{number}.mp4").write_bytes(b"")
    options = OPTIONS | dict(train_data=data, output_dir=tmp_path / "run", num_workers=0, epochs=3)
    assert finetune(**options, max_bad_fraction=0.7, eval_epochs=3)["bad_files"] == 20


def test_evaluation_data_that_cannot_be_read_end_a_run_that_goes_on_later(
    two_classes, tmp_path, monkeypatch, capsys
):
    data = shutil.copytree(two_classes, tmp_path / "data")
    options = OPTIONS | dict(train_data=two_classes, eval_data=data, num_workers=0)
    finetune(**options, output_dir=tmp_path / "plain")
    step = TrainingLoop._step

    def emptied(self, *args):
        for file in data.glob("*/*"):
            file.write_bytes(b"")
        return step(self, *args)

    monkeypatch.setattr(TrainingLoop, "_step", emptied)
    options |= dict(output_dir=tmp_path / "run")
    assert run_main(options) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "None of the 10 evaluation videos could be read after step 3" in error
    assert "the file is empty" in error and "--resume" in error
    shutil.copytree(two_classes, data, dirs_exist_ok=True)
    results = finetune(**options, resume=True)
    assert results["best"]["eval_num_evaluated"] == 10
    ours, plain = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_a_run_whose_worker_was_killed_goes_on_to_the_same_weights(
    two_classes, tmp_path, monkeypatch, capsys
):
    options = OPTIONS | dict(train_data=two_classes, epochs=2, save_steps=1)
    finetune(**options, output_dir=tmp_path / "plain")
    read, before = TrainDataset._read, tmp_path / "before"

    def killed_once(self, key):
        if key[0] == 1 and not before.exists():
            before.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, key)

    monkeypatch.setattr(TrainDataset, "_read", killed_once)
    options |= dict(output_dir=tmp_path / "run")
    assert run_main(options) == 1
    assert "a process that reads videos was " in capsys.readouterr().err
    assert 0 < len(rows(tmp_path / "run", "loss")) < 6
    finetune(**options, resume=True)
    assert rows(tmp_path / "run", "loss") == rows(tmp_path / "plain", "loss")
    ours, plain = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_a_worker_killed_in_an_evaluation_is_told_with_what_to_do(
    two_classes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(EvalDataset, "__getitem__", lambda *_: os.kill(os.getpid(), 9))
    options = OPTIONS | dict(train_data=two_classes, eval_data=two_classes)
    assert run_main(options | dict(output_dir=tmp_path / "run")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a process that reads videos was " in error and "lower --num_workers" in error
    assert "go on with --resume" in error


def test_a_shard_cut_off_while_running_costs_what_lay_behind(two_classes, tmp_path, monkeypatch):
    shards = tmp_path / "shards"
    prepare_data(str(two_classes), shards, num_workers=1)
    (tar,) = shards.glob("*.tar")
    index = read_index(shards / "index.parquet")
    half = int(np.sort(index.offset)[5]) + 10
    paths = load_video_list(shards).paths
    lost = {path for path, offset in zip(paths, index.offset, strict=True) if offset + 10 >= half}
    assert len(lost) == 5
    step = TrainingLoop._step

    def cut_off(self, *args):
        os.truncate(tar, half)
        return step(self, *args)

    monkeypatch.setattr(TrainingLoop, "_step", cut_off)
    options = OPTIONS | dict(train_data=shards, eval_data=shards, max_bad_fraction=0.5, epochs=2)
    results = finetune(**options, output_dir=tmp_path / "run")
    with open(tmp_path / "run/bad_files.csv", newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons.keys() == lost and results["bad_files"] == 5
    assert all("the file ends after" in reason for reason in reasons.values())
    for row in results["epochs"]:
        assert {failure["path"] for failure in row["eval_failures"]} == lost
        assert row["eval_num_evaluated"] == 5
