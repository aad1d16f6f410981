"""Checkpoints of other models, and what is known about them, from a file, a folder or the Hub."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from huggingface_hub import (
    _CACHED_NO_EXIST,
    hf_hub_download,
    metadata_load,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from timm.models import get_arch_name
from torch import Tensor

from lvt_ff.data.transforms import INTERPOLATIONS
from lvt_ff.hub.resolve import split_revision
from lvt_ff.hub.retry import explained
from lvt_ff.variants import VARIANTS
from lvt_ff.weights import unwrap

__all__ = ["Source", "read_source"]

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PLAIN = ("Block", "GELU")  # timm's pre-norm block; its kin norm, scale or rotate otherwise


@dataclass
class Source:
    """Weights, and what the files beside them tell.

    Attributes:
        state_dict: under the source's own names.
        origin: where they came from, for people.
        options: metadata of a safetensors file.
        pretrained_cfg: mean, std, interpolation and license under timm's names, where known.
        num_heads: of the attention, where known.
        fields: configuration fields that the model must have.
        class_names: of the classifier in order, where known.
    """

    state_dict: dict[str, Tensor]
    origin: str
    options: dict[str, str] = field(default_factory=dict)
    pretrained_cfg: dict[str, Any] = field(default_factory=dict)
    num_heads: int | None = None
    class_names: list[str] | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_source(name: str) -> Source:
    """Weights by path of a file or folder, by timm's name, or by ORG/NAME[@REVISION] on the Hub.

    Nothing in a file is executed: safetensors, or torch's files of tensors only.

    Raises:
        ValueError: nothing of that name, a damaged file, one that holds code, or a model whose
            layers are not a plain ViT's.
        OSError: the Hub cannot be reached.
    """
    path = Path(name)
    if path.is_file():
        return _read_file(path, name)
    if path.is_dir():
        return _read_files(
            lambda file: path / file if (path / file).is_file() else None, f"the folder {name}"
        )
    if "/" not in name and timm.is_model(get_arch_name(name)):
        known = timm.list_pretrained(f"{get_arch_name(name)}.*")
        if "." in name and name not in known:
            raise ValueError(f"timm has no weights {name!r}: it has {known or 'none'}.")
        cfg = timm.get_pretrained_cfg(name)
        if not cfg.hf_hub_id:
            raise ValueError(f"timm's weights {name!r} are not on the Hub.")
        source = _read_files(lambda file: _fetch(cfg.hf_hub_id, file), cfg.hf_hub_id)
        source.pretrained_cfg = _known(cfg.to_dict())
        source.num_heads = _check_timm(get_arch_name(name), {})
        return source
    if "/" in name and not name.startswith((".", "/", "~")):
        repository, revision = split_revision(name)
        try:
            return _read_files(lambda file: _fetch(repository, file, revision), name)
        except RevisionNotFoundError as error:
            raise ValueError(explained(error, repository, revision)) from error
        except (HFValidationError, RepositoryNotFoundError):
            pass  # told below, with all that a name may be
    raise ValueError(
        f"{name!r} is no file or folder here, no model of timm, and no repository like "
        "google/vit-base-patch16-224-in21k that this machine may read (private ones: log in)."
    )


def _fetch(repository: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a repository, from the cache where it is there; None where it has no such file."""
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(repository, file, revision=revision) is _CACHED_NO_EXIST:
            return None
        raise
    except EntryNotFoundError:
        return None


def _read_files(find: Callable[[str], Path | None], origin: str) -> Source:
    config, preprocessor = (
        _read_json(find(name), origin) for name in ("config.json", "preprocessor_config.json")
    )
    weights = next((path for path in map(find, _WEIGHT_FILES) if path), None)
    if weights is None:
        raise ValueError(f"{origin} holds neither {' nor '.join(_WEIGHT_FILES)}.")
    source = _read_file(weights, origin)
    if "pretrained_cfg" in config:
        source.pretrained_cfg = _known(config["pretrained_cfg"])
        architecture = config.get("architecture", "")
        source.num_heads = _check_timm(architecture, config.get("model_args", {}))
        names = config.get("label_names")
        source.class_names = names if isinstance(names, list) else None
        return source
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{origin} has the activation {config['hidden_act']!r}; ours is 'gelu'.")
    source.num_heads = config.get("num_attention_heads")
    if config.get("attention_type") == "joint_space_time":  # TimeSformer's
        source.fields = dict(attn_pattern="joint")
    if "id2label" in config:
        pairs = {int(index): label for index, label in config["id2label"].items()}
        source.class_names = [pairs[index] for index in sorted(pairs)]
    found = dict(
        license=_license(find("README.md")),
        mean=_per_channel(preprocessor.get("image_mean")),
        std=_per_channel(preprocessor.get("image_std")),
        interpolation=INTERPOLATIONS.get(preprocessor.get("resample")),
    )
    source.pretrained_cfg = _known(found)
    return source


def _read_json(path: Path | None, origin: str) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except ValueError as error:
        raise ValueError(f"{path.name} of {origin} is damaged: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path.name} of {origin} holds no object, but a {type(read).__name__}.")
    return read


def _license(card: Path | None) -> str | None:
    try:
        return (metadata_load(card) or {}).get("license") if card else None
    except (yaml.YAMLError, ValueError):  # a page for people: its errors are theirs
        return None


def _per_channel(value: float | list[float] | None) -> list[float] | None:
    return [value] * 3 if isinstance(value, int | float) else value


def _known(cfg: dict[str, Any]) -> dict[str, Any]:
    names = ("mean", "std", "interpolation", "license")
    return {name: cfg[name] for name in names if cfg.get(name) is not None}


def _check_timm(architecture: str, model_args: dict[str, Any]) -> int | None:
    """The number of heads of a model of timm, which must be a plain ViT; None for ours."""
    if architecture in VARIANTS or not timm.is_model(architecture):
        return None
    try:
        model = timm.create_model(architecture, device="meta", **model_args)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"timm cannot build {architecture} with {model_args}: {error}") from error
    kinds = [type(model).__name__]
    if kinds[0].startswith("VisionTransformer"):
        kinds += [type(model.blocks[0]).__name__, type(model.blocks[0].mlp.act).__name__]
    if kinds not in (["VisionTransformer", *_PLAIN], ["VisionTransformerDistilled", *_PLAIN]):
        raise ValueError(
            f"{architecture} is not a plain ViT, whose block is {' with '.join(_PLAIN)}: it is "
            f"{', '.join(kinds)}."
        )
    return model.blocks[0].attn.num_heads


def _read_file(path: Path, origin: str) -> Source:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return Source(tensors, origin, options=file.metadata() or {})
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is damaged, or holds more than tensors and numbers, which may "
            "be code. Save its weights alone as safetensors where you trust it."
        ) from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, not a dict of weights.")
    weights = {k: v for k, v in unwrap(checkpoint).items() if isinstance(v, Tensor)}
    return Source(weights, origin)
