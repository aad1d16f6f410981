"""A few made-up clips and what a model gives for them, kept in its folder.

Whoever loads the folder can compute it again and see whether the model is the one that was written,
from preprocessing to scores, without a video or a decoder.
"""

import copy
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lvt_ff.data.transforms import crop_clip, frames_to_clip, resize_to_cover
from lvt_ff.hf import LVTFFVideoProcessor
from lvt_ff.hf.modeling_lvt_ff import LVTFFPreTrainedModel
from lvt_ff.hub.resolve import VERIFICATION
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.profiling import count_parameters
from lvt_ff.utils.errors import Failure

__all__ = [
    "Stage",
    "Verification",
    "compare",
    "make_verification",
    "read_verification",
    "write_verification",
]

_ROWS, _COLUMNS = 12, 20  # of stored frames, which are enlarged before they are preprocessed
_GRID = 4  # of means that stand for the pixels of a preprocessed frame
_SMALL = 1e10  # places of a clip times weights, up to which there are two clips
_FRAMES, _PIXELS, _SCORES = "frames", "preprocessing", "scores"
_MEAN, _STD = ".mean", ".std"


class Verification(NamedTuple):
    """What a folder keeps.

    Args:
        tensors: `frames` (V, T, rows, columns, C) uint8, and what they become: the numbers of each
            stage of the model, in order.
        class_names: in order.
    """

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...]


class Stage(NamedTuple):
    """How far a stage of a model is from what was stored.

    Args:
        name: "preprocessing", "patch_embed", "block 0", …, "norm" or "scores".
        error: largest difference, in units of the root mean square of the stored numbers; infinite
            where a number is none.
    """

    name: str
    error: float


def make_verification(model: LVTFFPreTrainedModel, processor: LVTFFVideoProcessor) -> Verification:
    """What to keep of a model: computed in float32 on the CPU with the reference operators.

    Raises:
        Failure: the model's numbers are no numbers.
    """
    core = copy.deepcopy(model.model).cpu().float().eval()
    core.set_fused_attn(False)
    core.set_grad_checkpointing(False)
    frames = _made_up_frames(core)
    numbers = _numbers(core, processor, frames)
    for name, tensor in numbers.items():
        if not tensor.isfinite().all():
            raise Failure(
                f"The model's weights give what are not numbers (NaN), first at {_stage(name)}: "
                "they are damaged, or their training diverged; nothing was written."
            )
    return Verification({_FRAMES: frames, **numbers}, model.config.class_names)


def write_verification(folder: Path, kept: Verification) -> None:
    """Write the file of a model folder."""
    tensors = {name: tensor.contiguous() for name, tensor in kept.tensors.items()}
    told = dict(format="pt", order=json.dumps([*tensors]), class_names=json.dumps(kept.class_names))
    save_file(tensors, folder / VERIFICATION, metadata=told)


def read_verification(folder: Path) -> Verification:
    """What a model folder keeps.

    Raises:
        ValueError: no such file, or a damaged one.
    """
    file = folder / VERIFICATION
    if not file.is_file():
        raise ValueError(
            f"{folder} has no {VERIFICATION}: fine-tuning and converting write one, "
            "save_pretrained does not."
        )
    try:
        with safe_open(file, "pt") as stored:
            told = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in json.loads(told["order"])}
            names = tuple(json.loads(told["class_names"]))
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}.") from error
    return Verification(tensors, names)


def compare(
    kept: Verification,
    core: LinearVideoTransformer,
    processor: LVTFFVideoProcessor,
    dtype: torch.dtype = torch.float32,
) -> list[Stage]:
    """How far each stage of a model is from what its folder keeps, in order.

    Args:
        kept: of the folder.
        core: the loaded model, on any device.
        processor: as it was loaded.
        dtype: to compute with; the model is converted.

    Raises:
        ValueError: a model of another shape.
    """
    numbers = _numbers(core.eval().to(dtype), processor, kept.tensors[_FRAMES])
    stored = {name: tensor for name, tensor in kept.tensors.items() if name != _FRAMES}
    if {name: tensor.shape for name, tensor in stored.items()} != {
        name: tensor.shape for name, tensor in numbers.items()
    }:
        raise ValueError(
            f"The model has another shape than the one that {VERIFICATION} was written for: "
            "another depth, width, number of classes or clip size."
        )
    errors: dict[str, float] = {}
    for name, expected in stored.items():
        stage = _stage(name)
        errors[stage] = max(errors.get(stage, 0.0), _error(numbers[name], expected))
    return [Stage(name, error) for name, error in errors.items()]


def _stage(name: str) -> str:
    return name.removesuffix(_MEAN).removesuffix(_STD)


def _error(found: Tensor, expected: Tensor) -> float:
    scale = expected.double().square().mean().sqrt().clamp_min(1e-6)
    error = ((found.double() - expected.double()).abs().max() / scale).item()
    return error if np.isfinite(error) else float("inf")


def _made_up_frames(core: LinearVideoTransformer) -> Tensor:
    """Random blocks, (V, T, rows, columns, C): two clips, or one of a large model."""
    places = core.num_frames * core.grid[0] * core.grid[1]
    count = 2 if places * count_parameters(core) < _SMALL else 1
    shape = (count, core.num_frames, _ROWS, _COLUMNS, core.in_chans)
    return torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


@torch.inference_mode()
def _numbers(
    core: LinearVideoTransformer, processor: LVTFFVideoProcessor, frames: Tensor
) -> dict[str, Tensor]:
    """Means of preprocessed pixels, means and deviations of features over tokens, and scores."""
    factor = -(-max(processor.resize_to) // _ROWS)  # so that resizing and cropping have to work
    large = frames.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    clips = torch.stack([_prepared(clip, processor) for clip in large.numpy()])  # (V, T, C, H, W)
    numbers = {_PIXELS: adaptive_avg_pool2d(clips.flatten(0, 1), _GRID)}
    like = core.temp_embed
    scores, tokens, states = core(
        clips.to(like.device, like.dtype), return_tokens=True, return_states=True
    )
    stages = dict(zip(_names(len(states) - 1), [*states, tokens], strict=True))
    for name, features in stages.items():
        features = features.float().cpu()  # (V, T·N, D)
        numbers[name + _MEAN], numbers[name + _STD] = features.mean(1), features.std(1)
    scores = scores.float().cpu()
    # Scores of every token where nothing is pooled.
    numbers[_SCORES] = scores if scores.ndim == 2 else scores.flatten(1, -2).mean(1)
    return numbers


def _prepared(frames: np.ndarray, processor: LVTFFVideoProcessor) -> Tensor:
    """The centre crop (T, C, H, W) of frames (T, H, W, C), normalised.

    Resized as float32: how whole numbers are rounded differs with the instructions that a CPU has.
    """
    transform = processor.eval_transform()
    clip = frames_to_clip(frames).float()
    clip = resize_to_cover(clip, transform.resize_to, transform.interpolation)
    return transform.normalize(crop_clip(clip, transform.crop_size, (0.5, 0.5)))


def _names(depth: int) -> list[str]:
    return ["patch_embed", *(f"block {number}" for number in range(depth)), "norm"]
