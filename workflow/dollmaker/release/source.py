"""Masks at the size of the source image, without painting its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import rle
from dollmaker.geometry import Fit, box


@dataclass(frozen=True, kw_only=True)
class SourceMask:
    """A mask at the size of the source.

    Attributes:
        counts: Compressed COCO counts.
        area: Pixels.
        box: left, top, width, height in pixels; zeros of an empty mask.
    """

    counts: str
    area: int
    box: list[int]


def to_source(
    masks: Sequence[npt.NDArray[np.bool_]], sizes: Sequence[tuple[int, int]], fit: Fit
) -> list[SourceMask]:
    """The codes of :func:`dollmaker.geometry.unfit_mask`'s results, computed from the squares.

    A full-size radiograph has a hundred times the pixels of the square, but its mask is made of
    the square's rows and columns, each repeated.

    Args:
        masks: bool (size, size) each; fastest in column-major order, as codes are decoded.
        sizes: Width and height of each source image in pixels.
        fit: How the sources lie in the square.
    """
    found = [_measure(m.T, *size, fit) for m, size in zip(masks, sizes, strict=True)]
    codes = rle.write_runs([runs for runs, _ in found])
    return [
        SourceMask(counts=counts, area=int(runs[1::2].sum()), box=sides)
        for counts, (runs, sides) in zip(codes, found, strict=True)
    ]


def _measure(
    mask: npt.NDArray[np.bool_], width: int, height: int, fit: Fit
) -> tuple[rle.Runs, list[int]]:
    """Runs and box at the size of the source of a mask given by columns, (size, size)."""
    left, top, right, bottom = box(width, height, len(mask), fit)
    rows, tops = _nearest(bottom - top, height)
    columns, lefts = _nearest(right - left, width)
    used = mask[left:right, top:bottom]
    if len(tops) < bottom - top or len(lefts) < right - left:  # of a smaller source not all are
        used = used[np.ix_(columns[lefts], rows[tops])]
    used = np.ascontiguousarray(used)
    number = np.repeat(np.arange(len(lefts)), np.diff(lefts, append=width))  # of source columns
    # Where the value changes inside a column, in each source column that repeats it ...
    column, row = np.divmod(np.flatnonzero(used[:, 1:] != used[:, :-1]), max(1, len(tops) - 1))
    count = np.bincount(column, minlength=len(lefts))
    changes = count[number]
    first = (np.cumsum(count) - count)[number] - (np.cumsum(changes) - changes)
    place = tops[row + 1][np.arange(changes.sum()) + np.repeat(first, changes)]
    place = place + np.repeat(np.arange(width) * height, changes)
    # ... and from the foot of a column to the head of the next.
    head, foot = used[number, 0], np.concatenate([[False], used[number[:-1], -1]])
    bounds = np.concatenate([place, np.flatnonzero(head != foot) * height])
    bounds.sort()
    runs = np.diff(bounds, prepend=0, append=width * height)
    across, down = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    sides = [0, 0, 0, 0]
    if len(across):
        right, bottom = (
            int(np.append(starts, side)[last + 1])
            for starts, side, last in ((lefts, width, across[-1]), (tops, height, down[-1]))
        )
        left, top = int(lefts[across[0]]), int(tops[down[0]])
        sides = [left, top, right - left, bottom - top]
    return runs, sides


@lru_cache(maxsize=4096)
def _nearest(inner: int, outer: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How Pillow scales ``inner`` rows to ``outer`` by nearest neighbour.

    Returns:
        For each outer row, which of the inner it is; and where each of these begins.
    """
    ramp = Image.fromarray(np.arange(inner, dtype=np.int32)[None])
    place = np.asarray(ramp.resize((outer, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    return place, np.flatnonzero(np.diff(place, prepend=-1))
