"""True masks, for scores only. Three forms: CheXlocalize's JSON, PNG files, and NIH's boxes."""

import csv
import io
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import rle
from dollmaker.errors import DataError
from dollmaker.files import inside
from dollmaker.findings import PRESENT
from dollmaker.prepare.images import FORMATS, read_bytes

Mask = npt.NDArray[np.bool_]
Row = Mapping[str, Any]

#: CheXpert's name -> CheXlocalize's (Saporta et al. 2022).
_ALIASES = {"Lung Opacity": "Airspace Opacity"}

#: BBox_List_2017.csv's name -> that of Data_Entry_2017.
_BOX_ALIASES = {"Infiltrate": "Infiltration"}


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
    if options["kind"] == "boxes":
        return Boxes(inside(data_root, options["file"]), options["space"])
    return MaskFiles(
        inside(data_root, options["folder"]),
        options["targets"],
        config["prepare"]["max_pixels"],
        bits=options["encoding"] == "bits",
        findings=options["findings"],
        when_labelled=options["when_labelled"],
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


class Boxes:
    """``BBox_List_2017.csv`` of ChestX-ray14: rectangles around findings, drawn on 1024 pixels.

    The boxes of a finding in an image are its truth; of an image's other findings, and of images
    without a box, nothing is known.

    Args:
        file: The table. Its header row is irregular, so columns are taken by their place: image,
            finding, left, top, width, height.
        space: Side of the square that the boxes were drawn on; they are scaled from there to the
            image's own size.
    """

    #: The one area: the rectangles.
    TARGET = "box"

    def __init__(self, file: Path, space: int) -> None:
        self.targets = [self.TARGET]
        self._space = space
        self._boxes: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        try:
            rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
        except FileNotFoundError:
            raise DataError(
                f"truth file {file} does not exist; correct truth.file or data_root."
            ) from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"truth file {file} is not CSV ({error}); download it again.") from None
        for line, row in enumerate(rows[1:], start=2):
            if not any(row):
                continue
            try:
                box = tuple(float(text) for text in row[2:6])
            except ValueError:
                box = ()
            if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
                raise DataError(
                    f"truth file {file} line {line}: no image, finding, left, top, width and "
                    "height; correct the line."
                )
            finding = _BOX_ALIASES.get(row[1].strip(), row[1].strip())
            self._boxes.setdefault((PurePosixPath(row[0].strip()).stem, finding), []).append(box)

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        boxes = self._boxes.get((PurePosixPath(row["path"]).stem, finding))
        if boxes is None:
            return None
        width, height = row["width"], row["height"]
        area = np.zeros((height, width), dtype=bool)
        for left, top, wide, high in boxes:
            across = _pixels(left, wide, width / self._space, width)
            area[_pixels(top, high, height / self._space, height), across] = True
        return area


def _pixels(start: float, length: float, scale: float, side: int) -> slice:
    """A box's side in pixels of the image, at least one, inside the image."""
    first = min(max(round(start * scale), 0), side - 1)
    return slice(first, max(first + 1, min(round((start + length) * scale), side)))


class MaskFiles:
    """PNG files with one pixel value or bit per area, named in the index column ``mask``.

    The truth of each finding whose label is 1 is the target's area; nothing is known of others.

    Args:
        folder: Folder of the files.
        targets: Name -> pixel values, or bit values, that belong to it.
        max_pixels: Larger files are refused.
        bits: A pixel holds a sum of bits (8 or 16 of them), not one value.
        findings: The findings whose truth the masks are; ``None`` means all.
        when_labelled: Only where the finding's label is 1; else in every image that has a mask,
            an empty area being known as empty.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[int]],
        max_pixels: int,
        *,
        bits: bool = False,
        findings: Sequence[str] | None = None,
        when_labelled: bool = True,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"mask folder {folder} does not exist; correct truth.folder.")
        self.targets = list(targets)
        self._values = {name: np.array(values) for name, values in targets.items()}
        self._folder = folder
        self._max_pixels = max_pixels
        self._bits = bits
        self._findings = findings
        self._when_labelled = when_labelled
        self._last: tuple[str, npt.NDArray[Any]] | None = None

    def mask(self, row: Row, finding: str, target: str) -> Mask | None:
        """See :meth:`Truth.mask`."""
        if row.get("mask") is None:
            return None
        if self._findings is not None and finding not in self._findings:
            return None
        if self._when_labelled and row.get(finding) != PRESENT:
            return None
        if self._last is None or self._last[0] != row["image_id"]:
            self._last = (row["image_id"], self._read(row))
        if self._bits:
            wanted = int(np.bitwise_or.reduce(self._values[target]))
            return np.asarray(self._last[1].astype(np.int64) & wanted != 0)
        return np.isin(self._last[1], self._values[target])

    def _read(self, row: Row) -> npt.NDArray[Any]:
        path = inside(self._folder, row["mask"])
        where = f"true mask {row['mask']!r} of {row['image_id']!r}"
        return read_mask_file(path, where, row, self._max_pixels)


def read_mask_file(path: Path, where: str, row: Row, max_pixels: int) -> npt.NDArray[Any]:
    """The pixel values (height, width) of a picture of an image's true masks.

    Args:
        path: The file.
        where: What it is, for messages.
        row: The image: ``width`` and ``height``.
        max_pixels: Larger files are refused.

    Raises:
        DataError: If it is no picture with one value a pixel, or not of the image's size.
    """
    try:
        data = read_bytes(path, max_pixels)
    except DataError as error:
        raise DataError(f"{where}: {error}; correct the mask column.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _require_size(where, [image.height, image.width], [row["height"], row["width"]])
                if image.width * image.height > max_pixels:
                    raise DataError(f"{where} is over prepare.max_pixels; raise it.")
                values = np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise DataError(
            f"{where} is not a readable image ({type(error).__name__}); replace it."
        ) from None
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise DataError(f"{where} has colours; save it as grey or palette PNG, one value a class.")
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
