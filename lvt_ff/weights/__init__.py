"""Checkpoints of other models to ours and back: functions on state dicts, no files."""

from lvt_ff.weights.authors import authors_to_lvt_ff, lvt_ff_to_authors
from lvt_ff.weights.check import (
    HEAD,
    check_finite,
    check_weights,
    expected_weights,
    plain_names,
)
from lvt_ff.weights.layouts import STEM, layout_of, read_pieces, sizes_of, unwrap
from lvt_ff.weights.report import ConversionReport
from lvt_ff.weights.vit import fitting_variants, log_report, vit_to_video

__all__ = [
    "HEAD",
    "STEM",
    "ConversionReport",
    "authors_to_lvt_ff",
    "check_finite",
    "check_weights",
    "expected_weights",
    "fitting_variants",
    "layout_of",
    "log_report",
    "lvt_ff_to_authors",
    "plain_names",
    "read_pieces",
    "sizes_of",
    "unwrap",
    "vit_to_video",
]
