"""The modules of a block."""

from lvt_ff.kernels import KERNELS
from lvt_ff.layers.block import ATTN_PATTERNS, BLOCK_ORDERS, VideoBlock
from lvt_ff.layers.embeddings import refit_embeddings, resample_embeddings
from lvt_ff.layers.fixation import FIXATION_AGGREGATES, FIXATION_ORDERS, FIXATIONS
from lvt_ff.layers.head import POOLS, VideoHead
from lvt_ff.layers.init import init_weights
from lvt_ff.layers.patch_embed import FramePatchEmbed
from lvt_ff.layers.shift import SHIFT_BORDERS, SPATIAL_OFFSETS

__all__ = [
    "CHOICES",
    "FramePatchEmbed",
    "VideoBlock",
    "VideoHead",
    "init_weights",
    "refit_embeddings",
    "resample_embeddings",
]

# What options of a model may be, by the option's name.
CHOICES = dict(
    attn_kernel=KERNELS,
    attn_pattern=ATTN_PATTERNS,
    block_order=BLOCK_ORDERS,
    fixation=FIXATIONS,
    fixation_aggregate=FIXATION_AGGREGATES,
    fixation_order=FIXATION_ORDERS,
    spatial_shift=SPATIAL_OFFSETS,
    shift_border=SHIFT_BORDERS,
    global_pool=POOLS,
)
