"""The modules of a block."""

from lvt_ff.layers.block import ATTN_PATTERNS, VideoBlock
from lvt_ff.layers.checks import check_choice, check_clip, check_positive
from lvt_ff.layers.embeddings import resample_embeddings
from lvt_ff.layers.fixation import FIXATIONS
from lvt_ff.layers.head import POOLS, VideoHead
from lvt_ff.layers.init import init_weights
from lvt_ff.layers.mlp import DepthwiseConv
from lvt_ff.layers.patch_embed import FramePatchEmbed
from lvt_ff.layers.shift import SPATIAL_OFFSETS, SpatialShift

__all__ = [
    "ATTN_PATTERNS",
    "FIXATIONS",
    "POOLS",
    "SPATIAL_OFFSETS",
    "DepthwiseConv",
    "FramePatchEmbed",
    "SpatialShift",
    "VideoBlock",
    "VideoHead",
    "check_choice",
    "check_clip",
    "check_positive",
    "init_weights",
    "resample_embeddings",
]
