"""Mutants of videos through the reader: `python tests/fuzz/mutate_videos.py 1000 --seed 1`.

Every mutant is read, or refused in words that have its name; nothing dies but decoder processes,
nothing takes long or much memory, nothing is left behind. All else is a finding. A mutant is made
of its number, the seed and the same videos: `--only NUMBER` reads one again.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from caller import Answer, Caller, Ended
from mutations import mutate
from reading import TIMEOUT_S
from seed_videos import GIANTS, made_videos, real_videos
from tqdm import tqdm

__all__ = ["Limits", "Mutant", "Report", "Videos", "fuzz", "mutant"]

READER = "reading:read"
BATCH = 250  # mutants of one calling process
HEADER_TIMEOUT_S = 60


class Limits(NamedTuple):
    """What one reading may take.

    Args:
        margin_s: beside the time that a decoder may go without progress.
        resident_bytes: of the caller or a decoder, with what they share.
        timeout_s: without progress; None is the reader's own.
    """

    margin_s: float = 15
    resident_bytes: int = 3 * 2**30
    timeout_s: float | None = None

    def seconds(self, way: str) -> float:
        """Of a whole reading."""
        own = HEADER_TIMEOUT_S if way == "header" else TIMEOUT_S
        return self.margin_s + (own if self.timeout_s is None else self.timeout_s)


class Videos:
    """Sound videos: small ones, real ones if any, and small files of huge frames."""

    def __init__(self, folder: Path):
        made = made_videos(folder)
        self.groups = {
            "made": {name: made[name] for name in made if name not in GIANTS},
            "real": real_videos(),
            "giant": {name: made[name] for name in GIANTS},
        }

    def draw(self, rng: random.Random) -> tuple[str, bytes]:
        """Name and content of one; small ones stand in for real ones that are not there."""
        name = rng.choices(("made", "real", "giant"), (70, 25, 5))[0]
        place = rng.random()
        group = self.groups[name] or self.groups["made"]
        names = sorted(group)
        chosen = names[int(place * len(names))]
        return chosen, group[chosen]

    @property
    def small(self) -> list[bytes]:
        """Contents from which parts may come."""
        return list(self.groups["made"].values())


class Mutant(NamedTuple):
    """A file that was sound, and how it is to be read."""

    number: int
    source: str
    content: bytes
    changes: str
    way: str

    @property
    def name(self) -> str:
        """Of its file; FFmpeg goes by the end of some."""
        return f"mutant{self.number}{Path(self.source).suffix}"


def mutant(seed: int, number: int, videos: Videos) -> Mutant:
    """The mutant of a number."""
    rng = random.Random(f"{seed} {number}")
    source, content = videos.draw(rng)
    ways, weights = ("auto", "decord", "pyav", "header"), (70, 10, 10, 10)
    way = rng.choices(ways, weights)[0]
    content, changes = mutate(content, rng, videos.small)
    return Mutant(number, source, content, changes, way)


@dataclass
class Report:
    """What came of many mutants."""

    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)  # the first mutant of each outcome
    findings: list[str] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    peaks: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, made: Mutant, answer: Answer) -> None:
        """Count an answer."""
        told, outcome = _describe(made), _class_of(answer)
        self.outcomes[outcome] += 1
        self.examples.setdefault(outcome, made.number)
        self.slowest = sorted([*self.slowest, (answer.seconds, told)], reverse=True)[:5]
        self.note_peaks(told, answer.peaks)

    def note_peaks(self, told: str, peaks: dict[str, int]) -> None:
        """Keep the highest."""
        for name, peak in peaks.items():
            self.peaks[name] = max(self.peaks.get(name, (0, "")), (peak, told))

    def find(self, made: Mutant, what: str) -> None:
        """Keep what should not be, with how to see it again."""
        command = f"python tests/fuzz/mutate_videos.py --seed {self.seed} --only {made.number}"
        self.findings.append(f"{what}\n    {_describe(made)}\n    {command}")

    def table(self) -> str:
        """All of it."""
        lines = [
            f"{count:>7}  {name} (such as {self.examples.get(name, 'below')})"
            for name, count in sorted(self.outcomes.items())
        ]
        lines += [f"{seconds:>6.1f}s  {told}" for seconds, told in self.slowest]
        lines += [
            f"{peak / 2**20:>4.0f}MiB  {name}, {told}" for name, (peak, told) in self._peaks()
        ]
        lines += [f"finding: {finding}" for finding in self.findings]
        return "\n".join([*lines, f"{len(self.findings)} findings"])

    def _peaks(self) -> list[tuple[str, tuple[int, str]]]:
        return sorted(self.peaks.items())


def _describe(made: Mutant) -> str:
    size = len(made.content)
    return f"{made.number}: {made.source} ({made.changes}; {size:,} bytes) read by {made.way}"


_REASONS = {
    "no progress": r"no progress within",
    "decoder died": r"died with signal (\d+ \w*)|ended with status (\d+)",
    "memory": r"MemoryError|Cannot allocate memory|bad_alloc",
    "too large": r"^FrameSizeError",
    "no frame": r"no frame of it can be decoded|no frame that can be shown",
    "no key frame": r"no key frame",
    "no packets": r"no packets",
    "no video": r"no video stream",
    "unknown codec": r"in a way that FFmpeg cannot",
    "more packets than bytes": r"more packets than",
    "invalid data": r"Invalid data",
    "frames differ": r"it counts|another number of frames|Expected frames|were asked for",
    "not for this backend": r"only used for",
    "cannot be loaded": r"not installed",
}


def _class_of(answer: Answer) -> str:
    if answer.outcome != "refused":
        died = ", after a decoder died" if answer.num_died else ""
        return f"{answer.outcome} by {answer.told.partition(':')[0]}{died}"
    for name, pattern in _REASONS.items():
        if match := re.search(pattern, answer.told):
            more = next((group for group in match.groups() if group), "")
            return f"refused: {name} {more}".strip()
    error = re.search(r": (\w+): ", answer.told.partition("Tried")[2])
    return f"refused: {error[1] if error else answer.told}"


def _wrong(answer: Answer, limits: Limits, way: str) -> Iterable[str]:
    """What should not be in an answer."""
    if answer.outcome not in ("read", "refused"):
        yield answer.told
    if answer.seconds > limits.seconds(way):
        yield f"it takes {answer.seconds:.0f} s"
    for name, peak in answer.peaks.items():
        if peak > limits.resident_bytes:
            yield f"the {name} takes {peak / 2**20:.0f} MiB"
    if answer.num_decoders > 1:
        yield f"{answer.num_decoders} decoders live for one caller"


class _Run:
    """Mutants one after the other, in callers that are replaced."""

    def __init__(self, report: Report, videos: Videos, limits: Limits, keep: Path | None):
        self.report, self._videos, self._limits, self._keep = report, videos, limits, keep

    def batch(self, numbers: Sequence[int], reader: str, done) -> None:
        """Read some mutants with one caller, or more where it dies."""
        caller = made = None
        with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
            for number in numbers:
                made = mutant(self.report.seed, number, self._videos)
                caller = caller or Caller(reader)
                if not self._read(caller, made, Path(folder)):
                    caller.close()
                    caller = None
                done()
        if caller is not None:
            for left in caller.close():
                self._find(made, f"{left}, after one of the mutants before")

    def _read(self, caller: Caller, made: Mutant, folder: Path) -> bool:
        """Read a mutant; whether its caller is of further use."""
        path = folder / made.name
        path.write_bytes(made.content)
        try:
            answer = caller.read(path, made.way, 2 * self._limits.seconds(made.way))
        except Ended as error:
            self.report.outcomes["caller ended"] += 1
            self.report.note_peaks(_describe(made), caller.peaks)
            self._find(made, str(error))
            return False
        finally:
            path.unlink()
        self.report.add(made, answer)
        for what in _wrong(answer, self._limits, made.way):
            self._find(made, what)
        return True

    def _find(self, made: Mutant, what: str) -> None:
        self.report.find(made, what)
        if self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            (self._keep / f"seed{self.report.seed}_{made.name}").write_bytes(made.content)


def fuzz(
    numbers: Sequence[int],
    seed: int,
    videos: Videos,
    *,
    reader: str = READER,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    keep: Path | None = None,
    quiet: bool = True,
) -> Report:
    """Read the mutants of some numbers.

    Args:
        numbers: which.
        seed: of all.
        videos: of which they are made.
        reader: "module:function" that reads.
        limits: of one reading.
        keep: a folder for files that give findings.
        quiet: no progress bar.
    """
    report = Report(seed)
    run = _Run(report, videos, limits, keep)
    with tqdm(total=len(numbers), unit="mutant", disable=quiet) as bar:
        for start in range(0, len(numbers), BATCH):
            run.batch(numbers[start : start + BATCH], reader, bar.update)
    return report


def main() -> bool:
    """The command; whether there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one mutant")
    parser.add_argument("--keep", type=Path, help="a folder for mutants that give findings")
    options = parser.parse_args()
    numbers = range(options.count) if options.only is None else [options.only]
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="fuzz_videos_") as folder:
        videos = Videos(Path(folder))
    report = fuzz(numbers, options.seed, videos, keep=options.keep, quiet=False)
    print(report.table())
    print(f"{len(numbers)} mutants, seed {options.seed}, {time.time() - start:.0f} s")
    return bool(report.findings)


if __name__ == "__main__":
    sys.exit(main())
