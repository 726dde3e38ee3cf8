"""A Hub and a Zenodo on loopback that keep what they are given."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Places:
    """What was given.

    Attributes:
        url: Address of the server.
        files: Path in the Hub's one repository -> content.
        tags: Tags of the repository.
        zipped: What Zenodo's bucket holds.
        metadata: What Zenodo was told.
        asked: Method and path of every request.
        wrong: Zenodo keeps other bytes.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    zipped: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    wrong: bool = False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.asked.append(f"{method} {path}")
        if path.startswith(("/api/deposit", "/bucket")):
            return 200, {}, json.dumps(self._zenodo(method, path, body)).encode()
        if found := re.fullmatch(r"/datasets/o/n/resolve/[^/]+/(.+)", path):
            if found[1] not in self.files:
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            content = self.files[found[1]]
            tag = hashlib.sha256(content).hexdigest()
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}, content
        told = self._hub(method, path, body)
        if told is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def _hub(self, method: str, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            return {"url": f"{self.url}/datasets/o/n", "name": "o/n", "id": "o/n"}
        if path == "/api/validate-yaml":  # of the card
            return {"errors": [], "warnings": []}
        name = path.removeprefix("/api/datasets/o/n")
        listed = sorted(self.files)
        if name == "/refs":
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": COMMIT} for t in self.tags]
            return {"branches": [], "converts": [], "tags": tags}
        if name.startswith("/preupload/"):
            given = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return {"files": [{"path": file["path"], **modes} for file in given]}
        if name.startswith("/commit/"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "deletedFile":
                    del self.files[value["path"]]
            commit = {"commitOid": COMMIT, "commitUrl": f"{self.url}/datasets/o/n/commit/{COMMIT}"}
            return {**commit, "success": True, "hookOutput": ""}
        if name.startswith("/tag/"):
            self.tags.append(json.loads(body)["tag"])
            return {}
        if name.startswith("/tree/"):
            sizes = {file: len(self.files[file]) for file in listed}
            return [{"type": "file", "path": f, "size": sizes[f], "oid": "0" * 40} for f in listed]
        revision = name.rpartition("/")[2] if name else "main"
        if revision not in ("main", COMMIT, *self.tags):
            return None
        siblings = [{"rfilename": file} for file in listed]
        return {"id": "o/n", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def _zenodo(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        if method == "POST":
            return {"id": 7, "links": {"bucket": f"{self.url}/bucket", "html": f"{self.url}/7"}}
        if path.startswith("/bucket"):
            self.zipped = body
            kept = b"" if self.wrong else body
            return {"checksum": f"md5:{hashlib.md5(kept).hexdigest()}"}
        self.metadata = json.loads(body)["metadata"]
        return {}


@contextmanager
def serving() -> Iterator[Places]:
    """A server while the block runs."""
    places = Places()

    class Handler(BaseHTTPRequestHandler):
        def _send(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = places.answer(
                self.command, self.path.partition("?")[0], body
            )
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _send

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    places.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield places
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
