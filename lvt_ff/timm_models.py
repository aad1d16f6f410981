"""timm's side: default configurations, one registered entry per variant, and the checkpoint filter.

Source: sizes from `lvt_ff.variants`; pixel statistics from the authors' recipes (mean and std 0.5).
"""

import logging
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor

from lvt_ff.layers import FramePatchEmbed, resample_embeddings
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.variants import VARIANTS

__all__ = []

_logger = logging.getLogger(__name__)


def _cfg(variant: str) -> dict[str, Any]:
    img_size = VARIANTS[variant]["img_size"]
    return dict(
        url="",
        num_classes=1000,
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


default_cfgs = generate_default_cfgs({variant: _cfg(variant) for variant in VARIANTS})


def checkpoint_filter_fn(
    state_dict: dict[str, Tensor], model: LinearVideoTransformer
) -> dict[str, Tensor]:
    """Weights of another clip size to the model's, with a warning for each embedding resampled."""
    state_dict = state_dict.get("model", state_dict.get("state_dict", state_dict))
    old_size = model.pretrained_cfg["input_size"][1:]  # of the file, where a folder says so
    old_grid = FramePatchEmbed.token_grid(old_size, model.patch_embed.proj)
    state_dict, changes = resample_embeddings(state_dict, model.num_frames, model.grid, old_grid)
    for change in changes:
        _logger.warning("Resampled %s.", change)
    return state_dict


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
