"""The README's code runs, its table is what the command prints, and it stays short."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from conftest import random_frames

import lvt_ff
from lvt_ff.cli import main
from lvt_ff.data.synthetic import write_video
from lvt_ff.timm_models import SOURCES

README = Path(__file__).parents[1] / "README.md"
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


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 150
