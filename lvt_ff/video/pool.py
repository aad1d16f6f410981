"""Decoder processes that are kept: as many as threads of this process read at a time."""

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from lvt_ff.video.clip_buffer import Choose
from lvt_ff.video.decoder_process import DecoderProcess

__all__ = ["MAX_PROCESSES", "request", "restart"]

MAX_PROCESSES = min(os.cpu_count() or 1, 8)


class _Pool:
    def __init__(self, num_processes: int = MAX_PROCESSES):
        self._places = threading.BoundedSemaphore(num_processes)
        self._lock = threading.Lock()
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()
        self._thread = threading.local()

    def request(self, message: dict, *how: Any) -> dict[str, Any]:
        # Who reads a video to choose frames of another has a place already, and waits for none.
        nested = getattr(self._thread, "reads", False)
        with nullcontext() if nested else self._places:
            self._thread.reads = True
            try:
                process = self._take()
                try:
                    return process.request(message, *how)
                finally:
                    self._give_back(process)
            finally:
                self._thread.reads = nested

    def _take(self) -> DecoderProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive():
                    return process
                self._all.discard(process)
                process.close()
        process = DecoderProcess()
        with self._lock:
            self._all.add(process)
        return process

    def _give_back(self, process: DecoderProcess) -> None:
        with self._lock:
            if process.usable:
                self._idle.append(process)
                return
            self._all.discard(process)
        process.close()

    def close(self) -> None:
        with self._lock:
            processes = list(self._all)
        for process in processes:
            process.close()

    def abandon(self) -> None:
        for process in self._all:
            process.abandon()


_pool = _Pool()


def request(
    message: dict,
    choose: Choose,
    timeout_s: float,
    note: Callable[[dict], None] = lambda answer: None,
) -> dict[str, Any]:
    """See `DecoderProcess.request`; waits for a process where all are busy."""
    return _pool.request(message, choose, timeout_s, note)


def restart(num_processes: int = MAX_PROCESSES) -> None:
    """End all decoder processes; new ones start when they are needed, up to so many at a time."""
    global _pool
    old, _pool = _pool, _Pool(num_processes)
    old.close()


def _after_fork() -> None:
    """A forked process has decoders of its own, and does not keep its parent's alive."""
    global _pool
    old, _pool = _pool, _Pool()
    old.abandon()


atexit.register(lambda: _pool.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
