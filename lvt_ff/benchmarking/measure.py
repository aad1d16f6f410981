"""Times and memory of models that are run in turn, each with its own floor beside it.

A machine's speed drifts, by heat and by what else runs on it. Models that take turns meet the same
machine, so ratios of one round hold where times of two runs do not.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lvt_ff.benchmarking.floor import LinearCall, floor_macs, floor_step, linear_calls
from lvt_ff.benchmarking.parts import time_shares
from lvt_ff.benchmarking.subjects import NUM_CLASSES, Subject
from lvt_ff.profiling import count_macs, peak_bytes
from lvt_ff.utils.command_line import is_out_of_memory
from lvt_ff.utils.errors import one_line

__all__ = ["Cost", "Settings", "add_ratios", "count_cost", "measure_group", "take_turns"]

_SAMPLE_S = 0.02  # of one timing at least, in which short steps are repeated
_MAX_CALLS = 50


@dataclass(frozen=True)
class Settings:
    """How all models of a run are run.

    Args:
        mode: "forward" (weights of `dtype`) or "train" (a step of AdamW, under autocast).
        dtype: of the products.
        device: where.
        compile: with `torch.compile`, for the sizes at hand.
        graph: as a CUDA graph.
        repeats: rounds.
        profile: also measure which parts take the time.
    """

    mode: str
    dtype: torch.dtype
    device: torch.device
    compile: bool = False
    graph: bool = False
    repeats: int = 7
    profile: bool = False

    @property
    def training(self) -> bool:
        """Whether a step trains."""
        return self.mode == "train"

    @property
    def input_dtype(self) -> torch.dtype:
        """That of clips: autocast casts float32."""
        return torch.float32 if self.training else self.dtype

    def context(self) -> Any:
        """What a step runs in."""
        if not self.training:  # torch.compile takes its own way around inference mode
            return torch.no_grad() if self.compile else torch.inference_mode()
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


@dataclass(frozen=True)
class Cost:
    """What is counted before anything runs.

    Args:
        macs: multiply-accumulates of one clip, forward.
        calls: linear layers of one clip's forward pass.
        floor_macs: theirs.
        tokens: of one clip, in our own models.
    """

    macs: float
    calls: list[LinearCall]
    floor_macs: int
    tokens: int | None


def count_cost(subject: Subject) -> Cost:
    """Count a model without memory.

    Raises:
        ValueError: a model that does not take its clips.
    """
    try:
        with torch.device("meta"):
            model = subject.build().eval()
        clip = subject.clips(1, "meta", torch.float32)
        calls = linear_calls(model, clip)
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        frames, pixels = subject.clip_size
        raise ValueError(
            f"{subject.name} does not take {frames} frames of {pixels} pixels: {one_line(error)}"
        ) from error
    tokens = None
    if subject.is_ours:
        macs, tokens = count_macs(model), model.num_frames * math.prod(model.grid)
    else:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(clip)
        macs = counter.get_total_flops() / 2
    return Cost(macs, calls, floor_macs(model, calls), tokens)


def measure_group(
    subjects: Sequence[Subject],
    costs: Sequence[Cost],
    batch_size: int,
    settings: Settings,
    bar: tqdm,
) -> list[dict]:
    """Rows of models that take turns: all samples, memory, and ratios to the first.

    Args:
        subjects: in the order of the rows.
        costs: of each.
        batch_size: clips in one step.
        settings: of all.
        bar: gets one step for each model that is made ready and for each round.
    """
    rows, cases = [], {}
    for subject, cost in zip(subjects, costs, strict=True):
        row = dict(
            name=subject.name,
            num_frames=subject.num_frames,
            img_size=subject.img_size,
            batch_size=batch_size,
            tokens=cost.tokens,
            gmacs=cost.macs / 1e9,
            floor_gmacs=cost.floor_macs / 1e9,
        )
        rows.append(row)
        bar.set_description(f"making {subject.name} ready")
        case = _unless_out_of_memory(row, lambda s=subject, c=cost, r=row: _Case(s, c, settings, r))
        if case is not None:
            cases[subject.name] = case
        bar.update()
    bar.set_description("measuring")
    _run_rounds(rows, cases, settings, bar)
    cases.clear()
    _empty_cache(settings.device)
    for row in rows:
        _summarise(row)
    add_ratios(rows)
    return rows


def _unless_out_of_memory(row: dict, call: Callable[[], Any]) -> Any:
    """What a call gives; None, with a word of it in the row, where memory does not suffice."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Behind the block: the error holds on to all that its frames hold.
    row["failed"] = "out of memory"
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def _empty_cache(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class _Case:
    """A model in memory with its floor, both warm.

    Args:
        row: gets what is measured once: memory, and shares of time.
    """

    def __init__(self, subject: Subject, cost: Cost, settings: Settings, row: dict):
        self.settings = settings
        torch.manual_seed(0)
        with settings.device:
            model = subject.build()
        model = model.to(settings.input_dtype).train(settings.training)
        clips = subject.clips(row["batch_size"], settings.device, settings.input_dtype)
        step, optimizer = _model_step(model, clips, settings)
        for _ in range(2):  # the first compiles, or makes the optimizer's tensors
            step()
        held = [*model.parameters(), *model.buffers(), clips, *_tensors_of(optimizer)]
        held_bytes = sum(tensor.numel() * tensor.element_size() for tensor in held)
        row["peak_bytes"] = held_bytes + peak_bytes(step, settings.device)
        if settings.profile:
            row["parts"] = time_shares(step, settings.device)
        calls = [
            call._replace(shape=(call.shape[0] * row["batch_size"], *call.shape[1:]))
            for call in cost.calls
        ]
        floor = _within(
            settings, floor_step(model, calls, settings.dtype, training=settings.training)
        )
        self.steps = dict(ms=_graphed(step, settings), floor_ms=_graphed(floor, settings))
        self.num_calls = {key: _calls_in_a_sample(s, settings) for key, s in self.steps.items()}


def _tensors_of(optimizer: torch.optim.Optimizer | None) -> list[Tensor]:
    states = [] if optimizer is None else optimizer.state.values()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _within(settings: Settings, call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with settings.context():
            call()

    return run


def _model_step(
    model: nn.Module, clips: Tensor, settings: Settings
) -> tuple[Callable[[], None], torch.optim.Optimizer | None]:
    """One forward pass, or one step of training and its optimizer."""
    # Sizes do not change within a measurement, and code for any size would be slower.
    forward = torch.compile(model, dynamic=False) if settings.compile else model
    if not settings.training:
        return _within(settings, lambda: forward(clips)), None
    labels = torch.randint(NUM_CLASSES, (len(clips),), device=clips.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    half = settings.dtype == torch.float16
    scaler = torch.amp.GradScaler(settings.device.type, enabled=half)

    def step() -> None:
        with settings.context():
            loss = F.cross_entropy(forward(clips), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step, optimizer


def _graphed(step: Callable[[], None], settings: Settings) -> Callable[[], None]:
    """A step as one CUDA graph, where that is wished."""
    if not settings.graph:
        return step
    stream = torch.cuda.Stream()  # as torch's manual has it: not on the stream that captures
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _time_ms(step: Callable[[], None], num_calls: int, device: torch.device) -> float:
    """Milliseconds of one call, of several in a row."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(num_calls):
            step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / num_calls
    start_s = time.perf_counter()
    for _ in range(num_calls):
        step()
    return 1000 * (time.perf_counter() - start_s) / num_calls


def _calls_in_a_sample(step: Callable[[], None], settings: Settings) -> int:
    step()
    ms = _time_ms(step, 1, settings.device)
    return min(max(math.ceil(1000 * _SAMPLE_S / max(ms, 1e-3)), 1), _MAX_CALLS)


def take_turns(
    steps: dict[Any, Callable[[], float]], rounds: int, after_round: Callable[[], Any]
) -> dict[Any, list[float]]:
    """Results of each step, one a round; in every round each step has its turn, in order."""
    results: dict[Any, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            results[key].append(step())
        after_round()
    return results


def _run_rounds(rows: list[dict], cases: dict[str, _Case], settings: Settings, bar: tqdm) -> None:
    """Time all models and floors in turn, and put the samples into the rows."""
    by_name = {row["name"]: row for row in rows}

    def timer(name: str, key: str) -> Callable[[], float]:
        def timed() -> float:
            if "failed" in by_name[name]:
                return math.nan
            case = cases[name]
            call = lambda: _time_ms(case.steps[key], case.num_calls[key], settings.device)  # noqa: E731
            found = _unless_out_of_memory(by_name[name], call)
            return math.nan if found is None else found

        return timed

    steps = {(name, key): timer(name, key) for name in cases for key in ("ms", "floor_ms")}
    for (name, key), samples in take_turns(steps, settings.repeats, bar.update).items():
        if "failed" not in by_name[name]:
            by_name[name][key] = samples
            by_name[name]["calls_per_sample"] = cases[name].num_calls


def _summarise(row: dict) -> None:
    """Add what follows from a row's samples."""
    if "failed" in row:
        return
    speeds = [1000 * row["batch_size"] / ms for ms in row["ms"]]
    row["clips_s"], row["clips_s_range"] = median(speeds), [min(speeds), max(speeds)]
    row["floor_ratio"] = _median_ratio(row["ms"], row["floor_ms"])


def _median_ratio(above: list[float], below: list[float]) -> float:
    """Of two steps that took turns: the median over rounds."""
    return median(a / b for a, b in zip(above, below, strict=True))


def add_ratios(rows: list[dict]) -> None:
    """Add each row's speed as a multiple of the first's; None, with the reason, if not alike."""
    first, *others = rows
    for row in others:
        row["ratio"] = None
        if "failed" in row or "failed" in first:
            row["no_ratio"] = f"{row['name']} and {first['name']} did not both run"
        elif (differs := _difference(row, first)) is not None:
            row["no_ratio"] = differs
        else:
            row["ratio"] = _median_ratio(first["ms"], row["ms"])


def _difference(row: dict, first: dict) -> str | None:
    """What was not alike for two rows; None where their times can be compared."""
    sizes = [(r["num_frames"], r["img_size"], r["batch_size"]) for r in (row, first)]
    if sizes[0] == sizes[1]:
        return None
    told = [f"{frames} × {pixels}, batch {batch}" for frames, pixels, batch in sizes]
    return (
        f"{row['name']} ran on clips of {told[0]}, {first['name']} on {told[1]}: set --frames and "
        "--img_size"
    )
