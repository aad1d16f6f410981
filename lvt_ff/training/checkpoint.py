"""Checkpoints written whole or not at all: tensors as safetensors, the rest as JSON."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lvt_ff.utils.atomic_io import atomic_folder, write_text
from lvt_ff.utils.errors import Failure, one_line

__all__ = [
    "checkpoints",
    "last_checkpoint",
    "optimizer_tensors",
    "parameter_names",
    "read_state",
    "read_tensors",
    "save_checkpoint",
    "set_aside",
    "undamaged",
    "update_state",
    "with_tensors",
]

_PATTERN = "step_*"
_KEPT = 2  # the newest, and the one before it, for those who want to go on from before a mistake


def parameter_names(network: nn.Module, optimizer: Optimizer) -> list[str]:
    """Names of an optimizer's parameters, by the numbers that its `state_dict` has for them."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(state: dict, names: list[str]) -> dict[str, Tensor]:
    """The tensors of an optimizer's `state_dict`, each under `PARAMETER/NAME`."""
    return {
        f"{names[index]}/{name}": tensor.contiguous()
        for index, values in state["state"].items()
        for name, tensor in values.items()
        if isinstance(tensor, Tensor)
    }


def with_tensors(state: dict, names: list[str], tensors: dict[str, Tensor]) -> dict:
    """An optimizer's `state_dict` with the groups of `state` and the tensors of its parameters.

    Parameters that there are none for begin as in a new optimizer.
    """
    numbers = {name: index for index, name in enumerate(names)}
    values: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parameter, name = key.rsplit("/", 1)
        if parameter in numbers:
            values.setdefault(numbers[parameter], {})[name] = tensor
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
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old)


def update_state(folder: Path, step: int, state: dict) -> None:
    """Replace the state of a checkpoint that was saved, whose tensors stay as they are."""
    write_text(_folder(folder, step) / "state.json", _text(step, state))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = checkpoints(folder)
    return found[-1] if found else None


def checkpoints(folder: Path) -> list[Path]:
    """All complete ones, the newest last."""
    return sorted(folder.glob(_PATTERN), key=lambda path: int(path.name.removeprefix("step_")))


def set_aside(folder: Path, step: int) -> None:
    """Take a checkpoint that cannot be gone on from out of those that are."""
    target = folder / f"diverged_{step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    _folder(folder, step).rename(target)


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
        others = [path.name for path in checkpoints(checkpoint.parent) if path != checkpoint]
        advice = f"to go on from {others[-1]}" if others else "and start again"
        raise Failure(
            f"{checkpoint} is damaged ({one_line(error)[:200]}): delete it {advice}."
        ) from error


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}"


def _text(step: int, state: dict) -> str:
    return json.dumps(dict(state, step=step))
