"""A Hub on this machine: folders served under the protocol that huggingface_hub speaks."""

import hashlib
import json
import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, what):
        self.answer(404, X_Error_Code=what, X_Repo_Commit=COMMIT)

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.requests.append((self.command, path))
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path)
        if match and match[1] in self.server.folders:
            files = sorted(p.name for p in self.server.folders[match[1]].iterdir())
            info = dict(id=match[1], sha=COMMIT, siblings=[dict(rfilename=f) for f in files])
            self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            return
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match or match[1] not in self.server.folders:
            self.missing("RepoNotFound")
            return
        file = self.server.folders[match[1]] / match[3]
        if match[2] not in ("main", COMMIT):
            self.missing("RevisionNotFound")
        elif not file.is_file():
            self.missing("EntryNotFound")
        else:
            self.send(file)

    do_HEAD = do_GET

    def send(self, file):
        size = file.stat().st_size
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or "00")[1])
        self.send_response(206 if start else 200)
        tag = hashlib.sha256(f"{file}{size}{file.stat().st_mtime_ns}".encode()).hexdigest()
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if self.command != "HEAD":
            with open(file, "rb") as handle:
                handle.seek(start)
                while block := handle.read(1 << 20):
                    self.wfile.write(block)


class HubServer(ThreadingHTTPServer):
    """Repositories by name, each a folder in `folders`; what was asked for lies in `requests`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders: dict[str, Path] = {}
        self.requests: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @staticmethod
    def empty_cache():
        """Forget every download."""
        shutil.rmtree(os.environ["HF_HUB_CACHE"], ignore_errors=True)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"
