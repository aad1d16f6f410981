"""Requests to the Hub: repeated where that may help, and their errors in words."""

import re
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

__all__ = ["explained", "with_retries"]

_Result = TypeVar("_Result")
DELAYS_S = (1, 2, 4, 8, 16)  # between attempts
# The first is that of the client which this huggingface_hub uses: httpx's or httpx2's.
_TRANSIENT = (HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError)


def with_retries(action: Callable[[], _Result], repository: str, revision: str | None) -> _Result:
    """The result of an action, tried again after errors of the server or the connection.

    Raises:
        Failure: it cannot succeed, or did not to the last attempt.
    """
    for delay_s in (*DELAYS_S, None):
        try:
            return action()
        except (*_TRANSIENT, RuntimeError) as raised:
            # An upload's failure comes wrapped, with what failed as its cause.
            error = raised.__cause__ if isinstance(raised, RuntimeError) else raised
            if not isinstance(error, _TRANSIENT):
                raise
            status = _status(error)
            if delay_s is None or (status is not None and status < 500 and status != 429):
                raise Failure(explained(error, repository, revision)) from error
            print(f"{explained(error, repository, revision)}; again in {delay_s} s", flush=True)
            time.sleep(delay_s)
        except (LocalTokenNotFoundError, EntryNotFoundError, HFValidationError) as error:
            raise Failure(explained(error, repository, revision)) from error
    raise AssertionError("the last attempt returns or raises")


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def explained(error: Exception, repository: str, revision: str | None) -> str:
    """What happened and what to do, in a line; no token is in these errors, nor in this."""
    status = _status(error)
    said = str(getattr(error, "server_message", None) or error).strip().splitlines()[0]
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"{repository}: not logged in, or not there (`hf auth login`, or set HF_TOKEN)"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"{repository} is not on the Hub, or private: check the name, or `hf auth login`"
    if re.search("quota|storage|exceed", said, flags=re.I):
        return f"{repository}: no space left on the Hub: {said}"
    if status == 403:
        return f"{repository}: no right to write there: {said}"
    if status == 409:
        return f"{repository}: the name is taken, or someone else is pushing: {said}"
    return f"the Hub cannot be reached or failed ({said or type(error).__name__})"
