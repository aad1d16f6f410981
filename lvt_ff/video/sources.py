"""What may stand for a video file, and a local file for each of it."""

import errno
import http.client
import os
import re
import shutil
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import Request, urlopen

from lvt_ff._version import __version__
from lvt_ff.utils.errors import VideoReadError

__all__ = ["VideoSource", "is_address", "local_video", "source_name"]

# A path, an http(s) address, "-" for standard input, a video file's bytes, or a file opened in
# binary mode.
VideoSource = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO

_TIMEOUT_S = 60  # without a byte from the other side
_CHUNK = 2**20
_BYTES = bytes | bytearray | memoryview


def is_address(source: object) -> bool:
    """Whether a source is text that begins with http:// or https://; paths never are."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def source_name(source: VideoSource) -> str:
    """What messages call a source: an address without user, password and query, which are secret,
    "standard input" for "-", a file's name, or how many bytes there are."""
    if is_address(source):
        return _public(source)
    if isinstance(source, _BYTES):
        return f"a video of {memoryview(source).nbytes:,} bytes"
    if isinstance(source, str | os.PathLike):
        return "standard input" if source == "-" else os.fsdecode(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"a video in {type(source).__name__}"


@contextmanager
def local_video(source: VideoSource) -> Iterator[str]:
    """A local file with a source's content, while the block runs.

    Paths are given back unchanged, whether or not there is a file; only text can be an address or
    "-". All else becomes a temporary file. Files that are open are read from their beginning
    where they can be, whatever was read of them before, and are left where they were; those that
    cannot be rewound are read from where they are.

    Raises:
        VideoReadError: an address or a file gives no video; the message has the source's name,
            also where one is raised in the block.
        TypeError: a file in text mode, or something else than a source.
    """
    if isinstance(source, os.PathLike) or (
        isinstance(source, str) and source != "-" and not is_address(source)
    ):
        yield str(os.fsdecode(source))  # not numpy's kind of string, which prints otherwise
        return
    name = source_name(source)
    with tempfile.TemporaryDirectory(prefix="lvt_ff_") as folder:
        path = os.path.join(folder, f"video{_suffix(source)}")
        with open(path, "wb") as file:
            _fill(file, source, name)
        try:
            yield path
        except VideoReadError as error:
            message = str(error).replace(repr(path), name).replace(path, name)
            raise type(error)(message) from error


def _suffix(source: VideoSource) -> str:
    """The end of a source's name: FFmpeg knows some formats by nothing else."""
    name = urlsplit(_public(source)).path if is_address(source) else getattr(source, "name", "")
    suffix = Path(unquote(name)).suffix if isinstance(name, str) else ""
    return suffix if re.fullmatch(r"\.\w{1,8}", suffix, re.ASCII) else ""


def _fill(file: BinaryIO, source: VideoSource, name: str) -> None:
    try:
        if is_address(source):
            _download(source, name, file)
        elif isinstance(source, _BYTES):
            file.write(source)
        elif isinstance(source, str) and sys.stdin is None:
            raise VideoReadError(f"Cannot read video {name}: it is closed.")
        elif isinstance(source, str):
            shutil.copyfileobj(sys.stdin.buffer, file, _CHUNK)
        else:
            _copy_whole(source, file)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise VideoReadError(
                f"Cannot read video {name}: there is no room left for it in "
                f"{tempfile.gettempdir()}. Set TMPDIR to a folder on another disk."
            ) from error
        raise VideoReadError(f"Cannot read video {name}: {error}.") from error


def _copy_whole(source: BinaryIO, file: BinaryIO) -> None:
    if not callable(getattr(source, "read", None)):
        raise TypeError(
            "A video must be a path, an address, bytes or a file opened in binary mode, got "
            f"{type(source).__name__}."
        )
    position = _rewind(source)
    try:
        while chunk := source.read(_CHUNK):
            if not isinstance(chunk, _BYTES):
                raise TypeError(
                    f"A file of a video must give bytes, got {type(chunk).__name__}: open it in "
                    'binary mode, open(path, "rb").'
                )
            file.write(chunk)
    finally:
        if position is not None:
            source.seek(position)


def _rewind(source: BinaryIO) -> int | None:
    """Where a file was that is at its beginning now; None where it cannot be moved."""
    try:
        position = source.tell()
        source.seek(0)
    except (AttributeError, OSError, ValueError):  # ValueError: closed, which read() will tell
        return None
    return position


def _download(address: str, name: str, file: BinaryIO) -> None:
    """Write what an address gives to a file.

    Raises:
        VideoReadError: no answer, an error, a part only, or more than the disk takes.
        OSError: the file cannot be written.
    """
    request = _request(address, name)
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        # Not its own reason, which may have the secret address of a redirection.
        reason = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
        raise VideoReadError(f"Cannot read video {name}: the server answers {reason}.") from None
    except (OSError, http.client.HTTPException) as error:
        raise _no_download(name, error) from None
    with response:
        size = response.length or 0
        free = shutil.disk_usage(os.path.dirname(file.name)).free
        if size > free:
            raise VideoReadError(
                f"Cannot read video {name}: it has {size / 1e6:,.0f} MB, and "
                f"{tempfile.gettempdir()} has room for {free / 1e6:,.0f} MB. Set TMPDIR to a "
                "folder on another disk."
            )
        while chunk := _next(response, name):
            file.write(chunk)
        if size and file.tell() < size:
            raise VideoReadError(
                f"Cannot read video {name}: the connection ended after {file.tell():,} of "
                f"{size:,} bytes. Try again."
            )


def _next(response: http.client.HTTPResponse, name: str) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _no_download(name, error) from None


def _no_download(name: str, error: Exception) -> VideoReadError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        reason = f"no answer within {_TIMEOUT_S} s"
    return VideoReadError(f"Cannot read video {name}: {reason or type(reason).__name__}.")


def _request(address: str, name: str) -> Request:
    parts = _split(address)
    if parts is None or not parts.hostname:
        raise VideoReadError(f"Cannot read video {name}: this is no valid address.")
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else ""
    # Some servers refuse Python's own name.
    request = Request(
        f"{parts.scheme}://{_host(parts)}{path}{query}",
        headers={"User-Agent": f"lvt_ff/{__version__}"},
    )
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # Not for the server that a redirection leads to.
        request.add_unredirected_header(
            "Authorization", f"Basic {b64encode(secret.encode()).decode()}"
        )
    return request


def _split(address: str) -> SplitResult | None:
    """The parts of an address; None where it has none, as with a "/" in a password."""
    try:
        parts = urlsplit(address)
        _host(parts)
    except ValueError:
        return None
    return parts


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    return host if parts.port is None else f"{host}:{parts.port}"


def _public(address: str) -> str:
    parts = _split(address)
    if parts is None:
        return f"{address.partition('://')[0]}://…"
    return f"{parts.scheme}://{_host(parts)}{parts.path}{'?…' if parts.query else ''}"
