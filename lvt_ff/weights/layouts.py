"""Checkpoint layouts as pieces: tensors under timm's ViT names that remember where they came from.

Source: key names of timm's `vision_transformer` and of transformers' ViT, DeiT and TimeSformer.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["STEM", "Piece", "layout_of", "read_pieces", "sizes_of", "unwrap"]


STEM = "patch_embed.proj.weight"


@dataclass
class Piece:
    """A tensor, the source names it was made of, and how ("copied", "folded" or "resampled")."""

    tensor: Tensor
    keys: tuple[str, ...]
    kind: str = "copied"


# transformers' names to timm's; both the layout of files on the Hub and transformers 5's own.
_TRANSFORMERS_RENAMES = (
    (r"^(vit|deit|timesformer)\.", ""),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.time_embeddings$", "temp_embed"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^(cls_|distillation_)?classifier\.", r"head.\1"),
    (r"^pooler\.", "pre_logits."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    (r"\.temporal_attention\.attention\.qkv\.", ".temporal_attn.qkv."),
    (r"\.temporal_attention\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.attention\.attention\.(q)uery\.", r".attn.\1."),
    (r"\.attention\.attention\.(k)ey\.", r".attn.\1."),
    (r"\.attention\.attention\.(v)alue\.", r".attn.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
# What is folded, by the end of its name, into which projection.
_FOLDS = {
    "ls1.gamma": "attn.proj.",
    "ls2.gamma": "mlp.fc2.",
    "temporal_dense.weight": "temporal_attn.proj.",
}
# Layout: names by which it is told; the first that fits counts.
_MARKS: dict[str, tuple[str, ...]] = {
    "authors": (r"(^|\.)base_model\.patch_embed\.proj\.weight$",),
    "lvt_ff": (r"^temp_embed$", r"^blocks\.0\.attn\.qkv\.weight$"),
    "timesformer": (r"(^|\.)embeddings\.time_embeddings$|\.temporal_attention\.attention\.",),
    "transformers": (r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$",),
    "timm": (r"^patch_embed\.proj\.weight$", r"^blocks\.0\.attn\.qkv\.weight$"),
}


def unwrap(checkpoint: dict) -> dict[str, Tensor]:
    """The weights of a checkpoint that may hold them under `model_state`, `state_dict` or `model`,
    without the `module.` prefix of data parallelism."""
    for key in ("model_state", "state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    named = {name: tensor for name, tensor in checkpoint.items() if isinstance(name, str)}
    return {name.removeprefix("module."): tensor for name, tensor in named.items()}


def layout_of(state_dict: dict[str, Tensor]) -> str:
    """Whose names the weights have: "authors", "lvt_ff", "timesformer", "transformers" or "timm".

    Raises:
        ValueError: none of these.
    """
    for layout, marks in _MARKS.items():
        if all(any(re.search(mark, name) for name in state_dict) for mark in marks):
            return layout
    raise ValueError(
        f"Weights of an unknown kind: {len(state_dict)} tensors such as {sorted(state_dict)[:3]}; "
        "known are ViTs of timm and transformers, TimeSformers, the authors' checkpoints and ours."
    )


def sizes_of(pieces: dict[str, Piece]) -> dict[str, int | None]:
    """`embed_dim`, `depth`, `patch_size`, `num_frames` and `num_classes` by shapes; the last two
    None where there is no time embedding or no classifier.

    Raises:
        ValueError: no patch convolution.
    """
    stem, time, head = (pieces.get(name) for name in (STEM, "temp_embed", "head.weight"))
    if stem is None or stem.tensor.ndim != 4:
        raise ValueError("The source has no patch convolution patch_embed.proj: not a plain ViT.")
    return dict(
        embed_dim=stem.tensor.shape[0],
        depth=len({number for _, number in _block_kinds(pieces)}),
        patch_size=stem.tensor.shape[-1],
        num_frames=time.tensor.shape[1] if time else None,
        num_classes=head.tensor.shape[0] if head else None,
    )


def read_pieces(state_dict: dict[str, Tensor], layout: str) -> dict[str, Piece]:
    """Pieces of a ViT or TimeSformer under timm's names, with layer scale and `temporal_dense`
    folded into the projection before them.

    Raises:
        ValueError: a layer that is there only in part.
    """
    pieces = {_timm_name(key, layout): Piece(x, (key,)) for key, x in state_dict.items()}
    for name in ("pos_embed", "temp_embed", "cls_token", "dist_token", "reg_token"):
        if name in pieces and pieces[name].tensor.ndim != 3:
            (key,), shape = pieces[name].keys, tuple(pieces[name].tensor.shape)
            raise ValueError(f"Expected {key} of 3 dimensions (1, tokens, width), found {shape}.")
    _check_blocks(pieces)
    if "temp_embed" in pieces:
        pieces["temp_embed"].tensor = pieces["temp_embed"].tensor.unsqueeze(2)  # (1, T, 1, D)
    if "norm.weight" not in pieces:  # timm's models that normalise after pooling
        for name in [name for name in pieces if name.startswith("fc_norm.")]:
            pieces[name.removeprefix("fc_")] = pieces.pop(name)
    for name in [name for name in pieces if ".attn.q." in name]:
        _join(pieces, [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"])
    for name in list(pieces):
        suffix = next((suffix for suffix in _FOLDS if name.endswith(suffix)), None)
        if suffix:
            _fold(pieces, name, name.removesuffix(suffix) + _FOLDS[suffix])
    return pieces


def _timm_name(key: str, layout: str) -> str:
    if layout != "timm":
        for pattern, replacement in _TRANSFORMERS_RENAMES:
            key = re.sub(pattern, replacement, key)
    return key


def _block_kinds(pieces: dict[str, Piece]) -> list[tuple[str, str]]:
    """What follows `blocks.N.` in the names, and the N, for every tensor of a block."""
    matches = (re.match(r"blocks\.(\d+)\.(.+)", name) for name in pieces)
    return [(match[2], match[1]) for match in matches if match]


def _check_blocks(pieces: dict[str, Piece]) -> None:
    found = _block_kinds(pieces)
    numbers = {number for _, number in found}
    for kind in {kind for kind, _ in found}:
        lacking = numbers - {number for other, number in found if other == kind}
        if lacking:
            raise ValueError(
                f"The source lacks blocks.{min(lacking, key=int)}.{kind} (timm's name), which "
                "other blocks have: is the file complete?"
            )


def _take(pieces: dict[str, Piece], name: str) -> Piece:
    if name not in pieces:
        raise ValueError(f"The source lacks {name} (timm's name): is the file complete?")
    return pieces.pop(name)


def _join(pieces: dict[str, Piece], names: list[str]) -> None:
    taken = [_take(pieces, name) for name in names]
    joined = torch.cat([piece.tensor for piece in taken])
    keys = tuple(key for piece in taken for key in piece.keys)
    pieces[names[0].replace(".attn.q.", ".attn.qkv.")] = Piece(joined, keys)


def _fold(pieces: dict[str, Piece], name: str, projection: str) -> None:
    """A projection followed by a scale per channel, or by a linear layer, as one projection."""
    factor = pieces.pop(name)
    shift = pieces.pop(name.replace(".weight", ".bias"), None)
    weight = _take(pieces, projection + "weight")
    bias = pieces.pop(projection + "bias", None)

    def through(piece: Piece) -> Tensor:
        matrix, tensor = factor.tensor.double(), piece.tensor.double()
        if matrix.ndim == 2:
            return matrix @ tensor
        return matrix * tensor if tensor.ndim == 1 else matrix[:, None] * tensor

    if factor.tensor.shape[-1] != weight.tensor.shape[0]:
        raise ValueError(
            f"{name} of {tuple(factor.tensor.shape)} does not fit {projection}weight of "
            f"{tuple(weight.tensor.shape)}."
        )
    dtype = weight.tensor.dtype
    keys = weight.keys + factor.keys
    pieces[projection + "weight"] = Piece(through(weight).to(dtype), keys, "folded")
    terms = [through(bias)] if bias else []
    terms += [shift.tensor.double()] if shift else []
    if terms:
        keys = sum((piece.keys for piece in (bias, factor, shift) if piece), ())
        pieces[projection + "bias"] = Piece(sum(terms).to(dtype), keys, "folded")
