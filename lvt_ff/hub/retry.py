"""Requests to the Hub: repeated where that may help, and their errors in words."""

import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lvt_ff.utils.errors import Failure

__all__ = ["TRANSIENT", "explained", "reading", "with_retries"]

_Result = TypeVar("_Result")
DELAYS_S = (1, 2, 4, 8, 16)  # between attempts
# The first is that of the client which this huggingface_hub uses: httpx's or httpx2's.
TRANSIENT = (HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError)
# What huggingface_hub raises where an answer is not what the real Hub sends.
_MISREAD = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
_NOT_THERE = (
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def with_retries(action: Callable[[], _Result], repository: str, revision: str | None) -> _Result:
    """The result of an action, tried again after errors of the server or the connection.

    Args:
        action: requests to the Hub, and nothing beside them that may fail.
        repository, revision: what it is about, for messages.

    Raises:
        Failure: it cannot succeed, or did not to the last attempt.
    """
    for delay_s in (*DELAYS_S, None):
        try:
            return action()
        except (*TRANSIENT, RuntimeError) as raised:
            # An upload's failure comes wrapped, with what failed as its cause.
            error = raised.__cause__ if isinstance(raised, RuntimeError) else raised
            if not isinstance(error, TRANSIENT):
                raise
            status = _status(error)
            if delay_s is None or (status is not None and status < 500 and status != 429):
                raise Failure(explained(error, repository, revision)) from error
            said = explained(error, repository, revision)
            print(f"{said}; again in {delay_s} s", file=sys.stderr, flush=True)
            time.sleep(delay_s)
        except (LocalTokenNotFoundError, EntryNotFoundError, HFValidationError) as error:
            raise Failure(explained(error, repository, revision)) from error
        except _MISREAD as error:
            raise Failure(
                f"{repository}: the Hub's answer is not understood ({type(error).__name__}: "
                f"{error}): is HF_ENDPOINT the address of a Hub?"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def reading(action: Callable[[], _Result], repository: str, revision: str | None) -> _Result:
    """`with_retries`, for what is read by a name that a user gave.

    Raises:
        ValueError: no such repository or revision, or one that this machine may not read.
        OSError: the Hub cannot be reached, or does not answer as a Hub.
    """
    try:
        return with_retries(action, repository, revision)
    except Failure as failure:
        kind = ValueError if isinstance(failure.__cause__, _NOT_THERE) else OSError
        raise kind(str(failure)) from failure


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def explained(error: Exception, repository: str, revision: str | None) -> str:
    """What happened and what to do, in a line; no token is in these errors, nor in this."""
    status = _status(error)
    lines = str(getattr(error, "server_message", None) or error).strip().splitlines()
    said = lines[0] if lines else ""
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"{repository}: not logged in, or not there (`hf auth login`, or set HF_TOKEN)"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"{repository} is not on the Hub, or private: check the name, or `hf auth login`"
    if re.search("quota|storage|exceed", said, flags=re.I):
        return f"{repository}: no space left on the Hub: {said}"
    if status == 403:
        return f"{repository}: no write access: {said}"
    if status == 409:
        return f"{repository}: the name is taken, or someone else is pushing: {said}"
    return f"{repository}: the Hub cannot be reached or failed ({said or type(error).__name__})"
