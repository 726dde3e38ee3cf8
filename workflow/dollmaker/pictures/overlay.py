"""Images in colours with maps, masks and outlines over them, side by side and with words."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dollmaker.pixels.geometry import Box, Fit, box, inside, window
from dollmaker.pixels.masks import IGNORE
from dollmaker.store.depth import to_show

#: A picture, uint8 (H, W, 3).
Rgb = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

#: Told apart by people who do not tell red from green.
MASK: Colour = (255, 140, 20)
TRUTH: Colour = (40, 205, 175)
CLASSES: tuple[Colour, ...] = (
    *(MASK, (64, 145, 255), TRUTH, (215, 90, 190)),
    *((240, 215, 60), (225, 70, 60), (150, 120, 255), (255, 255, 255)),
)

_IGNORED: Colour = (150, 150, 150)

#: Pixels between tiles, of words, and of a line of words.
_GAP, _TEXT, _LINE = 3, 12, 17


def to_rgb(image: npt.NDArray[Any], shape: tuple[int, int]) -> Rgb:
    """An image (C, h, w) in levels as RGB of a height and width."""
    channels = np.moveaxis(np.broadcast_to(to_show(image), (3, *image.shape[1:])), 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(channels))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def heat(ground: Rgb, values: npt.NDArray[np.float32]) -> Rgb:
    """A map over a picture: warm where positive, blue where negative, clear at zero."""
    plain = Image.fromarray(np.nan_to_num(np.asarray(values, np.float32)))
    grid = np.asarray(plain.resize(ground.shape[1::-1], Image.Resampling.BILINEAR))
    grid = grid / max(float(np.abs(grid).max()), 1e-9)
    warm, cold = colour_map("inferno", np.abs(grid)), colour_map("winter", np.abs(grid))
    colours = np.where((grid >= 0)[..., None], warm, cold)
    share = np.clip(np.abs(grid) * 1.6, 0, 0.85)[..., None]
    return np.asarray(ground * (1 - share) * 0.9 + colours * share, dtype=np.uint8)


def colour_map(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Values 0..1 (or uint8) in the colours 0..255 of a map of matplotlib, (..., 3)."""
    places = values if values.dtype == np.uint8 else (values * 256).astype(np.int64).clip(0, 255)
    return np.asarray(_colours(name)[places])


@lru_cache
def _colours(name: str) -> npt.NDArray[np.float64]:
    import matplotlib as mpl

    return np.asarray(mpl.colormaps[name](np.arange(256))[:, :3] * 255)


def tint(ground: Rgb, masks: Mapping[Colour, npt.NDArray[Any]]) -> Rgb:
    """Masks (1, and 255 to ignore) over a picture, colour by colour, with their outlines."""
    picture = ground.astype(np.float32)
    for colour, mask in masks.items():
        codes = _scaled(mask, ground)
        for found, ink in ((codes == 1, colour), (codes == IGNORE, _IGNORED)):
            picture[found] = picture[found] * 0.55 + np.array(ink) * 0.45
        picture = outline(picture.astype(np.uint8), codes == 1, colour).astype(np.float32)
    return picture.astype(np.uint8)


def outline(ground: Rgb, mask: npt.NDArray[np.bool_], colour: Colour, *, thickness: int = 1) -> Rgb:
    """The inner edge of a mask, so many pixels wide, drawn after the mask is enlarged."""
    there = _scaled(mask, ground) == 1
    core = there
    for _ in range(thickness):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture = ground.copy()
    picture[there & ~core] = colour
    return picture


def _scaled(mask: npt.NDArray[Any], ground: Rgb) -> npt.NDArray[np.uint8]:
    if mask.shape == ground.shape[:2]:
        return mask.astype(np.uint8)
    picture = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(picture.resize(ground.shape[1::-1], Image.Resampling.NEAREST))


def panel_shape(width: int, height: int, side: int) -> tuple[int, int]:
    """Height and width of a panel: the longer side is ``side``."""
    scale = side / max(width, height)
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class Panel:
    """A picture in the shape of a source image, of what the networks' square shows of it.

    What a crop does not show is black.
    """

    shape: tuple[int, int]  #: Height and width of the panel.
    where: Box  #: The source's part of the square.
    shown: Box  #: Where it lies in the panel.

    @classmethod
    def of(cls, width: int, height: int, fit: Fit, *, size: int, side: int) -> "Panel":
        """The panel of a source; ``size`` is the square's side, ``side`` the panel's longer one."""
        shape = panel_shape(width, height, side)
        left, top, right, bottom = window(width, height, fit)
        across, down = shape[1] / width, shape[0] / height
        start = round(left * across), round(top * down)
        shown = (*start, round(right * across), round(bottom * down))
        return cls(shape, box(width, height, size, fit), shown)

    def image(self, image: npt.NDArray[Any]) -> Rgb:
        """An image (C, size, size) in levels."""
        return self._placed(self._part(image))

    def heat(self, image: npt.NDArray[Any], values: npt.NDArray[np.float32]) -> Rgb:
        """A map (size, size) over it."""
        return self._placed(heat(self._part(image), inside(values, self.where)))

    def _part(self, image: npt.NDArray[Any]) -> Rgb:
        left, top, right, bottom = self.shown
        return to_rgb(inside(image, self.where), (max(1, bottom - top), max(1, right - left)))

    def _placed(self, part: Rgb) -> Rgb:
        whole = np.zeros((*self.shape, 3), np.uint8)
        left, top = self.shown[:2]
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        return whole


def strip(tiles: Sequence[Rgb]) -> Rgb:
    """Tiles of one height side by side."""
    gap = np.full((tiles[0].shape[0], _GAP, 3), 128, dtype=np.uint8)
    row = [piece for tile in tiles for piece in (tile, gap)][:-1]
    return np.concatenate(row, axis=1)


def sheet(
    rows: Sequence[tuple[str, Sequence[Rgb]]], *, titles: Sequence[str] = (), beside: bool = False
) -> Rgb:
    """Rows of tiles on white ground, with titles over the tiles of the first.

    The words of a row, of one or several lines, are above its tiles, or ``beside`` them, on the
    left.
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
