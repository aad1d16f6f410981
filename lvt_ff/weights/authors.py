"""The authors' checkpoints to ours and back.

Source: the public research code of arXiv 2210.08164 (`.pyth` files, weights under `model_state`).
"""

import re
from typing import Any

import torch
from torch import Tensor

from lvt_ff.weights.layouts import unwrap
from lvt_ff.weights.report import ConversionReport

__all__ = ["authors_to_lvt_ff", "lvt_ff_to_authors"]

# The authors' names to ours.
_RENAMES = (
    (r"^base_model\.", ""),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dwconv."),
    (r"\.pgate\.", ".fixation.gate."),
    (r"^consensus\.mlp_head\.0\.", "head.norm."),
    (r"^consensus\.mlp_head\.1\.", "head.pre_logits."),
    (r"^consensus\.mlp_head\.4\.", "head.fc."),
)
_GATE = ".fixation.gate."
# What tells the sizes.
_NEEDED = (
    "patch_embed.proj.weight",
    "temp_embed",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "head.pre_logits.weight",
    "head.fc.weight",
)
# Ours to theirs, in this order.
_BACK = (
    (r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv."),
    (r"\.fixation\.gate\.", ".pgate."),
    (r"^head\.norm\.", "consensus.mlp_head.0."),
    (r"^head\.pre_logits\.", "consensus.mlp_head.1."),
    (r"^head\.fc\.", "consensus.mlp_head.4."),
    (r"^(?!consensus\.)", "base_model."),
)
# Data sets by number of classes, and of the authors' recipe for each the divisor and the segment
# of the temporal shift: Something-Something v2; Kinetics-400 and -600, Charades.
_RECIPES = {174: (4, 0), 400: (8, 8), 600: (8, 8), 157: (8, 8)}
_PAPER_HEADS = {512: 8}
# What their model computes, where ours has a choice.
_THEIRS = dict(
    patch_size=16,
    patch_stride=14,
    patch_padding=8,
    patch_norm=True,
    pos_embed=False,
    mlp_dwconv=True,
    attn_pattern="factorized",
    block_order="time_first",
    kernel_options=None,
    fixation_aggregate="concat",
    fixation_order="after",
    shift_border="authors",
    local_concentration=False,
    global_pool="avg",
)


def _unnamed(option: str, why: str) -> ValueError:
    return ValueError(f"The authors' weights do not tell {option} ({why}): pass {option}.")


def _segment(num_classes: int, num_frames: int, temporal_shift_div: int) -> int:
    """Frames that exchange in a model of the authors' recipe; 0 where those are all."""
    _, segment = _RECIPES.get(num_classes, (0, 0)) if temporal_shift_div else (0, 0)
    return segment if segment < num_frames else 0


def authors_to_lvt_ff(
    state_dict: dict[str, Tensor],
    temporal_shift_div: int | None = None,
    attn_kernel: str | None = None,
    num_heads: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any], ConversionReport]:
    """Weights under the authors' names to ours, with the constructor keywords that fit them.

    Args:
        state_dict: the authors' weights, possibly with `module.` prefixes or inside `model_state`.
        temporal_shift_div: 4 for their SSv2 models, 8 for Kinetics and Charades, 0 for the baseline
            without shifts; told by the number of classes of a model with fixation if not given.
        attn_kernel: "relu" or "softmax"; "relu" for a model with fixation if not given.
        num_heads: told by the gate's shape; without fixation, by the paper's width if not given.

    Returns:
        weights: our state dict.
        keywords: of `LinearVideoTransformer`, without `img_size`: the authors' model has no spatial
            embedding, so any size fits; the default is theirs.
        report: what was done with every tensor.

    Raises:
        ValueError: weights of another model, or an option that the weights do not tell.
    """
    renamed, report = _renamed(unwrap(state_dict))
    embed_dim, in_chans, patch_size, _ = renamed["patch_embed.proj.weight"].shape
    num_classes, num_frames = renamed["head.fc.weight"].shape[0], renamed["temp_embed"].shape[1]
    gate = renamed.get("blocks.0.attn.fixation.gate.weight")
    if temporal_shift_div is None:
        if gate is None or num_classes not in _RECIPES:
            raise _unnamed("temporal_shift_div", "4 for SSv2, 8 for Kinetics, 0 without shifts")
        temporal_shift_div, _ = _RECIPES[num_classes]
    if attn_kernel is None and gate is None:
        raise _unnamed("attn_kernel", "relu or softmax, without fixation")
    keywords = dict(
        _THEIRS,
        num_classes=num_classes,
        num_frames=num_frames,
        in_chans=in_chans,
        patch_size=patch_size,
        patch_norm="patch_embed.norm.weight" in renamed,
        embed_dim=embed_dim,
        depth=1 + max(int(name.split(".")[1]) for name in renamed if name.startswith("blocks.")),
        num_heads=_num_heads(embed_dim, gate, num_heads),
        mlp_ratio=renamed["blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        head_hidden=renamed["head.pre_logits.weight"].shape[0],
        attn_kernel=attn_kernel or "relu",
        fixation="none" if gate is None else "qkv",
        fixation_shared=gate is None or gate.shape[1] == 3 * gate.shape[0],
        spatial_shift=1 if temporal_shift_div else 0,
        temporal_shift_div=temporal_shift_div,
        temporal_shift_segment=_segment(num_classes, num_frames, temporal_shift_div),
    )
    return renamed, keywords, report


def _renamed(source: dict[str, Tensor]) -> tuple[dict[str, Tensor], ConversionReport]:
    """Weights under our names, the two gates of an attention joined; and what was done."""
    renamed, report = {}, ConversionReport()
    for key, tensor in source.items():
        name = _our_name(key)
        if name.startswith("new_fc."):
            report.drop(key, "dead layer of the authors' wrapper")
            continue
        report.use((key,), name.replace(".q_gate.", _GATE).replace(".k_gate.", _GATE), "copied")
        renamed[name] = tensor
    for name in [name for name in renamed if ".q_gate." in name]:
        gates = [renamed.pop(name), renamed.pop(name.replace(".q_gate.", ".k_gate."), None)]
        if gates[1] is None:
            raise ValueError(f"The source has a q_gate without k_gate: {name}.")
        renamed[name.replace(".q_gate.", _GATE)] = torch.cat(gates)
    missing = [name for name in _NEEDED if name not in renamed]
    if missing:
        raise ValueError(
            f"Expected the authors' checkpoint layout (keys base_model.…, consensus.…), found no "
            f"counterpart of {missing} among {len(source)} keys such as {sorted(source)[:3]}: pass "
            "the dict under `model_state`."
        )
    return renamed, report


def _num_heads(embed_dim: int, gate: Tensor | None, given: int | None) -> int:
    """Heads that a gate's shape tells, or else those given, or else the paper's."""
    if gate is not None:
        told = embed_dim // (gate.shape[1] // 3)
        if given not in (None, told):
            raise ValueError(f"The gates' shape tells {told} heads, got num_heads={given}.")
        return told
    found = given or _PAPER_HEADS.get(embed_dim)
    if found is None:
        raise _unnamed("num_heads", "without fixation")
    return found


def _our_name(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def lvt_ff_to_authors(state_dict: dict[str, Tensor], keywords: dict[str, Any]) -> dict[str, Tensor]:
    """Our weights under the authors' names: `authors_to_lvt_ff` read backwards.

    Args:
        state_dict: of `LinearVideoTransformer`, with a classifier.
        keywords: of its constructor, all of them but `num_classes`.

    Returns:
        The authors' `model_state`.

    Raises:
        ValueError: a model that the authors' code cannot compute.
    """
    theirs = dict(_THEIRS, spatial_shift=1 if keywords["temporal_shift_div"] else 0)
    if "head.fc.weight" in state_dict:
        num_classes = state_dict["head.fc.weight"].shape[0]
        theirs["temporal_shift_segment"] = _segment(
            num_classes, keywords["num_frames"], keywords["temporal_shift_div"]
        )
    differing = [
        f"{name}={keywords[name]!r} (theirs: {value!r})"
        for name, value in theirs.items()
        if keywords[name] != value
    ]
    if keywords["fixation"] not in ("none", "qkv"):
        differing.append(f"fixation={keywords['fixation']!r} (theirs: 'none' or 'qkv')")
    if keywords["attn_kernel"] not in ("relu", "softmax"):
        differing.append(f"attn_kernel={keywords['attn_kernel']!r} (theirs: 'relu' or 'softmax')")
    if not {"head.fc.weight", "head.pre_logits.weight"} <= set(state_dict):
        differing.append("no classifier with a hidden layer")
    if differing:
        raise ValueError(f"The authors' model cannot hold this one: {', '.join(differing)}.")
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _BACK:
            name = re.sub(pattern, replacement, name)
        if ".pgate." in name and not keywords["fixation_shared"]:
            for half, gate in zip(("q_gate", "k_gate"), tensor.chunk(2), strict=True):
                renamed[name.replace("pgate", half)] = gate.clone()  # safetensors refuses views
        else:
            renamed[name] = tensor
    return renamed
