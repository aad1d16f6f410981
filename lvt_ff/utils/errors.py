"""The errors that users meet, and which exit status each of them means."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError

__all__ = [
    "DamagedVideoWarning",
    "Failure",
    "FrameSizeError",
    "Stopped",
    "UsageError",
    "VideoReadError",
    "one_line",
    "usage",
]


class Failure(RuntimeError):
    """A run that cannot go on, for a reason its message tells. Exit status 1."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message says what to do. Exit status 2."""


class Stopped(RuntimeError):
    """A run ended early, in good order, because a signal asked for it.

    Args:
        message: what was left behind, and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        self.exit_status = 128 + number  # as a shell tells of a process that the signal ended


class VideoReadError(RuntimeError):
    """No backend could read a file; the message names it, what was tried, and each reason."""


class FrameSizeError(VideoReadError):
    """A file has a larger frame than the caller allows."""


class DamagedVideoWarning(UserWarning):
    """A part of a file was lost; the other frames were read."""


@contextmanager
def usage() -> Iterator[None]:
    """Within this block a ValueError means wrong usage: names, files and sizes are checked."""
    try:
        yield
    except StrictDataclassError as error:  # it names its validator; what that says is enough
        raise UsageError(str(error.__cause__ or error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def one_line(error: Exception | str) -> str:
    """A message without line breaks."""
    text = str(error)
    if "Original Traceback" in text:  # a data loader's worker puts its traceback into the message
        text = text.strip().splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
