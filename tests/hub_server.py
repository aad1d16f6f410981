"""A Hub on this machine: repositories under the protocol that huggingface_hub speaks.

Commits are whole: a repository's state is a mapping from file names to contents under one commit.
`faults` makes it misbehave, `requests` tells what was asked.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "hf_test"  # may read and write everything; without it, public repositories can be read


@dataclass
class Repository:
    """Commits (file name to content: bytes, or the path of a file), branches and tags."""

    private: bool = False
    commits: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files, branch="main"):
        """Make these the files of a branch; returns the commit's name."""
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def resolve(self, revision):
        """The commit of a branch, a tag or a commit's own name; None where there is none."""
        sha = self.refs.get(revision) or self.tags.get(revision) or revision
        return sha if sha in self.commits else None


@dataclass
class Fault:
    """What to do with requests whose "METHOD /path" matches, `times` times after `skip` of them.

    kind: "500", "drop" (cut the connection in the middle of the answer), "lost" (do what was asked,
    then cut the connection), "slow" (wait a second), "corrupt" (send other bytes), "answer" (200
    with `message` as JSON), "redirect" (to `message`), or a status as "403" with `message`.
    """

    kind: str
    pattern: str = ""
    times: int = 1
    skip: int = 0
    message: str = "told to fail"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        self.fault, self.cut = None, False
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError):
            self.close_connection = True

    # Answers.

    def answer(self, status, body=b"", **headers):
        if isinstance(body, dict | list):
            body, headers["Content_Type"] = json.dumps(body).encode(), "application/json"
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status, code="", message=""):
        self.answer(status, dict(error=message), X_Error_Code=code, X_Error_Message=message)

    def body(self):
        """What the client sent; read whole, so that the connection can go on."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionResetError
        return data

    # Requests.

    def serve(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        self.server.requests.append((self.command, path))
        data = self.body()
        fault = self.server.take_fault(f"{self.command} {path}")
        if fault and fault.kind == "slow":
            threading.Event().wait(1)
        elif fault and fault.kind == "drop":
            self.close_connection = True
            if self.command in ("GET", "PUT", "POST") and "/resolve/" in path:
                self.fault = fault
            else:
                self.connection.close()
                return
        elif fault and fault.kind in ("corrupt", "lost"):
            self.fault = fault
        elif fault and fault.kind == "answer":
            self.answer(200, fault.message.encode(), Content_Type="application/json")
            return
        elif fault and fault.kind == "redirect":
            self.answer(302, Location=fault.message)
            return
        elif fault:
            self.fail(int(fault.kind), message=fault.message)
            return
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command.replace("HEAD", "GET"):
                with self.server.lock:
                    action(self, *match.groups(), data=data)
                return
        self.fail(404, "RepoNotFound", f"no such page: {path}")

    do_GET = do_HEAD = do_POST = do_PUT = serve

    @property
    def has_token(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, name, write=False):
        """The repository, or None after an answer that says why not."""
        repository = self.server.repositories.get(name)
        if write and not self.has_token:
            self.fail(401, message="Invalid username or password.")
        elif repository is None or (repository.private and not self.has_token):
            self.fail(401 if not self.has_token else 404, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def commit_of(self, name, revision, write=False):
        """The repository and a commit's name, or two None after an answer that says why not."""
        repository = self.repository(name, write)
        sha = repository.resolve(revision) if repository else None
        if repository and sha is None:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return (repository, sha) if sha else (None, None)

    def whoami(self, data):
        if not self.has_token:
            self.fail(401, message="Invalid username or password.")
            return
        self.answer(200, dict(type="user", name="someone", orgs=[], auth={}))

    def validate_yaml(self, data):
        self.answer(200, dict(errors=[], warnings=[]))

    def create_repository(self, data):
        wanted = json.loads(data)
        name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        if not self.has_token:
            self.fail(401, message="Invalid username or password.")
        elif name in self.server.repositories:
            self.answer(409, dict(error="exists", url=f"{self.server.address}/{name}"))
        elif name.startswith("others/"):
            self.fail(403, message="You don't have the rights to create a model under others")
        else:
            private = wanted.get("visibility") == "private" or wanted.get("private", False)
            self.server.repositories[name] = Repository(private=private)
            self.server.repositories[name].commit({})
            self.answer(200, dict(url=f"{self.server.address}/{name}"))

    def info(self, name, revision, data):
        repository, sha = self.commit_of(name, revision or "main")
        if repository is None:
            return
        files = repository.commits[sha]
        siblings = [
            dict(rfilename=file, size=size_of(content), **lfs_info(file, content))
            for file, content in sorted(files.items())
        ]
        facts = dict(private=repository.private, gated=False, disabled=False, tags=[])
        self.answer(200, dict(id=name, sha=sha, siblings=siblings, **facts))

    def tree(self, name, revision, data):
        repository, sha = self.commit_of(name, revision)
        if repository is None:
            return
        self.answer(
            200,
            [
                dict(type="file", path=file, size=size_of(content), oid=git_oid(content))
                | lfs_info(file, content)
                for file, content in sorted(repository.commits[sha].items())
            ],
        )

    def references(self, name, data):
        repository = self.repository(name)
        if repository is not None:
            listed = {
                kind: [
                    dict(name=key, ref=f"refs/{key}", targetCommit=sha)
                    for key, sha in table.items()
                ]
                for kind, table in (("branches", repository.refs), ("tags", repository.tags))
            }
            self.answer(200, dict(listed, converts=[]))

    def create_reference(self, name, kind, revision, data):
        repository = self.repository(name, write=True)
        if repository is None:
            return
        wanted = json.loads(data or b"{}")
        table, key = (
            (repository.refs, revision) if kind == "branch" else (repository.tags, wanted["tag"])
        )
        if key in table:
            self.fail(409, message=f"Reference {key} exists already")
            return
        table[key] = repository.resolve(
            wanted.get("startingPoint", "main") if kind == "branch" else revision
        )
        self.answer(200, {})

    def preupload(self, name, revision, data):
        repository, sha = self.commit_of(name, revision, write=True)
        if repository is None:
            return
        answers = []
        for file in json.loads(data)["files"]:
            path = file["path"]
            content = repository.commits[sha].get(path)
            answer = dict(path=path, uploadMode=mode_of(path), shouldIgnore=False)
            if content is not None:
                oid = sha256(content) if mode_of(path) == "lfs" else git_oid(content)
                answer["oid"] = oid
            answers.append(answer)
        self.answer(200, dict(files=answers))

    def lfs_batch(self, name, data):
        if self.repository(name, write=True) is None:
            return
        objects = []
        for wanted in json.loads(data)["objects"]:
            answer = dict(wanted)
            if wanted["oid"] not in self.server.objects:
                href = f"{self.server.address}/lfs/{wanted['oid']}/{wanted['size']}"
                upload = dict(href=href, header={})
                answer["actions"] = dict(upload=upload)
            objects.append(answer)
        self.answer(200, dict(transfer="basic", objects=objects))

    def lfs_put(self, oid, size, data):
        if len(data) != int(size) or hashlib.sha256(data).hexdigest() != oid:
            self.fail(400, message="the content does not have the announced hash")
            return
        self.server.objects[oid] = data
        self.answer(200)

    def commit(self, name, revision, data):
        repository = self.repository(name, write=True)
        if repository is None:
            return
        sha = repository.resolve(revision)
        files = dict(repository.commits[sha])
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    self.fail(400, message=f"LFS object {value['oid']} was not uploaded")
                    return
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repository.commit(files, revision)
        if self.fault and self.fault.kind == "lost":
            self.close_connection = True
            self.connection.close()
            return
        self.answer(
            200, dict(commitOid=sha, commitUrl=f"{self.server.address}/{name}/commit/{sha}")
        )

    def download(self, name, revision, file, data):
        repository, sha = self.commit_of(name, revision)
        if repository is None:
            return
        if file not in repository.commits[sha]:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        else:
            self.send(file, repository.commits[sha][file], sha)

    def send(self, name, content, sha):
        size = size_of(content)
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or "00")[1])
        self.send_response(206 if start else 200)
        # Large test files are told by name and size, which is no hash: those are slow to compute.
        large = isinstance(content, Path) and size > 10_000_000
        tag = f"large-{git_oid(f'{content}{size}'.encode())}" if large else git_oid(content)
        if mode_of(name) == "lfs" and not large:
            tag = sha256(content)
            self.send_header("X-Linked-Etag", f'"{tag}"')
            self.send_header("X-Linked-Size", str(size))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", sha)
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = size // 2 if self.fault and self.fault.kind == "drop" else size
        for block in blocks(content, start, stop):
            if self.fault and self.fault.kind == "corrupt":
                block = bytes(byte ^ 1 for byte in block)
            self.wfile.write(block)
        if stop < size:
            self.wfile.flush()
            self.connection.close()


