"""Pairs with known answers: 60 images of 32 pixels, a square each for two findings."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.release.parts import SCHEMA
from dollmaker.store.rle import encode

SIDE = 32
HOSTILE = "<script>alert(1)</script> \"'&amp; שלום \u202eabc\u2028\\"
FINDINGS = ("Edema", "Lung <b>Lesion</b>")


def make_rows(images: int = 60) -> pl.DataFrame:
    """Pair ``k`` of ``n`` has quality ``(k + 0.5) / n`` and a square of side ``2 + k % 20``."""
    rows = []
    for k in range(2 * images):
        image, side = k // 2, 2 + k % 20
        mask = np.zeros((SIDE, SIDE), bool)
        mask[4 : 4 + side, 6 : 6 + side] = True
        name = HOSTILE if image == 7 else f"image{image:03d}"
        rows.append(
            {
                "image_id": name,
                "path": f"root/{'abc'[image % 3]}/{image:03d}.png",
                "sha256": "0" * 64,
                "patient_id": None if image == 3 else f"p{image}",
                "split": ("train", "train", "valid", "test")[image % 4],
                "width": 64,
                "height": 48,
                "finding": FINDINGS[k % 2],
                "label": 1,
                "probability": 0.75,
                "size": [SIDE, SIDE],
                "counts": encode(mask),
                "area": side * side,
                "box": [6, 4, side, side],
                "components": 1,
                "threshold": 0.3,
                "quality": (k + 0.5) / (2 * images),
                "agreement": 0.5,
                "completeness": float("nan"),
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def make_others(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """A recipe whose masks are 16 x 16 pixels in the corner, without the first pair's."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:16, :16] = True
    changed = rows.with_columns(counts=pl.lit(encode(mask)), area=pl.lit(256, pl.Int64))
    best = rows.sort("quality", descending=True).row(0, named=True)
    return {
        "corner": changed.filter(
            (pl.col("image_id") != best["image_id"]) | (pl.col("finding") != best["finding"])
        )
    }


def picture(image_id: str) -> npt.NDArray[np.uint8] | None:
    """A grey field whose brightness follows from the name; none of image005."""
    if image_id == "image005":
        return None
    return np.full((1, SIDE, SIDE), 60 + sum(image_id.encode()) % 120, np.uint8)


def relevance(image_id: str, finding: str) -> npt.NDArray[np.uint8]:
    """A slope."""
    return np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))


def counting(read: Callable[..., object], calls: list[object]) -> Callable[..., object]:
    """``read`` that notes what it was asked for."""

    def asked(*key: object) -> object:
        calls.append(key)
        return read(*key)

    return asked
