"""Sheets of pictures: many small pictures in one file, each in a cell of fixed size."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.pictures.overlay import colour_map
from dollmaker.runtime.errors import DataError

#: Name, longest side in pixels, cells a row of the sheet, quality of the JPEG. Tiles come from
#: small sheets; large ones, for the large view, are made where pictures are larger than a tile's.
SIZES = (("small", 128, 6, 85), ("large", 512, 4, 90))
#: Compressed blocks are at most this long: cells that start at multiples never bleed.
_STEP = 16

Picture = npt.NDArray[np.uint8]


class Sheets:
    """Writes pictures one after the other; picture ``n`` is cell ``n % (columns * columns)``.

    Sheets are called ``{stem}-{number}.jpg``. They have as many rows as columns, of pictures with
    this side in pixels. ``quality`` is that of the JPEG, 1 to 95.
    """

    def __init__(self, stem: Path, side: int, columns: int, quality: int) -> None:
        self.pitch = -(-(side + 2) // _STEP) * _STEP
        self._stem, self._side, self._columns, self._quality = stem, side, columns, quality
        self._cells: list[Picture] = []
        self._written = 0

    def add(self, picture: Image.Image) -> None:
        """Append a picture, grey or RGB; its border is drawn out to the edge of the cell."""
        if picture.size != (self._side, self._side):
            picture = picture.resize((self._side, self._side), Image.Resampling.BOX)
        pixels, edge = np.asarray(picture), (0, self.pitch - self._side)
        edges = (edge, edge, (0, 0))[: pixels.ndim]
        self._cells.append(np.pad(pixels, edges, mode="edge"))
        if len(self._cells) == self._columns**2:
            self._flush()

    def close(self) -> dict[str, int]:
        """Write the last sheet; what the page needs to find a cell: side, pitch and columns."""
        if self._cells:
            self._flush()
        return {"side": self._side, "pitch": self.pitch, "columns": self._columns}

    def _flush(self) -> None:
        colour = any(cell.ndim == 3 for cell in self._cells)
        columns = min(self._columns, len(self._cells))
        rows = -(-len(self._cells) // self._columns)
        sheet = Image.new("RGB" if colour else "L", (columns * self.pitch, rows * self.pitch))
        for place, cell in enumerate(self._cells):
            y, x = divmod(place, self._columns)
            sheet.paste(Image.fromarray(cell), (x * self.pitch, y * self.pitch))
        self._stem.parent.mkdir(parents=True, exist_ok=True)
        path = self._stem.with_name(f"{self._stem.name}-{self._written:04d}.jpg")
        sheet.save(path, format="JPEG", quality=self._quality, optimize=True)
        self._written += 1
        self._cells = []


def write_sheets(
    folder: Path,
    name: str,
    keys: Iterable[Any],
    read: Callable[[Any], Picture | None],
    show: Callable[[Picture, str], Image.Image],
) -> dict[str, Any] | None:
    """Write the pictures of all keys, in the order of the page, into sheets called by a name.

    ``read`` gives the pixels of a key, or ``None`` where there are none. ``show`` makes the picture
    of them; it also gets words for an error.

    Returns:
        ``slots`` (place of each key's picture, -1 without one), ``count`` of pictures and, by
        size, where cells lie; ``None`` if there is not one picture.

    Raises:
        DataError: If pixels are not uint8 of a square.
    """
    slots: list[int] = []
    sheets: dict[str, Sheets] = {}
    count = 0
    for key in keys:
        pixels = read(key)
        if pixels is None:
            slots.append(-1)
            continue
        picture = show(pixels, f"{name} of {key!r}")
        if not sheets:
            sheets = {
                size: Sheets(folder / f"{name}-{size}", min(side, picture.width), columns, quality)
                for size, side, columns, quality in SIZES
                if size == "small" or picture.width > SIZES[0][1]
            }
        for sheet in sheets.values():
            sheet.add(picture)
        slots.append(count)
        count += 1
    if not sheets:
        return None
    cells = {size: sheet.close() for size, sheet in sheets.items()}
    return {"slots": slots, "count": count, **cells}


def as_image(pixels: Picture, where: str) -> Image.Image:
    """A source image (S, S), (1, S, S), or (3, S, S) in colours.

    Raises:
        DataError: If it is not uint8 of a square.
    """
    _check(pixels, where)
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0]
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def as_heat(pixels: Picture, where: str) -> Image.Image:
    """A relevance map (S, S), 0 to 255, in colours from black over red to yellow.

    Raises:
        DataError: If it is not uint8 of a square.
    """
    _check(pixels, where)
    if pixels.ndim != 2:
        raise DataError(f"the {where} has {pixels.ndim} dimensions; give a map (S, S).")
    return Image.fromarray(colour_map("inferno", pixels).round().astype(np.uint8))


def _check(pixels: Picture, where: str) -> None:
    square = pixels.ndim in (2, 3) and pixels.shape[-1] == pixels.shape[-2] > 0
    if pixels.dtype != np.uint8 or not square:
        raise DataError(
            f"the {where} is {pixels.dtype} {pixels.shape}; give uint8 of a square, (S, S) or "
            "(C, S, S)."
        )
