"""Push and pull against a Hub on this machine: every loader, every fault, one state at a time."""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from conftest import random_frames
from hub_server import TOKEN, Fault
from safetensors.torch import load_file, save_file

import lvt_ff
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_dataset, write_video
from lvt_ff.demo import RECIPE
from lvt_ff.hub import model_folder, retry
from lvt_ff.hub import pull as lvt_ff_pull
from lvt_ff.training.finetune import finetune

NAME = "someone/waves"


@pytest.fixture(autouse=True)
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(retry, "DELAYS_S", (0, 0, 0))
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)


@pytest.fixture
def folder(hf_model, tmp_path):
    """A model folder with everything that goes to the Hub, and some of what stays."""
    path = tmp_path / "model"
    hf_model.save_pretrained(path)
    size = dict(height=64, width=64)
    lvt_ff.LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size).save_pretrained(path)
    (path / "README.md").write_text("---\nlibrary_name: transformers\n---\n# waves\n")
    (path / "results.json").write_text("{}\n")
    (path / "curve.png").write_bytes(b"\x89PNG")
    (path / "checkpoints").mkdir()
    (path / "checkpoints/optimizer.safetensors").write_bytes(b"state")
    (path / "optimizer.pt").write_bytes(b"state")
    return path


PUSHED = {
    "config.json",
    "model.safetensors",
    "video_preprocessor_config.json",
    "README.md",
    "lvt_ff_import.py",
    "results.json",
    "curve.png",
}


def lvt(*args):
    return main([str(arg) for arg in args])


def files_at(hub, revision="main", name=NAME):
    repository = hub.repositories[name]
    return repository.commits[repository.resolve(revision)]


def test_push_sends_the_model_and_nothing_else(hub, folder, capsys):
    assert lvt("push", folder, NAME) == 0
    files = files_at(hub)
    assert set(files) == PUSHED
    assert all(files[name] == (folder / name).read_bytes() for name in files)
    assert len(hub.repositories[NAME].commits) == 2  # the empty one, and ours
    assert TOKEN not in capsys.readouterr().out


def test_second_push_of_the_same_folder_makes_no_commit(hub, folder, capsys):
    assert lvt("push", folder, NAME) == 0
    commits = dict(hub.repositories[NAME].commits)
    assert lvt("push", folder, NAME) == 0
    assert hub.repositories[NAME].commits == commits
    assert "nothing changed: no commit" in capsys.readouterr().out
    (folder / "results.json").write_text('{"top1": 1}\n')
    (folder / "curve.png").unlink()
    assert lvt("push", folder, NAME) == 0
    assert set(files_at(hub)) == PUSHED - {"curve.png"}
    assert len(hub.repositories[NAME].commits) == len(commits) + 1


def test_shards_are_pushed_with_their_index(hub, folder, hf_model, clip):
    (folder / "model.safetensors").unlink()
    hf_model.save_pretrained(folder, max_shard_size="500KB")
    assert lvt("push", folder, NAME) == 0
    shards = {name for name in files_at(hub) if name.endswith(".safetensors")}
    assert len(shards) > 2 and "model.safetensors.index.json" in files_at(hub)
    loaded = lvt_ff.LVTFFForVideoClassification.from_pretrained(NAME).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip).logits, hf_model(clip).logits)


def test_dry_run_sends_nothing(hub, folder, capsys):
    assert lvt("push", folder, NAME, "--dry_run") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PUSHED) and "optimizer" not in out
    assert hub.requests == []


LOADERS = """
import json, math, sys, torch, timm, lvt_ff
from transformers import (
    AutoModel, AutoModelForVideoClassification, AutoVideoProcessor, pipeline
)
name, revision, clip, out = sys.argv[1:]
options = dict(revision=revision) if revision else {}
at = f"{name}@{revision}" if revision else name
with torch.no_grad():
    model = AutoModelForVideoClassification.from_pretrained(name, **options).eval()
    shape = (1, model.config.num_frames, 3, model.config.img_size, model.config.img_size)
    x = torch.linspace(-1, 1, math.prod(shape)).view(shape)
    base = AutoModel.from_pretrained(name, **options).eval()
    by_timm = timm.create_model(f"hf-hub:{at}", pretrained=True).eval()
    processor = AutoVideoProcessor.from_pretrained(name, **options)
    found = dict(
        transformers=model(x).logits.tolist(),
        timm=by_timm(x).tolist(),
        features=base(x).pooler_output.tolist(),
        timm_features=by_timm.forward_head(by_timm.forward_features(x), pre_logits=True).tolist(),
        processed=processor(clip, return_tensors="pt")["pixel_values_videos"].mean().item(),
        pipeline=pipeline("video-classification", model=name, **options)(clip),
    )
from lvt_ff.inference.classifier import Classifier
found["predict"] = Classifier(at)(clip)
json.dump(found, open(out, "w"))
"""


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """The demo's model after one short epoch."""
    place = tmp_path_factory.mktemp("demo")
    write_dataset(place / "videos", 32, seed=0, num_workers=1)
    data = dict(train_data=place / "videos", eval_data=place / "videos", output_dir=place / "model")
    finetune(**data, **RECIPE, epochs=1, num_workers=0, cpu=True)
    return place / "model"


