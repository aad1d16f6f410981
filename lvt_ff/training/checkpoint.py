"""Checkpoints written whole or not at all: tensors as safetensors, the rest as JSON."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lvt_ff.utils.atomic_io import atomic_folder, write_text
from lvt_ff.utils.errors import Failure, one_line

__all__ = [
    "last_checkpoint",
    "optimizer_tensors",
    "read_state",
    "read_tensors",
    "save_checkpoint",
    "undamaged",
    "update_state",
    "with_tensors",
]

_PATTERN = "step_*"
_KEPT = 2  # the newest, and the one before it, for those who want to go on from before a mistake


def optimizer_tensors(state: dict) -> dict[str, Tensor]:
    """The tensors of an optimizer's `state_dict`, each under `PARAMETER.NAME`."""
    return {
        f"{index}.{name}": tensor.contiguous()
        for index, values in state["state"].items()
        for name, tensor in values.items()
        if isinstance(tensor, Tensor)
    }


def with_tensors(state: dict, tensors: dict[str, Tensor]) -> dict:
    """An optimizer's `state_dict` with the groups of `state` and these tensors."""
    names = {str(index): index for group in state["param_groups"] for index in group["params"]}
    values: dict[int | str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.rsplit(".", 1)
        values.setdefault(names[index], {})[name] = tensor
    return dict(state=values, param_groups=state["param_groups"])


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict
) -> None:
    """Write `folder/step_NNNNNNNN`, then delete all but it and the one before.

    Args:
        folder: of all checkpoints.
        step: optimizer steps done.
        tensors: by the name of their file.
        state: anything JSON holds.
    """
    target = _folder(folder, step)
    with atomic_folder(target) as new:
        for name, values in tensors.items():
            save_file(values, new / f"{name}.safetensors")
        (new / "state.json").write_text(_text(step, state))
    for old in _checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)


def update_state(folder: Path, step: int, state: dict) -> None:
    """Replace the state of a checkpoint that was saved, whose tensors stay as they are."""
    write_text(_folder(folder, step) / "state.json", _text(step, state))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def read_state(checkpoint: Path) -> dict:
    """What `save_checkpoint` was given beside tensors, with `step`."""
    return json.loads((checkpoint / "state.json").read_text())


def read_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The tensors that were saved under a name."""
    return load_file(checkpoint / f"{name}.safetensors")


@contextmanager
def undamaged(checkpoint: Path) -> Iterator[None]:
    """Within this block, a checkpoint that does not fit its own run is damaged."""
    try:
        yield
    except (ValueError, LookupError, RuntimeError, SafetensorError, OSError) as error:
        others = [path.name for path in _checkpoints(checkpoint.parent) if path != checkpoint]
        advice = f"to go on from {others[-1]}" if others else "and start again"
        raise Failure(
            f"{checkpoint} is damaged ({one_line(error)[:200]}): delete it {advice}."
        ) from error


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}"


def _text(step: int, state: dict) -> str:
    return json.dumps(dict(state, step=step))


def _checkpoints(folder: Path) -> list[Path]:
    """By step, the newest last."""
    return sorted(folder.glob(_PATTERN), key=lambda path: int(path.name.removeprefix("step_")))
