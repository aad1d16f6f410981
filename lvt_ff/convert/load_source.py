"""Checkpoints of other models, and what is known about them, from a file, a folder or the Hub."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import yaml
from huggingface_hub import metadata_load
from timm.models import get_arch_name
from torch import Tensor

from lvt_ff.data.transforms import INTERPOLATIONS
from lvt_ff.hub.resolve import ADAPTER, split_revision
from lvt_ff.hub.retry import reading
from lvt_ff.schema import check_labels, check_pretrained_cfg
from lvt_ff.utils.hub_cache import fetch
from lvt_ff.utils.json_files import read_object, shown
from lvt_ff.utils.weight_files import (
    WEIGHTS,
    files_in,
    find_weights,
    read_checkpoint,
    read_metadata,
    read_tensors,
)
from lvt_ff.variants import VARIANTS
from lvt_ff.weights import check_finite, unwrap

__all__ = ["Source", "read_source"]

_OLD_WEIGHTS = "pytorch_model.bin"
# Of timm.create_model: they would read other files, or give something else than a model.
_NO_ARGS = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)
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
        labels: names of the classes as the source has them, and where it does, or None.
    """

    state_dict: dict[str, Tensor]
    origin: str
    options: dict[str, str] = field(default_factory=dict)
    pretrained_cfg: dict[str, Any] = field(default_factory=dict)
    num_heads: int | None = None
    labels: tuple[Any, str] | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def class_names(self, num_classes: int) -> list[str]:
        """Names of the classes, in order; numbered where the source has none.

        Image models have names twice ("crane" is a bird and a machine): the later ones get their
        number behind them.

        Raises:
            ValueError: names that are not text, or for another number of classes.
        """
        if self.labels is None:
            return [f"LABEL_{number}" for number in range(num_classes)]
        labels, source = self.labels
        if isinstance(labels, list):
            labels = dict(enumerate(labels))
        if isinstance(labels, dict):
            labels, taken = dict(labels), set()
            for number, name in labels.items():
                if str(name) in taken:
                    labels[number] = f"{name} ({number})"
                taken.add(str(name))
        names = check_labels(labels, source, "the names of classes")
        if len(names) != num_classes:
            raise ValueError(
                f"{source}: expected names of {num_classes} classes, got {len(names)}."
            )
        return list(names.values())


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
        return _read_files(files_in(path), f"the folder {name}")
    if "/" not in name and timm.is_model(get_arch_name(name)):
        known = timm.list_pretrained(f"{get_arch_name(name)}.*")
        if "." in name and name not in known:
            raise ValueError(f"timm has no weights {name!r}: it has {known or 'none'}.")
        cfg = timm.get_pretrained_cfg(name)
        if not cfg.hf_hub_id:
            raise ValueError(f"timm's weights {name!r} are not on the Hub.")
        source = _read_files(_finder(cfg.hf_hub_id), cfg.hf_hub_id)
        source.pretrained_cfg = _known(cfg.to_dict(), cfg.hf_hub_id)
        source.num_heads = _check_timm(get_arch_name(name), {})
        return source
    if "/" in name and not name.startswith((".", "/", "~")):
        repository, revision = split_revision(name)
        find = _finder(repository, revision)
        try:
            find("config.json")
        except ValueError as error:  # not there
            raise ValueError(str(error) if revision else _unknown(name)) from error
        return _read_files(find, name)
    raise ValueError(_unknown(name))


def _unknown(name: str) -> str:
    return (
        f"{name!r} is not a file or folder here, a model of timm, or a repository like "
        "google/vit-base-patch16-224-in21k that this machine may read (private ones: log in)."
    )


def _finder(repository: str, revision: str | None = None) -> Callable[[str], Path | None]:
    """How files of a repository are found: all of them, where its branch moves in between too."""
    commits: list[str] = []

    def find(file: str) -> Path | None:
        wanted = commits[0] if commits else revision
        found = reading(lambda: fetch(repository, file, wanted), repository, wanted)
        if found is not None and not commits:
            commits.append(found.parent.name)  # snapshots/COMMIT/file in the cache
        return found

    return find


