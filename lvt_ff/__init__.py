"""Linear-time video transformers for timm and transformers.

Importing this fills both registries: `timm.create_model("lvt_ff_s")`,
    `AutoModel.from_pretrained(...)`.
"""

from lvt_ff import hf, timm_models
from lvt_ff._version import __version__
from lvt_ff.data import VideoReadError, read_clip
from lvt_ff.hf import (
    LVTFFConfig,
    LVTFFForVideoClassification,
    LVTFFModel,
    LVTFFVideoProcessor,
)
from lvt_ff.model import LinearVideoTransformer
from lvt_ff.variants import VARIANTS

__all__ = [
    "VARIANTS",
    "LVTFFConfig",
    "LVTFFForVideoClassification",
    "LVTFFModel",
    "LVTFFVideoProcessor",
    "LinearVideoTransformer",
    "VideoReadError",
    "__version__",
    "hf",
    "read_clip",
    "timm_models",
]
