"""Evaluations: views, files of scores, ensembles, going on, unreadable videos, and the card."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_frames
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.data import EvalDataset, load_video_list
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.hub.card_results import add_evaluation
from lvt_ff.hub.model_folder import write_model_folder
from lvt_ff.hub.push import pushed_files
from lvt_ff.training import scoring
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.evaluation_report import print_report
from lvt_ff.training.partial_scores import PartialScores, ScoredPart
from lvt_ff.training.scoring import NotFinite, central_view
from lvt_ff.utils.errors import Failure, UsageError

pytestmark = pytest.mark.usefixtures("inline")

NAMES = ("push", "pull", "lift")
CARD = "---\nlicense: mit\n---\n# model\n\n## Results\n\nNot measured.\n\n## Limits\n\nMany.\n"
QUICK = dict(num_workers=0, cpu=True)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eleven videos of three classes, in a folder of class folders."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(11):
        file = root / NAMES[number % 3] / f"{number}.mp4"
        file.parent.mkdir(exist_ok=True)
        write_video(file, random_frames(7, 40, 56, seed=number))
    return root


def write_model(folder, seed=0, **fields):
    torch.manual_seed(seed)
    sizes = dict(depth=1, num_frames=2, img_size=32, head_hidden=16)
    config = LVTFFConfig.from_variant(
        "test_lvt_ff", id2label=dict(enumerate(NAMES)), **sizes, **fields
    )
    model = LVTFFForVideoClassification(config)
    torch.nn.init.normal_(model.model.temp_embed, std=0.5)
    torch.nn.init.normal_(model.model.head.fc.weight, std=2.0)
    processor = LVTFFVideoProcessor.from_config(config)
    write_model_folder(folder, model, processor, ModelCard(CARD), {})
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


def scores_in(folder):
    with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Views


def test_one_view_is_that_of_one_clip_and_one_crop(model, videos, tmp_path):
    single = evaluate(model, videos, output_dir=tmp_path / "one", **QUICK)
    many = evaluate(model, videos, clips=3, crops=3, output_dir=tmp_path / "many", **QUICK)
    assert "one_view" not in single
    for name in ("top1", "top5", "mean_class_accuracy", "loss", "calibration_error"):
        assert many["one_view"][name] == pytest.approx(single[name], rel=1e-5)
    assert many["loss"] != pytest.approx(single["loss"], rel=1e-3)


@pytest.mark.parametrize(
    "clips, crops, sampling, expected",
    [(1, 1, "dense", 0), (3, 3, "uniform", 1), (3, 3, "dense", 4), (5, 1, "uniform", 2)],
)
def test_central_view(clips, crops, sampling, expected):
    assert central_view(clips, crops, sampling) == expected


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_views_are_pooled_as_asked(videos, tmp_path, problem_type):
    folder = write_model(tmp_path / "model", problem_type=problem_type)
    options = dict(clips=2, crops=2, output_dir=tmp_path / "out", save_logits=True, **QUICK)
    found = {}
    for pooling in ("mean", "max", None):
        result = evaluate(folder, videos, view_pooling=pooling, **options)
        found[pooling] = [float(row["score1"]) for row in scores_in(tmp_path / "out")]
        assert ("max over views" in result["protocol"]) == (result["view_pooling"] == "max")
    logits = load_file(tmp_path / "out/logits.safetensors")["logits"].astype(float)
    assert logits.shape == (11, 4, 3)
    if problem_type is None:
        views = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        largest = views.max(axis=1)
        expected = dict(mean=views.mean(axis=1), max=largest / largest.sum(-1, keepdims=True))
    else:
        views = 1 / (1 + np.exp(-logits))
        expected = dict(mean=views.mean(axis=1), max=views.max(axis=1))
    for pooling, scores in expected.items():
        np.testing.assert_allclose(found[pooling], scores.max(axis=1), rtol=1e-4)
    assert found[None] == found["mean" if problem_type is None else "max"]
    assert found["mean"] != found["max"]


# Files of scores


def test_scores_in_files_are_those_of_the_accuracy(model, videos, tmp_path):
    result = evaluate(model, videos, output_dir=tmp_path / "out", save_logits=True, **QUICK)
    listed = load_video_list(videos, NAMES)
    rows = scores_in(tmp_path / "out")
    assert [row["path"] for row in rows] == list(listed.paths)
    stored = load_file(tmp_path / "out/logits.safetensors")
    assert np.array_equal(stored["labels"], listed.labels)
    for row, logits in zip(rows, stored["logits"][:, 0].astype(float), strict=True):
        shares = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-shares)
        assert [row[f"top{k}"] for k in (1, 2, 3)] == [NAMES[number] for number in order]
        assert float(row["score2"]) == pytest.approx(shares[order[1]])
    assert np.mean([row["top1"] == row["label"] for row in rows]) == result["top1"]
    assert not (tmp_path / "out/evaluation_partial").exists()


@pytest.fixture(scope="module")
def scored(videos, tmp_path_factory):
    """Files of scores of two models, of one view and of two."""
    place, files = tmp_path_factory.mktemp("scored"), []
    for seed in range(2):
        model, output = write_model(place / f"model{seed}", seed), place / f"scores{seed}"
        evaluate(model, videos, output_dir=output, clips=seed + 1, save_logits=True, **QUICK)
        files.append(output / "logits.safetensors")
    return files


@pytest.fixture
def two(scored, tmp_path):
    """Copies of both files."""
    return [Path(shutil.copy(file, tmp_path / f"{k}.safetensors")) for k, file in enumerate(scored)]


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_ensemble_averages_probabilities(two, videos, tmp_path, weights):
    args = ["ensemble", *map(str, two), "--output_dir", str(tmp_path / "both")]
    args += [] if weights is None else ["--weights", ",".join(map(str, weights))]
    assert main(args) == 0
    shares = []
    for file in two:
        logits = load_file(file)["logits"].astype(float)
        shares.append((np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(axis=1))
    mean = np.average(shares, axis=0, weights=weights)
    labels = load_video_list(videos, NAMES).labels
    result = json.loads((tmp_path / "both/ensemble.json").read_text())
    assert result["top1"] == np.mean(mean.argmax(axis=1) == labels)
    assert result["loss"] == pytest.approx(-np.log(mean[np.arange(11), labels]).mean())
    for member, share in zip(result["members"], shares, strict=True):
        assert member["top1"] == np.mean(share.argmax(axis=1) == labels)
    assert (tmp_path / "both/confusion.png").stat().st_size > 1000


def test_what_one_model_could_not_read_counts_as_wrong(two, tmp_path, capsys):
    stored, told = load_file(two[1]), metadata(two[1])
    stored["logits"][3] = np.nan
    save_file(stored, two[1], metadata=told)
    assert main(["ensemble", *map(str, two), "--output_dir", str(tmp_path / "both")]) == 0
    assert "10 of 11 listed videos evaluated" in capsys.readouterr().out


def metadata(file):
    from safetensors import safe_open

    with safe_open(file, "np") as stored:
        return stored.metadata()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(class_names=["pull", "push", "lift"]), "their classes stand in another order"),
        (dict(function="sigmoid"), "scores are made with softmax and with sigmoid"),
        (dict(paths=["a.mp4"] * 11), "the first video in which they differ is"),
        (dict(paths=["a.mp4"]), "is damaged: expected logits"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(two, tmp_path, capsys, change, message):
    told = metadata(two[1]) | {name: json.dumps(value) for name, value in change.items()}
    save_file(load_file(two[1]), two[1], metadata=told)
    assert main(["ensemble", *map(str, two), "--output_dir", str(tmp_path / "both")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_other_mistakes_with_ensembles_are_one_line(two, model, tmp_path, capsys):
    one, other = map(str, two)
    for words, message in (
        ([one], "two or more files, got 1"),
        ([one, other, "--weights", "1,2,3"], "a weight for each of 2 files, got 3"),
        ([one, str(model / "model.safetensors")], "is not a file of scores"),
        ([one, "nowhere"], "nowhere does not exist"),
    ):
        assert main(["ensemble", *words, "--output_dir", str(tmp_path / "both")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


# Going on


KILLED = """
import json, os, signal, sys
from lvt_ff.training import scoring
from lvt_ff.training.evaluate import evaluate
from lvt_ff.training.partial_scores import PartialScores