@pytest.mark.parametrize("source, private, revision", [("demo", False, None), ("own", True, "v1")])
def test_pushed_repository_loads_everywhere_in_a_new_process(
    hub, folder, demo_folder, tmp_path, record_property, source, private, revision
):
    folder = demo_folder if source == "demo" else folder
    options = ["--private"] if private else []
    assert lvt("push", folder, NAME, *options, *(["--tag", revision] if revision else [])) == 0
    if revision:  # main moves on: the tag does not
        weights = {
            name: tensor * 0 for name, tensor in load_file(folder / "model.safetensors").items()
        }
        save_file(weights, tmp_path / "zero.safetensors", metadata={"format": "pt"})
        os.replace(tmp_path / "zero.safetensors", folder / "model.safetensors")
        original = model_folder.load_folder(f"{NAME}@{revision}")[0]
        assert lvt("push", folder, NAME) == 0
    else:
        original = lvt_ff.LVTFFForVideoClassification.from_pretrained(folder)
    write_video(tmp_path / "clip.mp4", random_frames(10, 64, 80))
    size = original.config.img_size
    shape = (1, original.config.num_frames, 3, size, size)
    x = torch.linspace(-1, 1, math.prod(shape)).view(shape)
    with torch.no_grad():
        expected = original.eval()(x).logits
    hub.requests.clear()
    environment = dict(
        os.environ, HF_HUB_CACHE=str(tmp_path / "cache"), HF_HOME=str(tmp_path / "home")
    )
    for offline in ("0", "1"):
        arguments = [NAME, revision or "", tmp_path / "clip.mp4", tmp_path / f"out{offline}.json"]
        run = subprocess.run(
            [sys.executable, "-c", LOADERS, *map(str, arguments)],
            env=dict(environment, HF_HUB_OFFLINE=offline),
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        assert TOKEN not in run.stdout + run.stderr
        found = json.loads((tmp_path / f"out{offline}.json").read_text())
        for library in ("transformers", "timm"):
            torch.testing.assert_close(torch.tensor(found[library]), expected)
        features = [torch.tensor(found[name]) for name in ("features", "timm_features")]
        torch.testing.assert_close(*features)
        assert [row["label"] for row in found["predict"]] == [
            row["label"] for row in found["pipeline"]
        ]
        if offline == "0":
            record_property("requests", "\n".join(map(" ".join, hub.requests)))
            assert any(
                method == "GET" and "model.safetensors" in path for method, path in hub.requests
            )
            hub.requests.clear()
    assert hub.requests == []
    assert (tmp_path / "out0.json").read_text() == (tmp_path / "out1.json").read_text()


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "lvt_ff":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from transformers import AutoModelForVideoClassification
AutoModelForVideoClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
"""


def test_without_lvt_ff_the_error_says_what_to_install(hub, folder, tmp_path):
    assert lvt("push", folder, NAME) == 0
    environment = dict(os.environ, HF_HOME=str(tmp_path / "home"))
    for code, status, said in (
        (WITHOUT, 1, "pip install lvt_ff"),
        (WITHOUT[WITHOUT.index("from transformers") :], 0, ""),  # with it, though not imported
    ):
        code = f"import sys\n{code}"
        run = subprocess.run(
            [sys.executable, "-c", code, NAME], capture_output=True, text=True, env=environment
        )
        assert run.returncode == status and said in run.stderr, run.stderr


def test_fine_tuning_pushes_its_folder(hub, tmp_path, capsys, monkeypatch):
    for index, label in enumerate(("left", "right") * 2):
        (tmp_path / "videos" / label).mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / f"videos/{label}/{index}.mp4", random_frames(6, 40, 40, seed=index))
    fields = json.dumps(dict(depth=1, num_frames=2, img_size=32, head_hidden=16))
    args = ["--model", "test_lvt_ff", "--train_data", tmp_path / "videos", "--model_args", fields]
    args += ["--epochs", 1, "--num_workers", 0, "--cpu", "--push_to_hub", NAME, "--hub_private"]
    assert lvt("finetune", *args, "--output_dir", tmp_path / "run") == 0
    files = files_at(hub)
    assert hub.repositories[NAME].private
    assert {"model.safetensors", "curve.png", "results.json", "README.md"} <= set(files)
    assert not any("optimizer" in name or "checkpoint" in name for name in files)
    hub.empty()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert lvt("finetune", *args, "--output_dir", tmp_path / "other") == 1
    assert "not logged in" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()  # told before training, not after it


def test_pull_gives_the_same_folder_and_refuses_to_overwrite(
    hub, folder, tmp_path, capsys, monkeypatch
):
    assert lvt("push", folder, NAME, "--revision", "trial") == 0
    monkeypatch.chdir(tmp_path)
    assert lvt("pull", f"{NAME}@trial") == 0
    assert {path.name for path in (tmp_path / "waves").iterdir()} == PUSHED
    assert all((tmp_path / "waves" / n).read_bytes() == (folder / n).read_bytes() for n in PUSHED)
    assert lvt("pull", NAME) == 2
    assert "exists already" in capsys.readouterr().err
    assert lvt("pull", f"{NAME}@absent", "other") == 1
    assert "has no revision 'absent'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "waves"]


def test_libraries_own_pushes_give_repositories_that_both_load(hub, hf_model, clip):
    hf_model.push_to_hub("someone/by-transformers")
    by_timm = timm.create_model("test_lvt_ff", num_classes=3)
    by_timm.load_state_dict(hf_model.model.state_dict())
    timm.models.push_to_hf_hub(by_timm, "someone/by-timm", safe_serialization=True)
    with torch.no_grad():
        expected = hf_model(clip).logits
        for name in ("someone/by-transformers", "someone/by-timm"):
            model = lvt_ff.LVTFFForVideoClassification.from_pretrained(name).eval()
            torch.testing.assert_close(model(clip).logits, expected)
            model = timm.create_model(f"hf-hub:{name}", pretrained=True).eval()
            torch.testing.assert_close(model(clip), expected)


def state_of(files):
    """What the repository's files are, to compare whole states."""
    return {name: bytes(content) for name, content in files.items()}


def test_uploads_cut_at_any_point_leave_the_old_or_the_new_state(
    hub, folder, tmp_path, capsys, monkeypatch
):
    assert lvt("push", folder, NAME) == 0
    hub.requests.clear()
    generator = random.Random(0)
    weights = load_file(folder / "model.safetensors")
    outcomes = set()
    for number in range(30):
        old = state_of(files_at(hub))
        changed = {name: tensor + 0.001 * (number + 1) for name, tensor in weights.items()}
        save_file(changed, tmp_path / "new.safetensors", metadata={"format": "pt"})
        os.replace(tmp_path / "new.safetensors", folder / "model.safetensors")
        (folder / "results.json").write_text(json.dumps(dict(number=number)))
        new = {name: (folder / name).read_bytes() for name in PUSHED}
        kind = generator.choice(["500", "drop", "lost"])
        pattern = generator.choice(["preupload", "objects/batch", "PUT /lfs", "commit"])
        hub.faults = [Fault(kind, pattern if kind != "lost" else "commit", times=100)]
        monkeypatch.setattr(retry, "DELAYS_S", ())
        code = lvt("push", folder, NAME)
        between = state_of(files_at(hub))
        assert between in (old, new)
        outcomes.add((code, between == new))
        hub.faults = []
        assert lvt("push", folder, NAME) == 0
        assert state_of(files_at(hub)) == new
    assert (1, False) in outcomes and (1, True) in outcomes  # cut before, and after the commit
    commits = len(hub.repositories[NAME].commits)
    assert lvt("push", folder, NAME) == 0
    assert len(hub.repositories[NAME].commits) == commits
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["500", "drop", "lost", "slow"])
def test_push_survives_single_faults(hub, folder, kind):
    hub.faults = [Fault(kind, "commit")]
    assert lvt("push", folder, NAME) == 0
    assert set(files_at(hub)) == PUSHED
    assert len(hub.repositories[NAME].commits) == 2


