"""The best weights of a run so far, each in a folder of its own."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from lvt_ff.utils.atomic_io import atomic_folder

__all__ = ["KeptWeights"]

_NAME = "model.safetensors"


class KeptWeights:
    """Weights in folders `best_STEP`.

    Args:
        folder: that these folders lie in.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, weights: dict[str, Tensor]) -> None:
        with atomic_folder(self._folder(step)) as new:
            save_file(weights, new / _NAME)

    def load(self, step: int) -> dict[str, Tensor]:
        return load_file(self._folder(step) / _NAME)

    def has(self, step: int) -> bool:
        return (self._folder(step) / _NAME).is_file()

    def keep_only(self, steps: set[int]) -> None:
        """Delete all others. Not before the checkpoint that speaks of them is written."""
        kept = {self._folder(step) for step in steps}
        for old in self.folder.glob("best_*"):
            if old not in kept:
                shutil.rmtree(old)

    def _folder(self, step: int) -> Path:
        return self.folder / f"best_{step:08d}"
