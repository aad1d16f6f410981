"""What all blocks of a model have in common."""

from dataclasses import dataclass
from typing import Any

from lvt_ff.kernels import KERNELS
from lvt_ff.layers.fixation import FIXATION_AGGREGATES, FIXATION_ORDERS, FIXATIONS
from lvt_ff.layers.sequences import ATTN_PATTERNS
from lvt_ff.layers.shift import SHIFT_BORDERS, SPATIAL_OFFSETS
from lvt_ff.utils.validation import check_choice

__all__ = ["BLOCK_CHOICES", "BlockConfig"]

# What options of a block may be, by the option's name.
BLOCK_CHOICES = dict(
    attn_kernel=KERNELS,
    attn_pattern=ATTN_PATTERNS,
    block_order=("time_first", "space_first"),
    fixation=FIXATIONS,
    fixation_aggregate=FIXATION_AGGREGATES,
    fixation_order=FIXATION_ORDERS,
    spatial_shift=SPATIAL_OFFSETS,
    shift_border=SHIFT_BORDERS,
)


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Options of a block, the same in every block of a model.

    They are arguments of `LinearVideoTransformer`, which documents them.

    Raises:
        ValueError: an unknown name, or an order of attentions where there is one attention only.
    """

    mlp_ratio: float
    mlp_dwconv: bool
    attn_kernel: str
    kernel_options: dict[str, Any] | None
    attn_pattern: str
    block_order: str
    fixation: str
    fixation_shared: bool
    fixation_aggregate: str
    fixation_order: str
    fixation_bias: float
    spatial_shift: int
    shift_border: str
    temporal_shift_div: int
    temporal_shift_segment: int
    local_concentration: bool
    attn_drop_rate: float

    def __post_init__(self):
        for name, known in BLOCK_CHOICES.items():
            check_choice(name, getattr(self, name), known)
        if self.block_order == "space_first" and self.attn_pattern != "factorized":
            raise ValueError(
                "block_order='space_first' needs attn_pattern='factorized', got "
                f"{self.attn_pattern!r}."
            )
