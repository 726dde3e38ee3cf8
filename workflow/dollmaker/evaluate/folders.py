"""True masks as picture files that a user of a release has, by name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.errors import ConfigError, DataError
from dollmaker.evaluate.truth import Boxes, Chexlocalize, Mask, Row, Truth, read_mask_file
from dollmaker.files import safe_name

_MAX_PIXELS = 100_000_000


def open_truth(
    path: Path, findings: Sequence[str], classes: Mapping[str, Sequence[int]], space: int
) -> Truth:
    """The truth in a file or folder; its form shows in its name and content.

    Args:
        path: CheXlocalize's JSON, NIH's CSV of boxes, a folder ``{finding}/{image_id}.png``, or a
            folder ``{image_id}.png`` whose pixel values are classes.
        findings: The findings that are scored.
        classes: Finding -> its pixel values, for files with classes.
        space: Side of the square that boxes were drawn on.

    Raises:
        DataError: If there is nothing, or it is not as described.
        ConfigError: If files have classes and nobody says which.
    """
    if path.is_dir():
        if classes:
            return ClassFiles(path, classes)
        if not any(_folders(path, finding, split) for finding in findings for split in _SPLITS):
            raise ConfigError(
                f"{path} has no folder named as a finding; give the pixel values of the classes "
                f"of its files, e.g. --classes {safe_name(findings[0])}=1."
            )
        return FindingFolders(path)
    if path.suffix.lower() == ".json":
        return Chexlocalize([path], findings)
    if path.suffix.lower() == ".csv":
        return Boxes(path, space)
    raise DataError(
        f"{path} is no truth; give CheXlocalize's JSON, a CSV of boxes or a folder of PNG files."
    )


_SPLITS = (".", "train", "valid", "test")


class FindingFolders:
    """``{finding}/{image_id}.png``, the finding where a pixel is not 0.

    Folders may lie in one of the split's name; an image is named by its image_id, by that as a
    harmless file name, or by the name of its file in the source. Where there is no file, nothing
    is known.
    """

    TARGET = "finding"

    def __init__(self, folder: Path) -> None:
        self.targets = [self.TARGET]
        self._folder = folder

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        path = _find(_folders(self._folder, finding, row["split"]), row)
        if path is None:
            return None
        where = f"true mask {path} of {finding!r}"
        return np.asarray(read_mask_file(path, where, row, _MAX_PIXELS) != 0)


class ClassFiles:
    """``{image_id}.png`` with a class in each pixel; found as by :class:`FindingFolders`.

    Args:
        folder: Folder of the files.
        classes: Finding -> its pixel values.
    """

    TARGET = "finding"

    def __init__(self, folder: Path, classes: Mapping[str, Sequence[int]]) -> None:
        self.targets = [self.TARGET]
        self._folder = folder
        self._classes = classes
        self._last: tuple[str, npt.NDArray[Any] | None] | None = None

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        if finding not in self._classes:
            return None
        if self._last is None or self._last[0] != row["image_id"]:
            path = _find([self._folder / row["split"], self._folder], row)
            where = f"true mask {path}"
            read = None if path is None else read_mask_file(path, where, row, _MAX_PIXELS)
            self._last = row["image_id"], read
        values = self._last[1]
        return None if values is None else np.isin(values, self._classes[finding])


def _folders(root: Path, finding: str, split: str) -> list[Path]:
    """Folders of a finding that there are."""
    names = (finding, safe_name(finding))
    parents = (root / split, root)
    found = (parent / name for parent in parents for name in names if _plain(name))
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _find(folders: Iterable[Path], row: Row) -> Path | None:
    for folder in folders:
        for name in _names(row):
            if (folder / f"{name}.png").is_file():
                return folder / f"{name}.png"
    return None


def _names(row: Row) -> Iterator[str]:
    yield from filter(_plain, (row["image_id"], safe_name(row["image_id"])))
    yield PurePosixPath(row["path"]).stem


def _plain(name: str) -> bool:
    """Whether a name from a table is one part of a path, not a way out of the folder."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
