"""Safetensors files of a model: one, or shards with an index; what they hold, before it is read."""

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lvt_ff.utils.json_files import read_object, shown

__all__ = [
    "INDEX",
    "WEIGHTS",
    "WeightFiles",
    "files_in",
    "find_weights",
    "read_checkpoint",
    "read_metadata",
    "read_tensors",
]

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
# Other kinds of numbers are none that a model has: they count as bytes.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def files_in(folder: Path) -> Callable[[str], Path | None]:
    """How `find_weights` finds files of a folder; what is there and no file is an error."""

    def find(name: str) -> Path | None:
        file = folder / name
        if not file.is_file() and os.path.lexists(file):  # a pipe would let its reader wait
            raise ValueError(f"{file} must be a file, got a folder, a pipe or a link to nothing.")
        return file if file.is_file() else None

    return find


@dataclass(frozen=True)
class WeightFiles:
    """Where a model's tensors are.

    Attributes:
        source: the file, or the index of several, for messages.
        files: those that hold tensors.
        tensors: name to a tensor on the meta device: shape and dtype without memory.
    """

    source: Path
    files: tuple[Path, ...]
    tensors: dict[str, Tensor]

    def read(self) -> dict[str, Tensor]:
        """All tensors, on the CPU.

        Raises:
            ValueError: a damaged file.
        """
        read = {}
        for file in self.files:
            read |= read_tensors(file)
        return read


def find_weights(
    find: Callable[[str], Path | None], variant: str | None = None
) -> WeightFiles | None:
    """The weights that transformers would load, with the headers of their files read.

    Args:
        find: a file's place by its name; None where there is no such file.
        variant: of transformers, such as "fp16" for `model.fp16.safetensors`.

    Returns:
        None where there are no safetensors.

    Raises:
        ValueError: a damaged file, or an index that does not say what is in its files.
    """
    mark = f".{variant}" if variant else ""
    if whole := find(WEIGHTS.replace(".", f"{mark}.", 1)):
        return WeightFiles(whole, (whole,), _header(whole))
    index = find(INDEX.replace(".index", f".index{mark}"))
    if index is None:
        return None
    read = read_object(index)
    if not isinstance(read.get("metadata"), dict):  # as transformers reads it
        raise ValueError(f"{index}: metadata must be an object, got {shown(read.get('metadata'))}.")
    places = read.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(
            f"{index}: weight_map must be an object from tensors to files, got {shown(places)}."
        )
    files: dict[str, Path] = {}
    for name in places.values():
        if isinstance(name, str) and name in files:
            continue
        # Nothing from outside the folder is read, whatever the index says.
        plain = isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors", name)
        found = find(name) if plain else None
        if found is None:
            raise ValueError(
                f"{index}: weight_map must name safetensors files beside it, got {shown(name)}, "
                "which is not there."
            )
        files[name] = found
    tensors: dict[str, Tensor] = {}
    for name, file in files.items():
        header = _header(file)
        listed = {tensor for tensor, place in places.items() if place == name}
        if listed != set(header):
            odd = min(listed ^ set(header))
            where = "lists" if odd in listed else "does not list"
            raise ValueError(
                f"{index} {where} {odd} in {name}, and the file says otherwise: they do not belong "
                "together."
            )
        tensors |= header
    return WeightFiles(index, tuple(files.values()), tensors)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What torch saved, of tensors, numbers and texts alone: nothing in the file is executed.

    Raises:
        ValueError: a damaged file, one that holds more, or something else than a dict.
    """
    try:
        if not file.is_file():
            raise ValueError("no file")
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is refused: it is damaged, or holds more than tensors and numbers, which may "
            "be code. If you trust it, save only its weights, as safetensors."
        ) from error
    except Exception as error:  # of zip, of pickle, of torch, of memory: whatever the bytes ask for
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} cannot be read as a checkpoint: {told}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{file} holds a {type(checkpoint).__name__}, not a dict of weights.")
    return checkpoint


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: a damaged file.
    """
    return _opened(file, lambda handle, name: handle.get_tensor(name))


def read_metadata(file: Path) -> dict[str, str]:
    """What a safetensors file tells of itself, after `read_tensors` could read it."""
    with safe_open(file, "pt") as handle:
        return handle.metadata() or {}


def _header(file: Path) -> dict[str, Tensor]:
    def empty(handle: safe_open, name: str) -> Tensor:
        part = handle.get_slice(name)
        dtype = _DTYPES.get(part.get_dtype(), torch.uint8)
        return torch.empty(part.get_shape(), dtype=dtype, device="meta")

    return _opened(file, empty)


def _opened(file: Path, get: Callable[[safe_open, str], Tensor]) -> dict[str, Tensor]:
    try:
        if not file.is_file():  # a pipe would let us wait for ever
            raise ValueError("no file")
        with safe_open(file, "pt") as handle:
            return {name: get(handle, name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{file} cannot be read as a checkpoint, expected a whole safetensors file: "
            f"{' '.join(str(error).split())}."
        ) from error