def _read_files(find: Callable[[str], Path | None], origin: str) -> Source:
    places = [find(name) for name in ("config.json", "preprocessor_config.json")]
    config, preprocessor = (read_object(place) if place else {} for place in places)
    where = str(places[0] or origin)
    source = _read_weights(find, origin)
    if "pretrained_cfg" in config:
        _check_kinds(config, where, pretrained_cfg=dict, model_args=dict, architecture=str)
        source.pretrained_cfg = _known(config["pretrained_cfg"], where)
        architecture = config.get("architecture") or ""
        source.num_heads = _check_timm(architecture, config.get("model_args") or {})
        if config.get("label_names"):
            source.labels = config["label_names"], where
        return source
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(
            f"{origin} has the activation {shown(config['hidden_act'])}; ours is 'gelu'."
        )
    _check_kinds(config, where, num_attention_heads=int)
    source.num_heads = config.get("num_attention_heads")
    if config.get("attention_type") == "joint_space_time":  # TimeSformer's
        source.fields = dict(attn_pattern="joint")
    if config.get("id2label"):
        source.labels = config["id2label"], where
    resample = preprocessor.get("resample")
    found = dict(
        license=_license(find("README.md")),
        mean=_per_channel(preprocessor.get("image_mean")),
        std=_per_channel(preprocessor.get("image_std")),
        interpolation=INTERPOLATIONS.get(resample) if isinstance(resample, int) else None,
    )
    source.pretrained_cfg = _known(found, str(places[1] or origin))
    return source


def _read_weights(find: Callable[[str], Path | None], origin: str) -> Source:
    files = find_weights(find)
    if files is not None:
        metadata = read_metadata(files.files[0]) if len(files.files) == 1 else {}
        return _source(files.read(), origin, metadata)
    old = find(_OLD_WEIGHTS)
    if old is not None:
        return _read_file(old, origin)
    if find(ADAPTER) is not None:
        raise ValueError(
            f"{origin} holds an adapter of PEFT, which belongs to another model: merge it there "
            "(merge_and_unload), and convert what save_pretrained writes then."
        )
    raise ValueError(f"{origin} holds neither {WEIGHTS} nor {_OLD_WEIGHTS}.")


def _check_kinds(config: dict[str, Any], source: str, **kinds: type) -> None:
    for name, kind in kinds.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{source}: {name} must be {kind.__name__}, got {shown(value)}.")


def _license(card: Path | None) -> str | None:
    try:
        found = (metadata_load(card) or {}).get("license") if card else None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError):
        return None  # a page for people: its errors are theirs
    return found if isinstance(found, str) else None


def _per_channel(value: float | list[float] | None) -> list[float] | None:
    return [value] * 3 if isinstance(value, int | float) else value


def _known(cfg: dict[str, Any], source: str) -> dict[str, Any]:
    names = ("mean", "std", "interpolation", "license")
    known = {name: cfg[name] for name in names if cfg.get(name) is not None}
    if known.get("interpolation") not in INTERPOLATIONS.values():  # ours are resized otherwise
        known.pop("interpolation", None)
    check_pretrained_cfg(known, None, source)
    return known


def _check_timm(architecture: str, model_args: dict[str, Any]) -> int | None:
    """The number of heads of a model of timm, which must be a plain ViT; None for ours."""
    if architecture in VARIANTS or not timm.is_model(architecture):
        return None
    for name, value in model_args.items():
        size = max((abs(v) for v in _numbers(value)), default=0)
        if name in _NO_ARGS or size > (1024 if name == "depth" else 65_536):
            raise ValueError(f"model_args.{name} of {architecture} cannot be {shown(value)}.")
    try:
        model = timm.create_model(architecture, device="meta", **model_args)
    except Exception as error:  # whatever some model of timm makes of some argument
        raise ValueError(
            f"timm cannot build {architecture} with {shown(model_args)}: {error}"
        ) from error
    kinds = [type(model).__name__]
    if kinds[0].startswith("VisionTransformer"):
        kinds += [type(model.blocks[0]).__name__, type(model.blocks[0].mlp.act).__name__]
    if kinds not in (["VisionTransformer", *_PLAIN], ["VisionTransformerDistilled", *_PLAIN]):
        raise ValueError(
            f"{architecture} is not a plain ViT, whose block is {' with '.join(_PLAIN)}: it is "
            f"{', '.join(kinds)}."
        )
    return model.blocks[0].attn.num_heads


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if isinstance(number, int | float)]


def _read_file(path: Path, origin: str) -> Source:
    if path.suffix == ".safetensors":
        return _source(read_tensors(path), origin, read_metadata(path))
    return _source(unwrap(read_checkpoint(path)), origin, {})


def _source(tensors: dict[str, Any], origin: str, metadata: dict[str, str]) -> Source:
    weights = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    check_finite(weights, origin)
    return Source(weights, origin, options=metadata)
