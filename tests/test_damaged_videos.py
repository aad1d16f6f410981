"""What commands make of a damaged video and of one with large frames, by their options."""

import csv
import json

import av
import pytest
import torch
from conftest import random_frames

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune

LOST = "1 of 24 frames are lost (a packet is damaged)"
SMALL, LARGE = (48, 64), (96, 128)
BETWEEN = 2 * SMALL[0] * SMALL[1]  # pixels


def overwrite_packet(path, number):
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    place, size = packets[number].pos, packets[number].size
    content[place : place + size] = b"\xff" * size
    path.write_bytes(content)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model folder, and six videos of two classes: one damaged, one large."""
    folder = tmp_path_factory.mktemp("damaged")
    config = LVTFFConfig.from_variant("test_lvt_ff", id2label={0: "left", 1: "right"})
    torch.manual_seed(0)
    LVTFFForVideoClassification(config).save_pretrained(folder / "model")
    LVTFFVideoProcessor.from_config(config).save_pretrained(folder / "model")
    names = {0: "sound", 1: "sound_too", 2: "damaged", 3: "large", 4: "whole", 5: "whole_too"}
    for number, name in names.items():
        path = folder / "videos" / ("left", "right")[number % 2] / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = random_frames(24, *(LARGE if name == "large" else SMALL), number)
        write_video(path, frames, options={"g": "24", "bf": "0"})
    overwrite_packet(folder / "videos/left/damaged.mp4", 20)
    return folder


def test_prediction_warns_or_refuses(place, capsys):
    paths = [str(place / "videos" / name) for name in ("left/damaged.mp4", "right/large.mp4")]
    command = ["predict", *paths, "--model", str(place / "model"), "--json"]

    def errors(*options):
        status = main([*command, *options])
        captured = capsys.readouterr()
        rows = [json.loads(line) for line in captured.out.splitlines()]
        assert status == any("error" in row for row in rows)
        warnings = [line for line in captured.err.splitlines() if "warning" in line]
        return [row.get("error") for row in rows], warnings

    found, (warning,) = errors()
    assert found == [None, None]
    assert warning == f"lvt-ff predict: warning: Video {paths[0]!r} is damaged: {LOST}."
    (refused, fine), warnings = errors("--on_damage", "raise")
    assert LOST in refused and fine is None and not warnings
    (fine, refused), _ = errors("--max_pixels", str(BETWEEN))
    assert f"more than {BETWEEN:,} pixels" in refused and fine is None


@pytest.mark.parametrize(
    "name, options, told",
    [
        ("left/damaged.mp4", [], None),
        ("left/damaged.mp4", ["--on_damage", "raise"], LOST),
        ("right/large.mp4", [], None),
        ("right/large.mp4", ["--max_pixels", str(BETWEEN)], f"more than {BETWEEN:,} pixels"),
    ],
)
def test_explaining_warns_or_refuses(place, tmp_path, capsys, name, options, told):
    output = tmp_path / "a.png"
    command = ["explain", str(place / "videos" / name), "--model", str(place / "model")]
    assert main([*command, "--output", str(output), *options]) == (told is not None)
    assert output.exists() == (told is None)
    assert (told or "") in capsys.readouterr().err


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_lists_damage_or_counts_it_as_failed(place, tmp_path, capsys, num_workers):
    def evaluated(**options):
        return evaluate(
            model=str(place / "model"),
            data=place / "videos",
            output_dir=tmp_path / "out",
            num_workers=num_workers,
            cpu=True,
            **options,
        )

    results = evaluated()
    (damaged,) = results["damaged"]
    assert damaged["path"].endswith("damaged.mp4") and damaged["damage"] == LOST
    assert results["num_evaluated"] == 6 and not results["failures"]
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["damaged"] == [damaged]
    line = f"damaged, evaluated with what was left: {damaged['path']}: {LOST}"
    assert line in capsys.readouterr().out.splitlines()

    for options, name, reason in (
        (dict(on_damage="raise"), "damaged.mp4", LOST),
        (dict(max_pixels=BETWEEN), "large.mp4", f"more than {BETWEEN:,} pixels"),
    ):
        results = evaluated(**options)
        (failure,) = results["failures"]
        assert failure["path"].endswith(name) and reason in failure["reason"]
        assert results["num_evaluated"] == 5
        assert len(results["damaged"]) == (name != "damaged.mp4")


@pytest.mark.parametrize(
    "options, bad, damaged",
    [
        (dict(), [], ["damaged.mp4"]),
        (dict(on_damage="raise"), ["damaged.mp4"], []),
        (dict(max_pixels=BETWEEN), ["large.mp4"], ["damaged.mp4"]),
    ],
)
def test_training_lists_damage_or_takes_another_video(place, tmp_path, options, bad, damaged):
    results = finetune(
        model="test_lvt_ff",
        train_data=place / "videos",
        eval_data=place / "videos",
        output_dir=tmp_path / "run",
        epochs=1,
        batch_size=3,
        num_workers=0,
        cpu=True,
        **options,
    )
    assert (results["bad_files"], results["damaged_files"]) == (len(bad), len(damaged))
    with open(tmp_path / "run/bad_files.csv", newline="") as file:
        rows = {row["path"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}
    assert sorted(rows) == sorted([*bad, *damaged])
    for name in damaged:
        assert rows[name] == f"damaged, used with what was left: {LOST}"
    (epoch,) = results["epochs"]
    assert epoch["eval_num_evaluated"] == 6 - len(bad)
    assert len(epoch["eval_damaged"]) == len(damaged)
