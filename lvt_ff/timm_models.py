"""timm's side: default configurations, one registered entry per variant, and the checkpoint filter.

Source: sizes from `lvt_ff.variants`; pixel statistics of the image models from timm, where no image
model is behind a name from the authors' recipes (mean and std 0.5).
"""

import logging
from collections.abc import Iterable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    load_pretrained,
    register_model,
    resolve_pretrained_cfg,
    split_model_name_tag,
)
from torch import Tensor

from lvt_ff.layers import FramePatchEmbed, resample_embeddings
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.schema import DEFAULTS, check_config, check_model_options, timm_options
from lvt_ff.utils.hub_cache import fetch
from lvt_ff.utils.json_files import read_object
from lvt_ff.utils.weight_files import files_in, find_weights, read_checkpoint
from lvt_ff.variants import VARIANTS
from lvt_ff.weights import (
    HEAD,
    STEM,
    check_finite,
    check_weights,
    expected_weights,
    layout_of,
    log_report,
    plain_names,
    read_pieces,
    unwrap,
    vit_to_video,
)

__all__ = ["SOURCES", "checkpoint_filter_fn", "image_datasets", "load_image_weights", "with_tag"]

_logger = logging.getLogger(__name__)

_MEDIUM = {
    "fb_in22k_ft_in1k": "deit3_medium_patch16_224",
    "sw_in12k": "vit_medium_patch16_gap_240",
}
# timm's image model behind `pretrained=True`, by variant and tag (the image model's own tag); the
# first is the default.
SOURCES: dict[str, dict[str, str]] = {
    "lvt_ff_s": _MEDIUM,
    "lvt_ff_default": _MEDIUM,
    "lvt_ff_h": _MEDIUM,
    "lvt_ff_hr": _MEDIUM,
    "lvt_ff_tiny": {"augreg_in21k": "vit_tiny_patch16_224"},
    "lvt_ff_small": {
        "augreg_in21k": "vit_small_patch16_224",
        "fb_in22k_ft_in1k": "deit3_small_patch16_224",
    },
    "lvt_ff_base": {
        "augreg_in21k": "vit_base_patch16_224",
        "fb_in22k_ft_in1k": "deit3_base_patch16_224",
        "orig_in21k": "vit_base_patch16_224",
    },
    "lvt_ff_large": {"augreg_in21k": "vit_large_patch16_224"},
}


_DATASETS = {"in1k": "1k", "in12k": "12k", "in21k": "21k", "in22k": "22k"}


def image_datasets(tags: Iterable[str]) -> list[str]:
    """What image models with these tags were trained on, as timm's cards name it."""
    parts = {part for tag in tags for part in tag.split("_")}
    return [f"imagenet-{size}" for part, size in _DATASETS.items() if part in parts]


def with_tag(name: str) -> str:
    """A name with the tag of its weights: its own, or the variant's default where it has any."""
    variant, tag = split_model_name_tag(name)
    tags = SOURCES.get(variant)
    return f"{variant}.{next(iter(tags))}" if tags and not tag else name


def _cfg(variant: str, **changes: Any) -> dict[str, Any]:
    img_size = VARIANTS[variant]["img_size"]
    return (
        dict(
            url="",
            num_classes=1000,  # of a new classifier: no source's is kept
            input_size=(3, img_size, img_size),
            pool_size=None,
            crop_pct=1.0,
            interpolation="bilinear",
            fixed_input_size=True,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            first_conv="patch_embed.proj",
            classifier="head.fc",
            license="apache-2.0",
        )
        | changes
    )


def _source_cfg(variant: str, tag: str) -> dict[str, Any]:
    source = get_pretrained_cfg(f"{SOURCES[variant][tag]}.{tag}")
    same = ("hf_hub_id", "mean", "std", "interpolation", "license")
    return _cfg(variant, **{name: getattr(source, name) for name in same})


default_cfgs = generate_default_cfgs(
    {
        f"{variant}.{tag}": _source_cfg(variant, tag)
        for variant in SOURCES
        for tag in SOURCES[variant]
    }
    | {variant: _cfg(variant) for variant in VARIANTS if variant not in SOURCES}
)


