"""Convert checkpoints of other models to a model folder, or ours to the authors' layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from timm.models import split_model_name_tag

from lvt_ff.convert.load_source import Source, read_source
from lvt_ff.hf import LVTFFConfig, LVTFFForVideoClassification, LVTFFModel, LVTFFVideoProcessor
from lvt_ff.hub.model_card import conversion_card
from lvt_ff.hub.model_folder import CONVERSION, is_variant, load_folder, write_model_folder
from lvt_ff.schema import DEFAULTS, check_labels, check_model_options, check_pretrained_cfg
from lvt_ff.utils.atomic_io import atomic_file
from lvt_ff.utils.command_line import command
from lvt_ff.utils.errors import usage
from lvt_ff.utils.option_types import NonNegativeInt, PositiveFloat, PositiveInt
from lvt_ff.utils.output import check_output_file, check_output_folder
from lvt_ff.variants import VARIANTS
from lvt_ff.weights import (
    authors_to_lvt_ff,
    check_weights,
    fitting_variants,
    layout_of,
    lvt_ff_to_authors,
    read_pieces,
    sizes_of,
    vit_to_video,
)

__all__ = ["convert"]

_METADATA = "lvt_ff_config"  # of a safetensors file: what the authors' weights do not tell
_UNTOLD = ("temporal_shift_div", "attn_kernel", "num_heads")
_AUTHORS_CFG = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")


@command(
    {
        "to": "what to write",
        "temporal_init": "weights and pixel statistics",
    }
)
def convert(
    src: str,
    dst: Path | None = None,
    to: Literal["lvt_ff", "authors"] = "lvt_ff",
    model: str | None = None,
    num_frames: PositiveInt | None = None,
    img_size: PositiveInt | None = None,
    attn_kernel: str | None = None,
    temporal_shift_div: NonNegativeInt | None = None,
    num_heads: PositiveInt | None = None,
    model_args: dict[str, Any] | None = None,
    temporal_init: Literal["zero", "spatial"] = "zero",
    keep_head: bool = False,
    mean: tuple[float, float, float] | None = None,
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
) -> dict:
    """Convert a checkpoint to a model folder for timm and transformers, or back.

    Args:
        src: File, folder, timm name or ORG/NAME[@REVISION] on the Hub of a ViT, DeiT or
            TimeSformer, or a checkpoint of the paper's authors; with --to authors a model folder.
        dst: New model folder; with --to authors a .safetensors file (src_authors.safetensors if not
            given).
        to: A model folder for timm and transformers, or one file under the authors' names.
        model: Variant; the one that fits if not given.
        num_frames: Frames of a clip; the variant's or the checkpoint's if not given.
        img_size: Pixels of a frame's side; the variant's if not given.
        attn_kernel: Attention kernel; the variant's if not given. A checkpoint of the authors
            without fixation does not contain it.
        temporal_shift_div: Divisor of the temporal shift (0 turns it off); for a checkpoint of the
            authors not needed where its number of classes is a known data set's.
        num_heads: Attention heads, where neither the source nor its width implies them.
        model_args: Other configuration fields, such as {"fixation": "none"}.
        temporal_init: Initial temporal attention of an image model: adding nothing, or a copy of
            the spatial one.
        keep_head: Keep an image model's classifier (takes {"head_hidden": 0} in model_args); the
            head's own norm before it is new, so scores are near the source's, not equal.
        mean: Pixel mean, where the source does not contain it.
        std: Pixel standard deviation, where the source does not contain it.
    """
    given = dict(
        num_frames=num_frames,
        img_size=img_size,
        attn_kernel=attn_kernel,
        temporal_shift_div=temporal_shift_div,
        num_heads=num_heads,
    )
    fields = dict(model_args or {}, **{k: v for k, v in given.items() if v is not None})
    statistics = {k: v for k, v in dict(mean=mean, std=std).items() if v is not None}
    of_images = dict(temporal_init=temporal_init, keep_head=keep_head)
    with usage():
        LVTFFConfig.check_fields(fields)
        if to == "authors":
            if fields or statistics or model or keep_head or temporal_init != "zero":
                raise ValueError("--to authors takes no other option: the folder tells everything.")
            return _to_authors(src, dst or Path(f"{src.rstrip('/')}_authors.safetensors"))
        if dst is None:
            raise ValueError("Give a folder to write behind the source: lvt-ff convert SRC DST.")
        if dst.exists() and (dst.is_file() or any(dst.iterdir())):
            raise ValueError(f"{dst} exists already: give a new folder.")
        check_output_folder(dst, "folder")
        if is_variant(src):
            raise ValueError(
                f"{src} needs no conversion: timm.create_model({src!r}, pretrained=True), or "
                f"lvt-ff finetune --model {src}."
            )
        source = read_source(src)
        source.pretrained_cfg |= statistics
        try:
            layout = layout_of(source.state_dict)
        except ValueError as error:
            raise ValueError(f"{source.origin}: {error}") from error
        if layout == "lvt_ff":
            raise ValueError(f"{src} holds an lvt_ff model already: --to authors converts it back.")
        torch.manual_seed(0)  # of what is fresh: one source gives one folder
        if layout == "authors":
            if model or keep_head or temporal_init != "zero":
                raise ValueError(
                    "The authors' checkpoints tell their own sizes and have their own head and "
                    "temporal attention: leave out --model, --keep_head and --temporal_init."
                )
            network, lines, record = _from_tensors(_from_authors, source, fields)
        else:
            network, lines, record = _from_tensors(_from_images, source, model, fields, of_images)
    processor = LVTFFVideoProcessor.from_config(network.config)
    card = conversion_card(
        dst.name,
        source.origin,
        lines,
        network.config,
        trained=network.model.num_classes > 0,
    )
    write_model_folder(dst, network, processor, card, {CONVERSION: record})
    print("\n".join([f"{source.origin}:", *lines, f"wrote the model folder {dst}"]))
    return record


def _from_tensors(make: Callable, source: Source, *options: Any) -> tuple:
    """What a conversion makes of a source; tensors of any shape may lie under the right names."""
    try:
        return make(source, *options)
    except (AttributeError, LookupError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{source.origin} cannot be converted: its tensors are not of the shapes that their "
            f"names promise ({error})."
        ) from error


def _from_images(
    source: Source, variant: str | None, fields: dict[str, Any], options: dict[str, Any]
) -> tuple[LVTFFModel | LVTFFForVideoClassification, list[str], dict]:
    sizes = sizes_of(read_pieces(source.state_dict, layout_of(source.state_dict)))
    width, depth = sizes["embed_dim"], sizes["depth"]
    num_heads = fields.pop("num_heads", source.num_heads)
    fitting = fitting_variants(width, depth, num_heads)
    if variant is None and fitting:
        variant = "lvt_ff_default" if "lvt_ff_default" in fitting else fitting[0]
    if variant is None:
        known = {(v["embed_dim"], v["depth"], v["num_heads"]): n for n, v in VARIANTS.items()}
        listed = "; ".join(f"{name} {', '.join(map(str, key))}" for key, name in known.items())
        raise ValueError(
            f"No variant fits width {width}, depth {depth}, heads {num_heads or 'unknown'}; the "
            f"variants have {listed}."
        )
    if split_model_name_tag(variant)[1]:
        raise ValueError(
            f"--model takes a variant without a tag, got {variant}: SRC is the source."
        )
    if sizes["num_frames"] is not None:
        fields.setdefault("num_frames", sizes["num_frames"])
    wrong = {k: v for k, v in source.fields.items() if fields.setdefault(k, v) != v}
    if wrong:
        raise ValueError(f"{source.origin} needs {wrong}: leave that out of the options.")
    config = LVTFFConfig.from_variant(variant, **fields)
    if num_heads not in (None, config.num_heads):
        raise ValueError(
            f"The source has {num_heads} heads, {variant} has {config.num_heads}: "
            f"{', '.join(fitting) or 'no variant'} would fit."
        )
    lines = []
    told = {
        name: value
        for name, value in source.pretrained_cfg.items()
        if name not in ("mean", "std") or len(value) == config.in_chans
    }
    if not {"mean", "std"} <= set(told):
        cfg = config.data_cfg() | told
        lines.append(
            f"The source does not tell pixel statistics of {config.in_chans} channels: taken as "
            f"mean {cfg['mean']}, std {cfg['std']} (--mean and --std change them)."
        )
    config.pretrained_cfg = told
    holder = LVTFFModel
    if options["keep_head"]:
        holder = LVTFFForVideoClassification
        names = source.class_names(sizes["num_classes"] or 0)
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
    network = holder(config)
    weights, report = vit_to_video(source.state_dict, network.model, **options)
    check_weights(weights, network.model.state_dict(), source.origin)
    network.model.load_state_dict(weights)
    return network, lines + report.lines(), dict(origin=source.origin, **report.as_dict())


def _from_authors(
    source: Source, fields: dict[str, Any]
) -> tuple[LVTFFForVideoClassification, list[str], dict]:
    untold = {name: fields.pop(name) for name in _UNTOLD if name in fields}
    clip_size = {name: fields.pop(name, None) for name in ("num_frames", "img_size")}
    if fields:
        raise ValueError(f"The authors' checkpoints do not take {', '.join(fields)}: leave it out.")
    stored = _stored(source)
    told = {name: stored[name] for name in _UNTOLD if name in stored}
    weights, keywords, report = authors_to_lvt_ff(source.state_dict, **(told | untold))
    num_classes = keywords.pop("num_classes")
    cfg = dict(stored.pop("pretrained_cfg", None) or _AUTHORS_CFG, **source.pretrained_cfg)
    names = stored.pop("class_names", [f"LABEL_{index}" for index in range(num_classes)])
    size = clip_size["img_size"] or stored.get("img_size")
    size = dict(img_size=size or VARIANTS["lvt_ff_default"]["img_size"])
    config = LVTFFConfig(
        id2label=dict(enumerate(names)), pretrained_cfg=cfg, **(stored | keywords | size)
    )
    network = LVTFFForVideoClassification(config)
    check_weights(weights, network.model.state_dict(), source.origin)
    network.model.load_state_dict(weights)
    lines = [
        *report.lines()[:2],
        "Told by the shapes, the number of classes or options: "
        + ", ".join(f"{name}={value}" for name, value in keywords.items())
        + ".",
        f"{num_classes} classes; frames of {size['img_size']} pixels (any size fits: --img_size).",
    ]
    wanted = clip_size["num_frames"]
    if wanted not in (None, config.num_frames):
        report.notes += network.set_clip_size(num_frames=wanted)
        report.use(("base_model.temp_embed",), "temp_embed", "resampled")
        lines.append(report.lines()[2])
    record = dict(origin=source.origin, **report.as_dict(), keywords=keywords | size)
    return network, lines, record


def _stored(source: Source) -> dict[str, Any]:
    """What a file of the authors' layout that we wrote tells in its metadata, checked."""
    try:
        stored = json.loads(source.options.get(_METADATA, "{}"))
        names = stored.get("class_names", [])
        LVTFFConfig.check_fields(stored, ("class_names", "pretrained_cfg"))
        check_labels(names, source.origin, "class_names")
        fields = {name: value for name, value in stored.items() if name in DEFAULTS}
        check_model_options(fields, source.origin)
        check_pretrained_cfg(stored.get("pretrained_cfg") or {}, None, source.origin)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source.origin}: its metadata are damaged: {error}") from error
    return stored


def _to_authors(src: str, dst: Path) -> dict:
    if dst.suffix != ".safetensors":
        raise ValueError(
            f"--to authors writes one file: give a name ending in .safetensors, not {dst}."
        )
    if dst.exists():
        raise ValueError(f"{dst} exists already: give another name.")
    check_output_file(dst, "name")
    network, _ = load_folder(src)
    config = network.config
    weights = lvt_ff_to_authors(network.model.state_dict(), config.core_kwargs())
    untold = dict(class_names=config.class_names, pretrained_cfg=config.pretrained_cfg)
    stored = json.dumps(config.core_kwargs() | untold)
    with atomic_file(dst) as partial:
        save_file(weights, partial, metadata={"format": "pt", _METADATA: stored})
    print(f"wrote {dst}: {len(weights)} tensors under the authors' names")
    return dict(tensors=len(weights))
