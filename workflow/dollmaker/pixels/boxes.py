"""Tables of rectangles around findings: ChestX-ray14's, VinDr-CXR's, MS-CXR's and the like."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from dollmaker.pixels.mask_forms import ImageFacts, OneFile, Pixels
from dollmaker.pixels.masks import require_upright
from dollmaker.pixels.names import posix
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables

#: Left, top, right and bottom.
Box = tuple[float, float, float, float]

#: BBox_List_2017.csv's name -> that of Data_Entry_2017.
_ALIASES = {"Infiltrate": "Infiltration"}

#: Names of columns, in small letters without blanks, signs and the word bbox; the first counts.
_IMAGE = (
    *("path", "imagepath", "filepath", "filename", "file", "imageindex", "imagename", "imageid"),
    *("image", "img", "imageuid", "dicomid"),
)
_FINDING = (
    *("findinglabel", "finding", "findingname", "classname", "categoryname", "labelname", "class"),
    *("category", "label", "pathology", "disease", "diagnosis"),
)

#: Left, top, right and bottom; told from the next by their last two, so they come first.
_CORNERS = (
    *("xmin ymin xmax ymax", "x1 y1 x2 y2", "x0 y0 x1 y1", "left top right bottom"),
    "xtl ytl xbr ybr",
)

#: Left, top, width and height.
_EXTENTS = ("x y", "left top", "xmin ymin", "x1 y1")
_SIZES = ("w h", "width height")

#: What stands in a cell of a row without a box.
_BLANK = {"", "na", "nan", "null", "none"}

#: So many boxes do not lie in the same quarter of their square by chance.
_MANY = 8


class _Row(NamedTuple):
    """A line of the table; ``box`` is ``None`` where it names an image without one."""

    line: int
    image: str
    finding: str
    box: Box | None


class BoxTable(OneFile):
    """Rectangles by image and finding, from a table whose header tells what its columns are.

    Names are findings. The boxes of a finding in an image are its mask; of an image's other
    findings, and of images without a box, nothing is known. ``space`` is the side in pixels of the
    square that boxes were drawn on, from which they are scaled to the image's own size; ``None``
    means that they are in pixels of the image.

    Raises:
        DataError: If the file is missing, its header or a line is not as described, or a box lies
            outside of ``space``.
    """

    def __init__(self, file: Path, space: int | None, key: str) -> None:
        rows = list(_read(file, key))
        super().__init__([row.image for row in rows], f"entries of {file.name}")
        self._file, self._space, self._key = file, space, key
        _require_space({row.line: row.box for row in rows if row.box}, space, file, key)
        self._boxes: dict[tuple[str, str], list[Box]] = defaultdict(list)
        for row in rows:
            if row.box:
                self._boxes[row.image, row.finding.casefold()].append(row.box)
        #: The findings that have boxes, as the table calls them.
        self.findings = {row.finding for row in rows if row.box}
        self._told = {finding for _, finding in self._boxes}
        self._boxed = {image for image, _ in self._boxes}
        self._inside: list[bool] = []

    def has(self, image: ImageFacts, name: str | None = None) -> bool:
        """See :meth:`Form.has`."""
        found = self.entry(image)
        return found in self._boxed if name is None else (found, name.casefold()) in self._boxes

    def tells(self, image: ImageFacts, name: str) -> bool:
        """See :meth:`Form.tells`."""
        return name.casefold() in self._told

    def area(self, image: ImageFacts, name: str) -> Pixels | None:
        """See :meth:`Form.area`; also raises if a box lies outside of what it was drawn on."""
        boxes = self._boxes.get((self.entry(image) or "", name.casefold()))
        if boxes is None:
            return None
        width, height = image.width, image.height
        if self._space is not None and 2 * max(width, height) <= self._space:
            self._inside += [not _outside(box, width, height) for box in boxes]
        across, down = self._space or width, self._space or height
        channel = np.zeros((height, width), np.uint8)
        for box in boxes:
            if _outside(box, across, down):
                raise DataError(
                    f"{self._file}: the box of {name!r} in {image.path!r} is {_tell(box)}, outside "
                    f"of the image's {width}x{height} pixels; set {self._key}.space to the side "
                    "of the pictures that boxes were drawn on."
                )
            left, top, right, bottom = box
            columns = _pixels(left, right, width / across, width)
            channel[_pixels(top, bottom, height / down, height), columns] = 1
        require_upright(image.turned)
        return channel

    def fault(self, some: bool = False) -> str:
        """Why the boxes that were asked for were drawn on something else; empty if nothing says so.

        Many boxes that all lie in the part of ``space`` that a smaller image would take are in
        pixels of the images.
        """
        if len(self._inside) < _MANY or not all(self._inside):
            return ""
        return (
            f"all boxes of {self._file} lie inside of images that are less than half as large as "
            f"{self._space}x{self._space} pixels, so they are in pixels of the images"
        )


def _pixels(start: float, end: float, scale: float, side: int) -> slice:
    """A box's side in pixels of the image, at least one, inside the image."""
    first = min(max(round(start * scale), 0), side - 1)
    return slice(first, max(first + 1, min(round(end * scale), side)))


