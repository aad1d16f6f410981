"""The page: in a browser, for several visitors, with bad files, and as a Space."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
import pytest
import torch
import yaml
from conftest import random_frames, write_growing_video
from gradio_client import Client, handle_file
from packaging.requirements import Requirement

import lvt_ff
from lvt_ff import LVTFFConfig, LVTFFForVideoClassification, LVTFFVideoProcessor
from lvt_ff.app import hf_space
from lvt_ff.app.result_page import check_video, make_result_page
from lvt_ff.app.server import UploadHandler
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.inference.classifier import Classifier
from lvt_ff.kernels import KERNELS
from lvt_ff.kernels.base import Kernel
from lvt_ff.utils.errors import FrameSizeError

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LABELS = {0: "push", 1: "pull", 2: "lift", 3: "drop", 4: "turn", 5: "hold"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two model folders and some clips."""
    folder = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = LVTFFConfig.from_variant("test_lvt_ff", id2label=LABELS)
        LVTFFForVideoClassification(config).save_pretrained(folder / name)
        LVTFFVideoProcessor.from_config(config).save_pretrained(folder / name)
    (folder / "samples").mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4", "samples/one.mp4")):
        write_video(folder / name, random_frames(20, 80, 96, seed))
    write_video(folder / "long.mp4", random_frames(60, 80, 96), fps=5)
    return folder


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def started(command, port, **options):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.stdout.read().decode())


@pytest.fixture(scope="module")
def page(place):
    """The address of a running page of both models, its process, and its temporary folder."""
    port, temporary = free_port(), place / "temporary"
    temporary.mkdir()
    models = f"{place / 'first'},{place / 'second'}"
    limits = ["--max_mb", "1", "--max_seconds", "20", "--samples", str(place / "samples")]
    command = [sys.executable, "-m", "lvt_ff", "app", "--model", models, "--port", str(port)]
    package = str(Path(lvt_ff.__file__).parents[1])
    env = dict(os.environ, TMPDIR=str(temporary), PYTHONPATH=package)
    # Where the working folder holds the uploads, gradio is strict about their names.
    process = started([*command, *limits], port, env=env, cwd=place)
    yield f"http://127.0.0.1:{port}/", process, temporary
    process.terminate()
    process.wait(20)
    assert not list(temporary.glob("lvt_ff_app_*"))  # nothing stays behind


def visit(address, path):
    line, *parts = Client(address, verbose=False).predict(
        handle_file(str(path)), api_name="/upload"
    )
    return line, parts


def shown(classes):
    return {row["label"]: row["confidence"] for row in classes["confidences"]}


def predicted(folder, path):
    return {
        row["label"]: pytest.approx(row["score"], abs=1e-5)
        for row in Classifier(folder, "cpu")(path)
    }


def wait_until_empty(temporary):
    uploads = next(temporary.glob("lvt_ff_app_*/uploads"))
    for _ in range(300):
        left = [file for file in uploads.rglob("*") if file.is_file() or len(file.name) == 64]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_in_a_browser(page, place, tmp_path):
    from playwright.sync_api import sync_playwright

    address, _, temporary = page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=dict(width=1400, height=1000))
        requests = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        tab.set_input_files("#clip input[type=file]", place / "a.mp4")
        tab.wait_for_selector("figure img", timeout=60_000)
        assert tab.locator("figure img").count() == 4  # two pictures of each model
        widths = tab.eval_on_selector_all("figure img", "all => all.map(one => one.naturalWidth)")
        assert min(widths) > 100
        text = tab.inner_text("body")
        for folder in ("first", "second"):
            assert folder in text
            assert all(label in text for label in predicted(place / folder, place / "a.mp4"))
        assert "What counts for" in text and "classified in" in text
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 20_000
        (tmp_path / "broken.mp4").write_bytes(b"this is no video")
        tab.set_input_files("#clip input[type=file]", tmp_path / "broken.mp4")
        tab.wait_for_selector("text=broken.mp4 is empty, damaged, or not a video", timeout=60_000)
        assert tab.locator("figure img").count() == 0
        tab.click("text=one")
        tab.wait_for_selector("figure img", timeout=60_000)
        assert all(url.startswith((address, "data:", "blob:")) for url in requests)
        browser.close()
    wait_until_empty(temporary)


