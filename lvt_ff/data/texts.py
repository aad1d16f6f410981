"""Many texts in two arrays: of half a million Python strings each worker would get its own copy."""

from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["Texts"]

_ENCODING = dict(encoding="utf-8", errors="surrogateescape")  # names need not be UTF-8


class Texts:
    """A sequence of texts that cannot be changed.

    Args:
        texts: n of them.
    """

    def __init__(self, texts: Iterable[str]):
        encoded = [text.encode(**_ENCODING) for text in texts]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    @classmethod
    def of_arrays(cls, content: np.ndarray, ends: np.ndarray) -> "Texts":
        """Texts in UTF-8 one after the other, (bytes,) uint8, and where each ends, (n + 1,)."""
        new = cls.__new__(cls)
        new._bytes, new._ends = content, ends
        return new

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} texts, asked for number {index}.")
        index %= len(self)
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes().decode(**_ENCODING)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Texts | list | tuple) else False

    __hash__ = None

    def take(self, indices: Iterable[int]) -> "Texts":
        """These texts, in this order."""
        return Texts(self[int(index)] for index in indices)
