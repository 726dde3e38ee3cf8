"""True masks, for scores only. Two forms: CheXlocalize's JSON files and PNG files."""

import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import rle
from dollmaker.errors import DataError
from dollmaker.files import inside
from dollmaker.findings import PRESENT

Mask = npt.NDArray[np.bool_]
Row = Mapping[str, Any]

#: CheXpert's name -> CheXlocalize's (Saporta et al. 2022).
_ALIASES = {"Lung Opacity": "Airspace Opacity"}


class Truth(Protocol):
    """Where the findings of an image really are.

    Attributes:
        targets: Names of the areas that masks are scored against; the first is the headline.
    """

    targets: list[str]

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """The true mask of a finding in an image.

        Args:
            row: A row of the index.
            finding: A finding.
            target: One of ``targets``.

        Returns:
            bool of shape (height, width) of the source, all False where the finding is known to
            be absent; ``None`` where nothing is known.

        Raises:
            DataError: If the mask is damaged or of another size than the image.
        """
        ...


def load_truth(config: Mapping[str, Any], data_root: Path, findings: Iterable[str]) -> Truth | None:
    """Open the configured truth.

    Args:
        config: The resolved configuration.
        data_root: Folder of the source data.
        findings: The findings that are scored.

    Returns:
        The truth, or ``None`` if none is configured.

    Raises:
        DataError: If a file is missing or is not as described.
    """
    options = config["truth"]
    if options is None:
        return None
    if options["kind"] == "chexlocalize":
        files = [inside(data_root, name) for name in options["files"]]
        return Chexlocalize(files, findings)
    return MaskFiles(
        inside(data_root, options["folder"]), options["targets"], config["prepare"]["max_pixels"]
    )


class Chexlocalize:
    """``{image_id: {finding: {"size": [h, w], "counts": "<COCO RLE>"}}}``.

    A finding that occurs in no entry of any file is unknown everywhere; one that occurs somewhere
    but not in an image's entry is absent there.

    Args:
        files: JSON files; later ones add images.
        findings: The findings that are scored.
    """

    #: The one area: the finding itself.
    TARGET = "finding"

    def __init__(self, files: Sequence[Path], findings: Iterable[str]) -> None:
        self.targets = [self.TARGET]
        self._entries: dict[str, dict[str, Any]] = {}
        for file in files:
            self._entries.update(_read_entries(file))
        named = {name for entry in self._entries.values() for name in entry}
        self._names = {
            finding: name
            for finding in findings
            for name in (finding, _ALIASES.get(finding, finding))
            if name in named
        }

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        entry, name = self._entries.get(row["image_id"]), self._names.get(finding)
        if entry is None or name is None:
            return None
        if name not in entry:
            return np.zeros((row["height"], row["width"]), dtype=bool)
        return _decode(entry[name], row, finding)


def _read_entries(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"truth file {file} does not exist; correct truth.files or data_root."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"truth file {file} is not JSON ({error}); download it again.") from None
    if not isinstance(content, dict) or not all(isinstance(e, dict) for e in content.values()):
        raise DataError(
            f"truth file {file} is not of the form {{image: {{finding: RLE}}}}; use CheXlocalize's "
            "gt_segmentations files."
        )
    return content


def _decode(code: Any, row: Row, finding: str) -> Mask:
    """Decode one run-length code, after its size was compared with the image's."""
    where = f"true mask of {finding!r} in {row['image_id']!r}"
    if not isinstance(code, dict) or not isinstance(code.get("counts"), str):
        raise DataError(f"{where} is not a COCO run-length code; correct the truth file.")
    size = [row["height"], row["width"]]
    _require_size(where, code.get("size"), size)
    try:
        return rle.decode(code["counts"], row["height"], row["width"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


class MaskFiles:
    """PNG files with one pixel value per area, named in the index column ``mask``.

    The truth of each finding whose label is 1 is the target's area; nothing is known of others.

    Args:
        folder: Folder of the files.
        targets: Name -> pixel values that belong to it.
        max_pixels: Larger files are refused.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Sequence[int]], max_pixels: int) -> None:
        if not folder.is_dir():
            raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
        self.targets = list(targets)
        self._values = {name: np.array(values) for name, values in targets.items()}
        self._folder = folder
        self._max_pixels = max_pixels
        self._last: tuple[str, npt.NDArray[Any]] | None = None

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        if row.get("mask") is None or row.get(finding) != PRESENT:
            return None
        if self._last is None or self._last[0] != row["image_id"]:
            self._last = (row["image_id"], self._read(row))
        return np.isin(self._last[1], self._values[target])

    def _read(self, row: Row) -> npt.NDArray[Any]:
        path = inside(self._folder, row["mask"])
        where = f"true mask {row['mask']!r} of {row['image_id']!r}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{where} is not readable ({error.strerror}); correct the mask column."
            ) from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(data)) as image:
                    _require_size(where, [image.height, image.width], [row["height"], row["width"]])
                    if image.width * image.height > self._max_pixels:
                        raise DataError(f"{where} is over prepare.max_pixels; raise it.")
                    values = np.asarray(image)
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on hostile bytes
            raise DataError(
                f"{where} is not a readable image ({type(error).__name__}); replace it."
            ) from None
        if values.ndim != 2 or values.dtype.kind not in "bui":
            raise DataError(
                f"{where} has colours; save it as grey or palette PNG, one value a class."
            )
        return values


def _require_size(where: str, size: Any, wanted: list[int]) -> None:
    if not isinstance(size, (list, tuple)) or list(size) != wanted:
        found = (
            "x".join(str(side) for side in reversed(size)) if isinstance(size, list) else "unknown"
        )
        raise DataError(
            f"{where} is {found[:40]}, the image is {wanted[1]}x{wanted[0]} pixels; use truth "
            "drawn on these very images (CheXlocalize needs the full-size CheXpert)."
        )
