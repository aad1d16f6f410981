"""timm's side: default configurations, one registered entry per variant, and the checkpoint filter.

Source: sizes from `lvt_ff.variants`; pixel statistics of the image models from timm, where no image
model is behind a name from the authors' recipes (mean and std 0.5).
"""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

from timm.models import (
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
from lvt_ff.variants import VARIANTS
from lvt_ff.weights import STEM, layout_of, log_report, read_pieces, unwrap, vit_to_video

__all__ = ["SOURCES", "checkpoint_filter_fn", "image_datasets", "load_source", "with_tag"]

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


def checkpoint_filter_fn(
    state_dict: dict[str, Tensor], model: LinearVideoTransformer, temporal_init: str = "zero"
) -> dict[str, Tensor]:
    """Our weights of another clip size, or an image model's, to the model's.

    What was resampled, or the report of a conversion (kept as `model.pretrained_report`), is
    logged.
    """
    state_dict = unwrap(state_dict)
    layout = layout_of(state_dict)
    if layout != "lvt_ff":
        weights, report = vit_to_video(state_dict, model, temporal_init)
        model.pretrained_report = report
        log_report(report)
        if report.target[STEM] == "resampled":
            # timm adapts the channels itself, and warns of what is adapted already.
            weights[STEM] = read_pieces(state_dict, layout)[STEM].tensor
        return weights
    missing = sorted(set(model.state_dict()) - set(state_dict) - {"head.fc.weight", "head.fc.bias"})
    if missing:  # timm itself would go on with random values where the number of classes differs
        raise ValueError(
            f"The weights lack {len(missing)} tensors of the model, such as {missing[0]}: give the "
            "options that they were trained with."
        )
    old_size = model.pretrained_cfg["input_size"][1:]  # of the file, where a folder says so
    old_grid = FramePatchEmbed.token_grid(old_size, model.patch_embed.proj)
    state_dict, changes = resample_embeddings(state_dict, model, old_grid)
    for change in changes:
        _logger.warning("Resampled %s.", change)
    return state_dict


def load_source(
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
    return build_model_with_cfg(
        LinearVideoTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=out_indices, feature_cls="getter"),
        **{**VARIANTS[variant], **kwargs},
    )


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
