"""What leaves this machine: files that writers of model folders wrote, and no path of theirs."""

import json
import os
import shutil

import pytest
import torch
from hub_server import TOKEN
from huggingface_hub import ModelCard

import lvt_ff
from lvt_ff.app.hf_space import write_space
from lvt_ff.cli import main
from lvt_ff.hub.local_paths import local_paths, without_paths
from lvt_ff.hub.model_folder import write_model_folder
from lvt_ff.inference.classifier import Classifier

NAME = "someone/waves"
MODEL = {
    "README.md",
    "config.json",
    "lvt_ff_import.py",
    "model.safetensors",
    "results.json",
    "verification.safetensors",
    "video_preprocessor_config.json",
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    size = dict(depth=1, num_frames=2, img_size=32, head_hidden=16, num_labels=2)
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", **size)
    return lvt_ff.LVTFFForVideoClassification(config)


@pytest.fixture
def folder(network, tmp_path):
    """As fine-tuning writes one, with settings that name places of this machine."""
    place = tmp_path / "home/me/runs/waves"
    settings = dict(
        train_data=f"{tmp_path}/home/me/my videos/train",
        eval_data=None,
        output_dir=str(place),
        model="test_lvt_ff",
    )
    records = {
        "results.json": dict(
            settings=settings,
            start=f"weights of {tmp_path}/home/me/start (from {tmp_path}/x.pth) with a new head",
            epochs=[dict(eval_failures=[dict(path=f"{tmp_path}/a b.mp4", reason="no video")])],
            ratio="8 / 2, and/or 1/255",
            address="https://huggingface.co/someone/waves",
        )
    }
    lines = [f"- {key}: `{value}`" for key, value in settings.items()]
    card = ModelCard("\n".join(["---", "license: mit", "---", "# waves", "ORG/NAME", *lines, ""]))
    processor = lvt_ff.LVTFFVideoProcessor.from_config(network.config)
    write_model_folder(place, network, processor, card, records)
    return place


@pytest.fixture
def hub_of_mine(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def files_at(hub):
    repository = hub.repositories[NAME]
    return repository.commits[repository.resolve("main")]


def push(*args):
    return main(["push", *map(str, args)])


def test_what_writers_did_not_write_stays_here(hub_of_mine, folder):
    others = ["secret.png", ".hidden.png", "model.safetensors.bak", "model-old.safetensors"]
    others += ["model-00001-of-0000x.safetensors", "optimizer.pt", ".env", "notes.md", "a.json"]
    for name in others:
        (folder / name).write_bytes(b"\x89PNG")
    (folder / "checkpoints").mkdir()
    for name in ("curve.png", "confusion.png"):
        (folder / name).write_bytes(b"\x89PNG")
    assert push(folder, NAME) == 0
    assert set(files_at(hub_of_mine)) == MODEL | {"curve.png", "confusion.png"}


@pytest.mark.parametrize("name", ["conversion.json", "README.md", "curve.png", "model.safetensors"])
def test_links_out_of_the_folder_are_refused_before_anything_is_sent(
    hub_of_mine, folder, tmp_path, name, capsys
):
    secret = tmp_path / "secret"
    secret.write_text('{"root": "x"}')
    if name == "model.safetensors":
        shutil.copy(folder / name, secret)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    assert push(folder, NAME) == 2
    error = capsys.readouterr().err
    assert f"{name} is a link to {secret}, outside the folder" in error
    assert hub_of_mine.requests == [] and push(folder, NAME, "--dry_run") == 2
    with pytest.raises(ValueError, match="outside the folder"):
        write_space(tmp_path / "space", [str(folder)], {}, None)
    assert not (tmp_path / "space").exists()


def test_links_within_the_folder_and_to_it_are_followed(hub_of_mine, folder, tmp_path):
    (folder / "best.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("best.safetensors")
    (tmp_path / "latest").symlink_to(folder)
    assert push(tmp_path / "latest", NAME) == 0
    expected = (folder / "best.safetensors").read_bytes()
    assert files_at(hub_of_mine)["model.safetensors"] == expected


def test_a_pipe_is_no_file_to_push(hub_of_mine, folder, capsys):
    os.mkfifo(folder / "conversion.json")
    assert push(folder, NAME) == 2
    assert "conversion.json must be a file" in capsys.readouterr().err


def test_cards_and_results_are_pushed_without_paths_of_this_machine(hub_of_mine, folder, tmp_path):
    before = json.loads((folder / "results.json").read_text())
    assert push(folder, NAME) == 0
    files = files_at(hub_of_mine)
    for text in (files["results.json"].decode(), (folder / "README.md").read_text()):
        assert str(tmp_path) not in text and "home/me" not in text, text
    results = json.loads(files["results.json"])
    assert results.keys() == before.keys()  # which may be run again here: paths stay
    assert before["settings"]["train_data"] == str(tmp_path / "home/me/my videos/train")
    assert results["settings"]["train_data"] == "train"
    assert results["settings"]["output_dir"] == "waves"
    assert results["start"] == "weights of start (from x.pth) with a new head"
    assert results["epochs"][0]["eval_failures"][0]["path"] == "a b.mp4"
    assert results["ratio"] == "8 / 2, and/or 1/255"
    assert results["address"] == "https://huggingface.co/someone/waves"
    assert "- train_data: `train`" in (folder / "README.md").read_text()


def test_folders_of_earlier_versions_are_pushed_and_exported_without_them(
    hub_of_mine, folder, tmp_path
):
    secret = str(tmp_path / "home/me/data")
    record = dict(origin=f"the folder {secret}/vit", settings=dict(data=secret), kept="a/b")
    for name in ("results.json", "conversion.json"):
        (folder / name).write_text(json.dumps(record))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{secret}/vit at ORG/NAME, /data\n")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert push(folder, NAME) == 0
    files = files_at(hub_of_mine)
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert json.loads(files["conversion.json"]) == dict(
        origin="the folder vit", settings=dict(data="data"), kept="a/b"
    )
    assert b"vit at someone/waves, /data" in files["README.md"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    commits = len(hub_of_mine.repositories[NAME].commits)
    assert push(folder, NAME) == 0
    assert len(hub_of_mine.repositories[NAME].commits) == commits  # nothing changed

    pytest.importorskip("gradio")
    write_space(tmp_path / "space", [str(folder)], {}, None)
    (model,) = (tmp_path / "space/models/0").iterdir()
    assert {file.name for file in model.iterdir()} == MODEL | {"conversion.json"}
    assert not any(str(tmp_path).encode() in file.read_bytes() for file in model.iterdir())
    Classifier(model, device="cpu")


def test_damaged_records_and_cards_are_refused(hub_of_mine, folder, capsys):
    (folder / "results.json").write_text("{")
    assert push(folder, NAME) == 2
    assert "results.json is damaged" in capsys.readouterr().err
    (folder / "results.json").write_text("{}")
    (folder / "README.md").write_bytes(b"\xff")
    assert push(folder, NAME) == 2
    assert "README.md is not text in UTF-8" in capsys.readouterr().err
    assert hub_of_mine.requests == []


def test_what_does_not_belong_together_is_not_pushed(hub_of_mine, folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["attn_kernel"] = "softmax"
    (folder / "config.json").write_text(json.dumps(config))
    assert push(folder, NAME) == 2
    assert "attn_kernel is 'relu', but 'softmax' in model_args" in capsys.readouterr().err
    assert hub_of_mine.requests == []
    (folder / "model.safetensors").unlink()
    config["model_args"]["attn_kernel"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    assert push(folder, NAME) == 2
    assert "is incomplete: it has neither model.safetensors nor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, paths",
    [
        ("/data/videos", {"/data/videos"}),
        ("/data", {"/data"}),
        ("/data/my videos/train", {"/data/my videos/train"}),
        ("C:\\Users\\me\\x", {"C:\\Users\\me\\x"}),
        ("from /data/x.pth, and ~/runs/a (old)", {"/data/x.pth", "~/runs/a"}),
        ("8 / 2 is 4, and/or 1/255, </b>, 3 clips/s", set()),
        ("https://huggingface.co/a/b and hf-hub:a/b", set()),
        ("runs/a, ./runs/a, ../runs/a", set()),
        ("", set()),
    ],
)
def test_paths_are_told_from_other_slashes(text, paths):
    assert local_paths([dict(a=text)]) == paths
    shorter = without_paths(text, paths)
    assert local_paths(shorter) == set()


def test_parts_of_addresses_and_names_stay():
    text = "https://huggingface.co/data/x, org/data-model, /database, in /data: /data/a, and /data."
    assert without_paths(text, {"/data", "/data/a"}) == (
        "https://huggingface.co/data/x, org/data-model, /database, in data: a, and data."
    )
