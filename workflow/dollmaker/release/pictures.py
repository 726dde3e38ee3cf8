"""The contact sheet of a release: masks of each finding, from the best quality to the worst."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.pictures.overlay import MASK, tint, to_rgb
from dollmaker.pictures.sheet import sheet, to_png
from dollmaker.store.rle import decode

_SIDE, _PER_ROW = 112, 8
_DARK = np.full((_SIDE, _SIDE, 3), 24, np.uint8)

ReadImage = Callable[[str], npt.NDArray[Any]]


def contact_sheet(table: pl.DataFrame, read_image: ReadImage | None) -> bytes:
    """Some masks of each finding, evenly spread over their quality, as PNG.

    Args:
        table: Rows of the release.
        read_image: Gives the image (C, H, W) of an image_id in levels; ``None`` draws masks only,
            for images that may not be shown.
    """
    lines = []
    for name in table["finding"].unique().sort():
        rows = table.filter(finding=name).sort("quality", "image_id", descending=[True, False])
        places = np.unique(np.linspace(0, len(rows) - 1, min(_PER_ROW, len(rows))).round())
        tiles = []
        for row in rows[places.astype(int).tolist()].iter_rows(named=True):
            image = read_image(row["image_id"]) if read_image else None
            ground = _DARK if image is None else to_rgb(image, (_SIDE, _SIDE))
            tiles.append(tint(ground, {MASK: decode(row["counts"], *row["size"])}))
        lines.append((f"{name}: best to worst quality of {len(rows)}", tiles))
    return to_png(sheet(lines), colours=None)
