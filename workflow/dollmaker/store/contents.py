"""Checksums of files of the user's, by their content: times do not matter.

A file is read once. Its checksum is remembered with its size and time, and it is read again when
one of them is another.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dollmaker.store.files import sha256_file, write_json

#: What is remembered, below the folder of the run: path -> size, time in nanoseconds, SHA-256.
MEMORY = Path(".snakemake/dollmaker/contents.json")

Known = dict[str, list[Any]]

#: A file that is younger may be written to again within the same tick of the clock.
_YOUNG_NS = 2_000_000_000


def content(
    files: Sequence[str],
    listed: Sequence[str] = (),
    named: Sequence[str] = (),
    memory: Path = MEMORY,
) -> str:
    """One short checksum of files and folders.

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
    known = _read(memory)
    before = dict(known)
    digest = hashlib.sha256()
    for path in map(Path, files):
        for name, file in _walk(path):
            digest.update(f"{name} {_sum(file, known)}\n".encode())
    for path in map(Path, listed):
        for name, file in _walk(path):
            digest.update(f"{name} {file.stat().st_size}\n".encode())
    for path in map(Path, named):
        for name, _ in _walk(path):
            digest.update(f"{name}\n".encode())
    if known != before:
        _write(memory, known)
    return digest.hexdigest()[:16]


def sha256(file: Path, memory: Path = MEMORY) -> str:
    """SHA-256 of one file, read again only when it is another."""
    known = _read(memory)
    before = dict(known)
    found = _sum(file, known)
    if known != before:
        _write(memory, known)
    return found


def _walk(path: Path) -> list[tuple[str, Path]]:
    """A file, or all files below a folder with their names in it, sorted."""
    if path.is_dir():
        return sorted(_below(path))
    return [("", path)] if path.is_file() else []


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


def _write(memory: Path, known: Known) -> None:
    try:
        write_json(memory, known)
    except OSError:
        return  # files are read again next time
