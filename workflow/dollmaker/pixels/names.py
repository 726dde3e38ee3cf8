"""Names of files: what lies in a folder, how images are called, and which files belong together."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dollmaker.runtime.errors import DataError
from dollmaker.store.files import inside

#: Suffixes of the pictures that are read, in any case.
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".webp"),
    *(".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".dcm", ".dicom"),
}

#: Pictures that a table may name; folders hold such files for other ends, too.
_NAMED = {".npy"}

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")

#: What operating systems and archives leave beside pictures.
_JUNK = {".ds_store", "thumbs.db", "desktop.ini"}
_JUNK_FOLDERS = {"__macosx", ".appledouble", "@eadir", ".ipynb_checkpoints"}

#: What programs write where a cell is missing, in small letters.
_MISSING = {"na", "n/a", "nan", "<na>", "null", "none"}

#: Signs that no name may hold: control characters, and bytes that are not UTF-8.
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

Parts = tuple[str, ...]


def without_suffix(path: str) -> str:
    """A path without the suffix of a picture; of ``1.2.840.10`` nothing is taken."""
    pure = PurePosixPath(path)
    known = pure.suffix.lower() in SUFFIXES | _NAMED
    return path[: -len(pure.suffix)] if known else path


def image_id(path: str) -> str:
    """The ``image_id`` of a file: its path without suffix, folders joined by ``_``."""
    return "_".join(_parts(path))


def image_ids(paths: Sequence[str]) -> list[str]:
    """:func:`image_id` of each path; where two paths have the same, a part of their hash is added.

    A path that is there twice has one identifier.
    """
    known = {path: image_id(path) for path in paths}
    counts = Counter(known.values())
    for path, name in known.items():
        if counts[name] > 1:
            known[path] = f"{name}-{sha256(path.encode()).hexdigest()[:8]}"
    return [known[path] for path in paths]


def posix(path: str) -> str:
    """A path of a table in one form: Windows divides its parts by backslashes."""
    parts = path.replace("\\", "/").split("/")
    kept = "/".join(part for part in parts if part not in ("", "."))
    return f"/{kept}" if parts[0] == "" else kept


def patient(text: str) -> str:
    """The patient of a table's cell: ``1.0``, as tables with gaps have it, is patient ``1``.

    Letters with signs have one form, however a program composed them.
    """
    return unicodedata.normalize("NFC", re.sub(r"^(\d+)[.,]0+$", r"\1", text))


def mask_file(text: str | None) -> str | None:
    """The mask that a table's cell names; ``None`` if it is blank or NA, NaN, NULL, None."""
    return None if text is None or text.lower() in _MISSING else posix(text)


def is_junk(path: Path) -> bool:
    """Whether a file is what systems leave behind: ``._x``, ``Thumbs.db``, ``@eaDir/x``."""
    name = path.name.lower()
    folders = {part.lower() for part in path.parts[:-1]}
    return name.startswith("._") or name in _JUNK or not folders.isdisjoint(_JUNK_FOLDERS)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture: by its suffix, without one by its first bytes."""
    if is_junk(path) or not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as handle:
            head = handle.read(132)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or head[128:] == b"DICM"


class Tree(NamedTuple):
    """Names below a folder, sorted; hidden ones and what systems leave behind are left out."""

    top: Path  #: The folder, links resolved.
    folders: list[str]  #: Folders below it, as paths relative to it.
    files: list[str]  #: Files below it, likewise.


def walk(data_root: Path, name: str, links: bool, without: str | None = None) -> Tree:
    """List what lies below a folder; no file is opened.

    Links to folders are followed once, unless what they lead to is in the tree by its own name.
    The folder, and another ``without`` that is left out, are below the data root, which ``links``
    may leave (``allow_links``).

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

    def counts(path: Path) -> bool:
        return path.suffix.lower() in SUFFIXES if path.is_symlink() else is_picture(path)

    return [name for name in tree.files if counts(tree.top / name)]


def list_pictures(folder: Path) -> list[str]:
    """The pictures below a folder, as sorted paths relative to it; none if there is no folder.

    Whether links may be followed is asked where a file is opened.
    """
    return pictures(walk(folder, ".", links=True)) if folder.is_dir() else []


class Names:
    """Joins images to named things (masks, entries of a file) by the longest matching path.

    A thing fits an image if the path of one, without suffix, is the end of the other's: ``001``
    and ``p1/001.png`` fit ``images/p1/001.jpg``, ``p2/001`` does not. Of several the longest is
    taken. A name that fits two is refused, never taken for both. What they are is told in messages,
    in the plural: ``masks``, ``entries of x.json``.
    """

    def __init__(self, names: Iterable[str], what: str) -> None:
        self._what = what
        self._known: dict[str, list[tuple[Parts, str]]] = defaultdict(list)
        self._whole: dict[str, list[str]] = defaultdict(list)
        self._owner: dict[str, str] = {}
        for name in dict.fromkeys(names):
            parts = _parts(name)
            if parts:
                self._known[parts[-1]].append((parts, name))
                for whole in {"_".join(parts), unicodedata.normalize("NFC", name)}:
                    self._whole[whole].append(name)

    def find(self, path: str, identifier: str | None = None) -> str | None:
        """The thing of an image; ``None`` if there is none.

        An image is known by its path, with or without folders above it, and by its ``image_id``.

        Raises:
            DataError: If two things fit the image equally well, or the thing fits another image
                that was asked for before.
        """
        found = self._best(path, identifier)
        if len(found) > 1:
            raise DataError(
                f"{self._what} {found[0]!r} and {found[1]!r} both fit the image {path!r}; remove "
                "one, or name its folder."
            )
        if not found:
            return None
        owner = self._owner.setdefault(found[0], path)
        if owner != path:
            raise DataError(
                f"of the {self._what} {found[0]!r} fits the images {owner!r} and {path!r}; put the "
                "folders that tell them apart into its name."
            )
        return found[0]

    def _best(self, path: str, identifier: str | None) -> list[str]:
        parts = _parts(path)
        fitting: dict[int, list[str]] = defaultdict(list)
        for other, name in self._known.get(parts[-1], ()) if parts else ():
            shared = min(len(other), len(parts))
            if other[-shared:] == parts[-shared:]:
                fitting[shared].append(name)
        called = unicodedata.normalize("NFC", identifier or "")
        by_id = self._whole.get(called, []) if called else []
        if fitting and max(fitting) > 1:
            return list(dict.fromkeys([*fitting[max(fitting)], *by_id]))
        if fitting or by_id:
            return by_id or fitting[1]
        joined = ("_".join(parts[start:]) for start in range(len(parts) - 1))
        return next((self._whole[name] for name in joined if name in self._whole), [])


def _parts(path: str) -> Parts:
    """Folders and name without suffix, letters with signs in one form (macOS takes them apart)."""
    plain = unicodedata.normalize("NFC", without_suffix(path))
    return tuple(part for part in plain.split("/") if part not in ("", "."))
