"""Names of classes reach every place, however a configuration numbers them."""

import json
import shutil

import pytest
import timm
import torch
from conftest import random_frames
from transformers import pipeline

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.app.result_page import make_result_page
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.explain.explain import explain_video
from lvt_ff.hub.model_folder import load_folder, stored_classes
from lvt_ff.inference.classifier import Classifier
from lvt_ff.inference.export import description
from lvt_ff.schema import ordered_names

# As a configuration file may have them; the names of the outputs are always these.
NAMES = ("push", "pull", "lift")
TABLES = {
    "text": {"0": "push", "1": "pull", "2": "lift"},
    "from one": {1: "push", 2: "pull", 3: "lift"},
    "text from one": {"1": "push", "2": "pull", "3": "lift"},
    "gaps": {0: "push", 4: "pull", 9: "lift"},
    "unsorted text": {"10": "pull", "9": "push", "11": "lift"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder whose classes are numbered from 0, and a video."""
    folder = tmp_path_factory.mktemp("labels")
    torch.manual_seed(0)
    config = LVTFFConfig.from_variant("test_lvt_ff", id2label=dict(enumerate(NAMES)))
    model = LVTFFForVideoClassification(config)
    torch.nn.init.normal_(model.model.head.fc.bias)
    model.save_pretrained(folder / "model")
    LVTFFVideoProcessor.from_config(config).save_pretrained(folder / "model")
    write_video(folder / "clip.mp4", random_frames(10, 80, 96))
    return folder


def edited(plain, folder, **changes):
    shutil.copytree(plain / "model", folder / "model")
    config = json.loads((folder / "model/config.json").read_text()) | changes
    (folder / "model/config.json").write_text(json.dumps(config))
    return folder / "model"


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_names_are_in_the_order_of_their_numbers(table):
    assert ordered_names(table) == list(NAMES)
    inverse = {name: number for number, name in table.items()}
    for labels in (dict(id2label=table), dict(id2label=table, label2id=inverse)):
        config = LVTFFConfig.from_variant("test_lvt_ff", **labels)
        assert config.class_names == NAMES and config.num_labels == 3
        assert config.id2label == dict(enumerate(NAMES))
        assert config.label2id == {name: number for number, name in enumerate(NAMES)}
    assert LVTFFConfig(label2id=inverse).class_names == NAMES
    config.id2label = table  # without validation
    assert config.class_names == NAMES and config.timm_keys()["label_names"] == list(NAMES)


@pytest.mark.parametrize("name", ["from one", "gaps"])  # all are text in a file
def test_names_reach_every_place(plain, tmp_path, capsys, name):
    table = TABLES[name]
    expected = {
        row["label"]: row["score"] for row in Classifier(plain / "model")(plain / "clip.mp4")
    }
    inverse = {name: int(number) for number, name in table.items()}
    folder = edited(plain, tmp_path, id2label=table, label2id=inverse)
    clip = str(plain / "clip.mp4")
    assert main(["predict", clip, "--model", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    by_pipeline = pipeline("video-classification", model=str(folder), device="cpu")(clip)
    for rows in (found, by_pipeline):
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(expected, abs=1e-5)
    classify = Classifier(folder, "cpu")
    page = make_result_page(classify, clip, 12.0)
    assert page.best_classes == pytest.approx(expected, abs=1e-5) and "Over time" in page.html
    for name in NAMES:
        assert explain_video(classify, clip, name).score == pytest.approx(expected[name], abs=1e-5)
    output = description(classify.model.config, classify.processor)["output"]
    assert output["classes"] == list(NAMES)
    assert stored_classes(str(folder)) == NAMES
    model, processor = load_folder(folder)
    model.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again/config.json").read_text())
    assert saved["label_names"] == list(NAMES)
    assert saved["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
    from_timm = timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True)
    assert from_timm.num_classes == 3


def test_evaluation_finds_classes_that_count_from_one(plain, tmp_path, capsys):
    folder = edited(plain, tmp_path, id2label=TABLES["from one"], label2id=None)
    best = Classifier(folder, "cpu")(plain / "clip.mp4")[0]["label"]
    (tmp_path / "a.csv").write_text(f"path,label\n{plain / 'clip.mp4'},{best}\n")
    options = ["--data", str(tmp_path / "a.csv"), "--output_dir", str(tmp_path), "--cpu"]
    assert main(["evaluate", "--model", str(folder), "--num_workers", "0", *options]) == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["top1"] == 1


def test_classes_without_a_name_are_numbered(plain, tmp_path):
    names = {0: "push", 2: "lift"}
    with_gap = ("push", "LABEL_1", "lift")
    assert tuple(ordered_names(names, 3)) == with_gap
    assert LVTFFConfig(id2label=names, num_labels=3).class_names == with_gap
    folder = edited(plain, tmp_path, id2label=names, label2id=None)  # timm's part says 3 classes
    assert load_folder(folder)[0].config.class_names == with_gap
    shutil.rmtree(folder)
    folder = edited(
        plain,
        tmp_path,
        model_type="timm_wrapper",
        id2label=None,
        label_names={"0": "push", "2": "lift"},
    )
    assert LVTFFConfig.from_pretrained(folder).class_names == with_gap
    shutil.rmtree(folder)
    folder = edited(plain, tmp_path, label_names=["push"])
    with pytest.raises(ValueError, match="number of classes must be the same.*label_names 1"):
        LVTFFConfig.from_pretrained(folder)
    config = LVTFFConfig.from_pretrained(plain / "model", num_labels=4)  # another classifier
    assert config.class_names == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
