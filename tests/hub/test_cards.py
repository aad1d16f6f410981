"""Cards: valid metadata, the figures of their own folder, and snippets that run."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from conftest import random_frames
from hub_server import TOKEN
from huggingface_hub import ModelCard
from image_models import timm_model
from reference import GOLDEN

import lvt_ff
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.hub.variant_cards import variant_card, write_cards
from lvt_ff.timm_models import SOURCES
from lvt_ff.utils.environment import environment

CARDS = Path(__file__).parents[2] / "model_cards"
PARTS = [
    "Use",
    "Architecture and cost",
    "Initialization",
    "Training",
    "Results",
    "Limits and biases",
    "Citation",
]


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


def parts(text):
    return re.findall(r"^## (.+)$", text, flags=re.M)


def test_cards_in_the_repository_are_the_variants(tmp_path):
    write_cards(str(tmp_path))
    assert {file.stem for file in CARDS.glob("*.md")} == set(lvt_ff.VARIANTS)
    for file in CARDS.glob("*.md"):
        assert file.read_text() == (tmp_path / file.name).read_text(), (
            "python -m lvt_ff.hub.variant_cards"
        )


def validate(card):
    if "https://huggingface.co" not in inspect.getsource(ModelCard.validate).split('"""')[-1]:
        card.validate()  # older versions of huggingface_hub ask no other Hub than that


@pytest.mark.parametrize("name", lvt_ff.VARIANTS)
def test_card_of_a_variant_is_valid_and_says_where_it_starts(hub, name):
    card = ModelCard.load(CARDS / f"{name}.md")
    validate(card)
    assert parts(card.text) == PARTS
    data = card.data.to_dict()
    assert data["library_name"] == "transformers" and data["license"] == "apache-2.0"
    sources = [timm.get_pretrained_cfg(f"{name}.{tag}").hf_hub_id for tag in SOURCES.get(name, ())]
    assert data.get("base_model", []) == sources
    trained_on = "".join(SOURCES.get(name, ())) + "".join(data.get("datasets", []))
    assert ("in21k" in trained_on) == ("imagenet-21k" in trained_on)
    assert ("in22k_ft_in1k" in trained_on) == ("imagenet-1k" in data.get("datasets", []))
    assert "not measured" in card.text and "model-index" not in data
    assert ("The paper's, by its authors" in card.text) == (name in list(lvt_ff.VARIANTS)[:4])


def test_paper_figures_are_the_transcribed_ones():
    spec = (GOLDEN / "paper_results.md").read_text()
    shown = "".join(variant_card(name).text for name in list(lvt_ff.VARIANTS)[:4])
    for top1, top5 in re.findall(r"(\d\d\.\d+) / (\d\d\.\d+)", shown):
        assert f"{top1}/{top5}" in spec


@pytest.mark.parametrize("name", ["lvt_ff_s", "lvt_ff_tiny", "lvt_ff_small", "test_lvt_ff"])
def test_snippet_of_a_variant_runs(hub, tmp_path, name):
    if name in SOURCES:
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        source = timm_model(repository.removeprefix("timm/"))
        timm.models.save_for_hf(source, tmp_path / "source", safe_serialization=True)
        hub.publish(repository, tmp_path / "source")
    (code,) = snippets(variant_card(name).text)
    found = {}
    exec(compile(code, name, "exec"), found)
    assert found["model"].num_classes == found["twin"].config.num_labels == 174


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    for index, label in enumerate(("left", "right") * 2):
        (folder / "videos" / label).mkdir(parents=True, exist_ok=True)
        write_video(folder / f"videos/{label}/{index}.mp4", random_frames(6, 40, 40, seed=index))
    fields = json.dumps(dict(depth=1, num_frames=2, img_size=32, head_hidden=16))
    videos = str(folder / "videos")
    args = ["--model", "test_lvt_ff", "--train_data", videos, "--eval_data", videos, "--cpu"]
    args += ["--model_args", fields, "--epochs", "1", "--num_workers", "0"]
    assert main(["finetune", *args, "--output_dir", str(folder / "run")]) == 0
    return folder / "run"


def test_card_of_a_fine_tuned_folder_shows_its_own_figures(hub, fine_tuned):
    card = ModelCard.load(fine_tuned / "README.md")
    validate(card)
    assert parts(card.text) == [*PARTS[:-1], "Environment", PARTS[-1]]
    best = json.loads((fine_tuned / "results.json").read_text())["best"]
    (result,) = (r for r in card.data.eval_results if r.metric_name.startswith("top-1"))
    assert result.metric_value == round(100 * best["eval_top1"], 2)
    assert f"{100 * best['eval_top1']:.2f} %" in card.text
    assert "2 frames of 32 × 32 pixels" in card.text and "left, right" in card.text
    model = lvt_ff.LVTFFForVideoClassification.from_pretrained(fine_tuned)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"{millions:.2f} M with 2 classes" in card.text
    assert f"torch {torch.__version__.split('+')[0]}" in card.text


def test_card_of_a_fine_tuned_folder_follows_its_evaluations(hub, fine_tuned, tmp_path):
    folder, videos = tmp_path / "run", fine_tuned.parent / "videos"
    shutil.copytree(fine_tuned, folder)

    def rows():
        card = ModelCard.load(folder / "README.md")
        validate(card)
        assert "![learning curve](curve.png)" in card.text and parts(card.text)[-1] == "Citation"
        return [line for line in card.text.splitlines() if line.startswith("| videos |")]

    def rows_after(*flags):
        args = ["evaluate", "--model", str(folder), "--data", str(videos), "--num_workers", "0"]
        assert main([*args, "--cpu", *flags]) == 0
        return rows()

    (before,) = rows()
    (after,) = rows_after()  # the same videos with the same protocol
    assert "–" in after and re.sub(r" \([\d.]+–[\d.]+\)", "", after) == before
    more = rows_after("--clips", "2")
    assert more[0] == after and "| 2 clips × 1 crop" in more[1] and len(more) == 2


def test_snippet_of_a_pushed_card_runs(hub, fine_tuned, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", random_frames(6, 40, 40))
    for _ in range(2):
        assert main(["push", str(fine_tuned), "someone/waves"]) == 0
    assert "nothing changed" in capsys.readouterr().out
    assert main(["pull", "someone/waves"]) == 0
    text = (tmp_path / "waves/README.md").read_text()
    assert "ORG/NAME" not in text and 'model="someone/waves"' in text
    capsys.readouterr()
    (code,) = snippets(text)
    exec(compile(code, "card", "exec"), {})
    assert "left" in capsys.readouterr().out


def test_a_figure_made_on_the_cpu_of_a_machine_with_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert environment()["device"] == "a GPU"
    assert environment(cpu=True)["device"].endswith("CPU cores")
