"""What the files of a model folder may hold: kinds, bounds, and what must agree.

Bounds lie far beyond any model that was ever trained. They keep finite what a file from elsewhere
can ask for, before anything is built; that weights fit is `lvt_ff.weights.check_weights`' matter.
"""

import inspect
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import make_dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin

from huggingface_hub.dataclasses import strict, validated_field
from huggingface_hub.errors import StrictDataclassError

from lvt_ff.data.transforms import INTERPOLATIONS, channel_values
from lvt_ff.layers import CHOICES
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.utils.json_files import shown
from lvt_ff.utils.validation import suggest
from lvt_ff.variants import VARIANTS

__all__ = [
    "ALIASES",
    "DEFAULTS",
    "MAX_CLASSES",
    "check_channels",
    "check_config",
    "check_labels",
    "check_options",
    "check_pretrained_cfg",
    "check_processor",
    "ordered_names",
    "timm_options",
]

# transformers' names for some of the model's options.
ALIASES = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "image_size": "img_size",
    "num_channels": "in_chans",
}
MAX_CLASSES = 1_000_000
MAX_TOKENS = 2**24  # of a clip
_MAX_SIDE = 16_384
_LARGE = 1_000_000
_EXACT = 2**53  # integers up to here are the same in every JSON reader


# Kinds of values.


def _told(words: str | Callable[[], str], whole: bool = False) -> Callable:
    """Marks a check with what it demands, for messages: behind the kind, or in its place."""

    def mark(check: Callable[[Any], None]) -> Callable[[Any], None]:
        check.told, check.whole = words if callable(words) else lambda: words, whole
        return check

    return mark


def _between(least: float, most: float) -> Callable[[Any], None]:
    @_told(f"between {least:,} and {most:,}")
    def check(value: Any) -> None:
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and not least <= number <= most:  # nor is NaN
                raise ValueError

    return check


def _one_of(choices: Collection, told: str = "") -> Callable[[Any], None]:
    # Looked at when asked: tables of kernels and variants may grow.
    def words() -> str:
        return told or f"one of {', '.join('null' if c is None else repr(c) for c in choices)}"

    @_told(words, True)
    def check(value: Any) -> None:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError

    return check


@_told("of two, between 1 and 16,384")
def _sides(value: int | list[int]) -> None:
    if not isinstance(value, int) and len(value) != 2:
        raise ValueError
    _between(1, _MAX_SIDE)(value)


@_told("of numbers up to 2^53, texts and null")
def _plain(value: dict | None) -> None:
    for name, inner in (value or {}).items():
        if not isinstance(name, str) or not isinstance(inner, bool | int | float | str | None):
            raise ValueError
        if isinstance(inner, int | float):
            _between(-_EXACT, _EXACT)(inner)


@_told("with height and width, integers between 1 and 16,384")
def _height_and_width(value: int | dict) -> None:
    if isinstance(value, dict) and sorted(value) != ["height", "width"]:
        raise ValueError
    for side in _by_side(value).values():
        if type(side) is not int:
            raise ValueError
        _between(1, _MAX_SIDE)(side)


@_told("with height and width, or with shortest_edge, integers between 1 and 16,384")
def _covered(value: int | dict) -> None:
    _height_and_width(_by_side(value))


def _by_side(size: int | dict[str, int]) -> dict[str, int]:
    if isinstance(size, dict):
        # What frames that keep their shape cover is a square then.
        size = size["shortest_edge"] if list(size) == ["shortest_edge"] else size
    return size if isinstance(size, dict) else dict(height=size, width=size)


_Count = Annotated[int, _between(1, _MAX_SIDE)]
_Share = Annotated[float | int, _between(0, 1)]
_Sizes = list[int] | tuple[int, ...]
_Number = float | int
_Numbers = list[float | int] | list[int] | list[float] | tuple[float | int, ...]
_FILTERS = " or ".join(f"{number} ({name})" for number, name in INTERPOLATIONS.items())
_Text = str | None
_Flag = bool | None
# It would lead to other files, or other values.
_Nothing = Annotated[Any, _one_of([None, "", False, 0, {}, []], "left out")]

# Of the model's own options, by name: (least, most).
_BOUNDS = dict(
    num_classes=(0, MAX_CLASSES),
    num_frames=(1, 4096),
    in_chans=(1, 4096),
    patch_size=(1, 4096),
    patch_stride=(1, 4096),
    patch_padding=(0, 4096),
    embed_dim=(1, 65_536),
    depth=(1, 1024),
    num_heads=(1, 4096),
    mlp_ratio=(0.01, 256),
    head_hidden=(0, MAX_CLASSES),
    temporal_shift_div=(0, 65_536),
    temporal_shift_segment=(0, 4096),
    fixation_bias=(-_LARGE, _LARGE),
    drop_rate=(0, 1),
    attn_drop_rate=(0, 1),
    drop_path_rate=(0, 1),
)
_CHECKS = {
    **{name: _between(*bounds) for name, bounds in _BOUNDS.items()},
    **{name: _one_of(choices) for name, choices in CHOICES.items()},
    "img_size": _sides,
    "kernel_options": _plain,
}


