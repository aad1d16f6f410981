"""Image and video transformers with softmax attention to linear video transformers.

Source: timm's `vision_transformer` for what the weights mean. Temporal attention starts at zero, as
the temporal layers of TimeSformer's public code (arXiv 2102.05095) do.
"""

import logging
import math
import re
from typing import Literal

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from lvt_ff.layers import resample_embeddings
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.variants import VARIANTS
from lvt_ff.weights.layouts import STEM, Piece, layout_of, read_pieces, sizes_of, unwrap
from lvt_ff.weights.report import ConversionReport

__all__ = ["fitting_variants", "log_report", "vit_to_video"]

_logger = logging.getLogger(__name__)

_EXTRA_TOKENS = {
    "cls_token": "class token",
    "dist_token": "distillation token",
    "reg_token": "register tokens",
    "mask_token": "mask token",
}
_HEAD = ("head.", "head_dist.", "fc_norm.", "attn_pool.", "pre_logits.")
# Parts of our backbone that every ViT has: without a source they would be random.
_REQUIRED = (
    r"patch_embed\.proj\.|pos_embed$|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.|norm\."
)
_TEMPORAL = r"blocks\.\d+\.(temporal_norm1|temporal_attn\.(qkv|proj))\."


def fitting_variants(embed_dim: int, depth: int, num_heads: int | None = None) -> list[str]:
    """Names of the variants with these sizes; `num_heads=None` where it is not known."""
    return [
        name
        for name, sizes in VARIANTS.items()
        if (sizes["embed_dim"], sizes["depth"]) == (embed_dim, depth)
        and num_heads in (None, sizes["num_heads"])
    ]


