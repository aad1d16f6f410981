"""Where a run logs to besides its own files, through accelerate."""

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from lvt_ff.utils.atomic_io import write_text
from lvt_ff.utils.environment import install_hint
from lvt_ff.utils.errors import UsageError
from lvt_ff.utils.validation import suggest

__all__ = ["CSVTracker", "check_trackers", "start_trackers", "tracker_names"]

_PROJECT = "lvt_ff"
_KNOWN = ("none", "tensorboard", "wandb", "csv")


class CSVTracker(GeneralTracker):
    """A file with a line for each value: `step,name,value`; a resumed run goes on with it.

    Args:
        file: where it lies.
    """

    name = "csv"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, file: Path):
        super().__init__()
        self.file = file

    @property
    def tracker(self) -> Path:
        return self.file

    @on_main_process
    def start(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self._add([("step", "name", "value")])

    @on_main_process
    def store_init_configuration(self, values: dict) -> None:
        """Nothing: results.json has the settings."""

    @on_main_process
    def log(self, values: dict, step: int | None, **_: Any) -> None:
        self._add([(step, name, value) for name, value in values.items()])

    def cut(self, num_steps: int) -> None:
        """Take out what is told of later steps, which are done again, and a line that is torn."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        rows = [line for line in lines[1:] if line.count(",") == 2]
        rows = [line for line in rows if int(line.split(",")[0]) <= num_steps]
        if rows:
            write_text(self.file, "\r\n".join([lines[0], *rows, ""]))
        else:
            self.file.unlink(missing_ok=True)

    def _add(self, rows: list[tuple]) -> None:
        with open(self.file, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def check_trackers(names: str) -> None:
    """Raise ValueError for a tracker that is unknown or not installed."""
    for name in _listed(names):
        if name not in _KNOWN:
            raise ValueError(f"--tracker has an unknown name {name!r}: {suggest(name, _KNOWN)}.")
        if name in ("tensorboard", "wandb") and find_spec(name) is None:
            if name == "tensorboard" and find_spec("tensorboardX") is not None:
                continue
            raise ValueError(f"--tracker {name} is not installed: {install_hint('track')}")


def tracker_names(names: str, folder: Path) -> list[str | GeneralTracker] | None:
    """What an Accelerator takes as `log_with`; csv goes to a file in `folder`."""
    made = {"csv": CSVTracker(folder / "metrics.csv")}
    return [made.get(name, name) for name in _listed(names)] or None


def start_trackers(accelerator: Accelerator, names: str, num_steps: int = 0) -> None:
    """Start the trackers of an Accelerator that was given their names.

    Args:
        accelerator: with these trackers.
        names: as the option has them.
        num_steps: that are done already.

    Raises:
        UsageError: accelerate leaves one of them out.
    """
    listed = _listed(names)
    if not listed:
        return
    for tracker in accelerator.log_with:
        if isinstance(tracker, CSVTracker) and accelerator.is_main_process:
            tracker.cut(num_steps)
    accelerator.init_trackers(_PROJECT)
    if accelerator.is_main_process and len(accelerator.trackers) < len(listed):
        raise UsageError(f"--tracker {names} is not installed: {install_hint('track')}")


def _listed(names: str) -> list[str]:
    listed = [name.strip() for name in names.split(",")]
    return [name for name in listed if name and name != "none"]