def test_visitors_at_the_same_time_get_their_own_results(page, place):
    address, _, temporary = page
    paths = [place / name for name in ("a.mp4", "b.mp4", "a.mp4", "b.mp4")]  # the same file twice
    with ThreadPoolExecutor(4) as visitors:
        results = list(visitors.map(lambda path: visit(address, path), paths))
    for path, (line, parts) in zip(paths, results, strict=True):
        assert path.name in line
        for folder, classes in zip(("first", "second"), parts[::2], strict=True):
            expected = predicted(place / folder, path)
            assert shown(classes) == expected
    wait_until_empty(temporary)


def test_bad_uploads_leave_nothing_and_end_nothing(page, place, tmp_path):
    address, process, temporary = page
    whole = (place / "a.mp4").read_bytes()
    bad = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"hello", "not a video"),
        "cut.mp4": (whole[: len(whole) // 2], "not a video"),
        "note.txt": (b"hello", "must end as"),
        "no_suffix": (whole, "must end as"),
        "<b>&.mp4": (b"x", "not a video"),
    }
    client = Client(address, verbose=False)
    for number in range(50):
        name = list(bad)[number % len(bad)]
        content, reason = bad[name]
        file = tmp_path / str(number) / name
        file.parent.mkdir()
        file.write_bytes(content)
        line, *parts = client.predict(handle_file(str(file)), api_name="/upload")
        assert reason in line and str(temporary) not in line
        assert parts == [{}, "", {}, ""]
    assert process.poll() is None
    assert shown(visit(address, place / "b.mp4")[1][0]) == predicted(
        place / "first", place / "b.mp4"
    )
    wait_until_empty(temporary)


def test_files_over_the_limits_are_refused(page, place, tmp_path):
    address, _, temporary = page
    write_video(tmp_path / "long.mp4", random_frames(25, 80, 96), fps=1)
    line, parts = visit(address, tmp_path / "long.mp4")
    assert "lasts 25 s: the limit is 20 s" in line and parts[0] == {}
    (tmp_path / "large.mp4").write_bytes(bytes(1_500_000))
    with pytest.raises(Exception, match="413|exceed"):
        visit(address, tmp_path / "large.mp4")
    data = [{"path": str(place / "a.mp4"), "meta": {"_type": "gradio.FileData"}}]
    call = f"{address}gradio_api/call/upload"
    event = httpx.post(call, json={"data": data}).json()["event_id"]
    assert "event: error" in httpx.get(f"{call}/{event}").text
    assert (place / "a.mp4").exists()
    wait_until_empty(temporary)


@pytest.mark.parametrize("name", [".mp4", "..MP4", ".hidden.mp4", "a b.MP4"])
def test_uploads_of_any_name_are_read_and_deleted(page, place, tmp_path, name):
    address, _, temporary = page
    shutil.copy(place / "a.mp4", tmp_path / name)
    line, parts = visit(address, tmp_path / name)
    assert line == f"**{name}**"
    assert shown(parts[0]) == predicted(place / "first", place / "a.mp4")
    wait_until_empty(temporary)


def test_frames_that_grow_behind_the_header_are_refused(page, place, tmp_path):
    address, process, temporary = page
    visit(address, place / "a.mp4")
    before = psutil.Process(process.pid).memory_info().rss
    write_growing_video(tmp_path / "a.webm", "libvpx", [(64, 96), (2200, 4000)], num_frames=2)
    line, parts = visit(address, tmp_path / "a.webm")
    assert line == "⚠️ A frame has more than 8,294,400 pixels, which is the limit."
    assert parts == [{}, "", {}, ""]
    assert psutil.Process(process.pid).memory_info().rss - before < 100e6
    wait_until_empty(temporary)


def test_visits_leave_no_memory(page, place):
    address, process, temporary = page
    content = (place / "a.mp4").read_bytes()

    def visit_in_a_session(client):
        sent = client.post("upload", files={"files": ("a.mp4", content)}).json()
        data = [{"path": sent[0], "meta": {"_type": "gradio.FileData"}}]
        session = dict(session_hash=uuid.uuid4().hex)
        client.post("queue/join", json=dict(data=data, fn_index=0, **session))
        with client.stream("GET", "queue/data", params=session) as stream:
            assert any('"success":true' in line for line in stream.iter_lines())

    with httpx.Client(base_url=f"{address}gradio_api/", timeout=60) as client:
        sizes = []
        for _ in range(2):  # the first visits fill what is kept for the last ones
            for _ in range(40):
                visit_in_a_session(client)
            sizes.append(psutil.Process(process.pid).memory_info().rss)
    print("SIZES", sizes)
    assert sizes[1] - sizes[0] < 40 * 0.35e6  # every visit left 0.6 MB
    wait_until_empty(temporary)


def test_only_this_machine_is_listened_to(page):
    _, process, _ = page
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(process.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_space_runs_on_its_own(place, tmp_path, capsys):
    space = tmp_path / "space"
    samples = ["--samples", str(place / "samples")]
    assert main(["app", "--model", str(place / "first"), "--export", str(space), *samples]) == 0
    described = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert described["sdk"] == "gradio" and described["app_file"] == "app.py"
    needed = (space / "requirements.txt").read_text()
    assert "gradio" in needed and "torch" in needed and "pytest" not in needed
    assert not list(space.rglob("__pycache__"))
    port = free_port()
    file = space / "app.py"
    code = file.read_text().replace('"0.0.0.0"', f'"127.0.0.1", port={port}')
    file.write_text(code.replace("HERE = ", "import lvt_ff\nprint(lvt_ff.__file__)\nHERE = "))
    temporary = dict(os.environ, TMPDIR=str(tmp_path))
    process = started([sys.executable, "app.py"], port, cwd=space, env=temporary)
    try:
        parts = visit(f"http://127.0.0.1:{port}/", place / "a.mp4")[1]
        assert shown(parts[0]) == predicted(place / "first", place / "a.mp4")
    finally:
        process.kill()
    assert str(space / "lvt_ff/__init__.py") in process.stdout.read().decode()
    for options, reason in (
        (["--export", str(space)], "exists already"),
        (["--export", str(tmp_path / "b"), "--port", "99"], "--port is of no use with --export"),
        (["--export", str(tmp_path / "b"), "--samples", str(tmp_path / "none")], "has no videos"),
    ):
        (tmp_path / "none").mkdir(exist_ok=True)
        assert main(["app", "--model", str(place / "first"), *options]) == 2
        assert reason in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_space_of_a_checkout_that_is_not_installed(place, tmp_path, monkeypatch, capsys):
    installed = hf_space._requirements()

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(hf_space.metadata, "requires", requires)
    checkout = Path(__file__).parents[2] / "lvt_ff/__init__.py"
    monkeypatch.setattr(hf_space.lvt_ff, "__file__", str(checkout))
    export = ["app", "--model", str(place / "first"), "--export", str(tmp_path / "space")]
    if sys.version_info >= (3, 11):
        found = hf_space._requirements()
        names = [{Requirement(line).name for line in lines} for lines in (installed, found)]
        assert names[0] == names[1] and {"gradio", "torch"} <= names[0]
        assert main(export) == 0 and "gradio" in (tmp_path / "space/requirements.txt").read_text()
        shutil.rmtree(tmp_path / "space")
    monkeypatch.setattr(hf_space.lvt_ff, "__file__", str(tmp_path / "elsewhere/lvt_ff/__init__.py"))
    assert main(export) == 2
    assert "pip install" in capsys.readouterr().err and not (tmp_path / "space").exists()


def test_length_and_pixels_are_known_before_decoding(tmp_path):
    write_video(tmp_path / "large.mp4", np.zeros((2, 2200, 4000, 3), np.uint8))
    with pytest.raises(FrameSizeError, match="more than 8,294,400 pixels"):
        check_video(tmp_path / "large.mp4", 10, 60)
    live = tmp_path / "live.mkv"  # as browsers record: the header tells no duration
    with av.open(str(live), "w", options=dict(live="1")) as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for pixels in random_frames(40, 80, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(live)) as container:
        assert not container.duration
    assert check_video(live, 10, 60) == pytest.approx(20, abs=1)
    with pytest.raises(ValueError, match="the limit is 10 s"):
        check_video(live, 10, 10)


def test_long_clips_have_a_timeline(place):
    classify = Classifier(place / "first", "cpu")
    length = check_video(place / "long.mp4", 10, 60)
    assert length == pytest.approx(12, abs=0.5)
    assert "Over time: 2 parts" in make_result_page(classify, place / "long.mp4", length).html
    assert "Over time" not in make_result_page(classify, place / "a.mp4", 1.0).html
    rows = classify.scores_over_time(place / "long.mp4", 3)
    assert rows.shape == (3, 6) and (rows[0] - rows[2]).abs().max() > 1e-4
    torch.testing.assert_close(rows.sum(1), torch.ones(3))
    (whole,) = classify.scores_over_time(place / "a.mp4", 1)
    best = classify(place / "a.mp4", 1)[0]
    assert whole[classify.model.config.label2id[best["label"]]] == pytest.approx(
        best["score"], abs=1e-5
    )


def test_models_without_weights_to_show_still_classify(place, monkeypatch):
    monkeypatch.setattr(KERNELS["relu"], "weights", Kernel.weights)
    found = make_result_page(Classifier(place / "first", "cpu"), place / "a.mp4", 1.0)
    assert len(found.best_classes) == 5 and "no attention weights" in found.html
    assert "The 4 frames that were used" in found.html


def test_files_may_vanish_while_uploads_are_swept(tmp_path, monkeypatch):
    handler = UploadHandler({}, tmp_path, {}, 1, 1)
    folders = [tmp_path / f"{number:064x}" for number in range(300)]
    for folder in folders:
        folder.mkdir()
        (folder / "a.mp4").touch()
        os.utime(folder / "a.mp4", (time.time() - 700,) * 2)
    unlink = Path.unlink

    def unlink_while_others_do(path, **options):
        monkeypatch.setattr(Path, "unlink", unlink)
        for folder in folders[::2]:
            if folder != path.parent:
                shutil.rmtree(folder)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", unlink_while_others_do)
    handler.sweep()
    assert not list(tmp_path.iterdir())  # the folders are gone too


def test_broken_off_uploads_are_swept(place, tmp_path):
    handler = UploadHandler({}, tmp_path, {}, 1, 1)
    for name, content, age in (("old", b"x", 700), ("new", b"x", 60)):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    now = time.time()
    handler.recent_results = {tmp_path / "a": (now - 100, []), tmp_path / "b": (now, [])}
    handler.sweep()
    assert [file.name for file in tmp_path.iterdir()] == ["new"]
    assert list(handler.recent_results) == [tmp_path / "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "absent"], "absent is not a folder"),
        (["--model", "model,model"], "must name different models"),
        (["--model", "model,"], "must name different models"),
        (["--port", "0"], "--port must be between"),
        (["--samples", "model"], "has no videos"),
        (["--max_mb", "0"], "--max_mb must be above 0, got 0"),
    ],
)
def test_wrong_requests_are_one_line(place, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert main(["app", "--model", str(place / "first"), *options]) == 2
    assert message in capsys.readouterr().err


def test_missing_gradio_and_a_taken_port_are_said(place, monkeypatch, capsys):
    from lvt_ff.app import server as module

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        samples = ["--samples", str(place / "samples")]
        assert main(["app", "--model", str(place / "first"), "--port", port, *samples]) == 2
    error = capsys.readouterr().err
    assert f":{port} (Address already in use): give another --port" in error
    assert "GRADIO" not in error and "launch" not in error and error.count("\n") == 1
    assert main(["app", "--model", str(place / "first"), "--host", "no.such.host", *samples]) == 2
    assert (
        "no.such.host:7860" in (error := capsys.readouterr().err) and "give another --host" in error
    )
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert main(["app", "--model", str(place / "first")]) == 2
    assert 'pip install "gradio>=6"' in capsys.readouterr().err
