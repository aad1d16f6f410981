"""The command `lvt-ff benchmark`: speed and memory of models that take turns in one run."""

import inspect
import json
import os
import platform
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch

from lvt_ff.benchmarking.figure import bars_picture, sizes_picture
from lvt_ff.benchmarking.measure import Cost, Settings, count_cost, measure_group
from lvt_ff.benchmarking.report import curve_lines, group_lines, size_table
from lvt_ff.benchmarking.subjects import Subject, find_subjects
from lvt_ff.utils.atomic_io import atomic_file, write_text
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import environment
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import PositiveInt, as_typed
from lvt_ff.utils.output import check_output_folder
from lvt_ff.utils.progress import print_line, progress_bar
from lvt_ff.utils.short_text import counted

__all__ = ["CURVE", "TABLE8", "Group", "benchmark", "count_costs", "run_groups", "sized_groups"]

# Clip sizes (frames, pixels): the paper's twelve of Table 8, and a longer one.
TABLE8 = (*((t, s) for t in (16, 32, 64, 96) for s in (224, 336, 448)), (256, 448))
# What grows along the curve, by what is given.
CURVE = dict(img_size=(112, 160, 224, 320, 448, 640, 896), frames=(8, 16, 32, 64, 128, 256))
# Softmax and Orthoformer as they are without this paper: no shifts, no fixation.
_RIVALS = dict(table8=("softmax:plain", "orthoformer:plain"), curve=("softmax:plain",))


class Group(NamedTuple):
    """Models that take turns, with one batch size."""

    subjects: list[Subject]
    batch_size: int


@command(
    {"models": "what is compared", "mode": "how it is run", "output": "output"},
    stores_options=True,
)
def benchmark(
    models: str | None = None,
    frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    table8: bool = False,
    curve: bool = False,
    mode: Literal["forward", "train"] = "forward",
    batch_sizes: str = "1",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    compile: bool = False,
    graph: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    repeats: PositiveInt = 7,
    profile: bool = False,
    output: Path = Path("lvt_ff_benchmark"),
) -> dict:
    """Measure speed and memory of models that take turns, beside their linear layers alone.

    Weights and clips are random. A row has clips/s (median and range of the rounds), peak memory
    (with weights and clips), GMACs of a clip, its time over that of its own linear layers in the
    same rounds ("× floor"), and its speed over the first model's ("× first").

    Args:
        models: Names with commas between: VARIANT[:KERNEL][:plain][:eager] of ours (plain: without
            shifts and fixation, eager: plain torch without fused operators), timesformer,
            videomae, vivit, mvit_v2_s, swin3d_t. Default: lvt_ff_default, and the same with
            softmax; plain softmax for --curve, and plain Orthoformer too for --table8.
        frames: Frames of every model's clips; its own if not given.
        img_size: Height and width of every model's frames in pixels; its own if not given.
        table8: Measure the clip sizes of the paper's Table 8, and 256 frames of 448 pixels.
        curve: Measure growing clips, and tell where the first model's curves cross the others':
            pixels grow, or frames where --img_size is given.
        mode: A forward pass with weights of --dtype, or a training step (forward, backward, AdamW)
            under autocast.
        batch_sizes: Clips in a step, such as 1,8,32: all models take turns with each.
        dtype: Numbers of the products.
        compile: With torch.compile.
        graph: As a CUDA graph, forward only.
        device: Where; auto takes a GPU where there is one.
        repeats: Rounds, in each of which every model has its turn.
        profile: Tell which parts of each model take its time.
        output: Folder for results.json and benchmark.png.
    """
    options = SimpleNamespace(**locals())
    with usage():
        settings = _settings(options)
        groups = _groups(options)
        check_output_folder(output, "--output")
        costs = count_costs(groups)
    # Else torch's profiler tells the terminal of every start and end.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    found = dict(
        command=_command(options),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=json.loads(json.dumps(vars(options), default=str)),
        environment=_machine(settings.device),
    )
    title = f"{_conditions(settings)}; {found['environment']['device']}"
    print(title)

    def store(groups: Sequence[Sequence[dict]]) -> None:
        """Write what there is, so that a long run that is ended leaves it."""
        output.mkdir(parents=True, exist_ok=True)
        found["groups"] = list(groups)
        write_text(output / "results.json", json.dumps(found, indent=2) + "\n")

    measured = run_groups(groups, costs, settings, store)
    if curve:
        lines, found["crossings"] = curve_lines(measured)
        store(measured)
        print("\n".join(["", *lines]))
    if table8:
        print("\n".join(["", *size_table(measured)]))
    with atomic_file(output / "benchmark.png") as file:
        if curve:
            crossing = [tokens for other in found["crossings"] for tokens in other["speed"]]
            sizes_picture(file, measured, title, crossing)
        elif table8:
            sizes_picture(file, measured, title)
        else:
            bars_picture(file, measured, title)
    print(f"wrote results.json and benchmark.png to {output}")
    return found