def _outside(box: Box, width: int, height: int) -> bool:
    """Whether a box reaches out of its picture by more than a pixel; of shares, a hundredth."""
    slack = 1.0 if max(width, height) > 1 else 0.01
    return min(box) < -slack or box[2] > width + slack or box[3] > height + slack


def _require_space(boxes: Mapping[int, Box], space: int | None, file: Path, key: str) -> None:
    """Refuse boxes of lines that were drawn on another square, and shares of sides for pixels."""
    sides = [side for box in boxes.values() for side in box]
    if sides and space != 1 and max(sides) <= 1 and any(side % 1 for side in sides):
        raise DataError(
            f"{file} gives boxes as shares of the image's sides (none is over 1), not in pixels; "
            f"set {key}.space to 1."
        )
    for line, box in boxes.items():
        if space is not None and _outside(box, space, space):
            raise DataError(
                f"{file} line {line}: the box is {_tell(box)}, outside of {space}x{space} pixels; "
                f"set {key}.space to the side of the pictures that boxes were drawn on, or to null "
                "if these are the images themselves."
            )


def _tell(box: Box) -> str:
    left, top, right, bottom = box
    return f"from {left:g}, {top:g} to {right:g}, {bottom:g}"


def _read(file: Path, key: str) -> Iterator[_Row]:
    if not file.is_file():
        raise DataError(f"truth file {file} does not exist; correct {key}.file or data_root.")
    table = tables.read_source(file).with_columns(pl.all().fill_null(""))
    image_column, finding_column, box_columns, corners = _find_columns(table.columns, file)
    texts = table.select(box_columns)
    if _has_decimal_commas(text for series in texts for text in series):
        texts = texts.select(pl.all().str.replace_all(",", ".", literal=True))
    rows = zip(table[image_column], table[finding_column], texts.iter_rows(), strict=True)
    for line, (image, finding, sides) in enumerate(rows, start=2):
        if not (image or finding or any(sides)):
            continue
        blank = all(text.lower() in _BLANK for text in sides)
        box = None if blank else _read_box(sides, corners)
        if not image or not (blank or (finding and box)):
            ends = "right and bottom" if corners else "width and height"
            raise DataError(
                f"truth file {file} line {line}: no image, finding, left, top, {ends}; correct the "
                "line."
            )
        yield _Row(line, posix(image), _ALIASES.get(finding, finding), box)


def _has_decimal_commas(texts: Iterable[str]) -> bool:
    """Whether numbers are written as 1,5; one like 1,024 alone may be a thousand and more."""
    commas = [text for text in texts if "," in text]
    return not all(re.fullmatch(r"-?\d{1,3}(,\d{3})+", text) for text in commas)


def _find_columns(header: Sequence[str], file: Path) -> tuple[str, str, list[str], bool]:
    """Names of image, finding and the box, and whether that has corners, not width and height."""
    plain = [_plain(cell) for cell in header]
    names = dict(zip(plain, header, strict=True))
    image = next((name for name in _IMAGE if name in names), None)
    finding = next((name for name in _FINDING if name in names), None)
    corners = next((n.split() for n in _CORNERS if names.keys() >= set(n.split())), None)
    extents = [f"{start} {size}".split() for start in _EXTENTS for size in _SIZES]
    box = corners or next((found for found in extents if names.keys() >= set(found)), None)
    if image is None or finding is None or box is None:
        shown = ", ".join(header)[:200]
        raise DataError(
            f"truth file {file} does not tell in its header ({shown}) what its columns are; "
            "name the columns image and finding, and x, y, width, height (the box's left top "
            "corner and size) or x_min, y_min, x_max, y_max (its corners)."
        )
    twice = [name for name in (image, finding, *box) if plain.count(name) > 1]
    if twice:
        raise DataError(
            f"truth file {file} has two columns {names[twice[0]][:80]!r}; keep one of them."
        )
    return names[image], names[finding], [names[name] for name in box], corners is not None


def _plain(name: str) -> str:
    """``Bbox [x``, ``X Min`` and ``x_min`` in one form."""
    letters = re.sub(r"[^a-z0-9]+", "", name.lower())
    return letters.removeprefix("bbox").removeprefix("box")


def _read_box(texts: Sequence[str], corners: bool) -> Box | None:
    """A box with an area; ``None`` if these numbers are none."""
    try:
        left, top, *others = (float(text) for text in texts)
    except ValueError:
        return None
    right, bottom = others if corners else (left + others[0], top + others[1])
    good = all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom
    return (left, top, right, bottom) if good else None