def vit_to_video(
    state_dict: dict[str, Tensor],
    model: LinearVideoTransformer,
    temporal_init: Literal["zero", "spatial"] = "zero",
    keep_head: bool = False,
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Weights of a ViT, DeiT or TimeSformer for a video model; neither argument is changed.

    Args:
        state_dict: under timm's or transformers' names, possibly inside `state_dict` or `model`.
        model: what the weights are for; its values stay where the source has none.
        temporal_init: of temporal attention that the source does not have: "zero" (its projection
            adds nothing at first: the first forward is the image model on every frame) or
            "spatial" (a copy of the block's spatial attention).
        keep_head: also copy the classifier, for a model with `head_hidden=0` and as many classes.

    Returns:
        A state dict with every name of the model, and what was done with every tensor.

    Raises:
        ValueError: weights of another kind or size, tensors missing, or tensors without a place.
    """
    if temporal_init not in ("zero", "spatial"):
        raise ValueError(f"temporal_init must be 'zero' or 'spatial', got {temporal_init!r}.")
    source = unwrap(state_dict)
    layout = layout_of(source)
    if layout not in ("timm", "transformers", "timesformer"):
        way = "lvt-ff convert" if layout == "authors" else "load_state_dict"
        raise ValueError(
            f"Expected an image model or a TimeSformer, got weights of {layout!r}: use {way}."
        )
    target = model.state_dict()
    report = ConversionReport()
    pieces = read_pieces(source, layout)
    _check_sizes(pieces, model)
    num_extra = _drop_tokens_and_head(pieces, report, target, keep_head)
    _fit_embeddings(pieces, report, model, num_extra)
    _fit_channels(pieces, report, model.in_chans)
    _check_complete(pieces, report, target)
    if temporal_init == "spatial":
        if not any(re.match(_TEMPORAL, name) and name not in pieces for name in target):
            raise ValueError("temporal_init='spatial': no temporal attention is without a source.")
        _copy_spatial(pieces, report, target)
    for name in [name for name in target if name not in pieces and name not in report.target]:
        target[name], values = _first_values(name, target[name], model)
        report.leave(name, values)

    unused = {
        key: piece for name, piece in pieces.items() if name not in target for key in piece.keys
    }
    if unused:
        raise ValueError(
            f"{len(unused)} tensors of the source have no place in the model, such as "
            f"{sorted(unused)[:3]}: its architecture differs from a plain ViT's."
        )
    wrong = [name for name in pieces if pieces[name].tensor.shape != target[name].shape]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors have another shape than the model's, such as {wrong[0]}: found "
            f"{tuple(pieces[wrong[0]].tensor.shape)}, needed {tuple(target[wrong[0]].shape)}."
        )
    for name, piece in pieces.items():
        if name not in report.target:
            report.use(piece.keys, name, piece.kind)
        target[name] = piece.tensor
    return target, report


def log_report(report: ConversionReport) -> None:
    """Three lines, as warnings: parts of the model are untrained."""
    for line in report.lines():
        _logger.warning("%s", line)


def _check_sizes(pieces: dict[str, Piece], model: LinearVideoTransformer) -> None:
    sizes = sizes_of(pieces)
    found = tuple(sizes[name] for name in ("embed_dim", "depth", "patch_size"))
    needed = (model.embed_dim, len(model.blocks), model.patch_embed.proj.kernel_size[1])
    if found != needed:
        fitting = fitting_variants(*found[:2])
        if found[2] != needed[2]:
            side = found[2]
            fitting = [f"{n} with patch_size={side}, patch_stride={side}" for n in fitting]
        described = [
            f"width {width}, depth {depth}, patches of {side} pixels"
            for width, depth, side in (found, needed)
        ]
        raise ValueError(
            f"The source has {described[0]}; the model needs {described[1]}: "
            f"{', '.join(fitting) or 'no variant'} would fit."
        )


def _drop_tokens_and_head(
    pieces: dict[str, Piece], report: ConversionReport, target: dict[str, Tensor], keep_head: bool
) -> int:
    """Leave out what only an image model has; returns its number of tokens beside the patches."""
    num_extra = 0
    if keep_head:
        _keep_head(pieces, target)
    for name in list(pieces):
        reason = _EXTRA_TOKENS.get(name)
        if reason and name != "mask_token":
            num_extra += pieces[name].tensor.shape[1]
        if name.startswith(_HEAD) and name not in target:
            reason = "of the head"
        if reason:
            for key in pieces.pop(name).keys:
                report.drop(key, reason)
    return num_extra


def _keep_head(pieces: dict[str, Piece], target: dict[str, Tensor]) -> None:
    for part in ("weight", "bias"):
        head = pieces.pop(f"head.{part}", None)
        wanted = target.get(f"head.fc.{part}")
        if head is None or wanted is None or head.tensor.shape != wanted.shape:
            found, needed = (
                tuple(t.shape) if t is not None else "none" for t in (head and head.tensor, wanted)
            )
            raise ValueError(
                f"keep_head: the source's classifier {part} is {found}, the model's {needed}: it "
                "takes head_hidden=0 and as many classes as the source has."
            )
        pieces[f"head.fc.{part}"] = head


def _fit_embeddings(
    pieces: dict[str, Piece],
    report: ConversionReport,
    model: LinearVideoTransformer,
    num_extra: int,
) -> None:
    if model.pos_embed is None and "pos_embed" in pieces:
        for key in pieces.pop("pos_embed").keys:
            report.drop(key, "position embedding (the model has none)")
    if "pos_embed" in pieces:
        piece = pieces["pos_embed"]
        num_tokens = piece.tensor.shape[1]
        # Models differ in whether their extra tokens have positions: patches form a square.
        extra = next((n for n in range(num_extra + 1) if _is_square(num_tokens - n)), 0)
        if extra:
            pieces["pos_embed"] = Piece(piece.tensor[:, extra:], piece.keys)
            report.notes.append(f"pos_embed without the first {extra} of {num_tokens} rows")
    names = [name for name in ("pos_embed", "temp_embed") if name in pieces]
    embeddings = {name: pieces[name].tensor for name in names}
    side = math.isqrt(embeddings["pos_embed"].shape[1]) if "pos_embed" in embeddings else 0
    fitted, changes = resample_embeddings(embeddings, model, old_grid=(side, side))
    report.notes += changes
    for name in names:
        if fitted[name] is not embeddings[name]:
            pieces[name] = Piece(fitted[name], pieces[name].keys, "resampled")


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _fit_channels(pieces: dict[str, Piece], report: ConversionReport, in_chans: int) -> None:
    piece = pieces[STEM]
    channels = piece.tensor.shape[1]
    if channels != in_chans:
        adapted = adapt_input_conv(in_chans, piece.tensor, base_chans=channels)
        pieces[STEM] = Piece(adapted, piece.keys, "resampled")
        report.notes.append(f"patch projection from {channels} to {in_chans} channels")


def _check_complete(
    pieces: dict[str, Piece], report: ConversionReport, target: dict[str, Tensor]
) -> None:
    """Zero biases where the whole source has none of a kind; anything else missing is an error."""
    has_time = any(re.match(_TEMPORAL, name) for name in pieces)
    required = f"{_REQUIRED}|temp_embed$|{_TEMPORAL}" if has_time else _REQUIRED
    missing = [name for name in target if re.match(required, name) and name not in pieces]

    def kind(name: str) -> str:
        return re.sub(r"^blocks\.\d+", "blocks.N", name)

    present = {kind(name) for name in pieces}
    for name in missing:
        is_bias = name.endswith((".qkv.bias", ".proj.bias", ".fc1.bias", ".fc2.bias"))
        if not is_bias or kind(name) in present:
            raise ValueError(
                f"The source lacks {len(missing)} tensors that the model needs, such as {name}: "
                "is the file complete? (A ViT without positions takes pos_embed=False.)"
            )
        target[name] = torch.zeros_like(target[name])
        report.leave(name, "zero biases (the source has none)")


def _copy_spatial(
    pieces: dict[str, Piece], report: ConversionReport, target: dict[str, Tensor]
) -> None:
    for name in target:
        if not re.match(_TEMPORAL, name) or name in pieces:
            continue
        spatial = pieces.get(name.replace(".temporal_", "."))
        if spatial is None:
            target[name] = torch.zeros_like(target[name])
            report.leave(name, "zero biases (the source has none)")
        else:
            pieces[name] = Piece(spatial.tensor, spatial.keys, spatial.kind)


# Beginnings of the places of what no image model has, and what to call it in a report.
_NEW_PARTS = ("fixation", "kernel", "local", "temporal", "head", "patch_embed.norm")


def _first_values(
    name: str, initialised: Tensor, model: LinearVideoTransformer
) -> tuple[Tensor, str]:
    """Values of a tensor that has no source, and what they are."""
    zeros = torch.zeros_like(initialised)
    if name == "temp_embed":
        return zeros, "zero time embedding"
    if ".temporal_attn.proj." in name:
        return zeros, "zero temporal projections"
    if ".mlp.dwconv." in name:
        if name.endswith("weight"):
            torch.nn.init.dirac_(zeros, groups=len(zeros))
        return zeros, "identity depthwise convolutions"
    if ".local.conv2." in name:
        return zeros, "zero local convolutions"
    attention, found, own = name.partition(".kernel.")
    kernel = model.get_submodule(f"{attention}.kernel") if found else None
    if kernel is not None and own in kernel.image_start:
        return torch.full_like(
            initialised, kernel.image_start[own]
        ), "of the kernel, adding nothing"
    part = next((part for part in _NEW_PARTS if part in name), "model")
    return initialised, f"of {part.removesuffix('.norm')} as initialised"
