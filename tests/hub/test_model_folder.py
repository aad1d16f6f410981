"""What loading a model folder says: nothing of a new classifier that is meant, all of the rest."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def test_anything_else_is_reported_as_before(folder, said):
    changed(folder, lambda tensors: tensors.update(surplus=torch.zeros(3)))
    build_model(str(folder), ["a", "b"])
    assert len(said) == 1 and "surplus" in said[0] and "UNEXPECTED" in said[0]
    said.clear()
    changed(folder, lambda tensors: tensors.pop("blocks.0.attn.qkv.weight"))
    with pytest.raises(ValueError, match="lacks weights: 1 tensors"):
        build_model(str(folder), ["a", "b"])
    assert len(said) == 1 and "blocks.0.attn.qkv.weight" in said[0] and "MISSING" in said[0]


def test_a_classifier_that_does_not_fit_is_reported_where_none_is_wanted(folder, said):
    with pytest.raises(ValueError, match="lacks weights"):
        load_folder(folder, id2label={0: "a", 1: "b"})
    assert len(said) == 1 and "model.head.fc.weight" in said[0] and "MISMATCH" in said[0]
