"""A small server on loopback that answers what huggingface_hub and torch.hub ask."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import timm
import torch
from safetensors.torch import save

#: timm's smallest ResNet, as it lies on the Hub.
NAME = "timm:test_resnet.r160_in1k"
REPO = "timm/test_resnet.r160_in1k"

#: Commit of every repository.
COMMIT = "0123456789abcdef0123456789abcdef01234567"

_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_REPO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/[^/]+")


@dataclass
class Hub:
    """What the server holds, and how it misbehaves.

    Attributes:
        url: Its address.
        files: ``OWNER/REPO/FILE``, or a path of its own, -> content.
        licences: ``OWNER/REPO`` -> licence of its card.
        short: Of these files it sends half, and calls that the whole.
        slow: Path -> seconds before the first answer for it; later ones come at once.
        silent: Seconds before every answer.
        closed: Paths that are not given without a token.
        asked: Method and path of every request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    short: set[str] = field(default_factory=set)
    slow: dict[tuple[str, str], float] = field(default_factory=dict)
    silent: float = 0
    closed: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a request."""
        self.asked.append((method, path))
        if repo := _REPO.fullmatch(path):
            card = {"license": self.licences.get(repo["repo"])}
            said = {"id": repo["repo"], "sha": COMMIT, "cardData": card, "tags": [], "siblings": []}
            return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()
        found = _FILE.fullmatch(path)
        key = f"{found['repo']}/{found['file']}" if found else path.lstrip("/")
        time.sleep(self.slow.pop((method, key), self.silent))
        if key in self.closed:
            return 401, {"X-Error-Code": "GatedRepo"}, b""
        if found and found["revision"] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if key not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        whole = self.files[key]
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(whole).hexdigest()}"',
            "X-Linked-Size": str(len(whole)),
        }
        return 200, headers, whole[: len(whole) // 2] if key in self.short else whole


@contextmanager
def serving() -> Iterator[Hub]:
    """A server while the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _send(self, method: str) -> None:
            status, headers, content = hub.answer(method, self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if method == "GET":
                with suppress(BrokenPipeError):  # nobody waits for it any more
                    self.wfile.write(content)

        def do_GET(self) -> None:
            self._send("GET")

        def do_HEAD(self) -> None:
            self._send("HEAD")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def weights(seed: int = 0) -> bytes:
    """Random weights of that network."""
    torch.manual_seed(seed)
    return bytes(save(dict(timm.create_model("test_resnet").state_dict())))
