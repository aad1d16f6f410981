"""Models as one file for other runtimes: ONNX, or a `torch.export` archive.

The file carries what a clip must look like and the names of the classes; it is checked against the
model before it gets its name.
"""

import json
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lvt_ff.data.transforms import channel_values, interpolation_name
from lvt_ff.hf import LVTFFConfig, LVTFFVideoProcessor
from lvt_ff.hf.scores import score_function
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.command_line import command
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.output import check_output_file

__all__ = ["description", "export"]

METADATA = "lvt_ff"  # key of the description in a file's metadata
INPUT, OUTPUT = "pixel_values_videos", "logits"
# Largest difference of scores; in half precision rounding alone makes more than in single.
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-2}
_TORCH_DESCRIPTION = f"{METADATA}.json"


def description(config: LVTFFConfig, processor: LVTFFVideoProcessor) -> dict[str, Any]:
    """What goes in and what comes out: clip shape, preprocessing, class names, and what makes
    scores of logits ("softmax", "sigmoid" or "none")."""
    height, width = processor.crop_size["height"], processor.crop_size["width"]
    return dict(
        input=dict(name=INPUT, shape=["batch", config.num_frames, config.in_chans, height, width]),
        output=dict(
            name=OUTPUT,
            classes=list(config.class_names),
            problem_type=config.problem_type,
            score_function=score_function(config),
        ),
        preprocessing=dict(
            sampling=processor.sampling,
            sampling_stride=processor.sampling_stride,
            resize_to_cover=list(processor.resize_to),
            interpolation=interpolation_name(processor.resample),
            centre_crop=[height, width],
            scale=1 / 255,
            mean=_per_channel(processor.image_mean, config.in_chans),
            std=_per_channel(processor.image_std, config.in_chans),
        ),
    )


def _per_channel(values: float | Sequence[float], channels: int) -> list[float]:
    values = channel_values(values)
    return list(values * channels if len(values) == 1 else values)


@command()
def export(
    model: str,
    output: Path,
    format: Literal["onnx", "torch"] = "onnx",
    half: bool = False,
) -> dict:
    """Export a model to one file that needs no lvt_ff to run, and check its scores.

    Args:
        model: Model folder, or ORG/NAME[@REVISION] on the Hub.
        output: File to write, such as model.onnx or model.pt2.
        format: ONNX (any batch size; needs packages of its own), or torch.export's archive.
        half: Weights and activations in float16; sums over tokens stay in float32.
    """
    with usage():
        if format == "onnx" and not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
            raise ValueError(f"ONNX needs more packages: {install_hint('export')}")
        if output.exists():
            raise ValueError(f"{output} exists already: give another name.")
        check_output_file(output, "--output")
        holder, processor = load_folder(model)
    dtype = torch.float16 if half else torch.float32
    core = holder.model.to(dtype).eval()
    described = description(holder.config, processor)
    shape = described["input"]["shape"][1:]
    clips = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    write, runner = (
        (_write_onnx, _onnx_runner) if format == "onnx" else (_write_torch, _torch_runner)
    )
    with atomic_file(output) as partial:
        write(core, clips, partial, json.dumps(described))
        run_file = runner(partial)
        report = _compare(core, run_file, clips)
    print(
        f"wrote {output} ({output.stat().st_size:,} bytes): scores differ by at most "
        f"{report['difference']:.1e}; one clip takes {report['file_s']:.3f} s, "
        f"{report['file_s'] / report['torch_s']:.2f} of torch's {report['torch_s']:.3f} s"
    )
    return report


def _batch() -> Any:
    return torch.export.Dim("batch", max=2**20)  # torch before 2.12 refuses one without a limit


def _write_onnx(model: nn.Module, clips: Tensor, path: Path, described: str) -> None:
    import onnx

    program = torch.onnx.export(
        model,
        (clips,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: _batch()},),
        verbose=False,
    )
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, described
    try:
        onnx.save_model(proto, str(path))
    except ValueError as error:  # protobuf ends at 2 GB
        raise Failure(f"The model does not fit into one ONNX file: {error}") from error


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {INPUT: clips.numpy()})[0])


def _write_torch(model: nn.Module, clips: Tensor, path: Path, described: str) -> None:
    program = torch.export.export(model, (clips,), dynamic_shapes=({0: _batch()},))
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={_TORCH_DESCRIPTION: described})


def _torch_runner(path: Path) -> Callable[[Tensor], Tensor]:
    with open(path, "rb") as file:
        return torch.export.load(file).module()


@torch.inference_mode()
def _compare(model: nn.Module, run_file: Callable[[Tensor], Tensor], clips: Tensor) -> dict:
    """Largest difference for one and two clips, and the time of one, the two in turn."""
    difference, times = 0.0, dict(torch_s=[], file_s=[])
    for batch in (clips, clips[:1], clips[:1], clips[:1]):
        start = time.perf_counter()
        expected = model(batch)
        middle = time.perf_counter()
        difference = max(difference, (run_file(batch) - expected).abs().max().item())
        times["torch_s"].append(middle - start)
        times["file_s"].append(time.perf_counter() - middle)
    if not difference <= _TOLERANCES[clips.dtype]:
        raise Failure(
            f"The exported model's scores differ by {difference:.1e}: nothing is written."
        )
    return dict(difference=difference, **{name: min(values[1:]) for name, values in times.items()})
