"""Explanations as a picture: an image with what was predicted, and each method's map over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pictures.overlay import MASK, TRUTH, heat, outline, to_rgb
from dollmaker.pictures.sheet import sheet, to_png

_TILE = 160


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

    The prediction is outlined in orange, the truth in teal (on the image only).
    """
    rows = []
    for panel in panels:
        ground = to_rgb(panel.image, (_TILE, _TILE))
        drawn = [outline(ground, panel.truth, TRUTH)]
        drawn += [heat(ground, panel.maps[name]) for name in methods]
        empty = [f"{name}:\nno relevance" for name in methods if not panel.maps[name].any()]
        tiles = [outline(tile, panel.predicted, MASK) for tile in drawn]
        rows.append(("\n".join([*panel.title, *empty]), tiles))
    titles = ["orange predicted, teal truth", *methods]
    return to_png(sheet(rows, titles=titles, beside=True), colours=None)
