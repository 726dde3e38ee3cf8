"""Check a release as a stranger would, and send it where it shall be found.

Source pixels that may not leave the house do not: every file is looked at. A release goes to a
folder, to the Hub (:mod:`dollmaker.release.hub`), or to Zenodo: there a draft with one ZIP file, by
its REST API. People press Publish.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import polars as pl
from PIL import Image

from dollmaker.release import hub
from dollmaker.release.browse import contact_sheet
from dollmaker.release.parts import BOUND, IMAGES, SCHEMA, SPLITS, Tree, read_rows
from dollmaker.release.read import Origin, read_origin
from dollmaker.release.verify import verify
from dollmaker.runtime.cores import cores
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError, DollmakerError
from dollmaker.store import tables
from dollmaker.store.files import atomic_path, require_new, safe_name

#: Where Zenodo is, and who: of the environment, so that no token is in a command or a file of ours.
_URL, _TOKEN = "ZENODO_URL", "ZENODO_TOKEN"

#: Sources whose images nobody may hand on, by kind and by what their licences say.
_CLOSED_KINDS = ("chexpert",)
_CLOSED = re.compile(
    r"chexpert|mimic|use agreement|credentialed|\bnot?\b[^.;]{0,20}distribut"
    r"|distribut\w*[^.;]{0,20}\b(not|forbidden|prohibited)\b",
    re.IGNORECASE,
)

_TEXTS = (".md", ".json", ".js", ".html", ".css", ".sig", "")
_COLUMNS = {*SCHEMA, *IMAGES, BOUND}
_ARRAYS = {"mask", "level", "relevance"}

#: Sends a release, and tells where it lies.
Send = Callable[[Path, Origin], str]


def publish(
    release_folder: Path,
    /,
    to: str,
    *,
    private: bool = False,
    creators: Sequence[str] = (),
    dry_run: bool = False,
) -> str:
    """Put a release on the Hub, on Zenodo or into a folder, once it is checked.

    Args:
        release_folder: Folder of the release.
        to: ``hf:OWNER/NAME``, ``zenodo``, or a folder to make.
        private: Its owners alone see it.
        creators: Who made it, "Family, Given" (for Zenodo).
        dry_run: Check everything and send nothing.

    Returns:
        Where it lies, or what would go there.

    Raises:
        ArtifactError: If ``verify`` finds a fault.
        ConfigError: If the destination is none.
        DataError: If a file holds pixels that may not be handed on, or the version is there.
        ModelError: If what sends it is not installed.
    """
    send = _destination(to, release_folder, private, creators)
    origin = read_origin(release_folder)
    if faults := verify(release_folder, workers=cores()):
        raise ArtifactError(
            f"{release_folder} has {len(faults)} faults and is not published; make it again: "
            f"{faults[0]}"
        )
    if pixels := find_pixels(release_folder, origin):
        raise DataError(
            f"{release_folder} is not published: the licence of its source "
            f"({origin.source_license}) does not let its pixels go, and {pixels[0]}"
            f"{f' (and {len(pixels) - 1} files more)' if len(pixels) > 1 else ''}; set "
            "release.pictures to false and make it again."
        )
    if not dry_run:
        return f"{release_folder} is published: {send(release_folder, origin)}"
    files = _files(release_folder)
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files of {size / 1e6:.1f} MB would go to {to}; nothing was sent."


def _files(release: Path) -> list[Path]:
    return sorted(path for path in release.rglob("*") if path.is_file())


def _destination(to: str, folder: Path, private: bool, creators: Sequence[str]) -> Send:
    if to.startswith("hf:"):
        repo = to.removeprefix("hf:")
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
            raise ConfigError(f"--to {to!r} names no repository; write hf:OWNER/NAME.")
        return lambda release, origin: hub.upload(release, origin, repo, private)
    if to == "zenodo":
        if not creators:
            raise ConfigError('Zenodo asks who made it; give --creators "Family, Given".')
        return lambda release, origin: _to_zenodo(release, origin, creators, private)
    if private:
        raise ConfigError("--private is for the Hub and Zenodo; a folder has its own permissions.")
    target = Path(to)
    require_new(target, folder)
    return lambda release, _: _copy(release, target)


def _copy(release: Path, target: Path) -> str:
    with atomic_path(target.resolve()) as part:
        shutil.copytree(release, part)
        if faults := verify(part):
            raise ArtifactError(f"{target} is not what was copied ({faults[0]}); try another disk.")
    return str(target)


# --- Zenodo -------------------------------------------------------------------------------------


def _to_zenodo(release: Path, origin: Origin, creators: Sequence[str], private: bool) -> str:
    """Make a draft, fill it and describe it; files of a private one are restricted."""
    base = os.environ.get(_URL, "https://zenodo.org").rstrip("/")
    title = f"{origin.name} {origin.version}"
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
        "version": origin.version,
        "creators": [{"name": creator} for creator in creators],
        "access_right": "restricted" if private else "open",
        **({"access_conditions": "Ask."} if private else {"license": origin.license.lower()}),
    }
    _ask("PUT", f"{base}/api/deposit/depositions/{draft['id']}", {"metadata": metadata})
    return f"{draft['links'].get('html', base)} (a draft: look at it, and press Publish)"


def _pack(release: Path, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for path in _files(release):
            packed.write(path, path.relative_to(release).as_posix())


def _ask(method: str, url: str, body: Any) -> Tree:
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
            found: Tree = json.loads(answer.read())
            return found
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DataError(f"Zenodo does not take it ({error}); see {_TOKEN} and try again.") from None


# --- source pixels ------------------------------------------------------------------------------


def find_pixels(release: Path, origin: Origin) -> list[str]:
    """Files of a verified release that hold source pixels, or may, and must not be published.

    Where the licence of the source allows pictures (``release.pictures``), there is none. Otherwise
    every file must be of a kind that is known to hold none.
    """
    closed = origin.source in _CLOSED_KINDS or _CLOSED.search(origin.source_license)
    if origin.pictures and not closed:
        return []
    reasons = ((path, _reason(path, path.relative_to(release))) for path in _files(release))
    return [f"{path.relative_to(release)}: {reason}" for path, reason in reasons if reason]


def _reason(path: Path, name: Path) -> str:
    """Why a file may not be published; empty if it may."""
    suffix = path.suffix.lower()
    try:
        if suffix in _TEXTS:
            inlined = "data:image/" in path.read_text(encoding="utf-8")
            return "holds a picture inside its text" if inlined else ""
        if suffix == ".parquet":
            return _of_table(path, name)
        if suffix == ".h5":
            with h5py.File(path) as file:
                more = set(file.get("arrays", {})) - _ARRAYS
                return f"holds arrays {', '.join(sorted(more))}" if more else ""
        if suffix == ".safetensors" and name.parts[0] == "models":
            return ""
        sheets = name.parts[:2] == ("gallery", "sheets")
        if sheets or name == Path("contact-sheet.png"):
            ours = path.name.startswith("relevance") if sheets else _masks_only(path, path.parent)
            return "" if ours else "shows source images"
    except (OSError, UnicodeDecodeError, ValueError, DollmakerError) as error:
        return f"cannot be looked into ({type(error).__name__})"
    return "" if not path.stat().st_size else "is of a kind that releases do not have"


def _of_table(path: Path, name: Path) -> str:
    if name.parts[0] == "models":  # thresholds
        numbers = (pl.String, pl.Boolean, pl.Int64, pl.Float64)
        return "" if set(tables.read(path).dtypes) <= set(numbers) else "holds more than numbers"
    more = set(tables.read(path).columns) - _COLUMNS
    return f"holds columns {', '.join(sorted(more))}" if more else ""


def _masks_only(path: Path, release: Path) -> bool:
    """Whether a contact sheet shows what the masks alone give, pixel by pixel."""
    table = pl.concat([read_rows(release, split) for split in SPLITS])
    wanted = Image.open(io.BytesIO(contact_sheet(table, None))).convert("RGB")
    return np.array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(wanted))
