"""Training and evaluation on lists as they are distributed: the same run as on any other list."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import random_frames
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from lvt_ff.data import EvalDataset, load_video_list
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.finetune import finetune
from lvt_ff.utils.errors import UsageError

pytestmark = pytest.mark.usefixtures("inline")

FAST = dict(
    model="test_lvt_ff",
    model_args=dict(depth=1, num_frames=2, img_size=32, head_hidden=16),
    batch_size=2,
    epochs=1,
    num_workers=0,
    cpu=True,
)
CLASSES = ("Lifting something", "Moving something up", "Turning something over")
NUMBERS = (2, 0, 0, 2)  # of four videos; the second class has none


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four videos of two seconds as webm and mp4, and lists of the first and the last second."""
    root = tmp_path_factory.mktemp("sources")
    (root / "videos").mkdir()
    for number in range(4):
        frames = random_frames(16, 32, 48, seed=number)
        vp8 = dict(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"})
        how = vp8 if number % 2 else {}
        suffix = "webm" if number % 2 else "mp4"
        write_video(root / f"videos/v{number}.{suffix}", frames, fps=8, **how)
    return root


def plain_list(root, spans=False):
    """Paths, names and times, for the run that others must equal."""
    with open(root / "plain.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "start", "end"])
        for number, label in enumerate(NUMBERS):
            times = (number % 2, number % 2 + 1) if spans else ("", "")
            suffix = "webm" if number % 2 else "mp4"
            writer.writerow([f"videos/v{number}.{suffix}", CLASSES[label], *times])
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return dict(train_data=root / "plain.csv", class_file=root / "classes.txt")


def ssv2(root):
    folder = root / "labels"
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(json.dumps({c: str(n) for n, c in enumerate(CLASSES)}))
    content = [
        dict(id=f"v{number}", template=CLASSES[label].replace("something", "[something]"))
        for number, label in enumerate(NUMBERS)
    ]
    (folder / "train.json").write_text(json.dumps(content))
    return dict(train_data=folder / "train.json", video_root=root / "videos")


def kinetics(root):
    with open(root / "kinetics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for number, label in enumerate(NUMBERS):
            writer.writerow([CLASSES[label], f"v{number}", number % 2, number % 2 + 1, "train"])
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return dict(train_data=root / "kinetics.csv", class_file=root / "classes.txt")


def numbers(root):
    rows = [
        f"v{number}.{'webm' if number % 2 else 'mp4'} {label}"
        for number, label in enumerate(NUMBERS)
    ]
    (root / "train.txt").write_text("\n".join(rows))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    named = dict(class_file=root / "classes.txt", data_format="table")
    return dict(train_data=root / "train.txt", video_root=root / "videos", **named)


@pytest.mark.parametrize("source", [ssv2, kinetics, numbers])
def test_a_run_is_the_same_from_every_kind_of_list(root, tmp_path, source):
    spans = source is kinetics
    expected = finetune(**plain_list(root, spans), output_dir=tmp_path / "plain", **FAST)
    options = source(root)
    here = finetune(**options, eval_data=options["train_data"], output_dir=tmp_path / "run", **FAST)
    for key in ("train_loss", "train_top1"):
        assert here["epochs"][0][key] == expected["epochs"][0][key]
    weights = load_file(tmp_path / "plain/model.safetensors")
    for name, tensor in load_file(tmp_path / "run/model.safetensors").items():
        assert (tensor == weights[name]).all(), name
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert [config["id2label"][str(number)] for number in range(3)] == list(CLASSES)

    options["data"] = options.pop("train_data")
    results = evaluate(str(tmp_path / "run"), **options, num_workers=0, cpu=True)
    plain = dict(plain_list(root, spans))
    plain["data"] = plain.pop("train_data")
    assert results["top1"] == evaluate(str(tmp_path / "run"), **plain, num_workers=0)["top1"]
    assert results["num_evaluated"] == 4 and results["top1"] == here["epochs"][0]["eval_top1"]
    assert [row["num_videos"] for row in results["classes"]] == [2, 2]


def test_lists_to_train_and_to_evaluate_on_may_differ(root, tmp_path):
    test = tmp_path / "test"
    test.mkdir()
    (test / "w.webm").write_bytes((root / "videos/v1.webm").read_bytes())
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.csv").write_text(f"path,label\nw.webm,{CLASSES[1]}\ngone.webm,{CLASSES[0]}\n")
    options = dict(ssv2(root), eval_data=lists / "test.csv", output_dir=tmp_path / "run", **FAST)
    with pytest.raises(UsageError, match="test.csv lists 2 of 2"):
        finetune(**options)
    with pytest.raises(UsageError, match="test.csv lists 1 of 2.*--missing skip"):
        finetune(**options, eval_video_root=test)
    with pytest.raises(UsageError, match="test.csv is no JSON"):
        finetune(**options, eval_video_root=test, eval_data_format="ssv2")
    results = finetune(
        **options, eval_video_root=test, data_format="ssv2", eval_data_format="table",
        missing="skip",
    )  # fmt: skip
    assert results["num_train"] == 4 and results["num_eval"] == 1


def test_a_run_goes_on_where_its_videos_were_moved(root, tmp_path):
    (tmp_path / "a").symlink_to(root / "videos")
    options = dict(numbers(root), output_dir=tmp_path / "run", **dict(FAST, epochs=2))
    options["video_root"] = tmp_path / "a"
    whole = finetune(**options)
    (tmp_path / "run/checkpoints").rename(tmp_path / "checkpoints")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "other").mkdir()
    (tmp_path / "checkpoints").rename(tmp_path / "other/checkpoints")
    moved = dict(options, video_root=tmp_path / "b", data_format="auto", resume=True)
    again = finetune(**dict(moved, output_dir=tmp_path / "other"))
    assert again["epochs"] == whole["epochs"]
    (root / "classes.txt").write_text("\n".join([*CLASSES, "Nothing"]))
    with pytest.raises(UsageError, match="train_videos was"):
        finetune(**dict(moved, output_dir=tmp_path / "other"))


def test_precision_on_charades_is_that_of_scikit_learn(root, tmp_path):
    actions = ("c001 0.1 0.9;c002 1.0 1.5", "", "c000 0.0 2.0", "c002 0.2 0.3")
    with open(root / "Charades_v1_test.csv", "w", newline="") as file:
        rows = [(f"v{number}", text, 2.0) for number, text in enumerate(actions)]
        csv.writer(file).writerows([("id", "actions", "length"), *rows])
    (root / "Charades_v1_classes.txt").write_text(
        "".join(f"c{number:03d} {name}\n" for number, name in enumerate(CLASSES))
    )
    options = dict(train_data=root / "Charades_v1_test.csv", video_root=root / "videos")
    run = finetune(
        **options, eval_data=options["train_data"], output_dir=tmp_path / "model", **FAST
    )
    model, processor = load_folder(tmp_path / "model")
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.class_names == CLASSES
    results = evaluate(
        str(tmp_path / "model"), root / "Charades_v1_test.csv", video_root=root / "videos",
        clips=2, num_workers=0, cpu=True,
    )  # fmt: skip
    videos = load_video_list(root / "Charades_v1_test.csv", CLASSES)
    data = EvalDataset(
        videos, processor.eval_transform(), num_clips=2, num_crops=1, **processor.clip_options(),
        decoder="auto",
    )  # fmt: skip
    with torch.no_grad():  # the highest of all views counts
        scores = [model.eval()(data[n]["clip"]).logits.sigmoid().amax(0).tolist() for n in range(4)]
    wanted = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    expected = average_precision_score(wanted, scores, average="macro")
    assert results["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert results["num_evaluated"] == 4
    assert run["epochs"][0]["eval_mean_average_precision"] > 0
