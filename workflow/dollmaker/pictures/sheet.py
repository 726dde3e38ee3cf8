"""Tiles side by side and rows below each other, with words; and pictures as PNG."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dollmaker.pictures.overlay import Colour, Rgb

_GAP = 3
_TEXT, _LINE = 12, 17


def strip(tiles: Sequence[Rgb]) -> Rgb:
    """Tiles of one height side by side."""
    gap = np.full((tiles[0].shape[0], _GAP, 3), 128, dtype=np.uint8)
    row = [piece for tile in tiles for piece in (tile, gap)][:-1]
    return np.concatenate(row, axis=1)


def sheet(
    rows: Sequence[tuple[str, Sequence[Rgb]]],
    *,
    titles: Sequence[str] = (),
    beside: bool = False,
) -> Rgb:
    """Rows of tiles on white ground.

    Args:
        rows: Words of each row, of one or several lines, and its tiles.
        titles: Words over the tiles of the first row.
        beside: Words of rows are on their left, not above them.
    """
    pen = _Pen()
    words = max((pen.width(text) + 2 * _GAP for text, _ in rows if text), default=0)
    left, high = (words, 0) if beside else (0, _high([text for text, _ in rows]))
    wide = []
    for k in range(max((len(tiles) for _, tiles in rows), default=0)):
        found = [tiles[k].shape[1] for _, tiles in rows if k < len(tiles)]
        found += [pen.width(title) + 2 * _GAP for title in titles[k : k + 1]]
        wide.append(max(found))
    heights = [
        max([_high([text]) * beside, *(tile.shape[0] for tile in tiles)]) for text, tiles in rows
    ]
    top = _high(titles)
    across = max(left + sum(wide) + _GAP * len(wide), words)
    down = top + sum(heights) + (high + _GAP) * len(rows)
    picture = Image.new("RGB", (max(1, across), max(1, down)), "white")
    pen.on(picture)
    xs = left + np.cumsum([0, *(width + _GAP for width in wide)])
    for x, title in zip(xs.tolist(), titles, strict=False):
        pen.write((x + 2, 0), title)
    y = top
    for (text, tiles), height in zip(rows, heights, strict=True):
        pen.write((2, y), text)
        for x, tile in zip(xs.tolist(), tiles, strict=False):
            picture.paste(Image.fromarray(tile), (x, y + high))
        y += height + high + _GAP
    return np.asarray(picture)


def _high(texts: Sequence[str]) -> int:
    """Pixels for the highest of some words."""
    return max((_LINE * (1 + text.count("\n")) for text in texts if text), default=0)


def captioned(picture: Rgb, lines: Sequence[tuple[str, Colour]]) -> Rgb:
    """A picture with coloured lines of words below it, on black, as wide as they need."""
    pen = _Pen()
    height, width = picture.shape[:2]
    across = max([width, *(pen.width(text) + 4 for text, _ in lines)])
    whole = Image.new("RGB", (across, height + _LINE * len(lines)))
    whole.paste(Image.fromarray(picture))
    pen.on(whole)
    for number, (text, colour) in enumerate(lines):
        pen.write((2, height + _LINE * number), text, colour)
    return np.asarray(whole)


class _Pen:
    """Writes words of one size."""

    def __init__(self) -> None:
        self._font = ImageFont.load_default(_TEXT)
        self.on(Image.new("RGB", (1, 1)))

    def on(self, picture: Image.Image) -> None:
        """Write on a picture from now on."""
        self._draw = ImageDraw.Draw(picture)

    def width(self, text: str) -> int:
        """Of words in pixels."""
        return int(self._draw.multiline_textbbox((0, 0), text, font=self._font)[2]) + 1

    def write(self, place: tuple[int, int], text: str, colour: str | Colour = "black") -> None:
        """Write words below and on the right of a place."""
        self._draw.multiline_text(place, text, fill=colour, font=self._font, spacing=3)


def to_png(picture: Rgb, *, colours: int | None = 256) -> bytes:
    """PNG with a palette of so many colours: fewer bytes, and the same to the eye; or of all.

    Maximum coverage keeps the colours of small masks, which median cut gives to more greys.
    """
    image = Image.fromarray(picture)
    if colours:
        how = Image.Quantize.MAXCOVERAGE
        image = image.quantize(colours, method=how, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
