"""A small Hugging Face hub on loopback, with the parts of its protocol that `datasets` uses.

A repository can be set to misbehave as real ones do: broken connections, 503 responses, content
that differs from what was announced.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A data set with one commit, its files and their faults."""

    files: dict[str, bytes]
    commit: str = COMMIT
    cut_once: dict[str, int] = field(default_factory=dict)  # path: bytes sent before the break
    hang: dict[str, int] = field(default_factory=dict)  # path: bytes sent before silence, once
    damaged: set[str] = field(default_factory=set)  # paths whose last byte is corrupted
    short: set[str] = field(default_factory=set)  # paths announced as one byte longer
    refusals: dict[str, list[int]] = field(default_factory=dict)  # path: first status codes
    always: int | None = None  # status code of every response


@dataclass
class Hub:
    repositories: dict[str, Repository]
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range

    def gets(self, path: str) -> list[str | None]:
        """Range headers of the GET requests for a file, in order; None if a request had none."""
        return [r for method, p, r in self.requests if method == "GET" and p.endswith(path)]


@contextlib.contextmanager
def serve(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub(repositories)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    timeout = 20  # seconds, so that a hanging client does not block the tests

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        match = re.fullmatch(
            r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.*))?)?", path
        )
        repository = match and self.hub.repositories.get(match[1])
        if not repository:
            return self.error(401, "RepoNotFound", "Invalid username or password.")
        if repository.always:
            return self.error(repository.always, None, "Internal Error")
        kind, revision, file = match[2], match[3], match[4]
        if revision not in (None, "main", repository.commit):
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if kind in (None, "revision"):
            siblings = [{"rfilename": name} for name in repository.files]
            return self.json({"id": match[1], "sha": repository.commit, "siblings": siblings})
        if kind == "tree":
            return self.tree(repository, file or "")
        return self.resolve(repository, file)

    def tree(self, repository: Repository, folder: str):
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
        prefix = folder.rstrip("/") + "/" if folder else ""
        inside = [name for name in repository.files if name.startswith(prefix)]
        if folder and not inside:
            return self.error(404, "EntryNotFound", f"{folder} does not exist")
        entries = {}
        for name in inside:
            parts = name.removeprefix(prefix).split("/")
            for depth in range(1, len(parts)):
                entries[prefix + "/".join(parts[:depth])] = "directory"
            entries[name] = "file"
        if not recursive:
            entries = {n: k for n, k in entries.items() if "/" not in n.removeprefix(prefix)}
        return self.json([_entry(repository, name) for name in entries])

    def resolve(self, repository: Repository, file: str):
        if file not in repository.files:
            return self.error(404, "EntryNotFound", "Entry not found", repository.commit)
        if repository.refusals.get(file):
            return self.error(repository.refusals[file].pop(0), None, "Service Unavailable")
        content = repository.files[file]
        etag = hashlib.sha256(content).hexdigest()
        if file in repository.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Linked-Etag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(content) + (file in repository.short)))
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            silence = repository.hang.pop(file, None)
            stop = repository.cut_once.pop(file, silence)
            self.wfile.write(content[begin:stop])
            if silence is not None:
                self.wfile.flush()
                self.rfile.read(1)  # returns when the client disconnects
            if stop is not None:
                self.close_connection = True
        return None

    def error(self, status: int, code: str | None, message: str, commit: str | None = None):
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.json({"error": message}, status, headers)

    def json(self, value, status: int = 200, headers: dict | None = None):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, content in (headers or {}).items():
            if content is not None:
                self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(repository: Repository, name: str) -> dict:
    if name not in repository.files:
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    content = repository.files[name]
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
    return {"type": "file", "path": name, "oid": digest[:40], "size": len(content), "lfs": lfs}
