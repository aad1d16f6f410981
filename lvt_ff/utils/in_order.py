"""Work on many things by threads, with what comes of it in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

_AHEAD = 4  # things that are begun or done for each thread, and not asked for yet

Thing, Result = TypeVar("Thing"), TypeVar("Result")


def in_order(
    work: Callable[[Thing], Result], things: Iterable[Thing], num_threads: int
) -> Iterator[Result]:
    """What comes of things, in their order, a few of them made ready ahead.

    Unlike `ThreadPoolExecutor.map` it does not begin with a note for each of half a million.
    """
    with ThreadPoolExecutor(num_threads) as threads:
        waiting: deque[Future] = deque()
        try:
            for thing in things:
                waiting.append(threads.submit(work, thing))
                if len(waiting) > _AHEAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
