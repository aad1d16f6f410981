"""The transformers configuration: the core constructor's keywords, under the same names.

One `config.json` serves both libraries: timm's keys are derived from the fields when it is written.
"""

import json
from collections.abc import Iterable
from typing import Any

from huggingface_hub.dataclasses import strict
from timm.models import get_pretrained_cfg, split_model_name_tag
from transformers import PreTrainedConfig, TimmWrapperConfig

from lvt_ff.timm_models import SOURCES
from lvt_ff.utils.validation import suggest
from lvt_ff.variants import VARIANTS

__all__ = ["LVTFFConfig", "TimmFolderConfig", "kept_cfg"]

_TIMM_KEYS = (
    "architecture",
    "num_classes",
    "num_features",
    "model_args",
    "label_names",
    "auto_map",
)
# Where lvt_ff is not imported, transformers follows these names to a file that says what to
# install; where it is, its own classes come first.
REMOTE_FILE = "lvt_ff_import.py"
REMOTE_CODE = '''"""This model needs lvt_ff: pip install lvt-ff, then import lvt_ff first."""

from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel  # noqa: F401
'''
AUTO_MAP = {
    "AutoConfig": "lvt_ff_import.LVTFFConfig",
    "AutoModel": "lvt_ff_import.LVTFFModel",
    "AutoModelForVideoClassification": "lvt_ff_import.LVTFFForVideoClassification",
}
# What of timm's pretrained_cfg belongs to the weights; the rest is derived from the fields.
_KEPT_CFG = ("tag", "mean", "std", "interpolation", "crop_pct", "license")


