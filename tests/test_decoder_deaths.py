"""A decoder that dies in the middle of the work costs one video, and every count stays exact."""

import csv
import json
import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch
from conftest import random_frames
from torch.utils.data import DataLoader

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.app.server import UploadHandler
from lvt_ff.cli import main
from lvt_ff.data import read_clip
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.inference.classifier import Classifier
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune
from lvt_ff.video import decoder_process, pool

# In decoder processes: PyAV, which alone reads there, dies of every file that is named so.
SABOTAGE = """
import os
from lvt_ff.video import decoders

pyav = decoders.DECODERS["pyav"]


def decode(path, found, clip, threads):
    if "deadly" in path:
        clip.choose(found.num_shown)
        os.kill(os.getpid(), {number})
    return pyav.decode(path, found, clip, threads)


for name in ("torchcodec", "decord"):
    decoders.DECODERS[name] = pyav._replace(refuses=lambda found: "is left to PyAV")
decoders.DECODERS["pyav"] = pyav._replace(decode=decode)
"""


@pytest.fixture(params=["SIGKILL", "SIGSEGV"])
def deadly(request, tmp_path, monkeypatch):
    """Lets files named deadly kill their decoder; the signal's name."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    number = int(signal.Signals[request.param])
    (folder / "sabotage.py").write_text(SABOTAGE.format(number=number))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(decoder_process, "_CODE", f"{decoder_process._CODE}; import sabotage")
    pool.restart()
    yield request.param
    pool.restart()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model folder, and six videos of two classes."""
    folder = tmp_path_factory.mktemp("deaths")
    config = LVTFFConfig.from_variant("test_lvt_ff", id2label={0: "left", 1: "right"})
    torch.manual_seed(0)
    LVTFFForVideoClassification(config).save_pretrained(folder / "model")
    LVTFFVideoProcessor.from_config(config).save_pretrained(folder / "model")
    for number in range(6):
        label = ("left", "right")[number % 2]
        (folder / "videos" / label).mkdir(parents=True, exist_ok=True)
        name = "deadly" if number == 2 else f"{number}"
        write_video(folder / f"videos/{label}/{name}.mp4", random_frames(10, 48, 64, number))
    return folder


def test_prediction_goes_on(place, deadly, capsys):
    videos = sorted(map(str, (place / "videos").glob("*/*.mp4")))
    assert main(["predict", *videos, "--model", str(place / "model"), "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == videos
    (failed,) = (row for row in rows if "error" in row)
    assert failed["path"].endswith("deadly.mp4")
    assert f"pyav: the decoder died with signal {int(signal.Signals[deadly])}" in failed["error"]
    assert all(len(row["predictions"]) == 2 for row in rows if row is not failed)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_counts_it_as_failed(place, deadly, tmp_path, num_workers):
    results = evaluate(
        model=str(place / "model"),
        data=place / "videos",
        output_dir=tmp_path / "out",
        views_per_forward=2,
        num_workers=num_workers,
        cpu=True,
    )
    assert (results["num_listed"], results["num_evaluated"]) == (6, 5)
    (failure,) = results["failures"]
    assert failure["path"].endswith("deadly.mp4") and deadly in failure["reason"]
    assert sum(row["num_videos"] for row in results["classes"]) == 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_takes_another_video(place, deadly, tmp_path, num_workers):
    results = finetune(
        model="test_lvt_ff",
        train_data=place / "videos",
        output_dir=tmp_path / "run",
        epochs=2,
        batch_size=3,
        num_workers=num_workers,
        cpu=True,
    )
    assert results["bad_files"] == 1 and results["num_train"] == 6
    steps = (tmp_path / "run/steps.jsonl").read_text().splitlines()
    assert len(steps) == 4
    with open(tmp_path / "run/bad_files.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"].endswith("deadly.mp4") and deadly in row["reason"]


def test_page_answers_and_goes_on(place, deadly, tmp_path, capsys):
    models = {"model": Classifier(place / "model", "cpu")}
    handler = UploadHandler(models, tmp_path, {}, max_mb=10, max_seconds=60)

    def answer_of(source):
        path = tmp_path / "upload" / source.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.read_bytes())
        line, classes, _ = handler.handle_upload({"path": str(path)})
        assert not path.exists()
        return line, classes

    line, classes = answer_of(place / "videos/left/deadly.mp4")
    assert "deadly.mp4 is empty, damaged, or not a video" in line and classes is None
    assert deadly in capsys.readouterr().err
    line, classes = answer_of(place / "videos/left/0.mp4")
    assert line == "**0.mp4**" and set(classes) == {"left", "right"}


def decoders_below(process):
    """Decoder processes of a process and of its children."""
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            if "worker.main()" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_killing_decoders_at_random_loses_no_count(place, tmp_path):
    stop = threading.Event()

    def kill_some():
        while not stop.wait(0.7):
            for process in decoders_below(psutil.Process())[:1]:
                with suppress(psutil.Error):
                    process.kill()

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        results = evaluate(
            model=str(place / "model"),
            data=place / "videos",
            clips=4,
            crops=3,
            output_dir=tmp_path / "out",
            max_bad_fraction=1.0,
            num_workers=2,
            cpu=True,
        )
    finally:
        stop.set()
        killer.join()
    assert results["num_evaluated"] + len(results["failures"]) == results["num_listed"] == 6
    paths = [failure["path"] for failure in results["failures"]]
    assert len(set(paths)) == len(paths)


class Clips(torch.utils.data.Dataset):
    """The same clip many times."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.from_numpy(read_clip(self.path, [0, index % 10]))


def test_every_data_worker_has_one_decoder_which_ends_with_it(place):
    read_clip(place / "videos/left/0.mp4", [0])
    mine = {process.pid for process in decoders_below(psutil.Process())}
    loader = DataLoader(Clips(place / "videos/left/0.mp4"), batch_size=2, num_workers=4)
    most = 0
    for _ in loader:
        theirs = {process.pid for process in decoders_below(psutil.Process())} - mine
        most = max(most, len(theirs))
    assert 1 <= most <= 4
    deadline = time.monotonic() + 10
    while {p.pid for p in decoders_below(psutil.Process())} - mine and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {p.pid for p in decoders_below(psutil.Process())} <= mine
    assert all(os.path.exists(f"/proc/{pid}") for pid in mine)
