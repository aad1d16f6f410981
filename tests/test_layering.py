"""Imports go down only, and importing the package loads no library that it may not need."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lvt_ff
from lvt_ff._import_hooks import MOVED

PACKAGE = Path(lvt_ff.__file__).parent
LEVELS = [
    {"_version", "variants", "_import_hooks"},
    {"utils"},
    {"ops", "video"},
    {"data", "kernels"},
    {"layers"},
    {"model"},
    {"weights", "schema"},
    {"timm_models"},
    {"hf", "profiling"},
    {"hub"},
    {"inference", "training", "convert", "benchmarking"},
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


@pytest.mark.parametrize(
    "room, known", [("data", {"utils", "video"}), ("video", {"utils", "_version"})]
)
def test_data_and_video_know_nothing_of_the_model(room, known):
    for path in (PACKAGE / room).rglob("*.py"):
        assert set(imported_parts(ast.parse(path.read_text()))) <= {room, *known}, path


MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)
ALONE = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    for other in [n for n in sys.modules if n == "lvt_ff" or n.startswith("lvt_ff.")]:
        del sys.modules[other]
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""
REGISTERED = """
import {first}
import timm, transformers
assert timm.is_model("lvt_ff_s")
assert "lvt_ff" in transformers.CONFIG_MAPPING
"""


def python(code, *args):
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_modules_can_be_imported_first():
    """One in three; the next test has all."""
    assert json.loads(python(ALONE, json.dumps(MODULES[::3]))) == {}


@pytest.mark.every_case
def test_every_module_can_be_imported_first():
    assert json.loads(python(ALONE, json.dumps(MODULES))) == {}


@pytest.mark.parametrize(
    "first", ["lvt_ff", "lvt_ff.kernels", "timm, lvt_ff", "transformers, lvt_ff", "lvt_ff.hf"]
)
def test_models_are_registered_whatever_is_imported_first(first):
    python(REGISTERED.format(first=first))


def test_former_modules_import_with_a_warning_that_names_the_new_ones():
    for former, places in MOVED.items():
        with pytest.warns(FutureWarning, match=places[0].replace(".", r"\.")):
            module = importlib.import_module(former)
        now = importlib.import_module(f"lvt_ff.{places[0]}")
        for name in now.__all__:
            assert getattr(module, name) is getattr(now, name)
        del sys.modules[former]


def run_module(*args):
    return subprocess.run([sys.executable, "-m", *args], capture_output=True, text=True)


@pytest.mark.parametrize(
    "script, command",
    [
        ("lvt_ff.finetune", "finetune"),
        ("lvt_ff.convert_checkpoint", "convert"),
        ("lvt_ff.app", "app"),
        ("lvt_ff.explain", "explain"),
        ("lvt_ff.demo", "demo"),
        ("lvt_ff.training.finetune", "finetune"),
        ("lvt_ff.hub.push", "push"),
    ],
)
def test_modules_of_commands_former_and_new_run_as_scripts(script, command):
    result = run_module(script, "--help")
    assert result.returncode == 0 and f"lvt-ff {command}" in result.stdout, result.stderr
    result = run_module(script, "--no_such_option")
    assert result.returncode == 2 and "unknown option --no_such_option" in result.stderr


def test_cards_are_written_by_the_former_script_too(tmp_path):
    for script in ("lvt_ff.variant_cards", "lvt_ff.hub.variant_cards"):
        result = run_module(script, str(tmp_path / script))
        assert result.returncode == 0, result.stderr
        assert (tmp_path / script / "lvt_ff_s.md").is_file()


def test_packages_and_former_modules_are_attributes_of_the_package():
    code = "import lvt_ff; print({}); print(hasattr(lvt_ff, 'no_such_thing'))"
    for name in ("kernels.KERNELS['relu'].source", "data.read_clip", "convert.vit_to_video"):
        assert python(code.format(f"lvt_ff.{name}")).splitlines()[-1] == "False"


HEAVY = ("torch", "timm", "transformers", "matplotlib", "gradio", "accelerate", "av", "decord")
HEAVY += ("torchcodec", "torch.profiler", "lvt_ff.profiling")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, lvt_ff; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code).strip() == "[]"


def test_registering_imports_no_decoder_plots_accelerate_or_profiler_of_ours():
    """transformers itself may import accelerate."""
    code = (
        "import sys, transformers, timm; before = set(sys.modules)\n"
        "from transformers import PreTrainedModel, AutoVideoProcessor\n"
        "from transformers.video_processing_utils import BaseVideoProcessor\n"
        "before = set(sys.modules); import lvt_ff\n"
        "lvt_ff.LVTFFModel, lvt_ff.LVTFFVideoProcessor, lvt_ff.read_clip\n"
        f"print([name for name in {HEAVY} if name in set(sys.modules) - before])"
    )
    assert python(code).strip() == "[]"


def test_loading_a_folder_imports_nothing_that_pushes():
    code = (
        "import sys, lvt_ff.hub.model_folder\n"
        "print([n for n in sys.modules if n.startswith(('lvt_ff.hub.pu', 'lvt_ff.training'))])"
    )
    assert python(code).strip() == "[]"
