"""Files that appear whole or not at all, and paths that stay inside their root."""

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dollmaker.runtime.errors import ArtifactError, DataError

#: How files begin that stand for others, and what to do.
POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"/annex/objects/": "a pointer of git-annex; fetch the file itself with git annex get",
}
WEB_PAGE = "a web page; download the file itself"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` on success.

    The temporary name is unique per attempt, so that a forgotten process that still writes can
    never mix its bytes with those of its successor. A rename inside one folder is atomic. On
    success, what killed attempts left is removed; an attempt that is still alive then fails.
    Parents are created; the caller creates a file or a folder.

    Raises:
        ArtifactError: If another attempt has finished meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
        if not part.exists():
            raise ArtifactError(
                f"{target} was made by another attempt meanwhile; this one stops, its work is done."
            )
        if part.is_dir():
            if target.is_dir():
                old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
                target.rename(old)
                shutil.rmtree(old, ignore_errors=True)
        else:
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
        part.replace(target)
        start = f".{target.name}."
        for left in target.parent.glob(f"{glob.escape(start)}*.part"):
            # What has one more dot belongs to a target with a longer name.
            if "." not in left.name.removeprefix(start).removesuffix(".part"):
                remove(left)
    finally:
        remove(part)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Wait until no other process works on ``target``; a file system without locks lets all in.

    The empty file of the lock stays beside ``target``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.flock").open("w") as handle:
        with suppress(ImportError, OSError):
            import fcntl  # Windows, where releases are read, has none

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_new(output: Path, outside: Path | None = None) -> None:
    """Refuse a path that something lies at; an empty folder may.

    ``outside`` is a folder that is whole as it is: the path may not lie in it.

    Raises:
        DataError: If it is so.
    """
    if outside and output.resolve().is_relative_to(outside.resolve()):
        raise DataError(f"{output} lies in {outside}, which nothing is added to; give another one.")
    if any(output.iterdir()) if output.is_dir() else output.exists():
        raise DataError(f"{output} exists already; give a new folder, or delete it first.")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given, one stable form for equal values."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of the pipeline.

    Raises:
        ArtifactError: If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} does not exist; run the stage that makes it, or correct the path."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path} is not readable JSON ({error}); delete it and run again."
        ) from None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inside(root: Path, relative: str, links: bool = False) -> Path:
    """Join a path from untrusted data to its root, which must not be left, and resolve its links.

    With ``links`` (``allow_links``) symbolic links below the root may lead out of it: the user
    named the root, and trusts what lies there.

    Raises:
        DataError: If the path is absolute, or leaves the root by ``..`` or a link.
    """
    if not relative or "\0" in relative or Path(relative).is_absolute():
        raise DataError(f"path {relative!r} is not relative to the data root; correct the table.")
    base = root.resolve()
    try:
        joined = (base / relative).resolve()
        dangling = (base / relative).is_symlink() and not joined.exists()
    except (OSError, RuntimeError):  # links in a circle, a name that is too long
        raise DataError(f"path {relative[:200]!r} cannot be followed; correct it.") from None
    if not Path(os.path.normpath(base / relative)).is_relative_to(base):
        raise DataError(f"path {relative!r} leaves the data root; correct the table.")
    if not links and not joined.is_relative_to(base):
        raise DataError(
            f"path {relative!r} is or lies behind a link that leaves the data root; put the files "
            "there, or set allow_links: true if you trust them."
        )
    if dangling:
        raise DataError(
            f"path {relative!r} is a link to a file that is not there; fetch it (git annex get, "
            "dvc pull) or correct the link."
        )
    return joined


def safe_name(text: str) -> str:
    """A file name from data: harmless, and still told apart."""
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", text).lstrip(".")[:100] or "unnamed"
    if plain == text:
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