_PLACE = "The checkpoint"  # timm does not tell its name


def checkpoint_filter_fn(
    state_dict: dict[str, Tensor], model: LinearVideoTransformer, temporal_init: str = "zero"
) -> dict[str, Tensor]:
    """Our weights of another clip size, or an image model's, to the model's.

    What was resampled, or the report of a conversion (kept as `model.pretrained_report`), is
    logged.

    Raises:
        ValueError: weights of another kind or size, not all of them, or more than them.
    """
    state_dict = unwrap(state_dict)
    if any(name.removeprefix("model.") == "temp_embed" for name in state_dict):  # ours
        names = plain_names(state_dict, _PLACE)
        state_dict = {names[name]: tensor for name, tensor in state_dict.items()}
    check_finite(state_dict, _PLACE)
    layout = layout_of(state_dict)
    if layout != "lvt_ff":
        weights, report = vit_to_video(state_dict, model, temporal_init)
        check_weights(weights, model.state_dict(), _PLACE, (STEM,))
        model.pretrained_report = report
        log_report(report)
        if report.target[STEM] == "resampled":
            # timm adapts the channels itself, and warns of what is adapted already.
            weights[STEM] = read_pieces(state_dict, layout)[STEM].tensor
        return weights
    cfg = model.pretrained_cfg  # of the file, where a folder says so
    old_grid = FramePatchEmbed.token_grid(cfg["input_size"][1:], model.patch_embed.proj)
    try:
        state_dict, changes = resample_embeddings(state_dict, model, old_grid)
    except (IndexError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{_PLACE}: temp_embed and pos_embed must be (1, T, 1, D) and (1, N, D): {error}"
        ) from error
    free = HEAD if model.num_classes != cfg.get("num_classes") else ()
    if model.in_chans != cfg["input_size"][0]:
        free = (*free, STEM)  # timm adapts it
    # timm itself would go on with random values where the number of classes differs.
    check_weights(state_dict, model.state_dict(), _PLACE, free)
    for change in changes:
        _logger.warning("Resampled %s.", change)
    return state_dict


def load_image_weights(
    model: LinearVideoTransformer,
    name: str,
    *,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    temporal_init: str = "zero",
    cache_dir: str | None = None,
) -> None:
    """Load what `timm.create_model(name, pretrained=True)` loads into a model that is there.

    Args:
        name: variant, or `variant.tag`.
        pretrained_cfg_overlay: fields of timm's configuration to replace, such as `file`.
        temporal_init: see `vit_to_video`.
        cache_dir: of downloads; the Hub's own if not given.

    Raises:
        RuntimeError: unknown tag, or no weights behind the name.
        ValueError: weights that do not fit.
    """
    variant, tag = split_model_name_tag(name)
    cfg = resolve_pretrained_cfg(variant, tag, pretrained_cfg_overlay).to_dict()
    model.pretrained_cfg = cfg
    load_pretrained(
        model,
        cfg,
        num_classes=model.num_classes,
        in_chans=model.in_chans,
        filter_fn=partial(checkpoint_filter_fn, temporal_init=temporal_init),
        cache_dir=cache_dir,
    )


def _create(
    variant: str, pretrained: bool, out_indices: int | tuple[int, ...] = 3, **kwargs: Any
) -> LinearVideoTransformer:
    cfg = kwargs.get("pretrained_cfg")
    if not isinstance(cfg, dict) or cfg.get("source") not in ("local-dir", "hf-hub"):
        return _built(variant, pretrained, out_indices, kwargs)
    weights = _read_folder(variant, pretrained, kwargs)
    if weights:  # in shards, which timm does not read: it takes them from memory
        kwargs["pretrained_cfg"] = cfg | dict(source="", state_dict=weights)
    try:
        model = _built(variant, pretrained, out_indices, kwargs)
    except (ValueError, RuntimeError, SafetensorError, LookupError, AttributeError) as error:
        place = cfg.get("file") or cfg["hf_hub_id"]
        raise ValueError(f"{place} cannot be loaded: {error}") from error
    model.pretrained_cfg.pop("state_dict", None)
    model.pretrained_cfg["source"] = cfg["source"]
    return model


