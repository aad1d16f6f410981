"""A folder that was changed anywhere between pixels and scores is told from the one written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForVideoClassification

from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel, LVTFFVideoProcessor
from lvt_ff.cli import main
from lvt_ff.hub.model_folder import write_model_folder
from lvt_ff.hub.push import pushed_files
from lvt_ff.hub.verify import TOLERANCES, verify
from lvt_ff.utils.errors import Failure

FILE = "verification.safetensors"


@pytest.fixture
def folder(hf_model, tmp_path):
    processor = LVTFFVideoProcessor.from_config(hf_model.config)
    write_model_folder(tmp_path / "model", hf_model, processor, ModelCard("---\n---\n# x\n"), {})
    return tmp_path / "model"


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def verified(folder, capsys, *flags):
    """The exit status, what was printed, and what was complained of."""
    status = main(["verify", str(folder), *flags])
    return status, *capsys.readouterr()


def test_a_folder_is_what_it_was(folder, capsys):
    status, out, err = verified(folder, capsys)
    assert status == 0 and err == "" and "gives for 2 made-up clips what it gave" in out
    lines = [line.split()[0] for line in out.splitlines()]
    assert lines[:6] == ["preprocessing", "patch_embed", "block", "block", "block", "norm"]
    assert (folder / FILE).stat().st_size < 100_000


def test_a_folder_is_the_same_on_a_cpu_with_other_instructions(folder):
    command = [sys.executable, "-m", "lvt_ff", "verify", str(folder)]
    other = dict(os.environ, ATEN_CPU_CAPABILITY="default")
    done = subprocess.run(command, env=other, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gives for 2 made-up clips what it gave" in done.stdout


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_precision_has_a_tolerance_of_its_own(folder, dtype):
    errors = {stage.name: stage.error for stage in verify(str(folder), dtype=dtype)}
    scores = errors.pop("scores")
    exact = {stage.name: stage.error for stage in verify(str(folder))}["scores"]
    assert scores <= TOLERANCES[dtype] and (scores > 10 * exact) == (dtype != "float32")


def one_weight(tensors):
    tensors["blocks.2.mlp.fc1.weight"][3, 5] += 0.3


def swapped_rows(tensors):
    tensors["head.fc.weight"] = tensors["head.fc.weight"][[1, 0, 2]].contiguous()


def shifted_embedding(tensors):
    tensors["temp_embed"] = tensors["temp_embed"].roll(1, 1).contiguous()


@pytest.mark.parametrize(
    "change, place, cause",
    [
        (one_weight, "block 2", "other weights of that block"),
        (swapped_rows, "scores", "other weights of the head, or classes in another order"),
        (shifted_embedding, "patch_embed", "embeddings of places and times"),
        (lambda tensors: tensors["norm.bias"].add_(0.1), "norm", "other weights of the last norm"),
    ],
)
def test_the_first_stage_with_other_weights_is_named(folder, capsys, change, place, cause):
    change_weights(folder, change)
    status, out, err = verified(folder, capsys)
    assert status == 1 and f"differs first at {place}: " in err and cause in err
    (first, *_) = [line for line in out.splitlines() if line.endswith("differs")]
    assert first.startswith(place)


@pytest.mark.parametrize(
    "name, value",
    [("image_mean", [0.4, 0.5, 0.5]), ("image_std", [0.5, 0.5, 0.6]), ("resample", 0)],
)
def test_other_preprocessing_is_named(folder, capsys, name, value):
    change_json(folder, "video_preprocessor_config.json", lambda file: file.update({name: value}))
    status, _, err = verified(folder, capsys)
    assert status == 1 and "differs first at preprocessing: another mean" in err


def test_class_names_in_another_order_are_named(folder, capsys):
    def swap(config):
        labels = config["id2label"]
        labels["0"], labels["1"] = labels["1"], labels["0"]
        config["label2id"] = {name: int(number) for number, name in labels.items()}
        config.pop("label_names", None)

    change_json(folder, "config.json", swap)
    status, _, err = verified(folder, capsys)
    assert status == 1 and "other classes: the same ones in another order" in err, err


def test_weights_that_are_not_numbers_are_named(folder, capsys):
    change_weights(folder, lambda tensors: tensors["blocks.1.mlp.fc1.bias"].fill_(torch.nan))
    status, out, err = verified(folder, capsys)
    assert status != 0 and "blocks.1.mlp.fc1.bias must hold finite numbers" in err
    assert "what it gave" not in out


def test_a_model_that_gives_no_numbers_is_not_written(hf_model, tmp_path):
    torch.nn.init.constant_(hf_model.model.blocks[1].mlp.fc2.weight, torch.finfo().max)
    processor = LVTFFVideoProcessor.from_config(hf_model.config)
    with pytest.raises(Failure, match=r"not numbers \(NaN\), first at block 1: "):
        write_model_folder(tmp_path / "model", hf_model, processor, ModelCard("---\n---\n"), {})
    assert not (tmp_path / "model").exists()


def test_models_of_another_shape_and_folders_without_the_file_are_refused(folder, capsys):
    config = LVTFFConfig.from_variant("test_lvt_ff", depth=2, num_labels=3)
    LVTFFForVideoClassification(config).save_pretrained(folder)
    status, _, err = verified(folder, capsys)
    assert status == 2 and "has another shape" in err
    (folder / FILE).write_bytes(b"damaged")
    assert "is damaged" in verified(folder, capsys)[2]
    (folder / FILE).unlink()
    status, _, err = verified(folder, capsys)
    assert status == 2 and "has no verification.safetensors" in err and err.count("\n") == 1
    status, _, err = verified(folder, capsys, "--device", "warp9")
    assert status == 2


@pytest.mark.parametrize("fields", [dict(global_pool=""), dict(in_chans=2)], ids=str)
def test_folders_of_unusual_models_are_verified(tmp_path, capsys, fields):
    config = LVTFFConfig.from_variant("test_lvt_ff", num_labels=2, **fields)
    processor = LVTFFVideoProcessor.from_config(config)
    if "in_chans" in fields:
        processor.image_mean, processor.image_std = [0.5] * 2, [0.5] * 2
    model = LVTFFForVideoClassification(config)
    write_model_folder(tmp_path, model, processor, ModelCard("---\n---\n"), {})
    status, _, err = verified(tmp_path, capsys)
    assert status == 0, err


def test_a_folder_without_a_classifier_is_verified(tmp_path, capsys):
    model = LVTFFModel(LVTFFConfig.from_variant("test_lvt_ff"))
    processor = LVTFFVideoProcessor.from_config(model.config)
    write_model_folder(tmp_path, model, processor, ModelCard("---\n---\n"), {})
    assert verified(tmp_path, capsys)[0] == 0
    change_weights(tmp_path, one_weight)
    assert "differs first at block 2" in verified(tmp_path, capsys)[2]


def test_the_file_is_pushed_and_no_library_takes_it_for_weights(folder, hf_model, clip):
    assert FILE in pushed_files(folder)
    expected = hf_model(clip).logits
    found = AutoModelForVideoClassification.from_pretrained(folder).eval()(clip).logits
    torch.testing.assert_close(found, expected)
    found = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(clip)
    torch.testing.assert_close(found, expected)
    assert Path(folder, FILE).is_file()


def test_writing_leaves_the_model_as_it_was(hf_model, tmp_path, clip):
    hf_model.train()
    before = {name: tensor.clone() for name, tensor in hf_model.state_dict().items()}
    processor = LVTFFVideoProcessor.from_config(hf_model.config)
    state = torch.random.get_rng_state()
    write_model_folder(tmp_path, hf_model, processor, ModelCard("---\n---\n"), {})
    assert torch.equal(state, torch.random.get_rng_state())
    assert hf_model.training and all(
        torch.equal(tensor, before[name]) for name, tensor in hf_model.state_dict().items()
    )
