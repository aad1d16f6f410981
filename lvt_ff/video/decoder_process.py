"""A decoder process as its caller sees it: it may die, hang or want too much memory."""

import io
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import lvt_ff
from lvt_ff.utils.errors import FrameSizeError
from lvt_ff.video.clip_buffer import Choose, SpanError
from lvt_ff.video.decoders import Refused
from lvt_ff.video.shared_frames import FramesReceiver

__all__ = ["DecoderProcess", "Died"]

_START_S = 120  # a busy machine may need long for the first imports
_END_S = 10
_FOLDER = os.path.abspath(os.curdir)  # from which relative places in sys.path count
# Nothing is imported before the path is set: with -c it begins with the present folder.
_CODE = "import sys; sys.path[:] = eval(sys.argv.pop(1)); from lvt_ff.video import worker"
_PACKAGES = str(Path(lvt_ff.__file__).resolve().parents[1])
_CAN_SHARE = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")


class Died(Exception):
    """A decoder process is of no use any more; the message says why."""


class DecoderProcess:
    """One decoder process, for one caller at a time.

    Raises:
        Died: it does not start.
    """

    def __init__(self):
        self.usable = False
        self._owner = os.getpid()
        self._process = self._notes = self._channel = self._frames_from = None
        self._answers: queue.SimpleQueue[tuple[dict, bytes] | None] = queue.SimpleQueue()
        try:
            self._start()
            threading.Thread(target=self._listen, daemon=True).start()
            self._answer(_START_S)
        except (OSError, RuntimeError) as error:
            self.close()
            raise Died(f"no decoder process can be started ({error})") from error
        except BaseException:
            self.close()
            raise
        self.usable = True

    def _start(self) -> None:
        # Without buffers: they have locks, which a forked process could find taken.
        notes = tempfile.TemporaryFile("ab+", buffering=0)  # noqa: SIM115 - what it prints
        self._notes = notes
        theirs = None
        if _CAN_SHARE:
            self._channel, theirs = socket.socketpair()
            self._channel.settimeout(_START_S)
            self._frames_from = FramesReceiver(self._channel)
        files = [theirs.fileno()] if theirs else []
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{_CODE}; worker.main()", _path(), *map(str, files)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._notes,
                pass_fds=files,
                start_new_session=True,  # Ctrl+C ends the caller, which ends this
                env=dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
            )
        finally:
            if theirs:
                theirs.close()

    def _listen(self) -> None:
        """Pass answers on, from a thread of its own: pipes have no time limit everywhere."""
        answers = io.BufferedReader(self._process.stdout)
        try:
            for line in answers:
                answer = json.loads(line)
                payload = answers.read(answer.get("num_bytes", 0))
                if len(payload) < answer.get("num_bytes", 0):
                    break
                self._answers.put((answer, payload))
        except (OSError, ValueError):
            pass
        self._answers.put(None)

    def request(
        self, request: dict, choose: Choose, timeout_s: float, note: Callable[[dict], None]
    ) -> dict:
        """What the process answers, with `frames` (T, H, W, 3) uint8 where it read any.

        Args:
            request: see `lvt_ff.video.worker`.
            choose: gives frame numbers; what it raises ends the request.
            timeout_s: without progress.
            note: is told what the process tells of its backends.

        Raises:
            Died: the process died or hung.
            Refused: the file was not read.
            FrameSizeError: a frame is too large.
            SpanError: no frame is shown within the span.
        """
        self.usable = False
        self._send(request)
        while True:
            answer, payload = self._answer(timeout_s)
            if "total" in answer and "frames" not in answer:
                self._choose(answer["total"], choose)
            elif "trying" in answer or "failed" in answer:
                note(answer)
            elif "progress" not in answer:
                break
        if "frames" in answer:
            answer["frames"] = self._frames(answer, payload)
        self._notes.truncate(0)
        self.usable = True
        if "too_large" in answer:
            raise FrameSizeError(answer["too_large"])
        if "no_span" in answer:
            raise SpanError(answer["no_span"])
        if "refused" in answer:
            raise Refused(*answer["refused"])
        return answer

    def _choose(self, total: int, choose: Choose) -> None:
        try:
            indices = [int(index) for index in choose(total)]
        except BaseException:
            self._send(None)
            self.usable = True
            raise
        self._send(indices)

    def _frames(self, answer: dict, payload: bytes) -> np.ndarray:
        shape = tuple(answer["frames"])
        if self._frames_from is None:
            return np.frombuffer(bytearray(payload), np.uint8).reshape(shape)
        try:
            return self._frames_from.receive(shape, answer["is_new"])
        except (EOFError, OSError) as error:
            raise Died(f"the decoder sent no frames ({error})") from error

    def _send(self, message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        with suppress(OSError):  # it has died, which its answer tells
            while line:
                line = line[self._process.stdin.write(line) :]

    def _answer(self, timeout_s: float) -> tuple[dict, bytes]:
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise Died(f"no progress within {timeout_s:g} s") from None
        if answer is None:
            raise Died(self._how_it_ended())
        return answer

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the decoder stopped answering"
        self._notes.seek(0)
        lines = self._notes.read()[-1000:].decode(errors="replace").split("\n")
        said = next((f" ({line.strip()[:200]})" for line in reversed(lines) if line.strip()), "")
        if status < 0:
            name = signal.Signals(-status).name if -status in {*signal.Signals} else ""
            return f"the decoder died with signal {-status}{' ' + name if name else ''}{said}"
        return f"the decoder ended with status {status}{said}"

    def is_alive(self) -> bool:
        """Whether nothing has ended the process so far."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
                self._process.wait(_END_S)
        self.abandon()

    def abandon(self) -> None:
        """Let go of what belongs to the process, which may be another one's child."""
        self.usable = False
        files = [self._notes, self._channel]
        if self._process is not None:
            self._process.returncode = self._process.returncode or 0
            # Where it was started, a thread still reads what it writes, until it ends.
            forked = self._owner != os.getpid()
            files += [self._process.stdin, *([self._process.stdout] if forked else [])]
        self._frames_from = None
        for file in files:
            if file is not None:
                with suppress(OSError):
                    file.close()


def _path() -> str:
    """What this process can import, and this package, as Python writes a list."""
    places = [os.path.join(_FOLDER, str(place)) for place in sys.path]
    if _PACKAGES not in map(os.path.realpath, places):
        places.insert(0, _PACKAGES)
    return repr(places)
