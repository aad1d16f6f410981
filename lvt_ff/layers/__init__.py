"""The modules of a block."""

from lvt_ff.layers.block import VideoBlock
from lvt_ff.layers.config import BLOCK_CHOICES, BlockConfig
from lvt_ff.layers.embeddings import refit_embeddings, resample_embeddings
from lvt_ff.layers.head import POOLS, VideoHead
from lvt_ff.layers.init import init_weights
from lvt_ff.layers.patch_embed import FramePatchEmbed

__all__ = [
    "CHOICES",
    "BlockConfig",
    "FramePatchEmbed",
    "VideoBlock",
    "VideoHead",
    "init_weights",
    "refit_embeddings",
    "resample_embeddings",
]

# What options of a model may be, by the option's name.
CHOICES = dict(BLOCK_CHOICES, global_pool=POOLS)