def kept_cfg(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """The part of timm's pretrained configuration that belongs to the weights."""
    return {key: pretrained_cfg[key] for key in _KEPT_CFG if pretrained_cfg.get(key) is not None}


def _from_timm(config_dict: dict[str, Any]) -> dict[str, Any]:
    """The fields behind a `config.json` of either library; timm's derived keys are left out."""
    fields = {key: value for key, value in config_dict.items() if key not in _TIMM_KEYS}
    fields["pretrained_cfg"] = kept_cfg(fields.get("pretrained_cfg") or {})
    if fields.get("model_type") == LVTFFConfig.model_type:
        return fields
    architecture = config_dict["architecture"]
    if architecture not in VARIANTS:
        raise ValueError(
            f"The folder holds timm's {architecture!r}, which is none of {', '.join(VARIANTS)}."
        )
    args = dict(config_dict.get("model_args", {}), num_classes=config_dict.get("num_classes", 0))
    names = config_dict.get("label_names")
    num_labels = args.pop("num_classes")
    if not names and num_labels:
        names = [f"LABEL_{index}" for index in range(num_labels)]
    if names:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        fields["id2label"] = {int(index): name for index, name in pairs}
    return {**fields, **VARIANTS[architecture], **args, "model_type": "lvt_ff"}


@strict
class LVTFFConfig(PreTrainedConfig):
    """Configuration of `LVTFFModel` and `LVTFFForVideoClassification`.

    The fields are the keywords of `lvt_ff.model.LinearVideoTransformer`, documented there;
    `num_labels`, `id2label` and `label2id` take the place of `num_classes`. `pretrained_cfg` holds
    what belongs to the weights under timm's names: tag, mean, std, interpolation, crop_pct and
    license; those of the variant where it says nothing. Defaults are those of `lvt_ff_default`.
    """

    model_type = "lvt_ff"
    attribute_map = {
        "hidden_size": "embed_dim",
        "num_hidden_layers": "depth",
        "num_attention_heads": "num_heads",
        "image_size": "img_size",
        "num_channels": "in_chans",
    }

    num_frames: int = 16
    img_size: int | list[int] | tuple[int, int] = 224
    in_chans: int = 3
    patch_size: int = 16
    patch_stride: int = 14
    patch_padding: int = 8
    patch_norm: bool = False
    pos_embed: bool = True
    embed_dim: int = 512
    depth: int = 12
    num_heads: int = 8
    mlp_ratio: float | int = 4.0
    mlp_dwconv: bool = True
    attn_kernel: str = "relu"
    kernel_options: dict | None = None
    attn_pattern: str = "factorized"
    block_order: str = "time_first"
    fixation: str = "qkv"
    fixation_shared: bool = True
    fixation_aggregate: str = "concat"
    fixation_order: str = "after"
    fixation_bias: float = 0.0
    spatial_shift: int = 1
    shift_border: str = "authors"
    temporal_shift_div: int = 4
    temporal_shift_segment: int = 0
    local_concentration: bool = False
    global_pool: str = "avg"
    head_hidden: int = 768
    drop_rate: float | int = 0.5
    attn_drop_rate: float | int = 0.0
    drop_path_rate: float | int = 0.0
    pretrained_cfg: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # transformers fills this in for num_labels, but not for id2label alone.
        if self.label2id is None and self.id2label is not None:
            self.label2id = {name: index for index, name in self.id2label.items()}

    @classmethod
    def from_variant(cls, name: str, **kwargs: Any) -> "LVTFFConfig":
        """The configuration of a named variant.

        Args:
            name: a key of `lvt_ff.VARIANTS`, such as "lvt_ff_s", or one with the tag of pretrained
                weights behind it, such as "lvt_ff_s.fb_in22k_ft_in1k".
            **kwargs: fields to set differently, `num_labels` and `id2label` among them.

        Raises:
            ValueError: no variant of that name, or no such tag.
        """
        variant, tag = split_model_name_tag(name)
        if variant not in VARIANTS:
            raise ValueError(f"Unknown variant {variant!r}: choose one of {list(VARIANTS)}.")
        if tag:
            tags = list(SOURCES.get(variant, ()))
            if tag not in tags:
                raise ValueError(f"{variant} has no weights {tag!r}: choose one of {tags}.")
            kwargs.setdefault("pretrained_cfg", kept_cfg(get_pretrained_cfg(name).to_dict()))
        return cls(**{**VARIANTS[variant], **kwargs})

    @classmethod
    def check_fields(cls, names: Iterable[str], more: tuple[str, ...] = ()) -> None:
        """Raise ValueError for the first name that is no field of the model (or one of `more`)."""
        known = [name for name in cls.__annotations__ if name != "pretrained_cfg"]
        for name in names:
            if name not in known and name not in more:
                raise ValueError(
                    f"Unknown configuration field {name!r}: {suggest(name, sorted(known))}."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in order; a class without one is numbered."""
        return tuple(self.id2label.get(i, f"LABEL_{i}") for i in range(self.num_labels))

    @property
    def architecture(self) -> str:
        """timm's name of the variant with these sizes; the stem counts only between those of equal
        width and depth, the clip size only between equal stems."""
        kinds = (
            ("embed_dim", "depth", "num_heads"),
            ("patch_stride", "patch_padding"),
            ("num_frames", "img_size"),
        )

        def matches(name: str) -> tuple[int, ...]:
            sizes = VARIANTS[name]
            return tuple(sum(getattr(self, key) == sizes[key] for key in kind) for kind in kinds)

        return max(VARIANTS, key=matches)

    def core_kwargs(self) -> dict[str, Any]:
        """Keywords of `LinearVideoTransformer`, without `num_classes`."""
        names = [name for name in LVTFFConfig.__annotations__ if name != "pretrained_cfg"]
        fields = {name: getattr(self, name) for name in names}
        if not isinstance(self.img_size, int):
            fields["img_size"] = tuple(self.img_size)
        return fields

    def data_cfg(self) -> dict[str, Any]:
        """timm's pretrained configuration of the variant, with what belongs to these weights."""
        cfg = get_pretrained_cfg(self.architecture).to_dict()
        for key in ("architecture", "url", "hf_hub_id", "file", "state_dict", "tag", "license"):
            cfg.pop(key, None)
        return cfg | (self.pretrained_cfg or {})

    def timm_keys(self) -> dict[str, Any]:
        """What timm reads from `config.json`."""
        num_classes = 0 if self.architectures == ["LVTFFModel"] else self.num_labels
        height, width = (self.img_size,) * 2 if isinstance(self.img_size, int) else self.img_size
        pretrained_cfg = self.data_cfg()
        pretrained_cfg.update(num_classes=num_classes, input_size=[self.in_chans, height, width])
        return dict(
            architecture=self.architecture,
            num_classes=num_classes,
            num_features=self.embed_dim,
            label_names=list(self.class_names[:num_classes]),
            model_args=self.core_kwargs(),
            pretrained_cfg=pretrained_cfg,
        )

    def to_json_string(self, use_diff: bool = True) -> str:
        """JSON of the fields, of timm's derived keys, and of where transformers finds the code."""
        fields = json.loads(super().to_json_string(use_diff=use_diff))
        fields |= self.timm_keys() | dict(auto_map=AUTO_MAP)
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """The fields of a folder or repository, whichever library wrote it."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return _from_timm(config_dict) if "architecture" in config_dict else config_dict, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "LVTFFConfig":
        """The configuration of a `config.json` of either library."""
        if "architecture" in config_dict:
            config_dict = _from_timm(config_dict)
        return super().from_dict(config_dict, **kwargs)


class TimmFolderConfig(TimmWrapperConfig):
    """What transformers' Auto classes read a folder written by timm with.

    transformers gives every such folder the model type "timm_wrapper"; ours are told from the rest
    by timm's `architecture`. Any other architecture gets transformers' own class, untouched.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> PreTrainedConfig:
        """`LVTFFConfig` for our architectures, `TimmWrapperConfig` for the rest."""
        ours = config_dict.get("architecture") in VARIANTS
        return (LVTFFConfig if ours else TimmWrapperConfig).from_dict(config_dict, **kwargs)
