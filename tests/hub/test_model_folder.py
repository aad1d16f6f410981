"""What loading a model folder says: nothing of a new classifier that is meant, all of the rest."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel
from lvt_ff.hub.model_folder import build_model, load_folder


@pytest.fixture
def said():
    """What transformers logs."""
    lines = []

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    listener = Listener(level=logging.WARNING)
    logging.getLogger("transformers").addHandler(listener)
    yield lines
    logging.getLogger("transformers").removeHandler(listener)


@pytest.fixture
def folder(hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def changed(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_libraries_own_calls_raise_no_alarm_either(folder, said):
    LVTFFForVideoClassification.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert not any("incompatible" in line for line in said)
    said.clear()
    LVTFFModel.from_pretrained(folder)
    assert said == []


@pytest.mark.parametrize("class_names", [["a", "b"], ["push", "pull", "drop"]])
def test_a_new_classifier_is_no_alarm(class_names, folder, hf_model, said):
    model, _, origin = build_model(str(folder), class_names)
    assert said == [] and origin.endswith(f"a new classifier for {len(class_names)} classes")
    assert model.config.class_names == tuple(class_names)
    assert model.model.head.fc.weight.shape[0] == len(class_names)
    block, loaded = hf_model.model.blocks[0], model.model.blocks[0]
    assert torch.equal(block.attn.qkv.weight, loaded.attn.qkv.weight)


def test_a_classifier_for_a_folder_without_one_is_no_alarm(folder, said):
    changed(folder, lambda tensors: [tensors.pop(n) for n in list(tensors) if "head.fc" in n])
    build_model(str(folder), ["a", "b", "c", "d"])
    assert said == []


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensors: tensors.update(surplus=torch.zeros(3)), "1 tensors without a place"),
        (lambda tensors: tensors.pop("blocks.0.attn.qkv.weight"), "lack 1 tensors"),
        (lambda tensors: tensors.update(pos_embed=torch.zeros(1, 2, 32)), "of another shape"),
    ],
)
def test_anything_else_is_refused(folder, change, words):
    changed(folder, change)
    with pytest.raises(ValueError, match=words):
        build_model(str(folder), ["a", "b"])


def test_parts_that_options_add_are_new_and_told(folder, hf_model, said, caplog):
    model, *_ = build_model(str(folder), ["a", "b"], local_concentration=True)
    assert said == [] and "33 tensors are not in" in caplog.text and "local.bn" in caplog.text
    assert (model.model.blocks[0].local.bn.weight == 1).all()
    ours, stored = model.model.blocks[0].attn.qkv, hf_model.model.blocks[0].attn.qkv
    assert torch.equal(ours.weight, stored.weight)


def test_parts_that_options_take_away_are_refused(tmp_path):
    config = LVTFFConfig.from_variant("test_lvt_ff", fixation="own", num_labels=2)
    LVTFFForVideoClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tensors without a place in it, such as .*fixation"):
        LVTFFForVideoClassification.from_pretrained(tmp_path, fixation="none")


def test_a_classifier_that_does_not_fit_is_refused_where_none_is_wanted(folder):
    with pytest.raises(ValueError, match="a classifier of 3 classes, expected 2"):
        load_folder(folder, id2label={0: "a", 1: "b"})
