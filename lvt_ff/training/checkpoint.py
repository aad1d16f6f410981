"""Checkpoints written whole or not at all: tensors as safetensors, the rest as JSON."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lvt_ff.utils.atomic_io import atomic_folder

__all__ = ["last_checkpoint", "load_checkpoint", "read_state", "save_checkpoint"]

_PATTERN = "step_*"


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": tensor.contiguous()
        for index, values in state.items()
        for name, tensor in values.items()
        if isinstance(tensor, Tensor)
    }


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: Optimizer, state: dict
) -> None:
    """Write `folder/step_NNNNNNNN`, then delete the older ones.

    Args:
        folder: of all checkpoints.
        step: optimizer steps done.
        model, optimizer: whose tensors to keep.
        state: anything JSON holds.
    """
    target = folder / f"step_{step:08d}"
    with atomic_folder(target) as new:
        save_file(model.state_dict(), new / "model.safetensors")
        save_file(_optimizer_tensors(optimizer), new / "optimizer.safetensors")
        (new / "state.json").write_text(json.dumps(dict(state, step=step)))
    for old in folder.glob(_PATTERN):
        if old != target:
            shutil.rmtree(old)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = sorted(folder.glob(_PATTERN), key=lambda path: int(path.name.removeprefix("step_")))
    return found[-1] if found else None


def read_state(checkpoint: Path) -> dict:
    """What `save_checkpoint` was given beside tensors, with `step`."""
    return json.loads((checkpoint / "state.json").read_text())


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Put a checkpoint's tensors into model and optimizer."""
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    values: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(checkpoint / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        values.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(dict(state=values, param_groups=groups))
