"""Ways to run a model on a processor, in turn: time of a clip, and what each changes in the scores.

python benchmarks/cpu.py --model lvt_ff_s
"""

import argparse
import copy
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from torch import Tensor, nn

import lvt_ff  # noqa: F401  fills timm's registry

WAYS = ("eager", "reference", "bfloat16", "autocast", "int8", "compile", "onnx")


def prepared(way: str, model: nn.Module, clip: Tensor, folder: Path) -> Callable[[], Tensor]:
    """A function that gives the scores of the clip."""
    if way == "reference":
        model = copy.deepcopy(model)
        model.set_fused_attn(False)
    elif way == "bfloat16":
        model, clip = copy.deepcopy(model).bfloat16(), clip.bfloat16()
    elif way == "int8":
        model = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8
        )
    elif way == "compile":
        model = torch.compile(model)
    elif way == "onnx":
        return _in_onnx_runtime(model, clip, folder)
    if way == "autocast":

        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return model(clip)

        return run
    return lambda: model(clip)


def _in_onnx_runtime(model: nn.Module, clip: Tensor, folder: Path) -> Callable[[], Tensor]:
    path = folder / "model.onnx"
    torch.onnx.export(model, (clip,), path, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    given = clip.numpy()
    return lambda: torch.from_numpy(np.asarray(session.run(None, {name: given})[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lvt_ff_s")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    model = timm.create_model(args.model, num_classes=174).eval()
    clip = torch.randn(1, model.num_frames, 3, *model.img_size)
    times: dict[str, list[float]] = {way: [] for way in args.ways}
    errors = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        exact = model(clip)
        runs = {way: prepared(way, model, clip, Path(folder)) for way in args.ways}
        for way, run in runs.items():  # warms up and compiles too
            errors[way] = ((run().float() - exact).norm() / exact.norm()).item()
        for _ in range(args.repeats):
            for way, run in runs.items():
                start = time.perf_counter()
                run()
                times[way].append(time.perf_counter() - start)
    machine = platform.processor() or platform.machine()
    print(
        f"{args.model}, one clip, {torch.get_num_threads()} threads of {machine}, "
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    )
    first = statistics.median(times[args.ways[0]])
    print(f"{'way':<12}{'seconds':>9}{'min-max':>14}{'of ' + args.ways[0]:>12}{'error':>10}")
    for way, taken in times.items():
        median = statistics.median(taken)
        spread = f"{min(taken):.2f}-{max(taken):.2f}"
        print(f"{way:<12}{median:>9.2f}{spread:>14}{median / first:>12.2f}{errors[way]:>10.1e}")


if __name__ == "__main__":
    main()
