"""A model's name: asked for once, told with its commit, and refused in a line where it fails."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import random_frames
from hub_server import TOKEN, Fault

import lvt_ff
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.hub import model_folder, retry
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.hub.resolve import local_folder, origin

NAME = "someone/waves"


@pytest.fixture(autouse=True)
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(retry, "DELAYS_S", (0,))
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "waves"
    torch.manual_seed(0)
    size = dict(depth=1, num_frames=2, img_size=32, head_hidden=16)
    names = {0: "left", 1: "right"}
    config = lvt_ff.LVTFFConfig.from_variant("test_lvt_ff", id2label=names, **size)
    lvt_ff.LVTFFForVideoClassification(config).save_pretrained(folder)
    lvt_ff.LVTFFVideoProcessor.from_config(config).save_pretrained(folder)
    (folder / "README.md").write_text("# waves\n")
    return folder


@pytest.fixture
def waves(hub, published):
    hub.publish(NAME, published)
    return hub


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for label in ("left", "right"):
        (folder / label).mkdir()
        write_video(folder / label / "0.mp4", random_frames(6, 40, 40))
    return folder


def command_of(name, videos, place, model=NAME):
    clip, data = videos / "left/0.mp4", ["--data", videos, "--output_dir", place / "out"]
    run = ["--train_data", videos, "--output_dir", place / "run", "--epochs", 1]
    args = dict(
        predict=[clip, "--model", model],
        explain=[clip, "--model", model, "--output", place / "x.png"],
        evaluate=["--model", model, *data, "--cpu", "--num_workers", 0],
        finetune=["--model", model, *run, "--cpu", "--num_workers", 0],
        export=["--model", model, "--format", "torch", "--output", place / "x.pt2"],
        convert=[model, place / "x.safetensors", "--to", "authors"],
    )[name]
    return [name, *map(str, args)]


def asked_for(hub):
    """How often the Hub was asked what a name stands for."""
    return [path for _, path in hub.requests if path.startswith(f"/api/models/{NAME}")]


def one_line(capsys, *words):
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error and TOKEN not in error
    assert all(word in error.splitlines()[-1] for word in words), error
    return error


@pytest.mark.parametrize("command", ["predict", "explain", "evaluate", "finetune", "export"])
def test_a_command_asks_once_what_a_name_stands_for(
    waves, published, videos, tmp_path, monkeypatch, command
):
    found, load = [], model_folder.LVTFFForVideoClassification.from_pretrained

    def loaded(folder, **options):
        found.append(Path(folder))
        # A branch that moves while the command is at work: nothing of the new state is taken.
        waves.repositories[NAME].commit({"config.json": b"{}"})
        return load(folder, **options)

    sha = waves.repositories[NAME].resolve("main")
    monkeypatch.setattr(model_folder.LVTFFForVideoClassification, "from_pretrained", loaded)
    assert main(command_of(command, videos, tmp_path)) == 0
    asked = [path for path in asked_for(waves) if "/tree/" not in path]
    assert len(asked) == 1, waves.requests
    assert all(path.endswith(f"/tree/{sha}") for path in set(asked_for(waves)) - set(asked))
    assert found == [local_path(sha)]


def local_path(sha):
    cache = Path(os.environ["HF_HUB_CACHE"])
    return cache / f"models--{NAME.replace('/', '--')}" / "snapshots" / sha


def test_what_is_told_and_stored_names_the_repository_and_its_commit(
    waves, videos, tmp_path, capsys
):
    sha = waves.repositories[NAME].resolve("main")
    assert main(command_of("finetune", videos, tmp_path)) == 0
    assert f"weights of {NAME}@{sha} with its classifier" in capsys.readouterr().out
    assert f"{NAME}@{sha}" in (tmp_path / "run/README.md").read_text()
    assert json.loads((tmp_path / "run/results.json").read_text())["start"].startswith(
        f"weights of {NAME}@{sha}"
    )
    assert main(command_of("evaluate", videos, tmp_path)) == 0
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["model"] == f"{NAME}@{sha}"
    assert origin(tmp_path) == str(tmp_path)


COMMANDS = ["predict", "explain", "evaluate", "finetune", "export", "convert"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dropped_connection_is_a_line_in_every_command(waves, videos, tmp_path, command, capsys):
    waves.faults = [Fault("drop", ".", times=10**6)]
    assert main(command_of(command, videos, tmp_path)) in (1, 2)
    one_line(capsys, NAME, "the Hub cannot be reached or failed")


@pytest.mark.parametrize("command", ["predict", "finetune"])
def test_a_download_that_breaks_off_is_a_line(waves, videos, tmp_path, command, capsys):
    waves.faults = [Fault("drop", "GET .*model.safetensors", times=10**6)]
    assert main(command_of(command, videos, tmp_path)) in (1, 2)
    one_line(capsys, NAME)
    waves.faults = []
    assert main(command_of(command, videos, tmp_path)) == 0


@pytest.mark.parametrize("source", [NAME, "someone/vit"])
def test_conversion_from_a_hub_that_fails_is_a_line(waves, tmp_path, capsys, source):
    waves.faults = [Fault("drop", ".", times=10**6)]
    assert main(["convert", source, str(tmp_path / "new")]) in (1, 2)
    one_line(capsys, source, "the Hub cannot be reached or failed")


def test_without_the_hub_the_cache_serves_and_says_so(waves, videos, tmp_path, capsys):
    sha = waves.repositories[NAME].resolve("main")
    assert main(command_of("predict", videos, tmp_path)) == 0
    told = capsys.readouterr().out
    waves.faults = [Fault("drop", ".", times=10**6)]
    assert main(command_of("predict", videos, tmp_path)) == 0
    again = capsys.readouterr()
    assert again.out == told
    assert f"taking {NAME}@{sha} from the cache" in again.err


ANSWERS = {
    "null": Fault("answer", "GET /api/models", times=10**6, message="null"),
    "a list": Fault("answer", "GET /api/models", times=10**6, message="[]"),
    "nothing": Fault("answer", "GET /api/models", times=10**6, message="{}"),
    "no JSON": Fault("answer", "GET /api/models", times=10**6, message="<html>"),
    "no files": Fault(
        "answer", "GET /api/models", times=10**6, message='{"id": "a/b", "sha": "0"}'
    ),
    "null files": Fault(
        "answer",
        "GET /api/models",
        times=10**6,
        message='{"id": "a/b", "sha": null, "siblings": null}',
    ),
    "redirect": Fault("redirect", "GET /api/models", times=10**6, message="http://127.0.0.1:9/x"),
    "circle": Fault("redirect", ".", times=10**6, message="/api/models/someone/waves"),
    "500": Fault("500", ".", times=10**6),
    "429": Fault("429", ".", times=10**6),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("command", ["predict", "pull", "push", "finetune", "convert"])
def test_a_hub_that_does_not_answer_as_one_is_a_line(
    waves, published, videos, tmp_path, capsys, kind, command
):
    waves.faults = [ANSWERS[kind]]
    args = dict(pull=["pull", NAME, tmp_path / "new"], push=["push", published, NAME])
    args = args.get(command) or command_of(command, videos, tmp_path)
    status = main([str(arg) for arg in args])
    error = capsys.readouterr().err
    assert "Traceback" not in error and TOKEN not in error
    assert status in (1, 2) or (command == "push" and kind in ("no files", "null files"))
    assert not status or error.strip().splitlines()[-1].startswith(f"lvt-ff {command}: ")
    assert not (tmp_path / "new").exists()


def test_a_hub_without_sizes_is_pulled_from(waves, published, tmp_path):
    repository = waves.repositories[NAME]
    sha = repository.resolve("main")
    siblings = [dict(rfilename=path.name) for path in published.iterdir()]
    answer = dict(id=NAME, sha=sha, siblings=siblings)
    waves.faults = [Fault("answer", "revision/main$", times=1, message=json.dumps(answer))]
    waves.faults += [Fault("answer", f"models/{NAME}$", times=1, message=json.dumps(answer))]
    assert main(["pull", NAME, str(tmp_path / "new")]) == 0
    load_folder(tmp_path / "new")


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another host, to which a Hub redirects: it keeps what it is sent."""

    seen: list = []

    def do_GET(self):
        self.seen.append(dict(self.headers))
        self.send_response(200)
        self.end_headers()

    do_HEAD = do_POST = do_GET

    def log_message(self, *args):
        pass


