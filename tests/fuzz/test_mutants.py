"""A sample of damaged and hostile videos; `python tests/fuzz/mutate_videos.py` reads more."""

import random
import re
import sys
import time

import numpy as np
import pytest
from mutate_videos import Limits, Videos, fuzz, mutant
from mutations import MUTATIONS, splice
from reading import judge_frames, judge_header

SEED, SAMPLE, PART = 7, 300, 50


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    return Videos(tmp_path_factory.mktemp("seed_videos"))


@pytest.mark.parametrize("first", range(0, SAMPLE, PART))
def test_every_mutant_is_read_or_refused_in_words(videos, first):
    report = fuzz(range(first, first + PART), SEED, videos)
    assert not report.findings, report.table()
    assert sum(report.outcomes.values()) == PART


def test_a_number_and_a_seed_make_a_mutant(videos):
    first, again = ([mutant(3, number, videos) for number in range(40)] for _ in range(2))
    assert first == again
    assert len({made.content for made in first}) == 40
    assert first != [mutant(4, number, videos) for number in range(40)]


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_every_mutation_changes_every_video(videos, change):
    others = (videos.small,) if change is splice else ()
    for name, content in videos.groups["made"].items():
        changed = (change(content, random.Random(number), *others) for number in range(20))
        assert any(content != other for other in changed), name


READERS = """
import os, subprocess, tempfile, time
from reading import judge_frames, read

KEPT = []

def raises(path, way):
    raise ValueError("of its own")

def leaves(path, way):
    raise SystemExit

def hangs(path, way):
    time.sleep(600)

def is_slow(path, way):
    time.sleep(1.5)
    return "read", way

def dies(path, way):
    os.abort()

def ends(path, way):
    os._exit(7)

def takes_memory(path, way):
    KEPT.append(b"1" * 2**29)
    return "read", way

def leaves_a_file(path, way):
    return "read", tempfile.mkstemp()[1]

def leaves_a_process(path, way):
    subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    return "read", way

def says_nothing(path, way):
    import reading
    def refuse(*arguments):
        raise reading.VideoReadError("Cannot read video.")
    reading.read_frames = refuse
    return read(path, "auto")
"""
FINDINGS = {
    "raises": "ValueError: of its own",
    "leaves": "SystemExit",
    "hangs": "no end after 4 s",
    "is_slow": "it takes 2 s",
    "dies": "the caller ends with -6",
    "ends": "the caller ends with 7",
    "takes_memory": "the caller takes .* MiB",
    "leaves_a_file": "temporary files are left",
    "leaves_a_process": "1 decoder processes are left",
    "says_nothing": "its name is not in VideoReadError: Cannot read video",
}


@pytest.fixture
def readers(tmp_path, monkeypatch):
    (tmp_path / "odd_readers.py").write_text(READERS)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *sys.path]))


@pytest.mark.parametrize("name", FINDINGS)
def test_what_no_reader_may_do_is_found(videos, readers, tmp_path, name):
    limits = Limits(margin_s=1.0, resident_bytes=2**30, timeout_s=1.0)
    if name == "is_slow":
        limits = limits._replace(timeout_s=0.2)
    start = time.monotonic()
    options = dict(reader=f"odd_readers:{name}", limits=limits, keep=tmp_path / "kept")
    report = fuzz([11], 5, videos, **options)
    assert time.monotonic() - start < 50
    finding = "\n".join(report.findings)
    assert re.search(FINDINGS[name], finding), report.table()
    assert "mutate_videos.py --seed 5 --only 11" in finding
    kept = [path.read_bytes() for path in (tmp_path / "kept").iterdir()]
    assert kept == [mutant(5, 11, videos).content]


def test_impossible_answers_are_found():
    clip = np.zeros((16, 4, 6, 3), np.uint8)
    assert judge_frames(clip, "pyav") == ("read", "pyav")
    for wrong in (clip[:15], clip[..., :2], clip.astype(float), clip[:, :0], None):
        assert judge_frames(wrong, "pyav")[0] == "wrong"
    assert judge_header((2.0, 64))[0] == "read" and judge_header(None)[0] == "refused"
    for wrong in ((-1.0, 64), (float("nan"), 64), (float("inf"), 64), (1.0, 0)):
        assert judge_header(wrong)[0] == "wrong"
