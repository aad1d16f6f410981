"""Every snippet and command of README and documentation runs; their tables are what is printed."""

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
import statistics
import sys
from pathlib import Path

import pytest
from conftest import random_frames, torchrun
from hub_server import TOKEN
from image_models import timm_model
from safetensors.torch import save_file
from torch.distributed.run import get_args_parser

import lvt_ff
from lvt_ff.ablation.report import markdown, shown_accuracies
from lvt_ff.ablation.tables import TABLES
from lvt_ff.cli import main
from lvt_ff.data.synthetic import write_video
from lvt_ff.kernels import KERNELS
from lvt_ff.profiling import kernel_rows
from lvt_ff.timm_models import SOURCES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a page's commands become: the smallest model, one epoch.
SMALLER = {
    "lvt_ff_s.fb_in22k_ft_in1k": "test_lvt_ff --epochs 1 --num_workers 0 --cpu",
    "--model lvt_ff_s ": "--model test_lvt_ff --epochs 1 --num_workers 0 --cpu ",
    "--config examples/recipe.yaml": "--config examples/recipe.yaml --model test_lvt_ff "
    "--pretrained false --epochs 1 --warmup_epochs 0 --num_workers 0 --cpu",
    "--tables 3": "--tables 5 --seeds 1 --data videos --num_workers 0 --cpu --recipe "
    f"'{json.dumps(dict(model_args=dict(depth=1, num_frames=2), epochs=1))}'",
    "augreg_in21k my_start": "augreg_in21k my_start --num_frames 2",
    "lvt_ff_default,lvt_ff_default:softmax:plain,timesformer": "test_lvt_ff --repeats 1",
    "lvt_ff_default,lvt_ff_default:softmax,lvt_ff_default:relu:eager": "test_lvt_ff --repeats 1",
    "--mode train --dtype bfloat16": "--mode train --models test_lvt_ff --repeats 1",
    "from_a_file ": "from_a_file --num_frames 2 ",
    "lvt-ff evaluate ": "lvt-ff evaluate --num_workers 0 ",
    "--clips 10 --crops 3": "--clips 2",
}
# Commands for several processes, in the same ones, as they take long to start.
TOGETHER = """
import json, sys, torch
from accelerate.state import AcceleratorState
from lvt_ff.cli import main
torch.distributed.destroy_process_group = lambda: None
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
    AcceleratorState._reset_state(reset_partial_state=True)
"""
# Other tests run these: installation is what CI does, others have their own tests.
ELSEWHERE = r"pip |lvt-ff demo$|lvt-ff app --model \w+$|lvt-ff benchmark .*--(curve|table8)\b"


