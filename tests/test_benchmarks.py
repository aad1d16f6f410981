"""The scripts in `benchmarks/` start without a GPU, and ask only for what there is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lvt_ff.benchmarking.benchmark import _groups, benchmark
from lvt_ff.utils.option_parser import command_parser, parse_command

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks"
# The interpreter of old versions has gaps.
MENDED = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
from triton_interpreter import mend
mend()
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ways_on_a_processor_are_told_apart():
    ways = ["eager", "reference", "bfloat16", "autocast", "int8"]
    command = [sys.executable, str(SCRIPTS / "cpu.py"), "--model", "test_lvt_ff", "--repeats", "1"]
    run = subprocess.run(
        [*command, "--ways", *ways],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in run.stdout.splitlines()[2:]]
    errors = {line[0]: float(line[-1]) for line in lines}
    assert list(errors) == ways
    assert errors["eager"] == 0 and errors["reference"] < 1e-5
    assert all(1e-5 < errors[way] < 0.5 for way in ways[2:])


def test_kernels_are_checked_in_the_interpreter(tmp_path):
    pytest.importorskip("triton")
    output = tmp_path / "new" / "kernels.json"
    command = [sys.executable, "-c", MENDED, str(ROOT / "tests/ops"), str(SCRIPTS / "kernels.py")]
    environment = dict(os.environ, TRITON_INTERPRET="1", PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [*command, "--interpret", "--output", str(output)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    names = {row["name"].partition(",")[0] for row in rows}
    assert names == {"attention", "gated_heads", "dwconv_gelu", "add_norm"}
    for row in rows:
        assert row["equal_bits"] and not row["failed"] and "ms" not in row
        for fused, plain in row["errors"].values():
            assert 0 <= fused < 1e-5 and 0 <= plain < 1e-5


def run_gpu_script(tmp_path, python, **environment):
    """gpu.sh with a stand-in for Python."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/usr/bin/env bash\n{python}\n")
    stand_in.chmod(0o755)
    environment = dict(os.environ, PYTHON=str(stand_in), **environment)
    command = ["bash", str(SCRIPTS / "gpu.sh"), str(tmp_path / "output")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")
def test_the_gpu_script_asks_for_what_there_is(tmp_path):
    calls = tmp_path / "calls"
    run = run_gpu_script(tmp_path, f'printf "%s\\n" "$*" >> {calls}')
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "output" / "log.txt").read_text() == run.stdout
    words = [line.split() for line in calls.read_text().splitlines()]
    parser = command_parser(benchmark, "lvt-ff benchmark")
    ours = [call[3:] for call in words if call[:3] == ["-m", "lvt_ff", "benchmark"]]
    asked = [parse_command(parser, options) for options in ours]
    assert len(asked) == 6 and len({options["output"] for options in asked}) == 6
    assert all(_groups(SimpleNamespace(**options)) for options in asked)
    for word in (word for call in words for word in call if word.endswith(".py")):
        assert (ROOT / word).is_file(), word


@pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")
def test_the_gpu_script_goes_on_after_a_failure_and_stops_in_time(tmp_path):
    fails = 'case "$*" in *"-m pytest"*) exit 3;; *--graph*) exit 1;; *--compile*) sleep 60;; esac'
    run = run_gpu_script(tmp_path, fails, BUDGET_S="8")
    assert run.returncode == 1
    told = run.stdout.rpartition("== after")[2]
    assert "tests: FAILED with status 3" in told and "train: done" in told
    assert "graph: FAILED with status 1" in told and "graph_ours: FAILED" in told
    assert "compiled: CUT OFF" in told and "table8: left out" in told
