"""A decoder process: reads files for its caller, one after the other, until its input ends.

Both sides send one JSON object a line. The caller asks with `do`; the answer is `frames`, `header`,
`encoded`, `refused`, `too_large` or `no_span`. Before it come `progress`, the backend that is
`trying`, those that `failed`, and the `total` of which the caller is to choose frames: it sends
their numbers or, to give up, null.
"""

import json
import math
import os
import socket
import sys
import threading
import time
from typing import Any, BinaryIO

import numpy as np

from lvt_ff.utils.errors import FrameSizeError
from lvt_ff.video.clip_buffer import CallersError, ClipBuffer, SpanError, new_frames
from lvt_ff.video.decoders import Refused, decode, read_header
from lvt_ff.video.encoder import EncodeSettings, encode
from lvt_ff.video.memory_limit import data_bytes, limit_memory, prefer_to_be_killed

__all__ = ["main"]

_PROGRESS_S = 0.2  # between two signs of life
_LOOK_S = 1  # between two looks whether the caller is there


class _Caller:
    """The other side.

    Args:
        answers: where lines go.
        frames: where shared frames go; None sends them along with the lines.
    """

    def __init__(self, answers: BinaryIO, frames: Any):
        self._answers, self.frames = answers, frames
        self._told = 0.0
        threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()

    def ask(self) -> Any:
        """What the caller sends next; ends the process where it is gone."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    def tell(self, **answer: Any) -> None:
        """Send an answer."""
        self._answers.write(json.dumps(answer).encode() + b"\n")
        self._answers.flush()

    def progress(self) -> None:
        """Say that something was done, not more often than is of use."""
        now = time.monotonic()
        if now - self._told > _PROGRESS_S:
            self._told = now
            self.tell(progress=True)

    def choose(self, total: int) -> list[int]:
        """The frames that the caller wants."""
        self.tell(total=total)
        indices = self.ask()
        if indices is None:
            raise CallersError
        return indices

    def send_frames(self, clip: ClipBuffer, decoder: str, damage: str) -> None:
        """Send what was read."""
        shape = list(clip.frames.shape)
        told = dict(total=clip.total, damage=damage, decoder=decoder, seconds=clip.seconds)
        answer = dict(frames=shape, **told)
        if self.frames is not None:
            self.tell(**answer, is_new=self.frames.send())
        else:
            self.tell(**answer, num_bytes=clip.frames.nbytes)
            self._answers.write(memoryview(clip.frames).cast("B"))
            self._answers.flush()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, whatever a decoder is doing."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(0)


def _read(caller: _Caller, request: dict) -> None:
    before = data_bytes()
    limit_memory(before)

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        if caller.frames is None:
            return new_frames(shape)
        limit_memory(before, math.prod(shape))
        return caller.frames.allocate(shape)

    clip = ClipBuffer(
        caller.choose,
        request["max_pixels"],
        allocate,
        caller.progress,
        tuple(request["span"]),
        request["needed"] and tuple(request["needed"]),
    )
    decoder, damage = decode(
        request["decoders"],
        request["path"],
        clip,
        request["threads"],
        trying=lambda name: caller.tell(trying=name),
        failed=lambda attempt: caller.tell(failed=attempt),
    )
    caller.send_frames(clip, decoder, damage)


def _header(caller: _Caller, request: dict) -> None:
    limit_memory(data_bytes())
    caller.tell(header=read_header(request["path"], request["max_pixels"], caller.progress))


def _encode(caller: _Caller, request: dict) -> None:
    limit_memory(data_bytes())
    encoded = encode(
        request["path"],
        request["target"],
        EncodeSettings(**request["settings"]),
        tuple(request["span"]),
        request["max_pixels"],
        caller.progress,
    )
    caller.tell(encoded=encoded)


_TASKS = {"read": _read, "header": _header, "encode": _encode}


def _answer(caller: _Caller, request: dict) -> None:
    try:
        _TASKS[request["do"]](caller, request)
    except CallersError:
        pass
    except FrameSizeError as error:
        caller.tell(too_large=str(error))
    except SpanError as error:
        caller.tell(no_span=str(error))
    except Refused as error:
        caller.tell(refused=error.args)
    finally:
        if caller.frames is not None:
            caller.frames.forget()


def main() -> None:
    """Serve the caller at the other end of standard input and output.

    The command line may name the file descriptor of a socket for shared frames.
    """
    prefer_to_be_killed()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever decoders print is no answer
    frames = None
    if len(sys.argv) > 1:
        from lvt_ff.video.shared_frames import FramesSender

        frames = FramesSender(socket.socket(fileno=int(sys.argv[1])))
    caller = _Caller(answers, frames)
    caller.tell(ready=True)
    while True:
        _answer(caller, caller.ask())
