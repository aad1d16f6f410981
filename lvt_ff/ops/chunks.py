"""Work in parts that fit a processor's cache.

Tensors of more than 32 MB cost a page fault for every 4 kB when they are allocated, which takes
longer than to read and write them. What a part needs beside its input and output stays small.
"""

from collections.abc import Iterator

import torch

__all__ = ["spans"]

_BYTES_PER_THREAD = 4 * 2**20


def spans(count: int, item_bytes: int) -> Iterator[slice]:
    """Slices of `count` items, each of about as many bytes as the caches of all cores hold."""
    step = max(1, _BYTES_PER_THREAD * torch.get_num_threads() // max(item_bytes, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