def count_costs(groups: Sequence[Group]) -> dict[tuple, Cost]:
    """What every model of some groups costs, by name and clip size.

    Raises:
        ValueError: a model that does not take its clips.
    """
    subjects = {(s.name, s.clip_size): s for group in groups for s in group.subjects}
    costs = {}
    with progress_bar(len(subjects), "model", desc="counting") as bar:
        for key, subject in subjects.items():
            costs[key] = count_cost(subject)
            bar.update()
    return costs


def run_groups(
    groups: Sequence[Group],
    costs: dict[tuple, Cost],
    settings: Settings,
    store: Callable[[Sequence[Sequence[dict]]], Any],
) -> list[list[dict]]:
    """Measure groups one after the other, and print each.

    Args:
        groups: what takes turns.
        costs: of `count_costs`.
        settings: of all.
        store: called with all rows so far, after each group.
    """
    measured = []
    total = sum(len(group.subjects) + settings.repeats for group in groups)
    with progress_bar(total, "step") as bar:
        for subjects, batch_size in groups:
            counted = [costs[s.name, s.clip_size] for s in subjects]
            measured.append(measure_group(subjects, counted, batch_size, settings, bar))
            print_line("\n".join(["", *group_lines(measured[-1])]))
            store(measured)
    return measured


def sized_groups(models: str, sizes: Sequence[tuple[int, int]], batch_size: int = 1) -> list[Group]:
    """The same models at several clip sizes (frames, pixels)."""
    return [Group(find_subjects(models, *size), batch_size) for size in sizes]


def _groups(options: SimpleNamespace) -> list[Group]:
    batch_sizes = _batch_sizes(options.batch_sizes)
    if not (options.table8 or options.curve):
        names = options.models or "lvt_ff_default,lvt_ff_default:softmax"
        subjects = find_subjects(names, options.frames, options.img_size)
        return [Group(subjects, batch_size) for batch_size in batch_sizes]
    kind = "table8" if options.table8 else "curve"
    if options.table8 and options.curve:
        raise ValueError("--table8 and --curve are two measurements: leave one out.")
    if options.table8 and (options.frames or options.img_size):
        raise ValueError("--table8 sets clip sizes itself: leave out --frames and --img_size.")
    if len(batch_sizes) > 1:
        raise ValueError(f"--{kind} takes one of --batch_sizes, got {options.batch_sizes}.")
    ours = "lvt_ff_default"
    names = options.models or ",".join([ours, *(f"{ours}:{rival}" for rival in _RIVALS[kind])])
    sizes = TABLE8 if options.table8 else _curve_sizes(options, find_subjects(names)[0])
    return sized_groups(names, sizes, batch_sizes[0])


def _curve_sizes(options: SimpleNamespace, first: Subject) -> list[tuple[int, int]]:
    if not first.is_ours:
        raise ValueError(f"--curve counts tokens of ours: put one of them before {first.name}.")
    if options.frames is not None and options.img_size is not None:
        raise ValueError("--curve lets frames or pixels grow: leave out --frames or --img_size.")
    if options.img_size is not None:
        return [(frames, options.img_size) for frames in CURVE["frames"]]
    return [(options.frames or first.num_frames, pixels) for pixels in CURVE["img_size"]]


def _batch_sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f"--batch_sizes must be numbers from 1 with commas between, such as 1,8; got {text!r}."
        )
    return list(dict.fromkeys(map(int, parts)))


def _settings(options: SimpleNamespace) -> Settings:
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise ValueError("--device cuda: torch finds no GPU here; use --device cpu.")
    on_gpu = options.device == "cuda" or (options.device == "auto" and cuda)
    if options.graph and not on_gpu:
        raise ValueError("--graph needs a GPU: leave it out on a CPU.")
    if options.graph and options.mode == "train":
        raise ValueError("--graph is for --mode forward: leave one of the two out.")
    if options.dtype == "float16" and options.mode == "train" and not on_gpu:
        raise ValueError("--mode train with --dtype float16 needs a GPU: use bfloat16.")
    return Settings(
        mode=options.mode,
        dtype=getattr(torch, options.dtype),
        device=torch.device("cuda" if on_gpu else "cpu"),
        compile=options.compile,
        graph=options.graph,
        repeats=options.repeats,
        profile=options.profile,
    )


def _conditions(settings: Settings) -> str:
    """How all models of a run are run, in a line."""
    dtype = str(settings.dtype).removeprefix("torch.")
    more = [
        "compiled" if settings.compile else "",
        "CUDA graph" if settings.graph else "",
        counted(settings.repeats, "round"),
        f"torch {torch.__version__}",
    ]
    what = "training step" if settings.training else "forward pass"
    return ", ".join([f"{what} in {dtype}", *filter(None, more)])


def _command(options: SimpleNamespace) -> str:
    """What to type for this measurement again."""
    defaults = {name: p.default for name, p in inspect.signature(benchmark).parameters.items()}
    words = [
        f"--{name}={as_typed(value)}"
        for name, value in vars(options).items()
        if value != defaults[name]
    ]
    return shlex.join(["lvt-ff", "benchmark", *words])


def _machine(device: torch.device) -> dict[str, Any]:
    """Versions and machine, with what speed depends on besides."""
    return dict(
        environment(cpu=device.type == "cpu"),
        processor=_processor(),
        num_threads=torch.get_num_threads(),
        cuda=torch.version.cuda,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
