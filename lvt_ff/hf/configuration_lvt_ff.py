"""The transformers configuration: the core constructor's keywords, under the same names.

One `config.json` serves both libraries: timm's keys are derived from the fields when it is written.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from timm.models import get_pretrained_cfg, split_model_name_tag
from transformers import PreTrainedConfig, TimmWrapperConfig

from lvt_ff.hf.files import AUTO_MAP, find_file
from lvt_ff.schema import (
    ALIASES,
    DEFAULTS,
    check_config,
    check_labels,
    check_model_options,
    check_problem_type,
    ordered_names,
    timm_options,
)
from lvt_ff.timm_models import SOURCES
from lvt_ff.utils.json_files import read_object
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
HEADLESS = ["LVTFFModel"]  # the architectures of a folder without a classifier
# Keys of config.json that are not fields of the class.
_PROPERTIES = (
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "torch_dtype",
    "attn_implementation",
)
# What of timm's pretrained_cfg belongs to the weights; the rest is derived from the fields.
_KEPT_CFG = ("tag", "mean", "std", "interpolation", "crop_pct", "license")


def kept_cfg(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """The part of timm's pretrained configuration that belongs to the weights."""
    return {key: pretrained_cfg[key] for key in _KEPT_CFG if pretrained_cfg.get(key) is not None}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _place(kwargs: dict[str, Any]) -> Path:
    """Where the dict that `from_dict` is called with comes from, as far as AutoConfig tells it."""
    return Path(str(kwargs.get("name_or_path") or ""), "config.json")


def _to_fields(config_dict: dict[str, Any]) -> dict[str, Any]:
    """The fields behind a checked `config.json` of either library, without timm's derived keys."""
    fields = {key: value for key, value in config_dict.items() if key not in _TIMM_KEYS}
    fields.pop("label2id", None)  # derived
    names = fields.get("id2label") or config_dict.get("label_names")
    num_labels = config_dict.get("num_classes", 0)
    if fields.get("model_type") != LVTFFConfig.model_type:
        fields = {k: v for k, v in fields.items() if k not in DEFAULTS and k not in ALIASES}
        fields |= timm_options(config_dict) | dict(model_type=LVTFFConfig.model_type)
        fields.pop("num_classes", None)
        if not num_labels:
            fields["architectures"] = HEADLESS
        names = names or [f"LABEL_{index}" for index in range(num_labels)]
    if names:
        fields["id2label"] = check_labels(names, "config.json", "id2label", num_labels)
    if "pretrained_cfg" in fields:
        fields["pretrained_cfg"] = kept_cfg(fields["pretrained_cfg"] or {})
    return fields


