"""The table of attention kernels: a new one is a file beside this and a line in `KERNELS`."""

import inspect
from typing import Any

from lvt_ff.kernels.base import Kernel, KernelShape, LengthTable, LinearKernel
from lvt_ff.kernels.castling import CastlingKernel
from lvt_ff.kernels.cosformer import CosformerKernel
from lvt_ff.kernels.elu1 import Elu1Kernel
from lvt_ff.kernels.focused import FocusedKernel
from lvt_ff.kernels.inline import InlineKernel
from lvt_ff.kernels.l2vit import L2vitKernel
from lvt_ff.kernels.lara import LaraKernel
from lvt_ff.kernels.linformer import LinformerKernel
from lvt_ff.kernels.orthoformer import OrthoformerKernel
from lvt_ff.kernels.performer import PerformerKernel
from lvt_ff.kernels.rank_augmented import RankAugmentedKernel
from lvt_ff.kernels.relu import ReluKernel
from lvt_ff.kernels.relu_plain import ReluPlainKernel
from lvt_ff.kernels.sigmoid import SigmoidKernel
from lvt_ff.kernels.softmax import SoftmaxKernel
from lvt_ff.kernels.vicinity import VicinityKernel
from lvt_ff.kernels.vig import VigKernel
from lvt_ff.kernels.vitality import VitalityKernel

__all__ = ["KERNELS", "Kernel", "KernelShape", "LengthTable", "LinearKernel", "build_kernel"]

KERNELS: dict[str, type[Kernel]] = {
    "relu": ReluKernel,
    "softmax": SoftmaxKernel,
    "relu_plain": ReluPlainKernel,
    "elu1": Elu1Kernel,
    "sigmoid": SigmoidKernel,
    "performer": PerformerKernel,
    "cosformer": CosformerKernel,
    "linformer": LinformerKernel,
    "orthoformer": OrthoformerKernel,
    "lara": LaraKernel,
    "focused": FocusedKernel,
    "l2vit": L2vitKernel,
    "inline": InlineKernel,
    "rank_augmented": RankAugmentedKernel,
    "vicinity": VicinityKernel,
    "castling": CastlingKernel,
    "vitality": VitalityKernel,
    "vig": VigKernel,
}


def build_kernel(name: str, shape: KernelShape, options: dict[str, Any]) -> Kernel:
    """A kernel of the table.

    Args:
        name: in `KERNELS`.
        shape: what it is built for.
        options: keywords of its constructor.

    Raises:
        ValueError: an option that this kernel does not have, or a value that it refuses.
    """
    known = dict(inspect.signature(KERNELS[name]).parameters)
    known.pop("shape")
    for key, value in options.items():
        if key not in known:
            has = f"choose from {list(known)}" if known else "it has none"
            raise ValueError(f"Kernel {name!r} has no option {key!r}: {has}.")
        kind = known[key].annotation
        if not _is_a(value, kind):
            told = getattr(kind, "__name__", kind)
            raise ValueError(f"Option {key!r} of kernel {name!r} must be {told}, got {value!r}.")
    return KERNELS[name](shape, **options)


def _is_a(value: Any, kind: Any) -> bool:
    if kind is inspect.Parameter.empty:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(1.0, kind))
