"""Masks at the size of the source image, without painting its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import rle
from dollmaker.geometry import Fit, box
from dollmaker.release.polygons import outline


@dataclass(frozen=True, kw_only=True)
class SourceMask:
    """A mask at the size of the source.

    Attributes:
        counts: Compressed COCO counts.
        area: Pixels.
        box: left, top, width, height in pixels; zeros of an empty mask.
        polygons: Outlines of its parts, if they were asked for.
    """

    counts: str
    area: int
    box: list[int]
    polygons: list[list[int]] | None = None


def to_source(
    masks: Sequence[npt.NDArray[np.bool_]],
    sizes: Sequence[tuple[int, int]],
    fit: Fit,
    *,
    polygons: bool = False,
) -> list[SourceMask]:
    """The codes of :func:`dollmaker.geometry.unfit_mask`'s results, computed from the squares.

    A full-size radiograph has a hundred times the pixels of the square, but its mask is made of
    the square's rows and columns, each repeated.

    Args:
        masks: bool (size, size) each; fastest in column-major order, as codes are decoded.
        sizes: Width and height of each source image in pixels.
        fit: How the sources lie in the square.
        polygons: Also trace the outlines.
    """
    found = [_measure(m.T, *size, fit, polygons) for m, size in zip(masks, sizes, strict=True)]
    codes = rle.write_runs([runs for runs, _, _ in found])
    return [
        SourceMask(counts=counts, area=int(runs[1::2].sum()), box=sides, polygons=outlines)
        for counts, (runs, sides, outlines) in zip(codes, found, strict=True)
    ]


def _measure(
    mask: npt.NDArray[np.bool_], width: int, height: int, fit: Fit, polygons: bool
) -> tuple[rle.Runs, list[int], list[list[int]] | None]:
    """Runs, box and polygons at the size of the source of a mask given by columns."""
    left, top, right, bottom = box(width, height, len(mask), fit)
    across, down = _scale(right - left, width), _scale(bottom - top, height)
    used = mask[left:right, top:bottom]
    if len(across.used) < right - left or len(down.used) < bottom - top:  # a smaller source
        used = used[np.ix_(across.used, down.used)]
    used = np.ascontiguousarray(used)
    # Where the value changes inside a column, in each source column that repeats it ...
    inside = max(1, used.shape[1] - 1)
    column, row = np.divmod(np.flatnonzero(used[:, 1:] != used[:, :-1]), inside)
    count = np.bincount(column, minlength=len(used))
    changes = count[across.number]
    first = (count.cumsum() - count)[across.number] - (changes.cumsum() - changes)
    place = down.bounds[row + 1][np.arange(changes.sum()) + first.repeat(changes)]
    tops = np.arange(0, width * height, height)
    place = place + tops.repeat(changes)
    # ... and from the foot of a column to the head of the next.
    head, foot = used[across.number, 0], used[across.number, -1]
    turns = head.copy()
    turns[1:] ^= foot[:-1]
    bounds = np.concatenate([[0], place, tops[turns], [width * height]])
    bounds.sort()
    columns, rows = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    sides = [0, 0, 0, 0]
    if len(columns):
        x, y = across.bounds[columns[0]], down.bounds[rows[0]]
        right, bottom = across.bounds[columns[-1] + 1], down.bounds[rows[-1] + 1]
        sides = [int(x), int(y), int(right - x), int(bottom - y)]
    outlines = outline(used, across.bounds, down.bounds) if polygons else None
    return bounds[1:] - bounds[:-1], sides, outlines


class _Scale(NamedTuple):
    """How Pillow scales a side of the square to one of the source by nearest neighbour.

    Attributes:
        used: Pixels of the square that are in the source, in order.
        bounds: Where each of them begins in the source, and the source's length.
        number: Which of them each pixel of the source is.
    """

    used: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]


@lru_cache(maxsize=4096)
def _scale(inner: int, outer: int) -> _Scale:
    ramp = Image.fromarray(np.arange(inner, dtype=np.int32)[None])
    place = np.asarray(ramp.resize((outer, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    used, starts, number = np.unique(place, return_index=True, return_inverse=True)
    return _Scale(used, np.append(starts, outer), number)
