"""No file and no decoder ends, hangs or exhausts its caller."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from conftest import random_frames

from lvt_ff.data import VideoReadError, header, read_clip
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.video import decoder_process, pool, reader, shared_frames
from lvt_ff.video.decoder_process import DecoderProcess, Died


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "a.mp4", random_frames(12, 32, 48))
    return tmp_path / "a.mp4"


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """Puts a module of the given text in decord's place, in new decoder processes."""
    absent = dict(reader._absent)

    def replace(text):
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "torchcodec.py").write_text("raise ImportError('not here')")
        (folder / "decord.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        pool.restart()

    yield replace
    reader._absent.clear()
    reader._absent.update(absent)
    pool.restart()


DEATHS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "died with signal 11 SIGSEGV",
    "import os; os.abort()": "died with signal 6 SIGABRT",
    "import os; os._exit(7)": "ended with status 7",
    "import ctypes; ctypes.string_at(0)": "died with signal 11",
    "raise ImportError('absent')": "not installed .*absent",
    "raise OSError('libavutil.so not found')": "libavutil.so not found",
    "bytes(2**34)": "MemoryError",
}


@pytest.mark.parametrize("text", DEATHS)
def test_next_backend_reads_where_one_dies(video, backend, text):
    backend(text)
    expected = read_clip(video, [0, 5, 11], decoder="pyav")
    np.testing.assert_array_equal(read_clip(video, [0, 5, 11]), expected)
    with pytest.raises(VideoReadError, match=rf"a\.mp4.*decord: .*{DEATHS[text]}"):
        read_clip(video, [0], decoder="decord")


def test_decoder_without_progress_is_cut_off(video, backend):
    backend("import time; time.sleep(600)")
    start = time.monotonic()
    assert read_clip(video, [3], timeout_s=1.0).shape == (1, 32, 48, 3)
    with pytest.raises(VideoReadError, match="decord: no progress within 1 s"):
        read_clip(video, [3], decoder="decord", timeout_s=1.0)
    assert time.monotonic() - start < 30


def test_slow_decoder_with_progress_is_waited_for(video, backend):
    backend(
        "import time, numpy\n"
        "class logging: QUIET = 0; set_level = print\n"
        "class Frame:\n"
        "    def asnumpy(self): return numpy.full((32, 48, 3), 7, numpy.uint8)\n"
        "class VideoReader:\n"
        "    def __init__(self, path, num_threads): pass\n"
        "    def __len__(self): return 12\n"
        "    def __getitem__(self, number): time.sleep(0.5); return Frame()\n"
    )
    assert (read_clip(video, range(6), decoder="decord", timeout_s=1.5) == 7).all()


def test_what_a_decoder_prints_is_no_answer(video, backend, capfd):
    backend("print('{\"frames\": [1, 1, 1, 3]}' * 3, flush=True)\nraise RuntimeError('done')")
    with pytest.raises(VideoReadError, match="decord: RuntimeError: done"):
        read_clip(video, [0], decoder="decord")
    assert capfd.readouterr() == ("", "")