def fenced(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def snippets():
    return [
        pytest.param(page, block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(fenced(page, "python"))
    ]


@pytest.fixture
def workplace(hub, hf_model, tmp_path, monkeypatch):
    """A folder with what documents take for granted: clips, a trained model, examples."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    size = dict(height=64, width=64)
    processor = lvt_ff.LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size)
    for saved in (hf_model, processor):
        saved.save_pretrained("lvt_ff_demo/model")
    for number, part in enumerate(("train", "test", "train", "test")):
        file = Path("videos", part, ("left", "right")[number // 2], "0.mp4")
        file.parent.mkdir(parents=True)
        write_video(file, random_frames(8, 64, 80, seed=number))
    write_video("clip.mp4", random_frames(10, 64, 80))
    write_data_sets()
    return tmp_path


def write_data_sets():
    """A few videos in each of the layouts that are documented, with their lists."""
    for folder in ("lists", "ssv2/labels", "kinetics", "charades"):
        Path(folder).mkdir(parents=True)
    clips = {
        "ssv2/20bn-something-something-v2/{}.webm": ("1", "2", "3"),
        "kinetics/train/left/{}_000010_000020.mp4": ("one",),
        "kinetics/val/right/{}_000003_000013.mp4": ("two",),
        "charades/Charades_v1_480/{}.mp4": ("46GP8", "N11GT"),
    }
    for place, names in clips.items():
        for name in names:
            file = Path(place.format(name))
            file.parent.mkdir(parents=True, exist_ok=True)
            codec = "libvpx" if file.suffix == ".webm" else "libx264"
            write_video(file, random_frames(8, 64, 80, seed=len(name)), codec=codec)
    Path("lists/classes.txt").write_text("left\nright\n")
    Path("lists/train.csv").write_text(
        "path,label,start,end\ntrain/left/0.mp4,left,,0.25\ntrain/right/0.mp4,right,0.25,\n"
    )
    Path("lists/test.txt").write_text("test/left/0.mp4 0\ntest/right/0.mp4 1\n")
    rows = [
        dict(id=i, template=f"Moving [something] {way}")
        for i, way in zip("123", ("up", "down", "up"), strict=True)
    ]
    Path("ssv2/labels/train.json").write_text(json.dumps(rows[:2]))
    Path("ssv2/labels/validation.json").write_text(json.dumps(rows[2:]))
    Path("ssv2/labels/labels.json").write_text(
        '{"Moving something down": "0", "Moving something up": "1"}'
    )
    kinetics = "label,youtube_id,time_start,time_end,split\n"
    Path("kinetics/train.csv").write_text(kinetics + "left,one,10,20,train\nright,gone,1,2,train\n")
    Path("kinetics/val.csv").write_text(kinetics + "right,two,3,13,validate\n")
    charades = "id,actions,length\n46GP8,c000 0.0 0.2;c001 0.1 0.3,0.5\nN11GT,c001 0.00 9.50,0.5\n"
    for part in ("train", "test"):
        Path(f"charades/Charades_v1_{part}.csv").write_text(charades)
    Path("charades/Charades_v1_classes.txt").write_text("c000 Holding some clothes\nc001 Sitting\n")


@pytest.mark.parametrize("page, block", snippets())
def test_python_blocks_run(page, block, workplace, monkeypatch):
    if "my_model.onnx" in block:
        assert main(["export", "--model", "lvt_ff_demo/model", "--output", "my_model.onnx"]) == 0
    kernels = dict(KERNELS)
    try:
        exec(compile(block, page.name, "exec"), {})
    finally:
        KERNELS.clear()
        KERNELS.update(kernels)


@pytest.mark.parametrize("page", [p for p in PAGES if fenced(p, "bash")], ids=lambda p: p.stem)
def test_commands_run_one_after_the_other(page, workplace, hub, capsys, monkeypatch):
    lines = "".join(fenced(page, "bash")).replace("\\\n", " ").splitlines()
    if not any("--output_dir my_model" in line for line in lines):
        shutil.copytree("lvt_ff_demo/model", "my_model")
    if page.stem == "data":
        monkeypatch.setenv("LVT_FF_DECODE", "inline")  # many short runs: no process for each
    if page.stem == "imagenet":
        vit = timm_model("vit_tiny_patch16_224")
        import timm

        timm.models.save_for_hf(vit, "hub_copy", safe_serialization=True)
        hub.publish("timm/vit_tiny_patch16_224.augreg_in21k", Path("hub_copy"))
        save_file(vit.state_dict(), "weights.safetensors")
    together = []
    for line in lines:
        if re.match(ELSEWHERE, line):
            continue
        for name, other in SMALLER.items():
            line = line.replace(name, other)
        words = shlex.split(line, comments=True)
        if words[:2] == ["accelerate", "launch"]:
            assert words[2:4] == ["-m", "lvt_ff"]
            words[:4] = ["lvt-ff"]
        if words[0] == "torchrun":
            launched = get_args_parser().parse_args(words[1:])
            assert launched.module and launched.training_script == "lvt_ff"
            together.append(launched.training_script_args)
            continue
        if words[0] == "python":
            args = [*words[1:], "--model", "test_lvt_ff", "--epochs", "1"]
            args += ["--from_scratch"] if "timm" in words[1] else []
            monkeypatch.setattr(sys, "argv", args)
            runpy.run_path(words[1], run_name="__main__")
        else:
            assert words[0] == "lvt-ff"
            assert main(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    if together:
        Path("together.py").write_text(TOGETHER)
        torchrun(2, "together.py", json.dumps(together))


def test_examples_leave_models_that_load(workplace, monkeypatch):
    import timm
    from transformers import AutoModelForVideoClassification

    outputs = dict(
        trainer="trained_with_trainer", timm_loop="trained_with_timm", lora="adapters_merged"
    )
    for name, output in outputs.items():
        args = [f"examples/{name}.py", "videos/train", "--model", "test_lvt_ff", "--epochs", "1"]
        args += ["--from_scratch"] if name == "timm_loop" else []
        monkeypatch.setattr(sys, "argv", args)
        runpy.run_path(args[0], run_name="__main__")
        loaded = AutoModelForVideoClassification.from_pretrained(output)
        assert set(loaded.config.label2id) == {"left", "right"}
        assert timm.create_model(f"local-dir:{output}", pretrained=True).num_classes == 2


def test_table_of_models_is_what_the_command_prints():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["models"]) == 0
    readme = PAGES[0].read_text(encoding="utf-8").splitlines()
    for line in printed.getvalue().splitlines():
        name, *figures = line.replace(" M", "").split() or [""]
        if name not in lvt_ff.VARIANTS:
            continue
        (row,) = (r for r in readme if r.startswith(f"| `{name}` |"))
        frames, pixels, parameters, macs = figures
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:5] == [f"{frames} × {pixels}", f"{parameters} M", macs]
        tags = ", ".join(f"`{tag}`" for tag in SOURCES.get(name, {})) or "–"
        assert cells[5] == tags
        sizes = lvt_ff.VARIANTS[name]
        assert cells[1] == f"{sizes['embed_dim']}, {sizes['depth']}, {sizes['num_heads']}"


def test_table_of_kernels_is_what_the_command_counts():
    lines = (ROOT / "docs/kernels.md").read_text(encoding="utf-8").splitlines()
    rows = kernel_rows()
    assert [row["name"] for row in rows] == list(KERNELS)
    for row in rows:
        assert row["source"]
        size = f"{row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e9:.2f}"
        line = f"| `{row['name']}` | {row['source']} | {size} | {row['fused'].replace('-', '–')} |"
        assert line in lines


def test_results_of_the_comparison_are_those_that_are_stored():
    folder = ROOT / "notebooks/ablation"
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (folder / "tables.md").read_text(encoding="utf-8") == markdown(stored)
    assert {int(number) for number in stored["tables"]} == set(TABLES)
    assert all(row["top1"] for table in stored["tables"].values() for row in table["rows"])
    lines = (ROOT / "docs/results.md").read_text(encoding="utf-8").splitlines()
    for row in stored["tables"]["3"]["rows"]:
        found = row["top1"]
        assert len(found) >= 3
        ours = f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}"
        assert f"| {row['name']} | {ours} | {row['paper_top1']} |" in lines


def test_other_recipes_of_the_comparison_are_those_that_are_stored():
    folder = ROOT / "notebooks/ablation"
    text = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    others = sorted(path for path in folder.glob("*.json") if path.stem != "results")
    assert len(others) >= 5
    for path in others:
        stored = json.loads(path.read_text(encoding="utf-8"))
        recipe = shlex.split(stored["command"])[-1].removeprefix("--recipe=")
        (line,) = [line for line in text if f"({path.name})" in line]
        assert line.startswith(f"| [`{recipe}`]({path.name}) |")
        shown = [shown_accuracies(row["top1"]) for row in stored["tables"]["3"]["rows"][:3]]
        assert line.endswith(f" | {' | '.join(shown)} |")


def test_documents_point_at_what_is_there():
    """Paths in code font, and relative links."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "conversion/README.md"]:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(
            r"`((?:lvt_ff|tests|docs|examples|notebooks|conversion)/[\w./-]+)`", text
        ):
            assert (ROOT / path.replace("NAME", "relu")).exists(), f"{page.name}: {path}"
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