def _options() -> dict[str, Any]:
    """The constructor's keywords with their kinds: what configurations and timm's arguments are."""
    kinds = {}
    for name, parameter in inspect.signature(LinearVideoTransformer).parameters.items():
        kind = float | int if parameter.annotation is float else parameter.annotation
        if name == "img_size":  # JSON has no tuples
            kind = int | list[int] | tuple[int, int]
        if name not in ("device", "dtype"):
            kinds[name] = Annotated[kind, _CHECKS[name]] if name in _CHECKS else kind
    return kinds


ModelOptions = TypedDict("ModelOptions", _options(), total=False)
# What an option is that nothing tells.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(LinearVideoTransformer).parameters.items()
    if name in ModelOptions.__annotations__
}


class PretrainedCfg(TypedDict, total=False):
    """timm's `pretrained_cfg`, as far as anything is done with it."""

    mean: Annotated[_Numbers, _between(-_LARGE, _LARGE)]
    std: Annotated[_Numbers, _between(1 / _LARGE, _LARGE)]
    interpolation: Annotated[str, _one_of(INTERPOLATIONS.values())]
    crop_pct: Annotated[float | int, _between(0.05, 1)]
    input_size: Annotated[_Sizes, _between(1, _MAX_SIDE)]
    num_classes: Annotated[int, _between(0, MAX_CLASSES)]
    fixed_input_size: bool
    first_conv: Annotated[_Text, _one_of(["patch_embed.proj", None])]
    classifier: Annotated[_Text, _one_of(["head.fc", None])]
    tag: _Text
    license: _Text
    label_offset: _Nothing
    custom_load: _Nothing
    state_dict: _Nothing
    hf_hub_filename: _Nothing


class ConfigFile(TypedDict, total=False):
    """`config.json` beside the model's options: transformers' keys, and timm's."""

    model_type: str
    architectures: list[str] | None
    problem_type: Annotated[
        _Text,
        _one_of([None, "regression", "single_label_classification", "multi_label_classification"]),
    ]
    num_labels: Annotated[int, _between(0, MAX_CLASSES)]
    dtype: Annotated[_Text, _one_of([None, "float64", "float32", "float16", "bfloat16"])]
    torch_dtype: Annotated[_Text, _one_of([None, "float64", "float32", "float16", "bfloat16"])]
    transformers_version: _Text
    output_hidden_states: _Flag
    output_attentions: _Flag
    return_dict: _Flag
    is_encoder_decoder: bool
    chunk_size_feed_forward: Annotated[int, _between(0, _EXACT)]
    attn_implementation: _Text
    quantization_config: dict | None
    auto_map: dict | None
    # Where transformers would look for other files, or put other values.
    configuration_files: _Nothing
    transformers_weights: _Nothing
    per_layer_config: _Nothing
    fusion_config: _Nothing
    distributed_config: _Nothing
    experts_implementation: _Nothing
    # timm's.
    architecture: Annotated[str, _one_of(VARIANTS)]
    num_classes: Annotated[int, _between(0, MAX_CLASSES)]
    num_features: Annotated[int, _between(1, MAX_CLASSES)]
    model_args: dict | None
    pretrained_cfg: dict | None


class ProcessorFile(TypedDict, total=False):
    """`video_preprocessor_config.json`."""

    num_frames: Annotated[int, _between(1, 4096)]
    sampling: Literal["uniform", "dense"]
    sampling_stride: _Count
    size: Annotated[int | dict, _covered]
    crop_size: Annotated[int | dict, _height_and_width]
    resample: Annotated[int, _one_of(INTERPOLATIONS, _FILTERS)]
    image_mean: Annotated[_Number | _Numbers, _between(-_LARGE, _LARGE)]
    image_std: Annotated[_Number | _Numbers, _between(1 / _LARGE, _LARGE)]
    rescale_factor: Annotated[float | int, _between(1 / _LARGE, _LARGE)]
    do_resize: bool
    do_center_crop: bool
    do_rescale: bool
    do_normalize: bool
    do_convert_rgb: bool
    do_sample_frames: bool
    do_pad: _Flag
    default_to_square: _Flag
    return_metadata: _Flag
    video_processor_type: _Text
    device: _Text
    return_tensors: _Text
    data_format: Annotated[_Text, _one_of([None, "channels_first"])]
    input_data_format: Annotated[_Text, _one_of([None, "channels_first", "channels_last"])]
    fps: _Nothing  # models take a number of frames
    video_metadata: _Nothing


# Checks.


