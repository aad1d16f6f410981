"""Limits that keep a decoder process from taking the machine's memory."""

import os
from contextlib import suppress

__all__ = ["MAX_DECODER_BYTES", "limit_memory", "prefer_to_be_killed"]

MAX_DECODER_BYTES = 2**31  # beside the frames that it hands over


def limit_memory() -> None:
    """Let this process have so much more data than it has now; Linux alone keeps this limit."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[5])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MAX_DECODER_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def prefer_to_be_killed() -> None:
    """Where memory runs out, the system should end this process, and leave no core file."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
