"""Size and cost of the variants, counted on a model without memory."""

import torch
from timm.models import get_pretrained_cfg
from torch.utils.flop_counter import FlopCounterMode

from lvt_ff.model import LinearVideoTransformer
from lvt_ff.timm_models import SOURCES
from lvt_ff.variants import VARIANTS

__all__ = ["count_macs", "count_parameters", "models"]


def count_parameters(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: LinearVideoTransformer) -> float:
    """Multiply-accumulates of one clip: matrix products and convolutions, by torch's flop counter.

    Args:
        model: on any device; on "meta" nothing is computed.
    """
    device = model.temp_embed.device
    clip = torch.empty(1, model.num_frames, model.in_chans, *model.img_size, device=device)
    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(clip)
    model.train(training)
    return counter.get_total_flops() / 2


def models() -> None:
    """List the variants: frames, pixels, parameters, cost of one clip, and pretrained weights."""
    print(f"{'name':<16}{'frames':>7}{'pixels':>8}{'parameters':>13}{'GMACs':>9}")
    for name, sizes in VARIANTS.items():
        model = LinearVideoTransformer(**sizes, device="meta")
        parameters, macs = count_parameters(model) / 1e6, count_macs(model) / 1e9
        frames, pixels = sizes["num_frames"], sizes["img_size"]
        print(f"{name:<16}{frames:>7}{pixels:>8}{parameters:>11.2f} M{macs:>9.2f}")
    print(
        "1000 classes; GMACs of one clip by torch's flop counter; load with "
        "timm.create_model(name)\n\nImage models to start from, with "
        "timm.create_model(name, pretrained=True), the first by the variant's name alone:"
    )
    for variant, tags in SOURCES.items():
        for tag in tags:
            cfg = get_pretrained_cfg(f"{variant}.{tag}")
            print(f"{f'{variant}.{tag}':<34}{cfg.hf_hub_id} ({cfg.license})")
