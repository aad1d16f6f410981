"""State dicts of other sources to ours: pure functions, nothing is loaded or saved."""

import re

import torch
from torch import Tensor

__all__ = ["authors_to_lvt_ff"]

# Authors' names (behind `base_model.`) to ours; the layout is a SlowFast-style checkpoint's.
_AUTHORS_RENAMES = (
    (r"^module\.", ""),
    (r"^base_model\.", ""),
    (r"\.mlp\.dwconv\.dwconv\.", ".mlp.dwconv."),
    (r"\.pgate\.", ".fixation.gate."),
    (r"^consensus\.mlp_head\.0\.", "head.norm."),
    (r"^consensus\.mlp_head\.1\.", "head.pre_logits."),
    (r"^consensus\.mlp_head\.4\.", "head.fc."),
)


def authors_to_lvt_ff(
    state_dict: dict[str, Tensor],
    temporal_shift_div: int = 4,
    attn_kernel: str = "relu",
    num_heads: int = 8,
) -> tuple[dict[str, Tensor], dict]:
    """Weights under the authors' names to ours, with the constructor keywords that fit them.

    Source: the public research code of arXiv 2210.08164 (`.pyth` checkpoints, key `model_state`).

    Args:
        state_dict: the authors' weights, possibly with `module.` prefixes or inside `model_state`.
        temporal_shift_div: 4 for their SSv2 models, 8 for Kinetics and Charades, 0 for the baseline
            without shifts: the weights do not tell.
        attn_kernel: "relu" or "softmax": the weights do not tell.
        num_heads: of a model without fixation; the gate's shape tells it otherwise.

    Returns:
        Our state dict and keywords for `LinearVideoTransformer`. `img_size` is not among them: the
        authors' model has no spatial embedding, so any size fits; the default is theirs.

    Raises:
        ValueError: weights of another model.
    """
    state_dict = state_dict.get("model_state", state_dict)
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _AUTHORS_RENAMES:
            name = re.sub(pattern, replacement, name)
        if not name.startswith("new_fc."):  # a dead layer of the authors' wrapper
            renamed[name] = tensor
    for name in [name for name in renamed if ".q_gate." in name]:
        gates = [renamed.pop(name), renamed.pop(name.replace(".q_gate.", ".k_gate."))]
        renamed[name.replace(".q_gate.", ".fixation.gate.")] = torch.cat(gates)

    needed = ("patch_embed.proj.weight", "temp_embed", "blocks.0.attn.qkv.weight", "head.fc.weight")
    missing = [name for name in needed if name not in renamed]
    if missing:
        raise ValueError(
            f"Expected the authors' checkpoint layout (keys base_model.…, consensus.…), found no "
            f"counterpart of {missing} among {len(state_dict)} keys such as "
            f"{sorted(state_dict)[:3]}: pass the dict under `model_state`."
        )
    embed_dim, in_chans, patch_size, _ = renamed["patch_embed.proj.weight"].shape
    gate = renamed.get("blocks.0.attn.fixation.gate.weight")
    head_dim = gate.shape[1] // 3 if gate is not None else embed_dim // num_heads
    keywords = dict(
        num_classes=renamed["head.fc.weight"].shape[0],
        num_frames=renamed["temp_embed"].shape[1],
        in_chans=in_chans,
        patch_size=patch_size,
        patch_stride=14,
        patch_padding=8,
        patch_norm="patch_embed.norm.weight" in renamed,
        pos_embed=False,
        embed_dim=embed_dim,
        depth=1 + max(int(name.split(".")[1]) for name in renamed if name.startswith("blocks.")),
        num_heads=embed_dim // head_dim,
        mlp_ratio=renamed["blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        head_hidden=renamed["head.pre_logits.weight"].shape[0],
        attn_kernel=attn_kernel,
        fixation="none" if gate is None else "qkv",
        fixation_shared=gate is None or gate.shape[0] == head_dim,
        spatial_shift=1 if temporal_shift_div else 0,
        temporal_shift_div=temporal_shift_div,
    )
    return renamed, keywords
