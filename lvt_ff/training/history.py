"""What a run has done so far: a line for each step on disk, and what checkpoints keep."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from lvt_ff.utils.atomic_io import write_text

__all__ = ["STEPS_NAME", "History", "StepLog"]

STEPS_NAME = "steps.jsonl"
_SUMMED = ("loss", "top1", "time_s", "wait_s")


@dataclass
class History:
    """What a run has done so far, as checkpoints keep it.

    Args:
        sums: of the steps since the last evaluation, and `num_steps` of them.
        epochs: a row for each evaluation.
        kept: the rows of `epochs` whose weights are kept, the best first.
        bad_files, damaged_files: reasons by path; damaged ones were used with what was left.
        skipped_steps: that the gradient scaler of fp16 left out.
        notes: what changed at which step when the run was resumed.
    """

    sums: dict[str, float] = field(default_factory=dict)
    epochs: list[dict] = field(default_factory=list)
    kept: list[dict] = field(default_factory=list)
    bad_files: dict[str, str] = field(default_factory=dict)
    damaged_files: dict[str, str] = field(default_factory=dict)
    skipped_steps: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> dict | None:
        return self.kept[0] if self.kept else None

    def add(self, row: dict) -> None:
        """Count a step in."""
        for key in _SUMMED:
            self.sums[key] = self.sums.get(key, 0.0) + row[key]
        self.sums["num_steps"] = self.sums.get("num_steps", 0) + 1

    def means(self) -> dict[str, float]:
        """Loss and accuracy of training since the last evaluation; clears the sums."""
        sums, self.sums = self.sums, {}
        return {key: sums[key] / sums["num_steps"] for key in ("loss", "top1")} | {
            key: sums[key] for key in ("time_s", "wait_s", "num_steps")
        }


class StepLog:
    """The file with a line for each step, which grows while the run lasts.

    Args:
        file: where it lies.
    """

    def __init__(self, file: Path):
        self.file = file
        self._open: TextIO | None = None

    @contextmanager
    def opened(self, num_steps: int) -> Iterator[None]:
        """Within this block rows are added, behind the first `num_steps` that the file has."""
        self._cut(num_steps)
        with open(self.file, "a", encoding="utf-8") as self._open:
            yield
        self._open = None

    def add(self, row: dict) -> None:
        self._open.write(json.dumps(row) + "\n")
        self._open.flush()

    def rows(self) -> list[dict]:
        """All rows so far; without a file, none."""
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _cut(self, num_steps: int) -> None:
        """Take out the rows of steps that a resumed run does again, and a line that is torn."""
        if not self.file.exists():
            self.file.touch()
            return
        with open(self.file, encoding="utf-8") as old:
            lines = [line for _, line in zip(range(num_steps), old, strict=False)]
        write_text(self.file, "".join(lines))
