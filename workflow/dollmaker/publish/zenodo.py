"""A release on Zenodo: a draft with one ZIP file, by its REST API. People press Publish."""

import hashlib
import json
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from dollmaker.runtime.errors import DataError
from dollmaker.store.files import safe_name

#: Where, and who: of the environment, so that no token is in a command or a file of ours.
_URL, _TOKEN = "ZENODO_URL", "ZENODO_TOKEN"


def upload(release: Path, options: dict[str, Any], creators: Sequence[str], private: bool) -> str:
    """Make a draft, fill it and describe it.

    Args:
        release: The release.
        options: Section ``release`` of its configuration.
        creators: Who made it.
        private: Files are restricted once the draft is published.

    Returns:
        Where the draft lies.

    Raises:
        DataError: If there is no token, or Zenodo refuses or keeps other bytes.
    """
    base = os.environ.get(_URL, "https://zenodo.org").rstrip("/")
    title = f"{options['name']} {options['version']}"
    with tempfile.TemporaryFile() as packed:
        name = f"{safe_name(title)}.zip"
        _pack(release, packed)
        draft = _ask("POST", f"{base}/api/deposit/depositions", {})
        packed.seek(0)
        wanted = hashlib.file_digest(packed, "md5").hexdigest()
        kept = _ask("PUT", f"{draft['links']['bucket']}/{name}", packed)
    if kept.get("checksum") != f"md5:{wanted}":
        raise DataError(f"Zenodo keeps other bytes of {name} than were sent; delete the draft.")
    metadata = {
        "title": title,
        "upload_type": "dataset",
        "description": "Pixel-level pseudo-masks from image-level labels; see README.md inside.",
        "version": options["version"],
        "creators": [{"name": creator} for creator in creators],
        "access_right": "restricted" if private else "open",
        **({"access_conditions": "Ask."} if private else {"license": options["license"].lower()}),
    }
    _ask("PUT", f"{base}/api/deposit/depositions/{draft['id']}", {"metadata": metadata})
    return f"{draft['links'].get('html', base)} (a draft: look at it, and press Publish)"


def _pack(release: Path, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(release.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(release).as_posix())


def _ask(method: str, url: str, body: Any) -> dict[str, Any]:
    token = os.environ.get(_TOKEN)
    if not token:
        raise DataError(f"Zenodo wants a token; make one there and set {_TOKEN}.")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = body
    if isinstance(body, dict):
        data = json.dumps(body).encode()
    else:
        headers["Content-Type"] = "application/octet-stream"
        headers["Content-Length"] = str(body.seek(0, os.SEEK_END))
        body.seek(0)
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"Zenodo does not take it ({error}); see {_TOKEN} and try again.") from None