def test_no_token_follows_a_redirect_to_another_host(waves, videos, tmp_path, capsys):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://localhost:{server.server_port}/x"
    waves.faults = [Fault("redirect", ".", times=10**6, message=place)]
    assert main(command_of("predict", videos, tmp_path)) in (1, 2)
    assert all(TOKEN not in json.dumps(headers) for headers in Elsewhere.seen)
    server.shutdown()


# Files that arrive


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("command", ["predict", "finetune", "evaluate"])
def test_a_file_with_another_hash_is_refused_and_not_kept(
    waves, videos, tmp_path, capsys, file, command
):
    waves.faults = [Fault("corrupt", f"GET .*{file}", times=10**6)]
    assert main(command_of(command, videos, tmp_path)) == 1
    one_line(capsys, file, NAME, "arrived damaged (another hash than the Hub says)")
    waves.faults = []
    assert main(command_of(command, videos, tmp_path)) == 0


def test_a_damaged_file_that_an_interrupted_download_left_is_found(waves, published):
    waves.faults = [
        Fault("corrupt", "GET .*config.json", times=10**6),
        Fault("drop", "GET .*model.safetensors", times=10**6),
    ]
    with pytest.raises(OSError):
        local_folder(NAME)
    waves.faults = []
    try:  # older versions of huggingface_hub keep no file of a download that broke off
        folder = local_folder(NAME)
    except OSError as error:
        assert "arrived damaged" in str(error)
        folder = local_folder(NAME)
    assert (folder / "config.json").read_bytes() == (published / "config.json").read_bytes()