REPO, REV = r"([^/]+/[^/]+)", r"([^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", r"/api/repos/create", Handler.create_repository),
    ("GET", rf"/api/models/{REPO}/refs", Handler.references),
    ("GET", rf"/api/models/{REPO}/tree/{REV}", Handler.tree),
    ("GET", rf"/api/models/{REPO}(?:/revision/{REV})?", Handler.info),
    ("POST", rf"/api/models/{REPO}/(branch|tag)/{REV}", Handler.create_reference),
    ("POST", rf"/api/models/{REPO}/preupload/{REV}", Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/{REV}", Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})/(\d+)", Handler.lfs_put),
    ("GET", rf"/{REPO}/resolve/{REV}/(.+)", Handler.download),
]


def mode_of(path):
    """Large binary files go through LFS, as on the Hub."""
    return "lfs" if path.endswith((".safetensors", ".bin")) else "regular"


def size_of(content):
    return content.stat().st_size if isinstance(content, Path) else len(content)


def whole(content):
    return content.read_bytes() if isinstance(content, Path) else content


def sha256(content):
    return hashlib.sha256(whole(content)).hexdigest()


def git_oid(content):
    data = whole(content)
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_info(path, content):
    if mode_of(path) != "lfs":
        return dict(blobId=git_oid(content))
    size = size_of(content)
    return dict(lfs=dict(oid=sha256(content), sha256=sha256(content), size=size, pointerSize=134))


def blocks(content, start, stop):
    if isinstance(content, bytes):
        yield content[start:stop]
        return
    with open(content, "rb") as handle:
        handle.seek(start)
        while block := handle.read(min(1 << 20, max(0, stop - handle.tell()))):
            yield block


class HubServer(ThreadingHTTPServer):
    """Repositories by name; what was asked for lies in `requests`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.empty()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def empty(self):
        """Back to an empty Hub."""
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []

    @staticmethod
    def empty_cache():
        """Forget every download."""
        shutil.rmtree(os.environ["HF_HUB_CACHE"], ignore_errors=True)

    def publish(self, name, folder):
        """A repository with the files of a folder, which are read where they lie."""
        self.repositories[name] = Repository()
        self.repositories[name].commit({path.name: path for path in Path(folder).iterdir()})

    def take_fault(self, request):
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None