@pytest.mark.parametrize(
    "fault, message",
    [
        (Fault("401", "create", times=9), "not logged in"),
        (Fault("403", "commit", times=9, message="no write access"), "no write access"),
        (
            Fault("403", "commit", times=9, message="storage quota exceeded"),
            "no space left on the Hub",
        ),
        (Fault("404", "preupload", times=9), "is not on the Hub, or private"),
        (Fault("409", "commit", times=9, message="conflict"), "the name is taken, or someone else"),
    ],
    ids=["401", "403", "quota", "404", "409"],
)
def test_refusals_are_one_line(hub, folder, capsys, fault, message):
    hub.faults = [fault]
    assert lvt("push", folder, NAME) == 1
    error = capsys.readouterr().err
    assert message in error and TOKEN not in error and "Traceback" not in error


def test_names_of_others_and_missing_logins_are_refused(hub, folder, capsys, monkeypatch):
    assert lvt("push", folder, "others/waves") == 1
    assert "no write access" in capsys.readouterr().err
    assert lvt("push", folder, "waves") == 2
    assert "as ORG/NAME" in capsys.readouterr().err
    assert lvt("push", folder, NAME, "--private") == 0
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for command in (["push", folder, NAME], ["pull", NAME, folder.parent / "new"]):
        assert lvt(*command) == 1
        error = capsys.readouterr().err
        assert "hf auth login" in error and "hf_wrong" not in error
    assert lvt("predict", folder / "curve.png", "--model", NAME) == 2
    assert "hf auth login" in capsys.readouterr().err


