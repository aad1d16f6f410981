"""Models of other problems than one class a clip: every command shows what the pipeline shows."""

import json

import gradio
import numpy as np
import pytest
import torch
from conftest import random_frames
from transformers import pipeline

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.app.result_page import make_result_page
from lvt_ff.app.server import UploadHandler, build_page
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.explain import figures
from lvt_ff.explain.explain import explain_video
from lvt_ff.explain.relevance import deletion_curve
from lvt_ff.hf.scores import format_score, score_function, scores_from_logits
from lvt_ff.hub.model_folder import build_model
from lvt_ff.inference.classifier import Classifier
from lvt_ff.inference.export import description
from lvt_ff.training.finetune import finetune

PROBLEMS = {
    None: ("softmax", ["push", "pull", "lift"]),
    "single_label_classification": ("softmax", ["push", "pull", "lift"]),
    "multi_label_classification": ("sigmoid", ["push", "pull", "lift"]),
    "regression": ("none", ["speed"]),
}
OTHERS = ["multi_label_classification", "regression"]


def model_folder(folder, problem_type, names):
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant(
        "test_lvt_ff", id2label=dict(enumerate(names)), problem_type=problem_type
    )
    model = LVTFFForVideoClassification(config)
    torch.nn.init.normal_(model.model.head.fc.bias, std=3)
    model.save_pretrained(folder)
    LVTFFVideoProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model folder of each problem, and one that predicts several numbers."""
    place = tmp_path_factory.mktemp("problems")
    for problem_type, (_, names) in PROBLEMS.items():
        model_folder(place / str(problem_type), problem_type, names)
    model_folder(place / "several", "regression", ["speed", "height", "width"])
    return place


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    place = tmp_path_factory.mktemp("videos")
    for seed in range(4):
        write_video(place / f"{seed}.mp4", random_frames(12, 80, 96, seed), fps=1)
    return place


def test_scores_are_those_of_each_problem():
    logits = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.bfloat16)
    expected = dict(softmax=logits.float().softmax(-1), sigmoid=logits.float().sigmoid())
    for problem_type, (function, _) in PROBLEMS.items():
        config = LVTFFConfig(problem_type=problem_type, num_labels=3)
        assert score_function(config) == function
        found = scores_from_logits(logits, function)
        torch.testing.assert_close(found, expected.get(function, logits.float()))
    assert format_score(0.123, "sigmoid") == "12.3 %" and format_score(-3.25, "none") == "-3.25"


@pytest.mark.parametrize("name", [*map(str, PROBLEMS), "several"])
def test_predict_shows_what_the_pipeline_shows(folders, videos, capsys, name):
    video, folder = str(videos / "0.mp4"), str(folders / name)
    expected = pipeline("video-classification", model=folder, device="cpu")(video)
    assert main(["predict", video, "--model", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    for row, like in zip(found, expected, strict=True):
        assert row["score"] == pytest.approx(like["score"], abs=1e-4)
    assert main(["predict", video, "--model", folder, "--crops", "2"]) == 0
    shown = capsys.readouterr().out
    assert ("%" in shown) == (score_function(LVTFFConfig.from_pretrained(folder)) != "none")


@pytest.mark.parametrize("problem_type", OTHERS)
def test_explanations_and_curves_have_the_problem_s_scores(
    folders, videos, tmp_path, capsys, monkeypatch, problem_type
):
    classify = Classifier(folders / problem_type, "cpu")
    video = videos / "0.mp4"
    best = classify(video)[0]
    explained = explain_video(classify, video)
    assert explained.label == best["label"]
    assert explained.score == pytest.approx(best["score"], abs=1e-5)
    relevant = torch.from_numpy(explained.relevance).flatten(1)[None]
    number = classify.model.config.label2id[best["label"]]
    curve = deletion_curve(classify.model, explained.clip, torch.tensor([number]), relevant)
    assert curve[0, 0].item() == pytest.approx(best["score"], abs=1e-5)
    plots, draw_plot = [], figures._draw_plot

    def noting(axis, **plot):
        plots.append(plot)
        draw_plot(axis, **plot)

    monkeypatch.setattr(figures, "_draw_plot", noting)
    for name in ("a.png", "a.gif"):
        files = (str(video), "--model", str(classify.model.config.name_or_path))
        assert main(["explain", *files, "--output", str(tmp_path / name)]) == 0
        shown = format_score(best["score"], classify.score_function)
        assert f"{best['label']}: {shown}; wrote" in capsys.readouterr().out
    factor = 1 if problem_type == "regression" else 100
    bars = [plot["bars"] for plot in plots if "bars" in plot]
    assert len(bars) > 1  # on the sheet, and below every frame of the animation
    for bar in bars:
        assert bar[0] == (best["label"], pytest.approx(factor * best["score"], abs=1e-3))


@pytest.mark.parametrize("name", [*OTHERS, "several"])
def test_page_shows_the_problem_s_scores(folders, videos, name):
    classify = Classifier(folders / name, "cpu")
    best = classify(videos / "0.mp4")
    found = make_result_page(classify, videos / "0.mp4", 12.0)
    if name == OTHERS[0]:
        for row in best:
            assert found.best_classes[row["label"]] == pytest.approx(row["score"], abs=1e-5)
    else:
        values = [f"{row['label']}: {format_score(row['score'], 'none')}" for row in best]
        assert found.best_classes == ", ".join(values)
    scores = classify.scores_over_time(videos / "0.mp4", 2)
    assert scores.shape == (2, len(best)) and not torch.allclose(scores.sum(1), torch.ones(2))
    assert "Over time: 2 parts" in found.html
    handler = UploadHandler({"model": classify}, videos, {"0": videos / "0.mp4"}, 10, 60)
    assert handler.handle_sample("0")[1] == found.best_classes
    blocks = build_page(handler).blocks.values()
    (label,) = (block for block in blocks if isinstance(block, gradio.Label))
    shown = label.postprocess(found.best_classes)
    assert shown.label == (best[0]["label"] if name == OTHERS[0] else found.best_classes)


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_exported_files_say_how_scores_are_made(folders, problem_type):
    folder = folders / str(problem_type)
    config = LVTFFConfig.from_pretrained(folder)
    output = description(config, LVTFFVideoProcessor.from_pretrained(folder))["output"]
    function, names = PROBLEMS[problem_type]
    assert output["problem_type"] == problem_type and output["classes"] == names
    assert output["score_function"] == function


def evaluation(folder, data, output):
    options = ["--model", str(folder), "--data", str(data), "--output_dir", str(output)]
    return main(["evaluate", *options, "--num_workers", "0", "--cpu", "--crops", "2"])


def test_evaluation_of_several_labels_is_average_precision(folders, videos, tmp_path, capsys):
    labels = {0: ["push"], 1: ["lift", "push"], 2: ["lift"], 3: ["push"]}
    rows = [f"{videos / str(n)}.mp4,{label}" for n, these in labels.items() for label in these]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows]))
    assert evaluation(folders / OTHERS[0], tmp_path / "a.csv", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "mean average precision" in shown and "top-1" not in shown
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert result["num_evaluated"] == result["num_listed"] == 4
    assert [(row["name"], row["num_videos"]) for row in result["classes"]] == [
        *(("push", 3), ("lift", 2))
    ]
    classify = Classifier(folders / OTHERS[0], "cpu", num_crops=2)
    scores = [
        {row["label"]: row["score"] for row in classify(videos / f"{number}.mp4")}
        for number in labels
    ]
    sklearn = pytest.importorskip("sklearn.metrics")
    for row in result["classes"]:
        expected = sklearn.average_precision_score(
            [row["name"] in these for these in labels.values()], [s[row["name"]] for s in scores]
        )
        assert row["average_precision"] == pytest.approx(expected)
    mean = np.mean([row["average_precision"] for row in result["classes"]])
    assert result["mean_average_precision"] == pytest.approx(mean)
    assert not (tmp_path / "confusion.png").exists()


def test_evaluation_of_numbers_is_their_error(folders, videos, tmp_path, capsys):
    values = [0.5, -2, 3, 1e1]
    rows = [f"{videos / str(number)}.mp4,{value}" for number, value in enumerate(values)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    rows.append(f"{tmp_path / 'bad.mp4'},1")
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows]))
    assert evaluation(folders / "regression", tmp_path / "a.csv", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "mean absolute error" in shown and "top-1" not in shown and "left out" in shown
    result = json.loads((tmp_path / "evaluation.json").read_text())
    classify = Classifier(folders / "regression", "cpu", num_crops=2)
    predicted = [classify(videos / f"{number}.mp4")[0]["score"] for number in range(4)]
    difference = np.subtract(predicted, values)
    assert result["mean_absolute_error"] == pytest.approx(abs(difference).mean(), abs=1e-4)
    rms = np.sqrt((difference**2).mean())
    assert result["root_mean_square_error"] == pytest.approx(rms, abs=1e-4)
    assert (result["num_listed"], result["num_evaluated"]) == (5, 4)


@pytest.mark.parametrize("name", OTHERS)
def test_evaluation_without_a_readable_video_fails(folders, tmp_path, capsys, name):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    label = dict(zip(OTHERS, ("lift", "1.5"), strict=True))[name]
    (tmp_path / "a.csv").write_text(f"path,label\nbad.mp4,{label}\n")
    assert evaluation(folders / name, tmp_path / "a.csv", tmp_path) == 1
    assert "None of the 1 videos" in capsys.readouterr().err
    assert "NaN" not in (tmp_path / "evaluation.json").read_text()


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("regression", "fast", "has the label 'fast' for 0.mp4"),
        ("regression", "nan", "has the label 'nan' for 0.mp4"),
        ("several", "1", "predicts 3 numbers for a video"),
        ("multi_label_classification", "fly", "has classes that the model does not: ['fly']"),
    ],
)
def test_labels_of_another_problem_are_one_line(
    folders, videos, tmp_path, capsys, name, label, message
):
    (tmp_path / "a.csv").write_text(f"path,label\n{videos / '0.mp4'},{label}\n")
    assert evaluation(folders / name, tmp_path / "a.csv", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert evaluation(folders / "regression", videos, tmp_path) == 2
    assert "its problem_type is regression): give a CSV file" in capsys.readouterr().err


@pytest.mark.parametrize("problem_type", OTHERS)
def test_fine_tuning_makes_a_model_of_one_class_a_clip(folders, videos, tmp_path, problem_type):
    model, *_ = build_model(str(folders / problem_type), ["a", "b"])
    assert model.config.problem_type is None
    rows = [f"{videos / str(number)}.mp4,{'ab'[number % 2]}" for number in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows]))
    finetune(
        model=str(folders / problem_type),
        train_data=tmp_path / "a.csv",
        eval_data=tmp_path / "a.csv",
        output_dir=tmp_path / "out",
        epochs=1,
        num_workers=0,
        cpu=True,
    )
    assert LVTFFConfig.from_pretrained(tmp_path / "out").problem_type is None
    best = Classifier(tmp_path / "out", "cpu")(videos / "0.mp4")
    assert sum(row["score"] for row in best) == pytest.approx(1)


def test_scores_that_are_not_numbers_are_one_line(folders, videos, tmp_path, capsys):
    model = LVTFFForVideoClassification.from_pretrained(folders / "None")
    torch.nn.init.constant_(model.model.head.fc.weight, torch.finfo().max)  # scores overflow
    model.save_pretrained(tmp_path / "model")
    for options in (["--json"], []):
        files = (str(videos / "0.mp4"), "--model", str(tmp_path / "model"))
        assert main(["predict", *files, *options]) == 1
        captured = capsys.readouterr()
        assert "not numbers" in captured.err and "nan" not in captured.out.lower()
    handler = UploadHandler(
        {"model": Classifier(tmp_path / "model", "cpu")}, videos, {"0": videos / "0.mp4"}, 10, 60
    )
    assert "not numbers" in handler.handle_sample("0")[0]