@strict
class LVTFFConfig(PreTrainedConfig):
    """Configuration of `LVTFFModel` and `LVTFFForVideoClassification`.

    The fields are the keywords of `lvt_ff.model.LinearVideoTransformer`, documented there;
    `num_labels`, `id2label` and `label2id` take the place of `num_classes`. `pretrained_cfg` holds
    what belongs to the weights under timm's names: tag, mean, std, interpolation, crop_pct and
    license; those of the variant where it says nothing. Defaults are those of `lvt_ff_default`.
    """

    model_type = "lvt_ff"
    attribute_map = ALIASES

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
        num_labels = kwargs.get("num_labels")
        if num_labels is not None:  # before there is a name for each of them
            check_model_options(dict(num_classes=num_labels), "LVTFFConfig (num_labels)")
        if self.id2label is None and self.label2id:
            self.id2label = {index: name for name, index in self.label2id.items()}
        if self.id2label is not None:
            # transformers' pipeline looks names up by the outputs' numbers, from 0.
            source = type(self).__name__
            self.id2label = check_labels(self.id2label, source, "id2label", num_labels)
        super().__post_init__(**kwargs)
        self.label2id = {name: index for index, name in self.id2label.items()}
        if self.pretrained_cfg is not None:
            self.pretrained_cfg = {k: _as_json(v) for k, v in self.pretrained_cfg.items()}

    def validate_options(self) -> None:
        """Part of the strict class: what `lvt_ff.schema` says of the model's options."""
        check_model_options(self.core_kwargs(), type(self).__name__)
        check_problem_type(self.problem_type, type(self).__name__)

    def validate_labels(self) -> None:
        """Part of the strict class: classes have names that differ."""
        if self.id2label is not None:
            check_labels(self.id2label, type(self).__name__, "id2label")

    @classmethod
    def from_variant(cls, name: str, **kwargs: Any) -> "LVTFFConfig":
        """The configuration of a named variant.

        Args:
            name: a key of `lvt_ff.VARIANTS`, such as "lvt_ff_s", or one with the tag of pretrained
                weights behind it, such as "lvt_ff_s.fb_in22k_ft_in1k".
            **kwargs: fields to set differently, `num_labels` and `id2label` among them.

        Raises:
            ValueError: no variant of that name, no such tag, or no such field.
        """
        cls.check_fields(kwargs, (*cls.__dataclass_fields__, *ALIASES, *_PROPERTIES))
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
        """Raise ValueError for the first name that is not a field of the model (nor in `more`)."""
        known = [name for name in cls.__annotations__ if name != "pretrained_cfg"]
        for name in names:
            if name not in known and name not in more:
                raise ValueError(
                    f"Unknown configuration field {name!r}: {suggest(name, sorted(known))}."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in order of the outputs, see `ordered_names`."""
        return tuple(ordered_names(self.id2label))

    @property
    def num_stored_classes(self) -> int:
        """Those of the weights beside this configuration: 0 where they have no classifier."""
        return 0 if self.architectures == HEADLESS else self.num_labels

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
        return self._variant_cfg() | (self.pretrained_cfg or {})

    def _variant_cfg(self) -> dict[str, Any]:
        cfg = get_pretrained_cfg(self.architecture).to_dict()
        for key in ("architecture", "url", "hf_hub_id", "file", "state_dict", "tag", "license"):
            cfg.pop(key, None)
        return cfg

    def timm_keys(self) -> dict[str, Any]:
        """What timm reads from `config.json`."""
        num_classes = self.num_stored_classes
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
        """The fields of a folder or repository, whichever library wrote it.

        Raises:
            ValueError: a `config.json` that no model of ours has.
        """
        source = pretrained_model_name_or_path
        file = Path(source) if os.path.isfile(source) else find_file(source, "config.json", kwargs)
        if file is None:
            raise OSError(f"{source} has no file config.json.")
        check_config(read_object(file), str(file))
        config_dict, kwargs = super().get_config_dict(source, **kwargs)
        check_config(config_dict, str(file))  # again: transformers has its own infinities
        return _to_fields(config_dict), kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "LVTFFConfig":
        """The configuration of a `config.json` of either library.

        Raises:
            ValueError: one that no model of ours has.
        """
        where = _place(kwargs)
        if "architecture" not in config_dict:
            config_dict = {"model_type": cls.model_type} | config_dict
        check_config(config_dict, str(where))
        fields = _to_fields(config_dict)
        wanted, named = kwargs.get("num_labels"), len(fields.get("id2label") or ())
        if "id2label" not in kwargs and wanted not in (None, named):
            fields.pop("id2label", None)  # of other classes
        for name in fields:
            if (
                name not in cls.__dataclass_fields__
                and name not in _PROPERTIES
                and hasattr(cls, name)
            ):
                raise ValueError(f"{where}: {name} is not a key of a configuration: leave it out.")
        try:
            found = super().from_dict(fields, **kwargs)
        except (AttributeError, LookupError, TypeError, OverflowError) as error:
            # Of keys that transformers alone knows.
            raise ValueError(f"{where} is not a configuration: {error}") from error
        config = found[0] if isinstance(found, tuple) else found
        if "pretrained_cfg" in fields:  # what the variant says comes from there
            usual = config._variant_cfg()
            told = config.pretrained_cfg or {}
            told = {k: v for k, v in told.items() if v != _as_json(usual.get(k))}
            config.pretrained_cfg = told or None
        config.validate()
        return found

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike) -> "LVTFFConfig":
        """The configuration of a JSON file, as `to_json_file` writes it."""
        fields = read_object(json_file)
        check_config(fields, str(json_file))
        return cls.from_dict(fields)


class TimmFolderConfig(TimmWrapperConfig):
    """What transformers' Auto classes read a folder written by timm with.

    transformers gives every such folder the model type "timm_wrapper"; ours are told from the rest
    by timm's `architecture`. Any other architecture gets transformers' own class, untouched.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> PreTrainedConfig:
        """`LVTFFConfig` for our architectures, `TimmWrapperConfig` for the rest."""
        name = config_dict.get("architecture")
        ours = not isinstance(name, str) or name in VARIANTS  # ours says what is wrong with it
        if ours:
            return LVTFFConfig.from_dict(config_dict, **kwargs)
        try:
            return TimmWrapperConfig.from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"{_place(kwargs)}: {error}") from error
