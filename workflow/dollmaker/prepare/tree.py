"""What lies below a folder of the user's: which files, and which of them are pictures."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from dollmaker.pixels.names import SUFFIXES, is_junk, is_picture
from dollmaker.runtime.errors import DataError
from dollmaker.store.files import inside

#: Signs that no name may hold: control characters, and bytes that are not UTF-8.
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Tree(NamedTuple):
    """Names below a folder, sorted; hidden ones and what systems leave behind are left out.

    Attributes:
        top: The folder, links resolved.
        folders: Folders below it, as paths relative to it.
        files: Files below it, likewise.
    """

    top: Path
    folders: list[str]
    files: list[str]


def walk(data_root: Path, name: str, links: bool, without: str | None = None) -> Tree:
    """List what lies below a folder; no file is opened.

    Links to folders are followed once, unless what they lead to is in the tree by its own name.

    Args:
        data_root: Folder of the source data.
        name: The folder, below the data root.
        links: Whether links may leave the data root (``allow_links``).
        without: A folder below the data root that is left out.

    Raises:
        DataError: If the folder does not exist, a link to a folder leaves the data root, or a name
            is no text.
    """
    top, root = inside(data_root, name, links), data_root.resolve()
    if not top.is_dir():
        raise DataError(f"folder {top} does not exist; correct its name or data_root.")
    closed = None if without is None else inside(data_root, without, links)
    seen: set[Path] = set()

    def enters(path: Path) -> bool:
        if path.name.startswith(".") or is_junk(path / "x"):
            return False
        real = path.resolve()
        if not links and not real.is_relative_to(root):
            raise DataError(
                f"folder {path} is a link that leaves the data root; put the files there, or set "
                "allow_links: true if you trust them."
            )
        if path.is_symlink():
            if real.is_relative_to(top) or top.is_relative_to(real) or real in seen:
                return False
            seen.add(real)
        return real != closed

    found = Tree(top, [], [])
    for place, folders, files in os.walk(top, followlinks=True):
        below = Path(place).relative_to(top)
        folders[:] = [one for one in sorted(folders) if enters(Path(place, one))]
        kept = [one for one in files if not one.startswith(".") and not is_junk(Path(one))]
        found.folders.extend((below / one).as_posix() for one in folders)
        found.files.extend((below / one).as_posix() for one in kept)
    for path in (*found.folders, *found.files):
        if _NO_TEXT.search(path):
            raise DataError(
                f"the name {path!a} below {top} holds signs that are no text; rename it."
            )
    return Tree(top, sorted(found.folders), sorted(found.files))


def pictures(tree: Tree) -> list[str]:
    """The pictures of a tree.

    A link counts by its name alone, and is not looked at: where it may not be followed, or leads
    to nothing, the stage that opens it says so.
    """
    return [name for name in tree.files if _may_be_picture(tree.top / name)]


def _may_be_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES if path.is_symlink() else is_picture(path)
