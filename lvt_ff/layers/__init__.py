"""The modules of a block."""

from lvt_ff.layers.block import ATTN_PATTERNS, VideoBlock
from lvt_ff.layers.embeddings import resample_embeddings, sincos_positions, sincos_times
from lvt_ff.layers.fixation import FIXATIONS
from lvt_ff.layers.head import POOLS, VideoHead
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
    "resample_embeddings",
    "sincos_positions",
    "sincos_times",
]