options, parts = json.loads(sys.argv[1])
scoring.SAVE_S = -1.0
save = PartialScores.save


def counted(self, part):
    global parts
    save(self, part)
    parts -= 1
    if not parts:
        os.kill(os.getpid(), signal.SIGKILL)


PartialScores.save = counted
evaluate(**options)
"""


def test_a_killed_evaluation_goes_on_to_the_same_results(model, videos, tmp_path, monkeypatch):
    options = dict(clips=2, views_per_forward=4, save_logits=True, **QUICK)
    expected = evaluate(model, videos, output_dir=tmp_path / "whole", **options)
    folder = tmp_path / "out"

    def again(**changes):
        return evaluate(model, videos, output_dir=folder, **{**options, **changes})

    stopped = dict(options, model=str(model), data=str(videos), output_dir=str(folder))
    command = [sys.executable, "-c", KILLED, json.dumps([stopped, 2])]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (folder / "evaluation.json").exists()
    with pytest.raises(UsageError, match="evaluation that was stopped: pass --resume to go on"):
        again()
    with pytest.raises(UsageError, match="Cannot go on .*clips was 2, is 3"):
        again(clips=3, resume=True)
    read = []
    item = EvalDataset.__getitem__
    monkeypatch.setattr(
        EvalDataset, "__getitem__", lambda self, index: read.append(index) or item(self, index)
    )
    assert again(resume=True) == expected
    assert read == list(range(4, 11))  # two parts of two videos were there
    assert scores_in(folder) == scores_in(tmp_path / "whole")
    ours, whole = (
        load_file(place / "logits.safetensors") for place in (folder, tmp_path / "whole")
    )
    assert all(np.array_equal(ours[name], whole[name]) for name in whole)
    assert not (folder / "evaluation_partial").exists()


def test_a_damaged_part_is_named(tmp_path):
    partial = PartialScores(tmp_path / "evaluation_partial", dict(clips=1))
    partial.begin()
    part = ScoredPart([dict(index=0, failure=None)], [dict(logits=np.zeros((1, 2), np.float32))])
    partial.save(part)
    (found,) = partial.parts()
    assert found.indices() == [0] and np.array_equal(found.tensors()["logits"], np.zeros((1, 2)))
    (file,) = partial.folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(Failure, match="00000000.safetensors is damaged"):
        partial.parts()


# What cannot be read, and what cannot be computed


@pytest.fixture
def half_bad(videos, tmp_path):
    """Four videos that can be read, and four that cannot."""
    for number, file in enumerate(sorted(videos.glob("*/*.mp4"))[:4]):
        for name, content in ((f"{number}.mp4", file.read_bytes()), (f"bad{number}.mp4", b"bad")):
            target = tmp_path / "data" / file.parent.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return tmp_path / "data"


def test_many_unreadable_videos_are_told_and_fail(model, half_bad, capsys):
    before = (model / "README.md").read_bytes()
    args = ["evaluate", "--model", str(model), "--data", str(half_bad), "--num_workers", "0"]
    assert main([*args, "--cpu"]) == 1
    captured = capsys.readouterr()
    assert "4 of 8 listed videos evaluated" in captured.out and "of those read" in captured.out
    assert captured.out.count("not read, counted as wrong: ") == 4
    assert "4 of 8 videos could not be read, more than --max_bad_fraction 0.05" in captured.err
    result = json.loads((model / "evaluation.json").read_text())
    assert result["of_read"]["top1"] == 2 * result["top1"]
    assert (model / "README.md").read_bytes() == before
    assert main([*args, "--cpu", "--max_bad_fraction", "0.5"]) == 0
    assert "4 of 8" in (model / "README.md").read_text()


def test_listed_videos_that_are_not_on_disk_are_told(model, videos, capsys):
    lines = [f"{file},{file.parent.name}" for file in sorted(videos.glob("*/*.mp4"))[:3]]
    listing = model / "list.csv"
    listing.write_text("\n".join(["path,label", *lines, "gone.mp4,push"]) + "\n")
    results = evaluate(model, listing, missing="skip", **QUICK)
    assert results["num_missing"] == 1 and results["num_listed"] == 3
    told = "3 of 4 listed videos evaluated, 1 not on disk and left out"
    assert told in capsys.readouterr().out
    assert "| 3 of 4 |" in (model / "README.md").read_text()


def test_one_unreadable_video_is_allowed_unless_none_is(model, half_bad):
    for file in sorted(half_bad.glob("*/bad*"))[1:]:
        file.unlink()
    assert evaluate(model, half_bad, **QUICK)["num_evaluated"] == 4
    with pytest.raises(Failure, match="1 of 5 videos could not be read"):
        evaluate(model, half_bad, max_bad_fraction=0.0, **QUICK)


def test_scores_that_are_not_numbers_are_no_result(model, videos, capsys):
    network = LVTFFForVideoClassification.from_pretrained(model)
    torch.nn.init.constant_(network.model.head.fc.weight, torch.finfo().max)  # scores overflow
    network.save_pretrained(model)
    args = ["evaluate", "--model", str(model), "--data", str(videos), "--num_workers", "0"]
    assert main([*args, "--cpu"]) == 1
    captured = capsys.readouterr()
    assert "scores are not numbers (NaN), first for" in captured.err
    assert "nan" not in captured.out.lower() and captured.err.count("\n") == 1
    names = {file.name for file in model.iterdir()}
    assert not names & {"evaluation.json", "evaluation_partial", "results.json"}


def test_a_view_that_is_no_number_is_not_hidden_by_the_others(model, videos, tmp_path, monkeypatch):
    forward = LVTFFForVideoClassification.forward

    def changed(self, *args, **options):
        output = forward(self, *args, **options)
        output.logits[1, 0] = -torch.inf  # not the central view; no mean of probabilities shows it
        return output

    monkeypatch.setattr(LVTFFForVideoClassification, "forward", changed)
    with pytest.raises(NotFinite, match="first for"):
        evaluate(model, videos, clips=3, output_dir=tmp_path, **QUICK)


def test_videos_that_no_process_scored_are_told(model, videos, tmp_path, monkeypatch):
    part = ScoredPart([dict(index=0, failure=("0.mp4", "bad"), damage=None, decoder=None)])
    monkeypatch.setattr(scoring, "_remaining", lambda *args: [])
    monkeypatch.setattr(PartialScores, "parts", lambda self: [part])
    with pytest.raises(Failure, match="10 of 11 videos were scored by no process"):
        evaluate(model, videos, output_dir=tmp_path, **QUICK)


def test_an_accuracy_of_the_largest_class_is_told(model, videos, tmp_path, capsys):
    network = LVTFFForVideoClassification.from_pretrained(model)
    torch.nn.init.constant_(network.model.head.fc.weight, 0)
    network.model.head.fc.bias.data = torch.tensor([1.0, 0.0, 0.0])
    network.save_pretrained(model)
    result = evaluate(model, videos, **QUICK)
    assert result["top1"] == result["majority_share"] == 4 / 11
    assert result["mean_class_accuracy"] == pytest.approx(1 / 3)
    out = capsys.readouterr().out
    assert "No better than always answering 'push', the largest class." in out
    assert "mean class accuracy 33.33 %" in out and "share of the largest class 36.36 %" in out


def test_of_many_classes_the_best_and_the_worst_are_printed(capsys):
    rows = [dict(name=f"class {k}", num_videos=2, top1=k / 99) for k in range(100)]
    results = dict(protocol="…", top1=0.5, majority_share=0.01, majority_class="class 0")
    results |= dict(num_listed=200, num_evaluated=200, failures=[], damaged=[], classes=rows)
    print_report(results)
    out = capsys.readouterr().out
    assert "90 more in evaluation.json" in out
    for number in (0, 4, 95, 99):
        assert f"videos  class {number}\n" in out
    assert "class 5\n" not in out and "class 94\n" not in out


# The card


def test_card_and_record_follow_an_evaluation(model, videos, tmp_path, capsys):
    evaluate(model, videos, output_dir=tmp_path / "elsewhere", clips=3, **QUICK)
    assert (model / "README.md").read_text().count("|") == 0
    assert not (model / "results.json").exists()
    first = evaluate(model, videos, **QUICK)
    once = (model / "README.md").read_text()
    evaluate(model, videos, **QUICK)
    assert (model / "README.md").read_text() == once
    assert "Not measured" not in once and "## Limits\n\nMany.\n" in once
    second = evaluate(model, videos, clips=2, crops=3, **QUICK)
    card = ModelCard.load(model / "README.md")
    lines = [line for line in card.text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    for result, line in zip((first, second), lines[2:], strict=True):
        assert f"{100 * result['top1']:.2f} % (" in line and result["protocol"] in line
        assert "| 11 of 11 |" in line
    shown = {found.metric_name: found.metric_value for found in card.data.eval_results}
    for result in (first, second):
        assert shown[f"top-1 ({result['protocol']})"] == round(100 * result["top1"], 2)
    assert card.data.license == "mit"
    files = pushed_files(model)
    assert {"README.md", "results.json", "confusion.png"} <= files.keys()
    record = json.loads(files["results.json"])
    assert [one["protocol"] for one in record["evaluations"]] == [
        *(first["protocol"], second["protocol"])
    ]
    assert record["evaluations"][0]["data"] == videos.name  # no folders of this machine
    assert record["evaluations"][0]["decoders"].keys() <= {"torchcodec", "decord", "pyav"}
    assert sum(d["num_videos"] for d in record["evaluations"][0]["decoders"].values()) == 11


def test_figures_of_other_weights_leave_the_card(model, videos):
    evaluate(model, videos, **QUICK)
    network = LVTFFForVideoClassification.from_pretrained(model)
    network.model.head.fc.weight.data.neg_()
    network.save_pretrained(model)
    evaluate(model, videos, clips=2, **QUICK)
    card = ModelCard.load(model / "README.md")
    assert card.text.count("| 11 of 11 |") == 1
    assert {r.metric_name.partition(" (")[2][:6] for r in card.data.eval_results} == {"2 clip"}


def test_other_words_and_figures_of_a_card_stay(tmp_path):
    evaluation = dict(protocol="1 clip", data="/data/test", videos="v", weights="w", top1=0.5)
    evaluation |= dict(num_listed=4, num_evaluated=4)
    text = CARD.replace(
        "license: mit",
        "license: mit\nmodel-index: [{name: m, results: [{task: "
        "{type: x}, dataset: {type: d, name: D}, metrics: [{type: acc, value: 1, name: n}]}]}]",
    )
    text = text.replace("Not measured.", "Before.\n\n| a |\n|---|\n| 1 |\n\nAfter.")
    (tmp_path / "README.md").write_text(text)
    assert add_evaluation(tmp_path, evaluation) == ["results.json", "README.md"]
    card = ModelCard.load(tmp_path / "README.md")
    assert [found.metric_name for found in card.data.eval_results] == ["n", "top-1 (1 clip)"]
    body = card.text.partition("## Results\n")[2].partition("## Limits")[0]
    assert body.startswith("\nBefore.\n\n| data | top-1 |") and body.endswith("|\n\nAfter.\n\n")
    assert "| test | 50.00 % | 1 clip | 4 of 4 |" in body and "| 1 |" not in body
    (tmp_path / "README.md").write_text("# no results part\n")
    add_evaluation(tmp_path, evaluation)
    add_evaluation(tmp_path, dict(evaluation, protocol="2 clips"))
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines.count("## Results") == 1 and len([x for x in lines if x.startswith("| test")]) == 2


def test_a_damaged_card_is_left_as_it_is(model, videos, capsys):
    (model / "README.md").write_text("---\n: [\n---\n")
    record = (model / "results.json").read_text() if (model / "results.json").exists() else None
    assert evaluate(model, videos, **QUICK)["num_evaluated"] == 11
    assert "left as they are" in capsys.readouterr().out
    assert (model / "README.md").read_text() == "---\n: [\n---\n"
    after = (model / "results.json").read_text() if (model / "results.json").exists() else None
    assert after == record
