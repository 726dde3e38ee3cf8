"""CheXlocalize's JSON: run lengths by image and finding."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dollmaker.pixels.annotations.codes import Mask, called, paint_runs, read_object, require_called
from dollmaker.pixels.names import Names
from dollmaker.runtime.errors import DataError

#: Finding -> run lengths, ``{"size": [h, w], "counts": text or numbers}``.
Entry = Mapping[str, Any]

#: CheXpert's name -> CheXlocalize's (Saporta et al. 2022).
_ALIASES = {"Lung Opacity": "Airspace Opacity"}


class FindingFiles:
    """``{image: {finding: {"size": [h, w], "counts": COCO's RLE}}}``, from one or more files.

    What several files say of an image is joined. A finding that occurs in no entry of any file is
    unknown everywhere; one that occurs somewhere but not in an image's entry is absent there.

    Args:
        files: JSON files.
        key: The configuration's key that names them, for messages.

    Raises:
        DataError: If a file is missing or not of the form, or if two disagree on a mask.
    """

    def __init__(self, files: Sequence[Path], key: str) -> None:
        self._entries = _join(files, key)
        self._named = {name for entry in self._entries.values() for name in entry}
        self._what = ", ".join(file.name for file in files)
        self._names = Names(self._entries, f"entries of {self._what}")

    def find(self, path: str, identifier: str | None = None) -> Entry | None:
        """The entry of an image.

        Args:
            path: Path of the image.
            identifier: Its ``image_id``.

        Returns:
            Finding, as the files call it, -> run lengths; ``None`` if there is no such image.

        Raises:
            DataError: If two entries fit the image, or the entry fits two images.
        """
        name = self._names.find(path, identifier)
        return None if name is None else self._entries[name]

    def mask(self, entry: Entry, finding: str, width: int, height: int) -> Mask | None:
        """The true mask of a finding in an image.

        Args:
            entry: The image's, of :meth:`find`.
            finding: A finding, by the files' name or by CheXpert's.
            width: The image's width in pixels.
            height: Its height in pixels.

        Returns:
            bool (height, width), all False where the finding is known to be absent; ``None`` where
            nothing is known.

        Raises:
            DataError: The reason why the mask cannot be read.
        """
        name = self._called(finding)
        if name is None:
            return None
        if name not in entry:
            return np.zeros((height, width), dtype=bool)
        return paint_runs(entry[name], width, height)

    def require(self, findings: Iterable[str]) -> None:
        """Refuse files that tell of none of these findings.

        Raises:
            DataError: Naming what they tell of.
        """
        known = [self._called(finding) or finding for finding in findings]
        require_called(known, self._named, self._what)

    def _called(self, finding: str) -> str | None:
        names = (called(name, self._named) for name in (finding, _ALIASES.get(finding, finding)))
        return next((name for name in names if name), None)


def _join(files: Sequence[Path], key: str) -> dict[str, dict[str, Any]]:
    """Image -> finding -> code, of all files."""
    joined: dict[str, dict[str, Any]] = {}
    for file in files:
        for image, entry in _read(file, key).items():
            known = joined.setdefault(image, {})
            for finding, code in entry.items():
                if known.setdefault(finding, code) != code:
                    raise DataError(
                        f"{file} has another mask of {finding[:80]!r} in {image[:80]!r} than a "
                        f"file before it; keep one of the two in {key}."
                    )
    return joined


def _read(file: Path, key: str) -> Mapping[str, Entry]:
    content = read_object(file, key)
    if not all(isinstance(entry, dict) for entry in content.values()):
        raise DataError(
            f"{file} is not of the form {{image: {{finding: RLE}}}}; use CheXlocalize's "
            "gt_segmentations files."
        )
    return content
