"""A process that reads files, watched: how long it takes, what memory, what it leaves behind."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Answer", "Caller", "Ended"]

_START_S = 300
_SAMPLE_S = 0.05
_END_S = 10


class Ended(Exception):
    """The process died or does not answer; the message says how."""


class Answer(NamedTuple):
    """What came of a file.

    Args:
        outcome: see `reading`.
        told: by the reader.
        seconds: that it took.
        peaks: bytes that were resident at most, in the caller and in a decoder.
        num_died: decoder processes that ended meanwhile.
        num_decoders: that live afterwards.
    """

    outcome: str
    told: str
    seconds: float
    peaks: dict[str, int]
    num_died: int
    num_decoders: int


class Caller:
    """One reading process with a folder for temporary files of its own.

    Args:
        reader: "module:function" with the arguments of `reading.read`.

    Raises:
        Ended: it does not start.
    """

    def __init__(self, reader: str):
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz_caller_")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("reading.py")), reader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=dict(os.environ, TMPDIR=self._folder.name, OMP_NUM_THREADS="1"),
            text=True,
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._watch = _Watch(self._process.pid)
        threading.Thread(target=self._listen, daemon=True).start()
        self._next_line(_START_S)
        self._files = os.listdir(self._folder.name)  # torch makes some

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def read(self, path: Path, way: str, limit_s: float) -> Answer:
        """What comes of a file.

        Raises:
            Ended: nothing, the process is gone or of no use.
        """
        self._watch.begin()
        start = time.monotonic()
        with suppress(BrokenPipeError):
            print(json.dumps({"path": str(path), "way": way}), file=self._process.stdin, flush=True)
        answer = json.loads(self._next_line(limit_s))
        seconds = time.monotonic() - start
        living = self._watch.sample()
        died = len(self._watch.recent - {*living})
        return Answer(answer["outcome"], answer["told"], seconds, self.peaks, died, len(living))

    def _next_line(self, limit_s: float) -> str:
        try:
            line = self._answers.get(timeout=limit_s)
        except queue.Empty:
            raise Ended(f"no end after {limit_s:g} s") from None
        if not line:
            raise Ended(f"the caller ends with {self._process.wait()}: {self._last_words()}")
        return line

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read()[-300:].decode(errors="replace").strip()

    @property
    def peaks(self) -> dict[str, int]:
        """See `Answer`."""
        return dict(self._watch.peaks)

    def close(self) -> list[str]:
        """End the process; what it left behind, in words."""
        left = []
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._watch.close()
        alive = self._watch.wait_for_end(_END_S)
        if alive:
            left.append(f"{len(alive)} decoder processes are left")
        files = [name for name in os.listdir(self._folder.name) if name not in self._files]
        if files:
            left.append(f"temporary files are left: {files[:5]}")
        self._folder.cleanup()
        self._said.close()
        return left


class _Watch:
    """Looks at a process and its children every now and then."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self.decoders: set[psutil.Process] = set()
        self.recent: set[psutil.Process] = set()  # that lived since `begin`
        self.peaks = {"caller": 0, "decoder": 0}
        self._lock, self._done = threading.Lock(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.sample()

    def begin(self) -> None:
        """Forget what was seen."""
        with self._lock:
            for process in (self._process, *self.decoders):
                with suppress(OSError):
                    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
            self.peaks, self.recent = {"caller": 0, "decoder": 0}, set()
        self.sample()

    def sample(self) -> list[psutil.Process]:
        """Note what memory is in use; the decoders that live."""
        with self._lock:
            children = []
            with suppress(psutil.Error):
                children = self._process.children()
            self.recent.update(children)
            self.decoders.update(children)
            for name, process in (
                ("caller", self._process),
                *(("decoder", child) for child in children),
            ):
                self.peaks[name] = max(self.peaks[name], _peak(process))
            return children

    def close(self) -> None:
        """Look no more."""
        self._done.set()

    def wait_for_end(self, seconds: float) -> list[psutil.Process]:
        """Decoders that live on after some time; they are ended then."""
        _, alive = psutil.wait_procs(self.decoders, timeout=seconds)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        return alive


def _peak(process: psutil.Process) -> int:
    """Bytes that were resident at most since they were last forgotten, shared ones included."""
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0
