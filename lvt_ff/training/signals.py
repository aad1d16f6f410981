"""Being asked to stop: SIGTERM of a cluster, Ctrl+C of a person."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STOP_SIGNALS", "StopRequest", "leave_group", "stop_requests"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # the first counts where processes got both


class StopRequest:
    """Whether a signal came; `number` is its number, 0 while none did."""

    number: int = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within this block the first signal to stop is noted; a second one ends the process at once.

    Outside the main thread nothing can be noted, and signals do what they did before.
    """
    request, before = StopRequest(), {}

    def note(number: int, _frame: object) -> None:
        request.number = number
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number in STOP_SIGNALS:
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_group(_worker: int = 0) -> None:
    """For a worker of a data loader, whose clips a run that is told to stop still needs.

    Ctrl+C, and SIGTERM of torchrun and of clusters, go to all of a process group.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
