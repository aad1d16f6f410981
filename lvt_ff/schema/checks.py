"""Whether a model folder's files say what some model of ours is, and agree with each other.

That weights fit is `lvt_ff.weights.check_weights`' matter.
"""

from collections.abc import Mapping
from typing import Any

from lvt_ff.data.transforms import channel_values
from lvt_ff.schema.keys import (
    ALIASES,
    DEFAULTS,
    MAX_TOKENS,
    ConfigFile,
    ModelOptions,
    PretrainedCfg,
    ProcessorFile,
    by_side,
)
from lvt_ff.schema.labels import check_labels
from lvt_ff.schema.values import check_values
from lvt_ff.utils.json_files import shown
from lvt_ff.utils.validation import suggest
from lvt_ff.variants import VARIANTS

__all__ = [
    "check_channels",
    "check_config",
    "check_model_options",
    "check_pretrained_cfg",
    "check_problem_type",
    "check_processor",
    "timm_options",
]


def check_problem_type(value: Any, source: str) -> None:
    """Raise ValueError for a `problem_type` that transformers does not have."""
    check_values(ConfigFile, dict(problem_type=value), source)


def check_model_options(options: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise ValueError, with the key, for options of a model that no model can have.

    Args:
        options: keywords of `LinearVideoTransformer`; those left out have its defaults.
        source: the file they come from, for the message.
        prefix: of keys in the message.
    """
    check_values(ModelOptions, options, source, prefix)
    sizes = DEFAULTS | dict(options)
    height, width = _pair(sizes["img_size"])
    patch, stride, padding = (sizes[f"patch_{part}"] for part in ("size", "stride", "padding"))
    rows, columns = ((side + 2 * padding - patch) // stride + 1 for side in (height, width))
    tokens = sizes["num_frames"] * rows * columns
    if min(rows, columns) < 1:
        raise ValueError(
            f"{source}: {prefix}img_size must be at least one patch of {patch} pixels (with "
            f"padding {padding}), got {shown(sizes['img_size'])}."
        )
    if tokens > MAX_TOKENS:
        raise ValueError(
            f"{source}: {prefix}img_size and {prefix}num_frames must make at most {MAX_TOKENS:,} "
            f"tokens of a clip, got {sizes['num_frames']} × {rows} × {columns}."
        )
    if sizes["embed_dim"] % sizes["num_heads"]:
        raise ValueError(
            f"{source}: {prefix}num_heads must divide {prefix}embed_dim, got {sizes['num_heads']} "
            f"heads for {sizes['embed_dim']}."
        )


def _pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def timm_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options that timm builds with from a checked `config.json`."""
    args = config.get("model_args") or {}
    return {**VARIANTS[config["architecture"]], **args}


def check_config(config: Mapping[str, Any], source: str) -> None:
    """Raise ValueError, with the key, for a `config.json` that no model of ours has.

    Args:
        config: of transformers, with `model_type`; of timm, with `architecture`; or of both.
        source: path of the file, for the message.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"{source} must hold an object, got {shown(config)}.")
    name = config.get("architecture")
    if isinstance(name, str) and name not in VARIANTS:
        raise ValueError(f"{source} holds timm's {name!r}, which is none of {', '.join(VARIANTS)}.")
    check_values(ConfigFile, config, source)
    has_timm = "architecture" in config
    has_fields = not has_timm or config.get("model_type") not in (None, "timm_wrapper")
    if has_fields and config.get("model_type") != "lvt_ff":
        raise ValueError(
            f"{source}: model_type must be 'lvt_ff', or timm's architecture one of "
            f"{', '.join(VARIANTS)}; got {shown(config.get('model_type'))}."
        )
    _check_label_keys(config, source)
    options = _fields(config)
    if has_fields:
        check_model_options(options, source)
    if has_timm:
        options = timm_options(config)
        _check_model_args(config, source)
    cfg = config.get("pretrained_cfg") or {}
    check_pretrained_cfg(cfg, {**DEFAULTS, **options}["in_chans"], source, "pretrained_cfg.")
    if has_fields and has_timm:
        _check_agreement(config, source)


def _check_model_args(config: Mapping[str, Any], source: str) -> None:
    args = config.get("model_args") or {}
    for name in args:
        if name not in ModelOptions.__annotations__:
            known = suggest(str(name), sorted(ModelOptions.__annotations__))
            raise ValueError(f"{source}: model_args has an unknown option {shown(name)}: {known}.")
    check_model_options(timm_options(config), source, "model_args.")
    counts = [values.get("num_classes") for values in (config, args)]
    if None not in counts and counts[0] != counts[1]:
        raise ValueError(
            f"{source}: num_classes must be the same in model_args, got {counts[0]}, {counts[1]}."
        )


def check_pretrained_cfg(
    cfg: Mapping[str, Any], channels: int | None, source: str, prefix: str = ""
) -> None:
    """Raise ValueError, with the key, for a configuration of timm's that fits no model of ours.

    Args:
        cfg: timm's `pretrained_cfg`, or a part of it.
        channels: of the model; None where it is not known.
        source: what it comes from, for the message.
        prefix: of keys in the message.
    """
    check_values(PretrainedCfg, cfg, source, prefix)
    for name in ("mean", "std"):
        if channels is not None:
            check_channels(cfg.get(name, [0]), channels, source, f"{prefix}{name}")
    if len(cfg.get("input_size", [0] * 3)) != 3:
        raise ValueError(
            f"{source}: {prefix}input_size must be channels, height and width, got "
            f"{shown(cfg['input_size'])}."
        )


def check_channels(values: float | list[float], channels: int, source: str, key: str) -> None:
    """Raise ValueError where statistics of pixels are not those of so many channels.

    Those of three pass for any number: a variant's own, which folders of other models keep.
    """
    if len(channel_values(values)) not in (1, 3, channels):
        raise ValueError(
            f"{source}: {key} must have a number for each of {channels} channels, got "
            f"{shown(values)}."
        )


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options under our names, without the number of classes."""
    aliases = {ALIASES[name]: config[name] for name in ALIASES if name in config}
    named = {**config, **aliases}  # in this order, as transformers sets them
    return {
        name: named[name]
        for name in ModelOptions.__annotations__
        if name in named and name != "num_classes"
    }


def _check_label_keys(config: Mapping[str, Any], source: str) -> None:
    counts = {}
    for key in ("id2label", "label_names"):
        if config.get(key) not in (None, [], {}):
            count = config.get("num_classes") or config.get("num_labels")
            counts[key] = len(check_labels(config[key], source, key, count))
    if "num_labels" in config:
        counts["num_labels"] = config["num_labels"]
    if config.get("num_classes"):
        counts["num_classes"] = config["num_classes"]
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise ValueError(f"{source}: the number of classes must be the same, got {told}.")
    if not isinstance(config.get("label2id", {}), dict | None):
        raise ValueError(
            f"{source}: label2id must be an object from names to numbers, got "
            f"{shown(config['label2id'])}."
        )


def _check_agreement(config: Mapping[str, Any], source: str) -> None:
    """What timm reads must say what transformers' fields say."""
    ours = {**DEFAULTS, **_fields(config)}
    theirs = {**DEFAULTS, **timm_options(config)}
    for name in sorted(ours.keys() - {"num_classes"}):
        same = {"img_size": _pair, "kernel_options": lambda options: options or {}}
        alike = same.get(name, lambda value: value)
        if alike(ours[name]) != alike(theirs[name]):
            raise ValueError(
                f"{source}: {name} is {shown(ours[name])}, but {shown(theirs[name])} in "
                "model_args, which timm reads: change both, or load and save the model."
            )
    headless = config.get("architectures") == ["LVTFFModel"]
    if headless != (config.get("num_classes", 0) == 0):
        raise ValueError(
            f"{source}: num_classes must be {'0' if headless else 'the number of classes'} for "
            f"architectures {shown(config.get('architectures'))}, got {config.get('num_classes')}."
        )


def check_processor(values: Mapping[str, Any], source: str) -> None:
    """Raise ValueError, with the key, for a processor that makes no clips of a model's size.

    Args:
        values: of `video_preprocessor_config.json`.
        source: path of the file, for the message.
    """
    check_values(ProcessorFile, values, source)
    if not values.get("do_resize", True) or not values.get("do_center_crop", True):
        return
    size, crop = (by_side(values.get(name) or 1) for name in ("size", "crop_size"))
    if any(size[side] < crop[side] for side in crop):
        raise ValueError(
            f"{source}: size must be at least crop_size, which is cut from it, got "
            f"{size['height']} × {size['width']} and {crop['height']} × {crop['width']} pixels."
        )