def test_a_cache_behind_a_link_and_a_second_look_need_no_request_for_files(waves):
    folder = local_folder(NAME)
    waves.requests.clear()
    assert local_folder(NAME) == folder
    assert not [path for _, path in waves.requests if "/resolve/" in path]
    assert local_folder(str(folder)) == local_folder(folder) == folder


def test_a_name_that_is_not_there_and_one_that_is_no_name(waves, videos, tmp_path, capsys):
    for name, words in (
        ("someone/nothing", "not on the Hub"),
        (f"{NAME}@nothing", "has no revision 'nothing'"),
        ("some--one/wa..ves", "some--one/wa..ves"),
    ):
        assert main(command_of("predict", videos, tmp_path, name)) == 2
        one_line(capsys, words)


def test_a_repository_of_an_adapter_says_what_to_do(waves, videos, tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"")
    waves.publish("someone/adapter", tmp_path / "adapter")
    assert main(command_of("predict", videos, tmp_path, "someone/adapter")) == 2
    one_line(capsys, "someone/adapter@", "adapter of PEFT", "merge_and_unload")


# Damaged checkpoints


def test_damaged_checkpoints_are_a_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    torch.save({"state_dict": {"a": torch.ones(50), "b": torch.ones(3, 3)}}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    damaged = [whole[:size] for size in (0, 1, 30, 200, len(whole) // 2, len(whole) - 30)]
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(data), rng.integers(1, 30))
        data[places] = rng.integers(0, 256, len(places))
        damaged.append(data.tobytes())
    damaged += [b"text", b"\x80\x04.", b"\x80\x02]q\x00.", b"PK\x03\x04" + bytes(100)]
    for data in damaged:
        (tmp_path / "x.pth").write_bytes(data)
        assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "new")]) == 2
        one_line(capsys, "x.pth")


def test_offline_a_name_and_its_commit_come_from_the_cache(waves):
    sha = origin(local_folder(NAME)).partition("@")[2]
    code = (
        "import sys; from lvt_ff.hub.resolve import local_folder, origin; "
        "print(*(origin(local_folder(name)) for name in sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, NAME, f"{NAME}@{sha}"],
        capture_output=True,
        text=True,
        env=dict(os.environ, HF_HUB_OFFLINE="1"),
    )
    assert run.stdout.split() == [f"{NAME}@{sha}"] * 2, run.stderr
