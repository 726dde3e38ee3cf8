"""Explanations as a picture: an image with what was predicted, and each method's map over it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

from dollmaker.store.depth import to_show

Pixels = npt.NDArray[np.uint8]

_TILE, _LABEL, _TOP = 160, 130, 22
_PREDICTION, _TRUTH = (255, 60, 50), (60, 220, 90)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair.

    Attributes:
        title: Lines of text on its left.
        image: (C, H, W) in levels.
        predicted: bool (H, W).
        truth: bool (H, W).
        maps: Method -> float32 (H, W) in 0..1.
    """

    title: list[str]
    image: npt.NDArray[Any]
    predicted: npt.NDArray[np.bool_]
    truth: npt.NDArray[np.bool_]
    maps: Mapping[str, npt.NDArray[np.float32]]


def overlays(panels: Sequence[Panel], methods: Sequence[str]) -> bytes:
    """Rows: pairs. Columns: the image, then each method's map over it; PNG.

    The prediction is outlined in red, the truth in green (on the image only).
    """
    size = (_LABEL + _TILE * (1 + len(methods)), _TOP + _TILE * len(panels))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(["red predicted, green truth", *methods]):
        pen.text((_LABEL + column * _TILE + 4, 5), name, fill="black")
    for line, panel in enumerate(panels):
        top = _TOP + line * _TILE
        pen.multiline_text((4, top + 4), "\n".join(panel.title), fill="black")
        image = _colour(panel.image)
        plain = _outlined(_outlined(image, panel.truth, _TRUTH), panel.predicted, _PREDICTION)
        sheet.paste(Image.fromarray(plain), (_LABEL, top))
        for column, name in enumerate(methods, 1):
            tile = _outlined(_heated(image, panel.maps[name]), panel.predicted, _PREDICTION)
            sheet.paste(Image.fromarray(tile), (_LABEL + column * _TILE, top))
            if not panel.maps[name].any():
                pen.text((_LABEL + column * _TILE + 4, top + 4), "no relevance", fill=_PREDICTION)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _colour(image: npt.NDArray[Any]) -> Pixels:
    """A tile (T, T, 3)."""
    shown = np.broadcast_to(to_show(image), (3, *image.shape[1:]))
    colour = np.ascontiguousarray(shown.transpose(1, 2, 0))
    resized = Image.fromarray(colour).resize((_TILE, _TILE), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _heated(tile: Pixels, values: npt.NDArray[np.float32]) -> Pixels:
    """The map over a tile; where nothing is relevant the image stays as it is."""
    whole = Image.fromarray(np.asarray(values, np.float32))
    big = np.asarray(whole.resize((_TILE, _TILE), Image.Resampling.BILINEAR)).clip(0, 1)
    heat = mpl.colormaps["inferno"](big)[..., :3] * 255
    opacity = 0.75 * np.sqrt(big)[..., None]
    return np.asarray(tile * (1 - opacity) + heat * opacity).round().astype(np.uint8)


def _outlined(tile: Pixels, area: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> Pixels:
    """An outline, drawn after enlarging so that it stays thin."""
    big = np.asarray(Image.fromarray(area).resize((_TILE, _TILE), Image.Resampling.NEAREST))
    drawn = tile.copy()
    drawn[find_boundaries(big, mode="inner")] = colour
    return drawn
