"""Limits that keep a decoder process from taking the machine's memory."""

import os
from contextlib import suppress

__all__ = ["MAX_DECODER_BYTES", "data_bytes", "limit_memory", "prefer_to_be_killed"]

MAX_DECODER_BYTES = 11 * 2**28  # with the frames that it hands over
_LEAST_BYTES = 2**30  # beside those frames, however many they are


def data_bytes() -> int:
    """Bytes of this process's own data; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def limit_memory(before: int, frames_bytes: int = 0) -> None:
    """Let this process have so much more data than before; Linux alone keeps this limit.

    Args:
        before: see `data_bytes`.
        frames_bytes: of shared memory that are to be filled.
    """
    if not before:
        return
    room = max(MAX_DECODER_BYTES - frames_bytes, _LEAST_BYTES)
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (before + room, resource.RLIM_INFINITY))


def prefer_to_be_killed() -> None:
    """Where memory runs out, the system should end this process, and leave no core file."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
