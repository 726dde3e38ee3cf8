"""True masks as picture files that a user of a release has, by name."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dollmaker.evaluate.truth import (
    EMPTY,
    UNKNOWN,
    Boxes,
    Chexlocalize,
    Mask,
    Missing,
    Row,
    Truth,
    nothing,
    read_mask_file,
    read_number_file,
)
from dollmaker.pixels.formats import MAX_PIXELS
from dollmaker.pixels.levels import Numbers
from dollmaker.pixels.masks import Ints
from dollmaker.pixels.names import Names, list_pictures
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.files import safe_name


def open_truth(
    path: Path,
    findings: Sequence[str],
    classes: Mapping[str, Sequence[int]],
    space: int | None,
    missing: Missing = UNKNOWN,
) -> Truth:
    """The truth in a file or folder; its form shows in its name and content.

    Args:
        path: CheXlocalize's JSON, a table of boxes, a folder ``{finding}/{image}.png``, or a folder
            ``{image}.png`` whose pixel values are classes.
        findings: The findings that are scored.
        classes: Finding -> its pixel values, for files with classes.
        space: Side of the square that boxes were drawn on; ``None``: each image's own pixels.
        missing: What an image is that the truth has no entry or file of.

    Raises:
        DataError: If there is nothing, or it is not as described.
        ConfigError: If files have classes and nobody says which.
    """
    if path.is_dir():
        if classes:
            return ClassFiles(path, classes, missing)
        places = ("", *_SPLITS)
        if not any(_folders(path, finding, split) for finding in findings for split in places):
            raise ConfigError(
                f"{path} has no folder named as a finding; give the pixel values of the classes "
                f"of its files, e.g. --classes {safe_name(findings[0])}=1."
            )
        return FindingFolders(path, missing)
    if path.suffix.lower() == ".json":
        return Chexlocalize([path], findings, missing)
    if path.name.lower().endswith((".csv", ".tsv", ".csv.gz", ".parquet", ".pq")):
        return Boxes(path, space, findings, missing)
    raise DataError(
        f"{path} is no truth; give CheXlocalize's JSON, a CSV of boxes or a folder of pictures."
    )


_SPLITS = ("train", "valid", "test")


class FindingFolders:
    """``{finding}/{image}.png``, the finding where a mask is not black.

    Folders may lie in one of the split's name, and be written in another case; a mask is called
    by the image_id, by that as a harmless file name, or as its image in the source, with any
    suffix of pictures. Where there is no file, nothing is known, unless ``missing`` says that the
    finding is absent there.
    """

    TARGET = "finding"
    option = "the files"

    def __init__(self, folder: Path, missing: Missing = UNKNOWN) -> None:
        self.targets = [self.TARGET]
        self._missing = missing
        self._folder = folder
        self._drawn: set[bool] = set()
        self._known: dict[tuple[str, str], list[_Folder]] = {}

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        key = (finding, row["split"])
        if key not in self._known:
            self._known[key] = [_Folder(path) for path in _folders(self._folder, *key)]
        path = _find(self._known[key], row)
        if path is None:
            absent = self._missing == EMPTY and self._known[key]
            return nothing(row) if absent else None
        area = read_mask_file(path, f"true mask {path} of {finding!r}", row, MAX_PIXELS)
        self._drawn.add(bool(area.any()))
        return area

    def fault(self, some: bool = False) -> str:
        """See :meth:`Truth.fault`."""
        return f"all masks of {self._folder} are black" if self._drawn == {False} else ""


class ClassFiles:
    """``{image}.png`` with a class in each pixel; found as by :class:`FindingFolders`.

    Args:
        folder: Folder of the files.
        classes: Finding -> its pixel values.
        missing: What an image without a file is.
    """

    TARGET = "finding"
    option = "--classes"

    def __init__(
        self, folder: Path, classes: Mapping[str, Sequence[int]], missing: Missing = UNKNOWN
    ) -> None:
        self.targets = [self.TARGET]
        self._missing = missing
        self._classes = classes
        self._numbers = Numbers(classes)
        places = [folder / split for split in _SPLITS]
        self._known = {path.name: _Folder(path) for path in places if path.is_dir()}
        self._known[""] = _Folder(folder)
        self._last: tuple[str, Ints | None] | None = None

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        if finding not in self._classes:
            return None
        if self._last is None or self._last[0] != row["image_id"]:
            self._last = row["image_id"], self._read(row)
        values = self._last[1]
        if values is None:
            return nothing(row) if self._missing == EMPTY else None
        return self._numbers.area(values, finding)

    def _read(self, row: Row) -> Ints | None:
        path = _find([self._known[k] for k in (row["split"], "") if k in self._known], row)
        if path is None:
            return None
        return read_number_file(path, f"true mask {path}", row, MAX_PIXELS, self._numbers)

    def fault(self, some: bool = False) -> str:
        """See :meth:`Truth.fault`."""
        return self._numbers.fault(some)


class _Folder:
    """A folder of masks, listed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = Names(list_pictures(path), f"masks of {path}")


def _folders(root: Path, finding: str, split: str) -> list[Path]:
    """Folders of a finding that there are, whatever the case of their names."""
    wanted = {finding.lower(), safe_name(finding).lower()}
    found = []
    for parent in (root / split, root):
        there = [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
        exact = [path for path in there if path.name in (finding, safe_name(finding))]
        found += exact or [path for path in there if path.name.lower() in wanted]
    return found


def _find(folders: Iterable[_Folder], row: Row) -> Path | None:
    for folder in folders:
        for identifier in (row["image_id"], safe_name(row["image_id"])):
            name = folder.names.find(row["path"], identifier)
            if name is not None:
                return folder.path / name
    return None
