"""What the files of a model folder may hold: kinds, bounds, and what must agree."""

from lvt_ff.schema.checks import (
    check_channels,
    check_config,
    check_model_options,
    check_pretrained_cfg,
    check_problem_type,
    check_processor,
    timm_options,
)
from lvt_ff.schema.keys import ALIASES, DEFAULTS, MAX_CLASSES
from lvt_ff.schema.labels import check_labels, ordered_names

__all__ = [
    "ALIASES",
    "DEFAULTS",
    "MAX_CLASSES",
    "check_channels",
    "check_config",
    "check_labels",
    "check_model_options",
    "check_pretrained_cfg",
    "check_problem_type",
    "check_processor",
    "ordered_names",
    "timm_options",
]
