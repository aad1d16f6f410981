"""The scripts in `benchmarks/` start without a GPU, and ask only for what there is."""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.commands.launch import launch_command_parser
from conftest import random_frames

import lvt_ff
from lvt_ff.benchmarking.benchmark import _groups, benchmark
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.training import run_setup
from lvt_ff.training.finetune import finetune
from lvt_ff.training.recipes import load_recipe
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


def run_script(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def test_made_up_videos_have_the_size_of_common_ones(tmp_path, monkeypatch):
    run_script(monkeypatch, "training_videos.py", tmp_path / "videos", 1)
    (file,) = (tmp_path / "videos").glob("right/*.mp4")
    clip = lvt_ff.read_clip(file, [0, 89])
    assert clip.shape == (2, 256, 340, 3) and clip.std() > 50


def test_a_measured_run_tells_what_its_log_has(tmp_path, monkeypatch, capsys):
    for number in range(8):
        file = tmp_path / "videos" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, random_frames(4, 32, 48, seed=number))
    sizes = '--model_args={"depth": 1, "num_frames": 2, "img_size": 32}'
    options = ["--model", "test_lvt_ff", sizes, "--train_data", tmp_path / "videos", "--cpu"]
    options += ["--output_dir", tmp_path / "run", "--batch_size", 1, "--epochs", 1]
    options += ["--num_workers", 0]
    with pytest.raises(SystemExit, match="0"):
        run_script(monkeypatch, "finetune.py", tmp_path / "costs.json", *options)
    found = json.loads((tmp_path / "costs.json").read_text())
    steps = [json.loads(line) for line in (tmp_path / "run/steps.jsonl").read_text().splitlines()]
    assert found["num_steps"] == 3 and len(steps) == 8
    seconds = sum(step["time_s"] for step in steps[5:])
    assert found["clips_per_s"] == pytest.approx(3 / seconds)
    assert found["waiting"] == pytest.approx(sum(step["wait_s"] for step in steps[5:]) / seconds)
    assert f"3 steps: {3 / seconds:.1f} clips/s" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")
def test_the_script_of_gpu_runs_asks_for_what_there_is(tmp_path):
    """With a stand-in for Python, whose second run fails."""
    calls = tmp_path / "calls"
    stand_in = tmp_path / "python"
    fails = f'printf "%s\\n" "$*" >> {calls}\n[[ "$*" != *fp16* ]]\n'
    stand_in.write_text(f"#!/usr/bin/env bash\n{fails}")
    stand_in.chmod(0o755)
    run = subprocess.run(
        ["bash", str(SCRIPTS / "finetune_gpu.sh"), str(tmp_path / "output")],
        env=dict(os.environ, PYTHON=str(stand_in)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1 and "fp16: FAILED with status 1" in run.stdout
    words = [line.split() for line in calls.read_text().splitlines()]
    assert all((ROOT / word).is_file() for call in words for word in call if word.endswith(".py"))
    parser = command_parser(finetune, "lvt-ff finetune")
    runs = [call[call.index("benchmarks/finetune.py") :] for call in words[1:]]
    asked = [parse_command(parser, call[2:]) for call in runs]
    names = [Path(call[1]).stem for call in runs]
    assert names == ["bf16", "fp16", "fsdp2", "find_batch_size"]
    assert [options["mixed_precision"] for options in asked] == ["bf16", "fp16", None, "bf16"]
    launch = launch_command_parser().parse_args(words[3][2:])
    assert launch.use_fsdp and str(launch.fsdp_version) == "2" and launch.mixed_precision == "bf16"
    assert launch.training_script == "benchmarks/finetune.py"


@pytest.fixture
def small_set(monkeypatch):
    """The script as a module, which the processes that draw its videos find."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("small_set")
    sys.modules.pop("small_set")


def test_classes_of_the_small_set_are_shapes_that_go_left_and_right(small_set, monkeypatch):
    paint, painted = small_set._paint, []
    monkeypatch.setattr(small_set, "_paint", lambda _, *thing: painted.append(thing))
    shapes: dict[str, set] = {}
    for label, name in enumerate(small_set.CLASSES):
        painted.clear()
        small_set.draw_clip(label, np.random.default_rng(7))
        largest = max(radius for *_, radius, _ in painted)
        track = [thing for thing in painted if thing[3] == largest]
        ways = np.diff([centre[0] for _, _, centre, _, _ in track])
        assert len(ways) == 15 and (ways < 0 if name.endswith("left") else ways > 0).all()
        shapes.setdefault(name.split()[0], set()).update(shape for shape, *_ in track)
    areas = dict(disc=np.pi, square=4, triangle=2, cross=2 * 1.2 - 0.6**2)
    assert set(shapes) == set(areas)
    for name, (shape,) in shapes.items():
        picture, white = np.zeros((64, 64, 3)), np.full(3, 255.0)
        paint(picture, shape, white, np.array([30.0, 33.0]), 10.0, 0.3)
        assert picture.sum() / white.sum() == pytest.approx(100 * areas[name], rel=0.03), name


def test_the_small_set_compares_the_defaults_with_the_former_ones(
    small_set, tmp_path, monkeypatch, capsys
):
    """With one epoch for each, on a clip of a class."""
    runs = [dict(top1=top1) for top1 in (0.5, 0.25, 0.9)]
    assert small_set.summary(runs) == dict(mean=pytest.approx(0.55), lowest=0.25, highest=0.9)
    short = dict(load_recipe("small"), epochs=1, warmup_epochs=0.0)
    assert set(short) <= set(small_set.FORMER)
    monkeypatch.setattr(run_setup, "load_recipe", dict(small=short).__getitem__)
    monkeypatch.setattr(small_set, "FORMER", dict(small_set.FORMER, epochs=1, warmup_epochs=1.0))
    folder = tmp_path / "new"
    words = ["--clips", 1, "--test_clips", 2, "--image_steps", 2, "--seeds", 3]
    words += ["--num_workers", 0]
    monkeypatch.setattr(sys, "argv", ["small_set.py", str(folder), *map(str, words)])
    small_set.main()
    found = json.loads((folder / "results.json").read_text())
    means = []
    for way, expected in (("defaults", short), ("former", small_set.FORMER)):
        (run,) = found[way]["runs"]
        record = json.loads((folder / f"{way}_3" / "results.json").read_text())
        assert run["settings"] == record["settings"] and run["seed"] == 3
        given = {name: run["settings"][name] for name in expected}
        assert given == json.loads(json.dumps(expected))
        assert run["settings"]["recipe"] == "small" and run["bad_files"] == 2
        bad = (folder / f"{way}_3" / "bad_files.csv").read_text()
        assert all(name in bad for name in found["damaged"])
        tested = json.loads((folder / f"{way}_3" / "evaluation.json").read_text())
        assert run["top1"] == tested["top1"] and tested["num_listed"] == 16
        means.append(run["top1"])
        assert found[way]["mean"] == means[-1]
    assert found["difference"] == means[0] - means[1]
    assert f"difference: {100 * found['difference']:+.1f} points" in capsys.readouterr().out
