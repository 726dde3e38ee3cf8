"""SHA256SUMS: of every file, and of itself."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.files import inside, sha256_file

CHECKSUMS = "SHA256SUMS"

#: The last line, a comment to ``sha256sum -c``: the sum of all lines before it.
_OWN = "# sha256 of the lines above: "


def checksums(folder: Path) -> str:
    """Lines of SHA256SUMS for every file of a folder but itself, sorted by name, and its own."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    names = [name for name in names if name != CHECKSUMS]
    # Hashing lets other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(lambda name: sha256_file(folder / name), names))
    pairs = zip(digests, names, strict=True)
    lines = "".join(f"{digest}  {name}\n" for digest, name in pairs)
    return lines + _own(lines)


def verify_checksums(folder: Path) -> dict[str, str]:
    """What is wrong with the files of a folder.

    Where SHA256SUMS disagrees with itself but the files have the very sums with which it would
    not, then only SHA256SUMS is damaged, and no other file is accused.

    Returns:
        File -> fault.

    Raises:
        ArtifactError: If there is no SHA256SUMS.
    """
    if not (folder / CHECKSUMS).is_file():
        raise ArtifactError(f"{folder} holds no {CHECKSUMS}; give the folder of a release.")
    given = (folder / CHECKSUMS).read_bytes()
    real = checksums(folder)
    if given == real.encode():
        return {}
    faults: dict[str, str] = {}
    text = given.decode("utf-8", errors="replace")
    lines, own = _split(text)
    if own != _own(lines) or given != (lines + own).encode():
        if lines == _split(real)[0] or own == _split(real)[1]:
            return {CHECKSUMS: "damaged (the files that it lists are whole)"}
        faults[CHECKSUMS] = "damaged"
    listed, found = _parse(text), _parse(real)
    for name, digest in listed.items():
        try:
            inside(folder, name)
        except DataError as error:
            faults[CHECKSUMS] = str(error)
            continue
        if name not in found:
            faults[name] = "missing"
        elif found[name] != digest:
            faults[name] = "sha256 differs"
    extra = [name for name in found if name not in listed]
    return faults | dict.fromkeys(extra, f"not listed in {CHECKSUMS}")


def _own(lines: str) -> str:
    return f"{_OWN}{hashlib.sha256(lines.encode()).hexdigest()}\n"


def _split(text: str) -> tuple[str, str]:
    """The lines of files, and the last line."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[:-1]), "".join(lines[-1:])


def _parse(lines: str) -> dict[str, str]:
    """File -> sum."""
    pairs = (line.partition("  ") for line in lines.splitlines() if not line.startswith("#"))
    return {name: digest for digest, _, name in pairs}