def processes():
    """Decoder processes of this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        if "worker.main()" in " ".join(child.cmdline()):
            found.append(child)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_decoder_is_one_failed_reading(video, number):
    def choose(total):
        for process in processes():
            os.kill(process.pid, number)
        return [0]

    with pytest.raises(VideoReadError, match=f"pyav: the decoder died with signal {int(number)}"):
        read_clip(video, choose, decoder="pyav")
    assert read_clip(video, [0]).shape == (1, 32, 48, 3)


def test_idle_decoder_that_was_killed_is_replaced(video):
    read_clip(video, [0])
    for process in processes():
        process.kill()
    time.sleep(0.5)
    assert read_clip(video, [0]).shape == (1, 32, 48, 3)


def test_processes_are_kept_and_bounded(video):
    pool.restart()
    read_clip(video, [0])
    first = {process.pid for process in processes()}
    for _ in range(5):
        read_clip(video, [0])
    assert {process.pid for process in processes()} == first and len(first) == 1
    threads = [
        threading.Thread(target=read_clip, args=(video, range(12)))
        for _ in range(2 * pool.MAX_PROCESSES)
    ]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(processes()))
    assert 1 <= most <= pool.MAX_PROCESSES


def test_errors_of_the_chooser_leave_the_decoder_usable(video):
    read_clip(video, [0])
    before = {process.pid for process in processes()}

    def choose(total):
        raise KeyError("mine")

    for _ in range(3):
        with pytest.raises(KeyError, match="mine"):
            read_clip(video, choose)
    read_clip(video, [0])
    assert {process.pid for process in processes()} == before


def test_large_clips_come_in_memory_of_their_own(video, monkeypatch):
    expected = [read_clip(video, range(n), decoder="pyav") for n in (2, 12, 1)]
    code = f"{decoder_process._CODE}; from lvt_ff.video import shared_frames"
    small = 4 * 32 * 48 * 3
    monkeypatch.setattr(decoder_process, "_CODE", f"{code}; shared_frames._KEPT_BYTES = {small}")
    monkeypatch.setattr(shared_frames, "_KEPT_BYTES", small)
    pool.restart()
    found = [read_clip(video, range(n), decoder="pyav") for n in (2, 12, 1)]
    for clip, clip_expected in zip(found, expected, strict=True):
        np.testing.assert_array_equal(clip, clip_expected)
        assert clip.flags.writeable
    pool.restart()


def test_frames_are_the_callers_own(video):
    first = read_clip(video, [0, 5])
    kept = first.copy()
    first_again = read_clip(video, [1, 6])
    np.testing.assert_array_equal(first, kept)
    first_again[:] = 0
    assert first.flags.writeable


def test_frames_come_through_a_pipe_where_memory_cannot_be_shared(video, monkeypatch):
    expected = read_clip(video, [0, 5])
    monkeypatch.setattr("lvt_ff.video.decoder_process._CAN_SHARE", False)
    pool.restart()
    frames = read_clip(video, [0, 5])
    np.testing.assert_array_equal(frames, expected)
    assert frames.flags.writeable
    pool.restart()


def test_inline_reads_the_same(video, monkeypatch):
    expected = read_clip(video, [0, 5, 5])
    pool.restart()
    monkeypatch.setenv("LVT_FF_DECODE", "inline")
    np.testing.assert_array_equal(read_clip(video, [0, 5, 5]), expected)
    assert header(video) == (0.75, 32 * 48)
    with pytest.raises(KeyError, match="mine"):
        read_clip(video, lambda total: {}["mine"])
    assert not processes()
    monkeypatch.setenv("LVT_FF_DECODE", "elsewhere")
    with pytest.raises(ValueError, match="processes.*inline.*'elsewhere'"):
        read_clip(video, [0])


def test_interrupted_reading_ends_its_decoder(video):
    def choose(total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_clip(video, choose)
    assert read_clip(video, [0]).shape == (1, 32, 48, 3)


def test_decoder_that_does_not_start_tells_why(monkeypatch, video):
    monkeypatch.setattr("lvt_ff.video.decoder_process._CODE", "import no_such_module")
    pool.restart()
    with pytest.raises(VideoReadError, match="ended with status 1 .*no_such_module"):
        read_clip(video, [0])
    with pytest.raises(Died):
        DecoderProcess()


def test_nothing_is_left_when_the_caller_ends(video):
    code = (
        "import os, sys, json, psutil; from lvt_ff.video.reader import read_clip\n"
        "read_clip(sys.argv[1], [0])\n"
        "print(json.dumps([p.pid for p in psutil.Process().children()]), flush=True)\n"
        "os.kill(os.getpid(), 9) if sys.argv[2] == 'killed' else None\n"
    )
    for way in ("ended", "killed"):
        run = subprocess.run(
            [sys.executable, "-c", code, str(video), way], capture_output=True, text=True
        )
        assert run.stderr == ""
        pids = json.loads(run.stdout)
        assert pids
        deadline = time.monotonic() + 10
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_decoder_processes_load_no_torch(video):
    read_clip(video, [0], decoder="pyav")
    maps = [process.memory_maps() for process in processes()]
    assert maps and not any("libtorch" in part.path for parts in maps for part in parts)


def test_memory_without_end_is_refused(tmp_path, backend):
    write_video(tmp_path / "a.mp4", random_frames(2, 32, 48))
    backend("kept = []\nwhile True: kept.append(bytearray(2**24))\n")
    with pytest.raises(VideoReadError, match="decord: MemoryError"):
        read_clip(tmp_path / "a.mp4", [0], decoder="decord")
    most = max(process.memory_info().rss for process in processes())
    assert most < 3 * 2**30


def test_forked_processes_do_not_wait_for_readers_of_their_parent(video):
    reading = threading.Event()

    def read_on():
        while not reading.is_set():
            read_clip(video, [0])

    threads = [threading.Thread(target=read_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            child = os.fork()
            if child == 0:
                os._exit(0)
            deadline = time.monotonic() + 20
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                assert time.monotonic() < deadline, "the forked process hangs"
                time.sleep(0.002)
    finally:
        reading.set()
        for thread in threads:
            thread.join()


def test_files_in_the_present_folder_are_not_imported(video, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("json", "re", "numpy", "types", "queue"):
        (folder / f"{name}.py").write_text("raise SystemExit('this was imported')")
    root = os.path.dirname(os.path.dirname(reader.__file__))
    code = (
        f"import sys; sys.path[0] = {os.path.dirname(root)!r}\n"
        f"from lvt_ff.data import read_clip; print(read_clip({str(video)!r}, [0]).shape)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert run.stdout.strip() == "(1, 32, 48, 3)", run.stderr


def test_relative_places_of_imports_stay_where_they_were(video, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_process, "_FOLDER", str(tmp_path))
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "decord.py").write_text("raise ImportError('found it')")
    (tmp_path / "packages" / "torchcodec.py").write_text("raise ImportError('not here')")
    monkeypatch.setattr(sys, "path", ["packages", *sys.path])
    pool.restart()
    absent = dict(reader._absent)
    with pytest.raises(VideoReadError, match="decord: not installed .*found it"):
        read_clip(video, [0], decoder="decord")
    reader._absent.clear()
    reader._absent.update(absent)
    pool.restart()


@pytest.mark.parametrize("way", ["processes", "inline"])
def test_no_frames_at_all_are_an_error_of_the_caller(video, monkeypatch, way):
    monkeypatch.setenv("LVT_FF_DECODE", way)
    for indices in ([], lambda total: []):
        with pytest.raises(ValueError, match="No frames were asked for"):
            read_clip(video, indices)


def test_frames_may_be_chosen_by_another_video(video, monkeypatch):
    monkeypatch.setattr(pool, "MAX_PROCESSES", 1)
    pool.restart()
    frames = read_clip(video, lambda total: [len(read_clip(video, range(5)))])
    np.testing.assert_array_equal(frames, read_clip(video, [5]))
    pool.restart()


def test_setting_up_that_fails_leaves_nothing(video, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("can't start new thread")

    pool.restart()
    before = {process.pid for process in processes()}
    monkeypatch.setattr("lvt_ff.video.decoder_process.threading.Thread", fail)
    with pytest.raises(VideoReadError, match="can't start new thread"):
        read_clip(video, [0])
    monkeypatch.undo()
    monkeypatch.setattr("lvt_ff.video.decoder_process.tempfile.TemporaryFile", fail)
    with pytest.raises(VideoReadError, match="no decoder process can be started"):
        read_clip(video, [0])
    assert {process.pid for process in processes()} == before
