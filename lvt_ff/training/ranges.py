"""What the numbers among the options of fine-tuning may be."""

from typing import Any

from lvt_ff.utils.command_line import check_ranges

__all__ = ["check_values"]

# Least and most of options that are numbers.
_RANGES = dict(
    num_frames=(1, None),
    img_size=(1, None),
    sampling_stride=(1, None),
    hflip=(0, 1),
    epochs=(1, None),
    batch_size=(1, None),
    accumulation=(1, None),
    lr=(0, None),
    weight_decay=(0, None),
    momentum=(0.01, 0.9999),
    warmup_epochs=(0, None),
    layer_decay=(0.01, 1),
    label_smoothing=(0, 0.99),
    clip_grad=(0, None),
    seed=(0, 2**32 - 1),
    num_workers=(0, None),
    eval_epochs=(1, None),
    save_steps=(1, None),
    max_bad_fraction=(0, 1),
)


def check_values(options: dict[str, Any]) -> None:
    """Raise ValueError for the first option of `finetune` that is out of its range."""
    named = {name: limits for name, limits in _RANGES.items() if name in options}
    check_ranges(**{name: (options[name], *limits) for name, limits in named.items()})
    if "scale_jitter" in options:
        check_ranges(scale_jitter=(min(options["scale_jitter"]), 1, None))
