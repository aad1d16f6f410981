"""The keys of a model folder's files, with the kinds and bounds of their values.

Bounds lie far beyond any model that was ever trained. They keep finite what a file from elsewhere
can ask for, before anything is built.
"""

import inspect
from typing import Annotated, Any, Literal, TypedDict

from lvt_ff.data.transforms import INTERPOLATIONS, OFFERED_FILTERS
from lvt_ff.layers import CHOICES
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.schema.values import between, demands, one_of
from lvt_ff.variants import VARIANTS

__all__ = [
    "ALIASES",
    "DEFAULTS",
    "MAX_CLASSES",
    "MAX_TOKENS",
    "ConfigFile",
    "ModelOptions",
    "PretrainedCfg",
    "ProcessorFile",
    "by_side",
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


@demands(f"of two, between 1 and {_MAX_SIDE:,}")
def _sides(value: int | list[int]) -> None:
    if not isinstance(value, int) and len(value) != 2:
        raise ValueError
    between(1, _MAX_SIDE)(value)


@demands("of numbers up to 2^53, texts and null")
def _plain(value: dict | None) -> None:
    for name, inner in (value or {}).items():
        if not isinstance(name, str) or not isinstance(inner, bool | int | float | str | None):
            raise ValueError
        if isinstance(inner, int | float):
            between(-_EXACT, _EXACT)(inner)


@demands(f"with height and width, integers between 1 and {_MAX_SIDE:,}")
def _both_sides(value: int | dict) -> None:
    if isinstance(value, dict) and sorted(value) != ["height", "width"]:
        raise ValueError
    for side in by_side(value).values():
        if type(side) is not int:
            raise ValueError
        between(1, _MAX_SIDE)(side)


@demands(f"with height and width, or with shortest_edge, integers between 1 and {_MAX_SIDE:,}")
def _covered(value: int | dict) -> None:
    _both_sides(by_side(value))


def by_side(size: int | dict[str, int]) -> dict[str, int]:
    """Height and width of a size that one number or `shortest_edge` may tell."""
    if isinstance(size, dict):
        # What frames that keep their shape cover is a square then.
        size = size["shortest_edge"] if list(size) == ["shortest_edge"] else size
    return size if isinstance(size, dict) else dict(height=size, width=size)


_Count = Annotated[int, between(1, _MAX_SIDE)]
_Sizes = list[int] | tuple[int, ...]
_Number = float | int
_Numbers = list[float | int] | list[int] | list[float] | tuple[float | int, ...]
_Text = str | None
_Flag = bool | None
# It would lead to other files, or other values.
_Nothing = Annotated[Any, one_of([None, "", False, 0, {}, []], "left out")]

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
    **{name: between(*bounds) for name, bounds in _BOUNDS.items()},
    **{name: one_of(choices) for name, choices in CHOICES.items()},
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

    mean: Annotated[_Numbers, between(-_LARGE, _LARGE)]
    std: Annotated[_Numbers, between(1 / _LARGE, _LARGE)]
    interpolation: Annotated[str, one_of(INTERPOLATIONS.values())]
    crop_pct: Annotated[float | int, between(0.05, 1)]
    input_size: Annotated[_Sizes, between(1, _MAX_SIDE)]
    num_classes: Annotated[int, between(0, MAX_CLASSES)]
    fixed_input_size: bool
    first_conv: Annotated[_Text, one_of(["patch_embed.proj", None])]
    classifier: Annotated[_Text, one_of(["head.fc", None])]
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
        one_of([None, "regression", "single_label_classification", "multi_label_classification"]),
    ]
    num_labels: Annotated[int, between(0, MAX_CLASSES)]
    dtype: Annotated[_Text, one_of([None, "float64", "float32", "float16", "bfloat16"])]
    torch_dtype: Annotated[_Text, one_of([None, "float64", "float32", "float16", "bfloat16"])]
    transformers_version: _Text
    output_hidden_states: _Flag
    output_attentions: _Flag
    return_dict: _Flag
    is_encoder_decoder: bool
    chunk_size_feed_forward: Annotated[int, between(0, _EXACT)]
    attn_implementation: Annotated[_Text, one_of([None, "eager", "sdpa"])]
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
    architecture: Annotated[str, one_of(VARIANTS)]
    num_classes: Annotated[int, between(0, MAX_CLASSES)]
    num_features: Annotated[int, between(1, MAX_CLASSES)]
    model_args: dict | None
    pretrained_cfg: dict | None


class ProcessorFile(TypedDict, total=False):
    """`video_preprocessor_config.json`."""

    num_frames: Annotated[int, between(1, 4096)]
    sampling: Literal["uniform", "dense"]
    sampling_stride: _Count
    size: Annotated[int | dict, _covered]
    crop_size: Annotated[int | dict, _both_sides]
    resample: Annotated[int, one_of(INTERPOLATIONS, f"one of PIL's filters {OFFERED_FILTERS}")]
    image_mean: Annotated[_Number | _Numbers, between(-_LARGE, _LARGE)]
    image_std: Annotated[_Number | _Numbers, between(1 / _LARGE, _LARGE)]
    rescale_factor: Annotated[float | int, between(1 / _LARGE, _LARGE)]
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
    data_format: Annotated[_Text, one_of([None, "channels_first"])]
    input_data_format: Annotated[_Text, one_of([None, "channels_first", "channels_last"])]
    fps: _Nothing  # models take a number of frames
    video_metadata: _Nothing
