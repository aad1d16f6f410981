"""Where results go: refused before the work where they cannot be written, one run at a time."""

import json
import os
import platform
import subprocess
import sys

import pytest

from lvt_ff.utils import output
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.output import LOCK_NAME, check_output_file, check_output_folder, only_run


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody can write to, root included where it can be done."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    folder.chmod(0o555)
    fixed = os.geteuid() == 0
    if fixed and subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
        pytest.skip("nothing is read-only to root here")
    yield folder
    if fixed:
        subprocess.run(["chattr", "-i", str(folder)], check=True)
    folder.chmod(0o755)


def test_folders_that_can_be_written_pass_and_stay_as_they_are(tmp_path):
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new/one/below"):
        check_output_folder(folder, "--output")
    check_output_file(tmp_path / "new.png", "--output")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "new", "new/below"])
def test_read_only_folders_are_refused(name, read_only):
    with pytest.raises(ValueError, match="cannot be written to .*: give another --output_dir"):
        check_output_folder(read_only / name, "--output_dir")


def test_files_that_cannot_be_made_are_refused(read_only, tmp_path):
    with pytest.raises(ValueError, match="cannot be written to .*--output"):
        check_output_file(read_only / "a.png", "--output")
    with pytest.raises(ValueError, match="is a folder, not a file: give another --output"):
        check_output_file(read_only, "--output")
    with pytest.raises(ValueError, match="There is no folder .*none"):
        check_output_file(tmp_path / "none/a.png", "--output")
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(ValueError, match="--output"):
            check_output_folder(tmp_path / name, "--output")


# One run at a time


HOLD = """
import sys
from pathlib import Path
from lvt_ff.utils.output import only_run
with only_run(Path(sys.argv[1]), "--output_dir"):
    print("holding", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """Another process that has the folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "holding\n"
    return process


def refuse(folder, message):
    with pytest.raises(UsageError, match=message), only_run(folder, "--output_dir"):
        raise AssertionError("two runs at once")


def test_a_second_run_is_refused_and_names_the_first(tmp_path):
    process = hold(tmp_path)
    told = rf"process {process.pid} on {platform.node()}, started 20.*Give another --output_dir"
    for _ in range(2):
        refuse(tmp_path, told)
    process.communicate("")
    with only_run(tmp_path, "--output_dir"):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_is_no_hindrance(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with only_run(tmp_path, "--output_dir"):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_run_within_a_run_is_refused_and_leaves_it_the_lock(tmp_path):
    with only_run(tmp_path, "--output_dir"):
        refuse(tmp_path, f"process {os.getpid()} on")
        told = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True
        )
        assert f"process {os.getpid()} on" in told.stderr and told.returncode == 1


def test_the_lock_goes_with_a_failed_run(tmp_path):
    with pytest.raises(OSError, match="disk full"), only_run(tmp_path / "new", "--output_dir"):
        raise OSError("disk full")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_run_on_another_machine_is_taken_for_alive(tmp_path):
    told = dict(pid=1, host="elsewhere", started="2022-01-01 00:00:00")
    (tmp_path / LOCK_NAME).write_text(json.dumps(told))
    refuse(tmp_path, "process 1 on elsewhere.*if it is no longer there, delete")
    assert json.loads((tmp_path / LOCK_NAME).read_text()) == told


@pytest.mark.parametrize("job, ours", [("a1", True), ("b2", False), ("none", False)])
def test_a_run_that_torchrun_moved_to_another_machine_goes_on(tmp_path, monkeypatch, job, ours):
    told = dict(pid=1, host="elsewhere", started="2022-01-01 00:00:00", job="a1")
    told["job"] = None if job == "none" else "a1"  # a run without a name
    (tmp_path / LOCK_NAME).write_text(json.dumps(told))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    if not ours:
        refuse(tmp_path, "process 1 on elsewhere")
        return
    with only_run(tmp_path, "--output_dir"):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["job"] == job


@pytest.mark.parametrize("missing", ["module", "support"])
def test_without_locks_of_the_system_the_process_tells(missing, tmp_path, monkeypatch):
    if missing == "module":
        monkeypatch.setattr(output, "fcntl", None)
    else:

        def unsupported(*_):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(output.fcntl, "lockf", unsupported)
    process = hold(tmp_path)
    refuse(tmp_path, f"process {process.pid} on")
    process.kill()
    process.wait()
    with only_run(tmp_path, "--output_dir"):
        pass
    (tmp_path / LOCK_NAME).write_text("")  # killed while it was written
    with only_run(tmp_path, "--output_dir"):
        pass