def _built(
    variant: str, pretrained: bool, out_indices: int | tuple[int, ...], kwargs: dict[str, Any]
) -> LinearVideoTransformer:
    return build_model_with_cfg(
        LinearVideoTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=out_indices, feature_cls="getter"),
        **{**VARIANTS[variant], **kwargs},
    )


def _read_folder(
    variant: str, pretrained: bool, kwargs: dict[str, Any]
) -> dict[str, Tensor] | None:
    """Look at the files of a folder or repository before anything is built of them.

    Args:
        variant: that `config.json` names.
        pretrained: whether weights are wanted.
        kwargs: of timm's builder: with the model's arguments, `pretrained_cfg` and `cache_dir`.

    Returns:
        The weights, where they are in shards; else None.

    Raises:
        ValueError: a damaged file, or files that do not belong together.
    """
    cfg = kwargs["pretrained_cfg"]
    if cfg["source"] == "local-dir":
        find = files_in(Path(cfg["file"]))
    else:
        repository, _, revision = cfg["hf_hub_id"].partition("@")
        find = partial(
            fetch, repository, revision=revision or None, cache_dir=kwargs.get("cache_dir")
        )
    place = find("config.json")
    config = read_object(place)
    check_config(config, str(place))
    known = {field.name for field in fields(PretrainedCfg)}
    if odd := sorted(cfg.keys() - known):
        raise ValueError(f"{place}: pretrained_cfg.{odd[0]} is not a key that timm knows.")
    options = VARIANTS[variant] | {name: kwargs[name] for name in DEFAULTS if name in kwargs}
    check_model_options(options, str(place))
    if not pretrained:
        return None
    files = find_weights(find)
    if files is None:
        if old := find("pytorch_model.bin"):
            read_checkpoint(old)
        return None
    stored = {**DEFAULTS, **timm_options(config), "num_classes": config.get("num_classes", 0)}
    names = plain_names(files.tensors, str(files.source))
    found = {names[name]: tensor for name, tensor in files.tensors.items()}
    check_weights(found, expected_weights(stored, str(place)), str(files.source))
    return files.read() if files.source.suffix == ".json" else None


@register_model
def lvt_ff_s(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """The paper's S: 8 frames of 224 pixels."""
    return _create("lvt_ff_s", pretrained, **kwargs)


@register_model
def lvt_ff_default(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """The paper's default: 16 frames of 224 pixels."""
    return _create("lvt_ff_default", pretrained, **kwargs)


@register_model
def lvt_ff_h(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """The paper's H: 32 frames of 224 pixels."""
    return _create("lvt_ff_h", pretrained, **kwargs)


@register_model
def lvt_ff_hr(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """The paper's HR: 16 frames of 336 pixels."""
    return _create("lvt_ff_hr", pretrained, **kwargs)


@register_model
def lvt_ff_tiny(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """ViT-Tiny/16 shapes, 16 frames of 224 pixels."""
    return _create("lvt_ff_tiny", pretrained, **kwargs)


@register_model
def lvt_ff_small(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """ViT-Small/16 shapes, 16 frames of 224 pixels."""
    return _create("lvt_ff_small", pretrained, **kwargs)


@register_model
def lvt_ff_base(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """ViT-Base/16 shapes, 16 frames of 224 pixels."""
    return _create("lvt_ff_base", pretrained, **kwargs)


@register_model
def lvt_ff_large(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """ViT-Large/16 shapes, 16 frames of 224 pixels."""
    return _create("lvt_ff_large", pretrained, **kwargs)


@register_model
def test_lvt_ff(pretrained: bool = False, **kwargs: Any) -> LinearVideoTransformer:
    """Three blocks of width 64, 4 frames of 64 pixels, for tests and demonstrations."""
    return _create("test_lvt_ff", pretrained, **kwargs)
