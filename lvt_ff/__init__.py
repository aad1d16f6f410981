"""Linear-time video transformers for timm and transformers.

Importing this adds our models to both libraries: `timm.create_model("lvt_ff_s")`,
`AutoModel.from_pretrained(...)`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lvt_ff import _import_hooks
from lvt_ff._version import __version__

if TYPE_CHECKING:
    from lvt_ff import hf, timm_models
    from lvt_ff.data import read_clip
    from lvt_ff.hf import (
        LVTFFConfig,
        LVTFFForVideoClassification,
        LVTFFModel,
        LVTFFVideoProcessor,
    )
    from lvt_ff.model import LinearVideoTransformer
    from lvt_ff.utils.errors import VideoReadError
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

# Where the public names are; they are imported when they are first used.
_PLACES = {
    "VARIANTS": "variants",
    "LVTFFConfig": "hf",
    "LVTFFForVideoClassification": "hf",
    "LVTFFModel": "hf",
    "LVTFFVideoProcessor": "hf",
    "LinearVideoTransformer": "model",
    "VideoReadError": "utils.errors",
    "read_clip": "data",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"lvt_ff.{_PLACES[name]}"), name)
    try:  # lvt_ff.kernels.KERNELS, without an import of lvt_ff.kernels
        return importlib.import_module(f"lvt_ff.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"lvt_ff.{name}":
            raise
        raise AttributeError(f"module 'lvt_ff' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_import_hooks.install()
