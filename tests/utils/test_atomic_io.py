"""Whole files: whoever may read them, whatever waits beside them, whoever else writes."""

import os
import stat
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

from lvt_ff.utils import atomic_io
from lvt_ff.utils.atomic_io import atomic_file, atomic_files, atomic_folder, write_text


@pytest.fixture
def umask():
    former = os.umask(0o027)
    yield
    os.umask(former)


def modes(folder):
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


def test_the_umask_decides_who_may_read_whichever_library_wrote(umask, tmp_path):
    weights = dict(a=torch.zeros(2))
    with atomic_folder(tmp_path / "run") as new:
        save_file(weights, new / "model.safetensors")  # 0600 by itself
        (new / "state.json").write_text("{}")
        (new / "deeper").mkdir()
        (new / "deeper/script.sh").write_text("")
        (new / "deeper/script.sh").chmod(0o755)
    with atomic_file(tmp_path / "one.safetensors") as partial:
        save_file(weights, partial)
    with atomic_files(tmp_path / "run", last="config.json") as new:
        save_file(weights, new / "more.safetensors")
    assert modes(tmp_path) == {
        "run": 0o750,
        "run/model.safetensors": 0o640,
        "run/state.json": 0o640,
        "run/more.safetensors": 0o640,
        "run/deeper": 0o750,
        "run/deeper/script.sh": 0o750,
        "one.safetensors": 0o640,
    }


def test_a_saved_model_can_be_read_by_whom_the_umask_lets(umask, hf_model, tmp_path):
    hf_model.save_pretrained(tmp_path / "whole")
    hf_model.save_pretrained(tmp_path / "shards", max_shard_size="500KB")
    files = {name: mode for name, mode in modes(tmp_path).items() if "/" in name}
    assert len(files) > 6 and set(files.values()) == {0o640}


def test_links_that_wait_under_guessable_names_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    place = tmp_path / "place"
    place.mkdir()
    for name in (".partial.a", ".a.partial", ".a.former", "a"):
        (place / name).symlink_to(victim)
    write_text(place / "a", "text")
    assert (place / "a").read_text() == "text" and not (place / "a").is_symlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/kept").write_text("mine")
    for name in (".b.partial", ".b.former", "b"):
        (place / name).symlink_to(tmp_path / "elsewhere")
    with atomic_folder(place / "b") as new:
        (new / "file").write_text("text")
    assert not (place / "b").is_symlink()
    with atomic_files(place / "b", last="a") as new:
        (new / "a").write_text("text")
    assert victim.read_text() == "mine"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["kept"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    together = threading.Barrier(8)

    def write(number):
        with atomic_file(tmp_path / "a") as partial, open(partial, "w") as file:
            together.wait()
            for _ in range(100):
                file.write(f"{number}")
                file.flush()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / "a").read_text()
    assert len(text) == 100 and len(set(text)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("moment", ["before", "between"])
def test_what_a_killed_writer_left_goes_with_the_next_and_loses_nothing(tmp_path, moment):
    with atomic_folder(tmp_path / "a") as new:
        (new / "file").write_text("first")
    child = os.fork()
    if child == 0:
        rename = os.rename

        def killed(source, target):
            if moment == "between":
                rename(source, target)
            os._exit(9)

        atomic_io.os.rename = killed
        with atomic_folder(tmp_path / "a") as new:
            (new / "file").write_text("second")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".a.*.partial"))) == 1
    (tmp_path / ".a.b.xyz.partial").mkdir()  # of another target
    with pytest.raises(OSError, match="disk full"), atomic_folder(tmp_path / "a") as new:
        assert (tmp_path / "a/file").read_text() == "first"
        raise OSError("disk full")
    assert (tmp_path / "a/file").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.b.xyz.partial"}


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_names_that_are_not_utf8_are_written_as_the_bytes_that_they_are(tmp_path):
    write_text(tmp_path / "list.csv", os.fsdecode("caf\u00e9 ".encode() + b"caf\xe9\n"))
    assert (tmp_path / "list.csv").read_bytes() == "caf\u00e9 ".encode() + b"caf\xe9\n"
