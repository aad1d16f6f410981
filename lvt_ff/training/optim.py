"""Optimizer and learning rate."""

import math

from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

__all__ = ["freeze_blocks", "learning_rate", "make_optimizer", "set_learning_rate"]


def make_optimizer(
    core: nn.Module,
    name: str,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    layer_decay: float,
) -> Optimizer:
    """timm's optimizer over parameter groups without decay for norms, biases and embeddings.

    Args:
        core: a model with timm's `no_weight_decay` and `group_matcher`.
        name: "sgd" (with Nesterov momentum) or "adamw".
        lr: peak learning rate of the last layer.
        weight_decay: of matrices.
        momentum: of SGD; AdamW keeps torch's betas.
        layer_decay: factor of the learning rate from each block to the one before it; 1 is off.
    """
    options = dict(momentum=momentum) if name == "sgd" else {}
    return create_optimizer_v2(
        core,
        opt=name,
        lr=lr,
        weight_decay=weight_decay,
        layer_decay=layer_decay if layer_decay < 1 else None,
        **options,
    )


def learning_rate(step: int, num_steps: int, peak: float, warmup_steps: int) -> float:
    """Linear warm-up to `peak`, then half a cosine to zero, as a function of optimizer steps."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def freeze_blocks(core: nn.Module, num_blocks: int) -> None:
    """Stop training the stem and the first blocks; the head and the final norm always train.

    Raises:
        ValueError: more blocks than the model has.
    """
    if not 0 <= num_blocks <= len(core.blocks):
        raise ValueError(
            f"--freeze must be between 0 and {len(core.blocks)} (all blocks), got {num_blocks}."
        )
    if not num_blocks:
        return
    embeddings = [core.temp_embed] + ([core.pos_embed] if core.pos_embed is not None else [])
    for part in (core.patch_embed, *core.blocks[:num_blocks]):
        embeddings.extend(part.parameters())
    for parameter in embeddings:
        parameter.requires_grad_(False)
