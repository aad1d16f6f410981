"""Model folders from other models' checkpoints, and back; `lvt_ff.weights` does the conversion."""

from lvt_ff.weights import (  # their former place
    ConversionReport,
    authors_to_lvt_ff,
    lvt_ff_to_authors,
    vit_to_video,
)

__all__ = ["ConversionReport", "authors_to_lvt_ff", "lvt_ff_to_authors", "vit_to_video"]
