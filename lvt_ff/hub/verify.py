"""Check that a model folder gives here what it gave where it was written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from lvt_ff.hf import LVTFFConfig, LVTFFModel, LVTFFVideoProcessor
from lvt_ff.hub.model_folder import load_folder
from lvt_ff.hub.resolve import local_folder, origin
from lvt_ff.hub.verification import Stage, Verification, compare, read_verification
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import Failure, usage
from lvt_ff.utils.short_text import counted, listed

__all__ = ["verify"]

# Largest errors, see `Stage`, that rounding leaves: ten times what was measured, and more in
# float32, where operators of GPUs add in another order.
TOLERANCES = {"float32": 5e-4, "bfloat16": 0.1, "float16": 0.02}
_PREPROCESSING = 1e-3
_CAUSES = {
    "preprocessing": "another mean, standard deviation, size or interpolation than there was",
    "patch_embed": "other weights of the patch embedding, or of the embeddings of places and times",
    "norm": "other weights of the last norm",
    "scores": "other weights of the head, or classes in another order",
}


@command()
def verify(
    model: str,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> list[Stage]:
    """Compute scores of a few made-up clips, and compare them with those stored in the folder.

    The clips lie in the folder, so that no video and no decoder is needed. Preprocessing, patch
    embedding, every block and the scores are compared in order; the first that differs is named,
    and the exit status is 1. Stored numbers are those of float32 on a CPU.

    Args:
        model: Model folder as fine-tuning and converting write it, or ORG/NAME[@REVISION] on the
            Hub.
        device: Torch device.
        dtype: What to compute with; other tolerances belong to it.
    """
    with usage():
        place = local_folder(model)
        kept = read_verification(place)
        core, processor, names = _loaded(place)
        try:
            core = core.to(device)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"Device {device!r} cannot be used: {error}") from error
        with _exact():
            stages = compare(kept, core, processor, getattr(torch, dtype))
    allowed = [_PREPROCESSING if s.name == "preprocessing" else TOLERANCES[dtype] for s in stages]
    for stage, tolerance in zip(stages, allowed, strict=True):
        differs = "" if stage.error <= tolerance else "  differs"
        print(f"{stage.name:<14} {stage.error:8.1e} of {tolerance:g} allowed{differs}")
    clips = counted(len(kept.tensors["frames"]), "made-up clip")
    wrong = [s for s, tolerance in zip(stages, allowed, strict=True) if not s.error <= tolerance]
    if wrong:
        raise Failure(f"{origin(place)} differs first at {wrong[0].name}: {_cause(wrong[0].name)}.")
    if names != kept.class_names:
        raise Failure(f"{origin(place)} has other classes: {_other_classes(kept, names)}.")
    print(f"{origin(place)} gives for {clips} what it gave where it was written ({dtype})")
    return stages


def _loaded(
    folder: Path,
) -> tuple[LinearVideoTransformer, LVTFFVideoProcessor, tuple[str, ...]]:
    """A folder's model in float32, whether it has a classifier or not, processor and classes."""
    config = LVTFFConfig.from_pretrained(folder)
    if config.num_stored_classes:
        model, processor = load_folder(folder, dtype=torch.float32)
    else:
        model = LVTFFModel.from_pretrained(folder, dtype=torch.float32)
        processor = LVTFFVideoProcessor.from_pretrained(folder)
    return model.model, processor, config.class_names


@contextmanager
def _exact() -> Iterator[None]:
    """Within this block, a GPU multiplies float32 in float32."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _cause(stage: str) -> str:
    return _CAUSES.get(
        stage, "other weights of that block, or operators that compute otherwise here"
    )


def _other_classes(kept: Verification, names: tuple[str, ...]) -> str:
    if sorted(kept.class_names) == sorted(names):
        return "the same ones in another order"
    others = [name for name in names if name not in kept.class_names]
    return f"such as {listed(others, 3)}" if others else f"{len(names)} of {len(kept.class_names)}"