def _check(schema: type, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise ValueError for the first value that is not of its kind; unknown names pass."""
    for name, kind in schema.__annotations__.items():
        if name not in values:
            continue
        try:
            _validator(schema, name)(value=values[name])
        except (StrictDataclassError, OverflowError) as error:
            raise ValueError(
                f"{source}: {prefix}{name} must be {_in_words(kind)}, got {shown(values[name])}."
            ) from error


@lru_cache
def _validator(schema: type, name: str) -> type:
    """A strict dataclass with the `value` of one key alone: its error is that key's."""
    kind, checks = schema.__annotations__[name], []
    if get_origin(kind) is Annotated:
        kind, *checks = get_args(kind)
    return strict(make_dataclass("Key", [("value", kind, validated_field(checks))]))


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        inner, check = get_args(kind)
        return check.told() if check.whole else f"{_in_words(inner)} {check.told()}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) in (UnionType, Union):
        parts = dict.fromkeys(_in_words(part) for part in get_args(kind))
        return " or ".join(p for p in parts if p != "an integer" or "a number" not in parts)
    words = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: "an object",
        list: "a list",
        tuple: "a list",
        type(None): "null",
    }
    word = words.get(get_origin(kind) or kind, str(kind))
    inner = [part for part in get_args(kind) if part is not ...]
    if word == "a list" and inner:
        return "a list of numbers" if inner[0] is not str else "a list of texts"
    return word


def check_options(options: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise ValueError, with the key, for options of a model that no model can have.

    Args:
        options: keywords of `LinearVideoTransformer`; those left out have its defaults.
        source: the file they come from, for the message.
        prefix: of keys in the message.
    """
    _check(ModelOptions, options, source, prefix)
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


def check_labels(
    labels: Any, source: str, key: str, num_classes: int | None = None
) -> dict[int, str]:
    """Names of classes by the number of their output, whatever numbers they have.

    Args:
        labels: a list of names, or an object from numbers (as JSON has them, in text) to names.
        source: the file they come from, for the message.
        key: theirs in it.
        num_classes: outputs, where that is known; see `ordered_names`.

    Raises:
        ValueError: names that are no text, or not different; numbers that are none.
    """
    told = f"{source}: {key} must "
    if not isinstance(labels, list | tuple | Mapping):
        raise ValueError(f"{told}be an object from numbers to names, got {shown(labels)}.")
    if len(labels) > MAX_CLASSES:
        raise ValueError(f"{told}have at most {MAX_CLASSES:,} names, got {len(labels):,}.")
    pairs = labels.items() if isinstance(labels, Mapping) else enumerate(labels)
    names = {}
    for number, name in pairs:
        if str(number) != str(_class_number(number)):
            raise ValueError(f"{told}have numbers from 0 on for its keys, got {shown(number)}.")
        if not isinstance(name, str) or not name.strip() or _unprintable(name):
            raise ValueError(f"{told}have printable names, got {shown(name)} for class {number}.")
        names[int(number)] = name
    numbers: dict[str, int] = {}
    for number, name in names.items():
        if numbers.setdefault(name, number) != number:
            raise ValueError(
                f"{told}have a name for each class, got {shown(name)} for {numbers[name]} and for "
                f"{number}: add something that tells them apart."
            )
    return dict(enumerate(ordered_names(names, num_classes)))


def ordered_names(names: Mapping[int | str, str], num_classes: int | None = None) -> list[str]:
    """The names of the outputs, in order.

    A table with gaps names some of `num_classes` outputs, where that is known and its numbers fit.
    Else, as where it counts from 1 (UCF101's does), it names the outputs in the order of its
    numbers: transformers takes the length of `id2label` for the number of outputs.

    Args:
        names: by number; JSON files have the numbers as text.
        num_classes: outputs, of which those in a gap are called LABEL_0 and so on.
    """
    pairs = {int(number): name for number, name in names.items()}
    has_gaps = bool(pairs) and set(pairs) != set(range(len(pairs)))
    if has_gaps and num_classes and max(pairs) < num_classes:
        return [pairs.get(number, f"LABEL_{number}") for number in range(num_classes)]
    return [pairs[number] for number in sorted(pairs)]


def _class_number(key: Any) -> int | None:
    return int(key) if str(key).isascii() and str(key).isdigit() and len(str(key)) < 10 else None


def _unprintable(name: str) -> bool:
    # They would break the lines of commands and cards, or cannot be written at all.
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


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
    _check(ConfigFile, config, source)
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
        check_options(options, source)
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
    check_options(timm_options(config), source, "model_args.")
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
    _check(PretrainedCfg, cfg, source, prefix)
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
    _check(ProcessorFile, values, source)
    if not values.get("do_resize", True) or not values.get("do_center_crop", True):
        return
    size, crop = (_by_side(values.get(name) or 1) for name in ("size", "crop_size"))
    if any(size[side] < crop[side] for side in crop):
        raise ValueError(
            f"{source}: size must be at least crop_size, which is cut from it, got "
            f"{size['height']} × {size['width']} and {crop['height']} × {crop['width']} pixels."
        )
