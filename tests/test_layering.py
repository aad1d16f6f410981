"""Imports go down only, files stay short, and no decoder is imported with the package."""

import ast
import subprocess
import sys
from pathlib import Path

import lvt_ff

PACKAGE = Path(lvt_ff.__file__).parent
LEVELS = [
    {"_version", "variants", "_import_hooks"},
    {"utils"},
    {"ops", "data"},
    {"kernels"},
    {"layers"},
    {"model"},
    {"weights"},
    {"timm_models"},
    {"hf", "profiling"},
    {"hub"},
    {"inference", "training", "convert"},
    {"explain", "ablation"},
    {"app", "demo"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def part_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_parts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lvt_ff"):
            pieces = node.module.split(".")
            yield from [pieces[1]] if len(pieces) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lvt_ff."):
                    yield alias.name.split(".")[1]


def test_imports_go_down_only():
    for path in PACKAGE.rglob("*.py"):
        part = part_of(path)
        if part == "__init__":
            continue
        for other in imported_parts(ast.parse(path.read_text())):
            assert other == part or LEVEL[other] < LEVEL[part], f"{path.name} imports {other}"


def test_every_part_has_a_level():
    assert {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"} == set(LEVEL)


def test_data_knows_nothing_of_the_model():
    for path in (PACKAGE / "data").rglob("*.py"):
        assert set(imported_parts(ast.parse(path.read_text()))) <= {"data", "utils"}, path


def test_importing_the_package_imports_no_decoder():
    code = (
        "import sys, lvt_ff; print([n for n in ('av', 'decord', 'torchcodec') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
