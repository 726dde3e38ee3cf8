"""The contact sheet of a release: one good mask per finding and split."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageDraw

from dollmaker.store.depth import to_show
from dollmaker.store.rle import decode

_SIDE, _PER_ROW, _TEXT = 112, 8, 16
_COLOUR = (255, 99, 71)

ReadImage = Callable[[str], npt.NDArray[Any]]


def contact_sheet(table: pl.DataFrame, read_image: ReadImage | None) -> Image.Image:
    """Masks of each finding, from the best quality to the worst, evenly spread.

    Args:
        table: Rows of the release.
        read_image: Gives the image (C, H, W) of an image_id in levels; ``None`` draws masks only,
            for images that may not be shown.
    """
    names = table["finding"].unique().sort().to_list()
    height = max(1, len(names)) * (_SIDE + _TEXT)
    sheet = Image.new("RGB", (_PER_ROW * _SIDE, height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(names):
        rows = table.filter(finding=name).sort("quality", "image_id", descending=[True, False])
        places = np.unique(np.linspace(0, len(rows) - 1, min(_PER_ROW, len(rows))).round())
        top = number * (_SIDE + _TEXT)
        draw.text((2, top + 2), f"{name}: best to worst quality of {len(rows)}", fill="black")
        for column, place in enumerate(places.astype(int).tolist()):
            row = rows.row(place, named=True)
            mask = decode(row["counts"], *row["size"])
            image = read_image(row["image_id"]) if read_image else None
            sheet.paste(_overlay(image, mask), (column * _SIDE, top + _TEXT))
    return sheet


def _overlay(image: npt.NDArray[Any] | None, mask: npt.NDArray[np.bool_]) -> Image.Image:
    if image is None:
        grey = np.where(mask[..., None], np.array(_COLOUR), 24).astype(np.uint8)
        return Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    shown = np.broadcast_to(to_show(image), (3, *image.shape[1:]))
    colour = np.moveaxis(shown, 0, -1).astype(np.float32)
    colour[mask] = 0.6 * colour[mask] + 0.4 * np.array(_COLOUR)
    picture = Image.fromarray(colour.round().astype(np.uint8))
    return picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
