"""The README's code runs, its table is what the command prints, and it stays short."""

import contextlib
import io
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
from conftest import random_frames
from hub_server import TOKEN

import lvt_ff
from lvt_ff.ablation.report import markdown, shown_accuracies
from lvt_ff.ablation.tables import TABLES
from lvt_ff.cli import main
from lvt_ff.data.synthetic.writer import write_video
from lvt_ff.kernels import KERNELS
from lvt_ff.profiling import kernel_rows
from lvt_ff.timm_models import SOURCES

README = Path(__file__).parents[1] / "README.md"
COMMANDS = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.S)
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[-2][:40] for block in BLOCKS])
def test_python_blocks_run(block, hf_model, tmp_path, monkeypatch):
    folder = tmp_path / "lvt_ff_demo/model"
    hf_model.save_pretrained(folder)
    size = dict(height=64, width=64)
    lvt_ff.LVTFFVideoProcessor(num_frames=4, size=size, crop_size=size).save_pretrained(folder)
    write_video(tmp_path / "clip.mp4", random_frames(10, 64, 80))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_commands_run_one_after_the_other(hub, tmp_path, monkeypatch, capsys):
    """All but the installation, the demo and the tests; with the smallest model, for one epoch."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    for number, part in enumerate(("train", "test", "train", "test")):
        file = tmp_path / "videos" / part / ("left", "right")[number // 2] / "0.mp4"
        file.parent.mkdir(parents=True)
        write_video(file, random_frames(8, 64, 80, seed=number))
    write_video(tmp_path / "clip.mp4", random_frames(8, 64, 80))
    recipe = dict(model_args=dict(depth=1, num_frames=2), epochs=1)
    smaller = {
        "lvt_ff_s.fb_in22k_ft_in1k": "test_lvt_ff --epochs 1 --num_workers 0 --cpu",
        "--tables 3": f"--tables 5 --seeds 1 --data videos --num_workers 0 --cpu "
        f"--recipe '{json.dumps(recipe)}'",
    }
    ran = []
    for line in "".join(COMMANDS).splitlines():
        for name, other in smaller.items():
            line = line.replace(name, other)
        words = shlex.split(line, comments=True)
        if words[0] == "lvt-ff":
            assert main(words[1:]) == 0, capsys.readouterr().err
            ran.append(words[1])
    assert ran == [*("ablate", "finetune", "evaluate", "predict", "push", "explain", "explain")]
    assert hub.repositories["ORG/NAME"].private
    assert {"relevance.png", "layers.png"} <= {path.name for path in tmp_path.iterdir()}


def test_table_of_models_is_what_the_command_prints():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["models"]) == 0
    for line in printed.getvalue().splitlines():
        name, *figures = line.replace(" M", "").split() or [""]
        if name not in lvt_ff.VARIANTS:
            continue
        (row,) = (r for r in README.read_text().splitlines() if r.startswith(f"| `{name}` |"))
        frames, pixels, parameters, macs = figures
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:5] == [f"{frames} × {pixels}", f"{parameters} M", macs]
        tags = ", ".join(f"`{tag}`" for tag in SOURCES.get(name, {})) or "–"
        assert cells[5] == tags
        sizes = lvt_ff.VARIANTS[name]
        assert cells[1] == f"{sizes['embed_dim']}, {sizes['depth']}, {sizes['num_heads']}"


def test_table_of_kernels_is_what_the_command_counts():
    rows = kernel_rows()
    assert [row["name"] for row in rows] == list(KERNELS)
    for row in rows:
        assert row["source"]
        size = f"{row['parameters'] / 1e6:.2f} M | {row['macs'] / 1e9:.2f}"
        line = f"| `{row['name']}` | {row['source']} | {size} | {row['fused'] or '–'} |"
        assert line in README.read_text().splitlines()


def test_results_of_the_comparison_are_those_that_are_stored():
    folder = README.parent / "notebooks/ablation"
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (folder / "tables.md").read_text(encoding="utf-8") == markdown(stored)
    assert {int(number) for number in stored["tables"]} == set(TABLES)
    assert all(row["top1"] for table in stored["tables"].values() for row in table["rows"])
    for row in stored["tables"]["3"]["rows"]:
        found = row["top1"]
        assert len(found) >= 3
        ours = f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}"
        line = f"| {row['name']} | {ours} | {row['paper_top1']} |"
        assert line in README.read_text(encoding="utf-8").splitlines()


def test_other_recipes_of_the_comparison_are_those_that_are_stored():
    folder = README.parent / "notebooks/ablation"
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


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 210
