"""What an evaluation has scored so far, in files, so that one that was stopped can go on."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lvt_ff.utils.atomic_io import atomic_file, write_text
from lvt_ff.utils.errors import Failure
from lvt_ff.utils.json_files import read_object

__all__ = ["PartialScores", "ScoredPart"]

_SETTINGS, _PARTS = "settings.json", "*.safetensors"


@dataclass
class ScoredPart:
    """Some videos, scored by one process.

    Args:
        told: `index`, `failure`, `damage` and `decoder` of each, read or not.
        batches: tables of the videos that were read, with a row for each.
    """

    told: list[dict] = field(default_factory=list)
    batches: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, tables: dict[str, np.ndarray]) -> None:
        """Take rows of the next videos that were read."""
        self.batches.append(tables)

    def indices(self) -> list[int]:
        """Numbers of the videos that were read, in the order of the rows."""
        return [told["index"] for told in self.told if told["failure"] is None]

    def tensors(self) -> dict[str, np.ndarray]:
        """The tables, whole."""
        names = self.batches[0] if self.batches else ()
        return {name: np.concatenate([b[name] for b in self.batches]) for name in names}

    def is_finite(self) -> bool:
        """Whether all that was scored are numbers."""
        return self.first_not_finite() is None

    def first_not_finite(self) -> int | None:
        """The first video whose scores are not numbers, or None."""
        bad = [
            ~np.isfinite(table.reshape(len(table), -1)).all(axis=1)
            for table in self.tensors().values()
        ]
        rows = np.flatnonzero(np.any(bad, axis=0)) if bad else []
        return self.indices()[rows[0]] if len(rows) else None


class PartialScores:
    """A folder of parts that belong to one evaluation.

    Args:
        folder: of the parts.
        settings: what the parts were computed with, as JSON holds it; others are not gone on with.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.settings = folder, json.loads(json.dumps(settings))

    def check(self, resume: bool) -> None:
        """Look at what is there before anything is written.

        Raises:
            ValueError: an evaluation that nobody asked to go on with, or another one.
        """
        if not self.has_parts():
            return
        if not resume:
            raise ValueError(
                f"{self.folder} holds an evaluation that was stopped: pass --resume to go on with "
                "it, or delete that folder."
            )
        before = read_object(self.folder / _SETTINGS)
        changed = [
            f"{name} was {before.get(name)!r}, is {value!r}"
            for name, value in self.settings.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"Cannot go on with the evaluation in {self.folder}: {', '.join(changed)}. Use the "
                "same settings, or delete that folder."
            )

    def has_parts(self) -> bool:
        """Whether something was scored and written."""
        return any(self.folder.glob(_PARTS))

    def begin(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / _SETTINGS, json.dumps(self.settings, indent=2) + "\n")

    def save(self, part: ScoredPart) -> None:
        """Write a part."""
        if not part.told:
            return
        name = f"{part.told[0]['index']:08d}.safetensors"
        with atomic_file(self.folder / name) as partial:
            save_file(part.tensors(), partial, metadata={"told": json.dumps(part.told)})

    def parts(self) -> list[ScoredPart]:
        """All parts that were written; raises Failure for one that is damaged."""
        found = []
        for file in sorted(self.folder.glob(_PARTS)):
            try:
                with safe_open(file, "np") as stored:
                    told = json.loads(stored.metadata()["told"])
                    names = list(stored.keys())
                    tables = {name: stored.get_tensor(name) for name in names}
            except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
                raise Failure(f"{file} is damaged ({error}): delete it and go on.") from error
            found.append(ScoredPart(told, [tables] if tables else []))
        return found

    def delete(self) -> None:
        """Remove the folder: its evaluation is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