def test_evaluation_of_a_repository_says_where_results_go(hub, folder, tmp_path, capsys):
    for label in ("push", "pull"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        write_video(tmp_path / f"videos/{label}/0.mp4", random_frames(6, 64, 64))
    write_video(tmp_path / "videos/pull/1.mp4", random_frames(6, 64, 64, seed=1))
    (tmp_path / "videos/lift").mkdir()
    write_video(tmp_path / "videos/lift/0.mp4", random_frames(6, 64, 64, seed=2))
    assert lvt("push", folder, NAME) == 0
    args = ("--model", NAME, "--data", tmp_path / "videos", "--cpu", "--num_workers", 0)
    assert lvt("evaluate", *args) == 2
    assert "say with --output_dir" in capsys.readouterr().err
    assert lvt("evaluate", *args, "--output_dir", tmp_path / "out") == 0
    assert (tmp_path / "out/evaluation.json").is_file()


def test_tags_stay_where_they_are(hub, folder, capsys):
    for _ in range(2):
        assert lvt("push", folder, NAME, "--tag", "v1") == 0
    (folder / "results.json").write_text('{"top1": 1}\n')
    assert lvt("push", folder, NAME, "--tag", "v1") == 1
    assert "already has a tag v1 at commit" in capsys.readouterr().err


def test_folders_that_are_not_whole_are_not_pushed(hub, folder, capsys):
    weights = load_file(folder / "model.safetensors")
    del weights["norm.bias"]
    save_file(weights, folder / "less.safetensors", metadata={"format": "pt"})
    os.replace(folder / "less.safetensors", folder / "model.safetensors")
    assert lvt("push", folder, NAME) == 2
    assert "lack 1 tensors of the model, such as norm.bias" in capsys.readouterr().err
    (folder / "config.json").unlink()
    assert lvt("push", folder, NAME) == 2
    assert "has no config.json" in capsys.readouterr().err
    assert hub.requests == []


def test_damaged_downloads_and_full_disks_are_refused(hub, folder, tmp_path, capsys, monkeypatch):
    assert lvt("push", folder, NAME) == 0
    hub.faults = [Fault("corrupt", "GET .*model.safetensors", times=9)]
    assert lvt("pull", NAME, tmp_path / "new") == 1
    assert "model.safetensors arrived damaged" in capsys.readouterr().err
    hub.faults = []
    usage = lvt_ff_pull.shutil._ntuple_diskusage(100, 90, 10)
    with monkeypatch.context() as full:
        full.setattr(lvt_ff_pull.shutil, "disk_usage", lambda path: usage)
        assert lvt("pull", NAME, tmp_path / "new") == 1
    assert "10 free" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_download_that_broke_off_goes_on(hub, folder, tmp_path):
    assert lvt("push", folder, NAME) == 0
    hub.faults = [Fault("drop", "GET .*model.safetensors")]
    assert lvt("pull", NAME, tmp_path / "new") == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == PUSHED


def test_pickles_are_not_pulled(hub, tmp_path, capsys):
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled/config.json").write_text("{}")
    (tmp_path / "pickled/pytorch_model.bin").write_bytes(b"code")
    hub.publish(NAME, tmp_path / "pickled")
    assert lvt("pull", NAME, tmp_path / "new") == 2
    assert "only pytorch_model.bin: `lvt-ff convert`" in capsys.readouterr().err
    assert not Path(tmp_path / "new").exists()
