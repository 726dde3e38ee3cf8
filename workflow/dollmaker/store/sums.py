"""Checksums of folders and of the user's files: their content counts, not their times.

`python -m dollmaker.store.sums FOLDER FILE` writes the SHA256SUMS of a folder, which
`sha256sum -c` reads, beside it: Snakemake knows no more of a folder than its time.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from dollmaker.runtime.cores import cores
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.files import inside, sha256_file, write_json, write_text

CHECKSUMS = "SHA256SUMS"
#: A detached signature of it, which nobody needs and which is made afterwards.
SIGNATURE = f"{CHECKSUMS}.sig"

#: What tools write between the space after a sum and the name itself.
_OTHERS = re.compile(r"^[ *]?(\./+)*")

#: What is remembered, below the folder of the run: path -> size, time in nanoseconds, SHA-256.
MEMORY = Path(".snakemake/dollmaker/contents.json")

Known = dict[str, list[Any]]

#: A file that is younger may be written to again within the same tick of the clock.
_YOUNG_NS = 2_000_000_000


def checksums(folder: Path) -> str:
    """Lines of SHA256SUMS for every file of a folder but itself, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in _sums(folder).items())


def verify_checksums(folder: Path) -> dict[str, str]:
    """What is wrong with the files of a folder that has its SHA256SUMS.

    File -> fault. Comments are passed over: releases of version 0.1 end with one.

    Raises:
        ArtifactError: If there is no SHA256SUMS.
    """
    if not (folder / CHECKSUMS).is_file():
        raise ArtifactError(f"{folder} holds no {CHECKSUMS}; give the folder of a release.")
    listed, found = _listed(folder), _sums(folder)
    faults: dict[str, str] = {}
    for name, digest in listed.items():
        try:
            inside(folder, name)
        except DataError as error:
            faults[CHECKSUMS] = str(error)
            continue
        if name not in found:
            faults[name] = "missing"
        elif found[name] != digest:
            faults[name] = f"sha256 differs from that in {CHECKSUMS}"
    links = (path for path in folder.rglob("*") if path.is_symlink() and not path.is_file())
    more = [*found, *sorted(path.relative_to(folder).as_posix() for path in links)]
    extra = [name for name in more if name not in listed]
    return faults | dict.fromkeys(extra, f"not listed in {CHECKSUMS}")


def require_listed(folder: Path, start: str) -> None:
    """Refuse a folder that lacks a file whose name begins so, if its SHA256SUMS lists one.

    What is not there would pass for nothing to read: no mask, where there are some. A folder that
    has no SHA256SUMS (yet) says nothing of it.

    Raises:
        ArtifactError: With the file's name.
    """
    names = _listed(folder) if (folder / CHECKSUMS).is_file() else {}
    for name in names:
        if name.startswith(start) and not (folder / name).is_file():
            raise ArtifactError(f"{folder} lacks {name}, which {CHECKSUMS} lists; get it again.")


def _listed(folder: Path) -> dict[str, str]:
    """File -> SHA-256, as SHA256SUMS has them.

    Those of other tools are read, too: lines that end with CR LF, a byte order mark, a star before
    a name, ``./`` before it, sums in capitals.
    """
    text = (folder / CHECKSUMS).read_bytes().decode("utf-8-sig", errors="replace")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    parts = (line.partition(" ") for line in lines if line and line[0] != "#")
    return {_OTHERS.sub("", name): digest.lower() for digest, _, name in parts}


def _sums(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    names = [name for name in names if name not in (CHECKSUMS, SIGNATURE)]
    with ThreadPoolExecutor(cores()) as pool:  # hashing lets other threads run
        digests = pool.map(lambda name: sha256_file(folder / name), names)
        return dict(zip(names, digests, strict=True))


def content(
    files: Sequence[str],
    listed: Sequence[str] = (),
    named: Sequence[str] = (),
    memory: Path = MEMORY,
) -> str:
    """One short checksum of files and folders of the user's.

    A file is read once. Its checksum is remembered with its size and time, and it is read again
    when one of them is another.

    Args:
        files: Files or folders whose bytes count, in folders with the names of all files. What
            does not exist counts as absent.
        listed: Folders of which the names and sizes of files count: reading takes too long.
        named: Folders of which the names of files count.
        memory: File that keeps checksums of files; one that is damaged counts as empty.
    """
    return _content(tuple(files), tuple(listed), tuple(named), memory.absolute())


@lru_cache
def _content(
    files: tuple[str, ...], listed: tuple[str, ...], named: tuple[str, ...], memory: Path
) -> str:
    """The same, once a process: every fine-tuning of a task asks for it."""
    with _remembering(memory) as known:
        lines = [f"{name} {_sum(file, known)}" for name, file in _walk(files)]
    lines += [f"{name} {file.stat().st_size}" for name, file in _walk(listed)]
    lines += [name for name, _ in _walk(named)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()[:16]


def sha256(file: Path, memory: Path = MEMORY) -> str:
    """SHA-256 of one file, read again only when it is another."""
    with _remembering(memory) as known:
        return _sum(file, known)


@contextmanager
def _remembering(memory: Path) -> Iterator[Known]:
    """The checksums that are known, and written down if there are others afterwards."""
    known = _read(memory)
    before = dict(known)
    yield known
    if known != before:
        with suppress(OSError):  # files are read again next time
            write_json(memory, known)


def _walk(paths: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Files, and all files below folders with their names in them, sorted."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(_below(path))
        elif path.is_file():
            yield "", path


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder; links to folders are followed once."""
    seen = set()
    for place, names, files in os.walk(folder, followlinks=True):
        seen.add(Path(place).resolve())
        names[:] = [name for name in names if Path(place, name).resolve() not in seen]
        for name in files:
            path = Path(place, name)
            if path.is_file():  # no broken link
                yield path.relative_to(folder).as_posix(), path


def _sum(file: Path, known: Known) -> str:
    """SHA-256 of a file, read if it is not known as it is."""
    path, stat = str(file.absolute()), file.stat()
    now = [stat.st_size, stat.st_mtime_ns]
    if known.get(path, [])[:2] == now:
        return str(known[path][2])
    found = sha256_file(file)
    if time.time_ns() - stat.st_mtime_ns > _YOUNG_NS:
        known[path] = [*now, found]
    return found


def _read(memory: Path) -> Known:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {path: one for path, one in found.items() if isinstance(one, list) and len(one) == 3}


if __name__ == "__main__":
    write_text(Path(sys.argv[2]), checksums(Path(sys.argv[1])))
