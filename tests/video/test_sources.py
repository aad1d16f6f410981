"""Local files for paths, addresses, standard input, bytes and open files."""

import errno
import io
import sys
import threading
import traceback
from base64 import b64encode
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lvt_ff.utils.errors import FrameSizeError, VideoReadError
from lvt_ff.video import sources
from lvt_ff.video.sources import is_address, local_video, source_name

CONTENT = bytes(range(256)) * 10_000


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        what = self.path.strip("/").partition("/")[0].partition("?")[0]
        if what.isdigit():
            return self.send_error(int(what), "because of SECRET")
        if what == "elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/clip.mp4")
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(10**18 if what == "huge" else len(CONTENT)))
        self.end_headers()
        if what == "slow":
            return self.server.over.wait(30)
        self.wfile.write(CONTENT[:100_000] if what == "part" else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.requests, server.over = [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def host(server):
    return f"127.0.0.1:{server.server_port}"


def content_of(source):
    with local_video(source) as path:
        assert type(path) is str
        return Path(path).read_bytes()


@pytest.mark.parametrize(
    "path",
    ["clip.mp4", "12:30:05.mp4", "http:/a.mp4", "s3://a/b.mp4", "", Path("-"), Path("http://a")],
    ids=repr,
)
def test_paths_are_unchanged(path):
    for source in (path, np.str_(path) if isinstance(path, str) else path):
        with local_video(source) as found:
            assert found == str(path) and type(found) is str
        assert source_name(source) == str(path) and not is_address(source)


def test_addresses_are_downloaded_and_deleted_afterwards(server):
    for path, asked in (
        ("clip.mp4", "/clip.mp4"),
        ("my clip é.webm?a=b c&d=%20", "/my%20clip%20%C3%A9.webm?a=b%20c&d=%20"),
        ("a%20b%2Fc.bin", "/a%20b%2Fc.bin"),
        ("clip", "/clip"),
    ):
        with local_video(f"HTTP://{host(server)}/{path}") as file:
            assert Path(file).read_bytes() == CONTENT
            assert Path(file).suffix == Path(path.partition("?")[0]).suffix
        assert not Path(file).parent.exists()
        assert server.requests[-1][0] == asked
    assert server.requests[-1][1]["User-Agent"].startswith("lvt_ff/")


def test_passwords_are_for_the_server_they_were_given_for(server):
    assert content_of(f"http://me:p%40ss@{host(server)}/elsewhere") == CONTENT
    (_, first), (_, second) = server.requests
    assert first["Authorization"] == f"Basic {b64encode(b'me:p@ss').decode()}"
    assert "Authorization" not in second


SECRETS = ("SECRET", "p@ss", "p%40ss")


@pytest.mark.parametrize(
    "address, reason",
    [
        ("http://me:SECRET@{}/404/clip.mp4?token=SECRET#SECRET", "answers 404 Not Found"),
        ("http://me:SECRET@{}/503?token=SECRET", "answers 503 Service Unavailable"),
        ("http://SECRET@{}/part?token=SECRET", "ended after 100,000 of 2,560,000 bytes. Try again"),
        ("http://SECRET@{}/huge?token=SECRET", "it has 1,000,000,000,000 MB, and .* has room for"),
        ("http://SECRET@{}/slow?token=SECRET", "no answer within 0.2 s"),
        ("http://SECRET@127.0.0.1:1/a?token=SECRET", "refused"),
        ("https://SECRET@{}/a?token=SECRET", "(?i)ssl"),
        (
            "http://SECRET@no-such-host.invalid/a?token=SECRET",
            "Name or|nodename|resolution",
        ),
        ("http://me:SECRET/p@ss@{}/a", "no valid address"),
        ("http://[SECRET/a", "no valid address"),
        ("http://", "no valid address"),
    ],
)
def test_failed_downloads_name_the_address_without_its_secrets(
    server, monkeypatch, address, reason
):
    monkeypatch.setattr(sources, "_TIMEOUT_S", 0.2)
    with pytest.raises(VideoReadError, match=reason) as failure:
        content_of(address.format(host(server)))
    shown = "".join(traceback.format_exception(failure.value))
    assert not [secret for secret in SECRETS if secret in str(failure.value)]
    assert "SECRET" not in shown.replace(address, "")
    assert str(failure.value).startswith("Cannot read video http")


def test_a_full_disk_is_told(server, monkeypatch, tmp_path):
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path))

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    usage = namedtuple("usage", "free")
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: usage(free=1000))
    with pytest.raises(VideoReadError, match="it has 3 MB.*Set TMPDIR"):
        content_of(f"http://{host(server)}/clip.mp4")
    monkeypatch.setattr(sources, "_copy_whole", full)
    with pytest.raises(VideoReadError, match="no room left for it in .*Set TMPDIR"):
        content_of(io.BytesIO(CONTENT))
    assert not list(tmp_path.iterdir())


def test_standard_input_and_bytes(monkeypatch):
    stdin = namedtuple("stdin", "buffer")
    monkeypatch.setattr(sys, "stdin", stdin(io.BytesIO(CONTENT)))
    assert content_of("-") == CONTENT
    assert source_name("-") == "standard input"
    for source in (CONTENT, bytearray(CONTENT), memoryview(CONTENT)):
        assert content_of(source) == CONTENT
        assert source_name(source) == "a video of 2,560,000 bytes"


def test_open_files_are_read_whole_and_left_where_they_were(tmp_path):
    (tmp_path / "clip.ts").write_bytes(CONTENT)
    with open(tmp_path / "clip.ts", "rb") as file:
        for source in (io.BytesIO(CONTENT), file):
            source.seek(1000)
            assert content_of(source) == CONTENT == content_of(source)
            assert source.tell() == 1000
        with local_video(file) as path:
            assert path.endswith(".ts")
        assert source_name(file) == str(tmp_path / "clip.ts")
    assert source_name(io.BytesIO()) == "a video in BytesIO"


def test_files_that_cannot_be_rewound_are_read_from_where_they_are():
    class Pipe(io.RawIOBase):
        rest = io.BytesIO(CONTENT)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.rest.readinto(buffer)

    assert content_of(Pipe()) == CONTENT


def test_what_is_no_source_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with open(tmp_path / "a.txt") as file, pytest.raises(TypeError, match="binary mode"):
        content_of(file)
    for source in (None, 3, ["a.mp4"]):
        with pytest.raises(TypeError, match="must be a path, .*got (NoneType|int|list)"):
            content_of(source)


@pytest.mark.parametrize("kind", [VideoReadError, FrameSizeError])
def test_errors_of_reading_have_the_sources_name(kind):
    with pytest.raises(VideoReadError) as failure, local_video(CONTENT) as path:
        raise kind(f"Cannot read video {path!r}: {path} is damaged.")
    assert type(failure.value) is kind
    name = "a video of 2,560,000 bytes"
    assert str(failure.value) == f"Cannot read video {name}: {name} is damaged."
    assert not Path(path).exists()
