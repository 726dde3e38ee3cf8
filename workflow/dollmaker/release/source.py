"""Masks at the size of the source image, as codes and as polygons, without painting its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.geometry import Fit, box, inside, taps, unfit_mask, window
from dollmaker.store import rle

Ints = npt.NDArray[np.int64]

#: Sides of a pixel clockwise from the top: a step along it, a step out of the pixel, its corner.
_ALONG = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_OUT = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
_CORNER = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


@dataclass(frozen=True, kw_only=True)
class SourceMask:
    """A mask at the size of the source."""

    counts: str  #: Compressed COCO counts.
    area: int  #: Pixels.
    box: list[int]  #: left, top, width, height in pixels; zeros of an empty mask.
    polygons: list[list[int]] | None = None  #: Outlines of its parts, if they were asked for.


def measure(mask: npt.NDArray[np.bool_]) -> tuple[int, list[int]]:
    """Area of a mask in pixels, and its box: left, top, width, height; zeros of an empty one."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return 0, [0, 0, 0, 0]
    left, top = int(columns[0]), int(rows[0])
    sides = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return int(np.count_nonzero(mask)), sides


def to_source(
    squares: Sequence[npt.NDArray[Any]],
    sizes: Sequence[tuple[int, int]],
    fit: Fit,
    *,
    polygons: bool = False,
) -> list[SourceMask]:
    """The codes of masks at the size of the source (width, height), computed from the squares.

    A full-size radiograph has a hundred times the pixels of the square. Of a level set, int8 (size,
    size), only the pixels between places of different sign are interpolated; it gives what
    :func:`dollmaker.pixels.geometry.source_mask` paints. A mask, bool, which releases of earlier
    versions have, is painted (:func:`dollmaker.pixels.geometry.unfit_mask`). With ``polygons``
    outlines are traced, too.
    """
    runs = [_runs(square, *size, fit) for square, size in zip(squares, sizes, strict=True)]
    found = []
    for code, lengths, (_, height) in zip(rle.write_runs(runs), runs, sizes, strict=True):
        sides = _box(lengths, height)
        outlines = _outlines(lengths, sides, height) if polygons else None
        area = int(lengths[1::2].sum())
        found.append(SourceMask(counts=code, area=area, box=sides, polygons=outlines))
    return found


def _runs(square: npt.NDArray[Any], width: int, height: int, fit: Fit) -> rle.Runs:
    """Lengths of runs down the columns of the source."""
    if square.dtype == np.bool_:
        painted = np.ravel(unfit_mask(square, width, height, fit).T == 1)
        place = np.flatnonzero(np.diff(painted, prepend=False))
        return np.diff(place, prepend=0, append=width * height)
    left, top, right, bottom = window(width, height, fit)
    part = inside(square, box(width, height, len(square), fit))
    column, row = _crossings(part, right - left, bottom - top)
    place = (column + left) * height + row + top
    place.sort()
    # The foot of a column is followed by the head of the next: inside both, nothing changes.
    twice = place[1:] == place[:-1]
    once = np.ones(len(place), bool)
    once[1:] &= ~twice
    once[:-1] &= ~twice
    place = place[once & (place < width * height)]
    return np.diff(place, prepend=0, append=width * height)


def _crossings(levels: npt.NDArray[np.int8], width: int, height: int) -> tuple[Ints, Ints]:
    """Where the sign of a level set changes down the columns of a picture of so many pixels.

    Returns:
        Column and row of each change: the pixel is of another sign than the one above it. What is
        above and below the picture is negative: a column that begins inside the mask has a change
        at row 0, one that ends there a change at row ``height``.
    """
    values = levels.astype(np.float32)
    down, across = taps(values.shape[0], height), taps(values.shape[1], width)

    def positive(y: Ints, x: Ints) -> npt.NDArray[np.bool_]:
        """The very arithmetic of :func:`dollmaker.pixels.geometry.unfit_map`."""
        (up, low, deep), (left, right, far) = _at(down, y), _at(across, x)
        near = values[up, left] + (values[low, left] - values[up, left]) * deep
        other = values[up, right] + (values[low, right] - values[up, right]) * deep
        return np.asarray(near + (other - near) * far > 0)

    # Pixels between the same places of the square are a cell, of one sign if its corners are.
    tops, lefts = _starts(down[0]), _starts(across[0])
    sign = levels > 0
    corner, *others = (
        sign.take(y[tops], axis=0).take(x[lefts], axis=1) for y in down[:2] for x in across[:2]
    )
    mixed = (corner ^ others[0]) | (corner ^ others[1]) | (corner ^ others[2])
    border = np.zeros_like(mixed)
    border[1:] = mixed[:-1] | (corner[1:] ^ corner[:-1])
    cell_y, cell_x = np.divmod(np.flatnonzero(mixed | border), len(lefts))
    # Each pixel of a mixed cell, of another its first row; and the row above, to compare with.
    tall = np.where(mixed, np.diff(tops, append=height)[:, None], 1)[cell_y, cell_x] + 1
    size = tall * np.diff(lefts, append=width)[cell_x]
    number = np.arange(size.sum()) - np.repeat(size.cumsum() - size, size)
    column, row = np.divmod(number, np.repeat(tall, size))
    x = np.repeat(lefts[cell_x], size) + column
    y = np.repeat(tops[cell_y] - 1, size) + row
    there = positive(y.clip(0), x)
    change = np.flatnonzero((there[1:] != there[:-1]) & (row[1:] > 0)) + 1
    every = np.arange(width)
    head = every[positive(np.zeros_like(every), every)]
    foot = every[positive(np.full_like(every, height - 1), every)]
    ends = np.repeat([0, height], [len(head), len(foot)])
    return np.concatenate([x[change], head, foot]), np.concatenate([y[change], ends])


def _at(where: Sequence[npt.NDArray[Any]], place: Ints) -> list[npt.NDArray[Any]]:
    return [part[place] for part in where]


def _starts(first: Ints) -> Ints:
    """Where a new number begins."""
    return np.flatnonzero(np.diff(first, prepend=-1))


def _box(runs: rle.Runs, height: int) -> list[int]:
    """left, top, width and height of the mask of runs down columns of this height."""
    if len(runs) < 2:
        return [0, 0, 0, 0]
    bounds = runs.cumsum()
    (first, top), (last, bottom) = (np.divmod(b, height) for b in (bounds[:-1:2], bounds[1::2] - 1))
    over = (first < last).any()  # from the foot of a column to the head of the next
    y, down = (0, height) if over else (int(top.min()), int(bottom.max()) + 1)
    return [int(first[0]), y, int(last[-1] - first[0]) + 1, down - y]


def _outlines(runs: rle.Runs, sides: list[int], height: int) -> list[list[int]]:
    """Polygons of the mask of runs, traced inside its box."""
    left, top, wide, tall = sides
    bounds = runs.cumsum().clip(left * height, (left + wide) * height)
    lengths = np.diff(bounds, prepend=left * height)
    values = np.arange(len(lengths)) % 2 == 1
    columns = np.repeat(values, lengths).reshape(wide, height)
    used = columns[:, top : top + tall]
    return outline(used, left, top)


# --- polygons -----------------------------------------------------------------------------------


def outline(used: npt.NDArray[np.bool_], left: int = 0, top: int = 0) -> list[list[int]]:
    """Polygons of a mask, one for each part (parts that touch by a corner are two).

    A hole is joined to the outline of its part by a line there and back, which has no area: what
    fills by parity or winding leaves the hole out, and pycocotools gives the very mask.

    Returns:
        ``[x, y, x, y, ...]`` each, in pixels of the picture, of which ``used``, bool (columns,
        rows), is a part that begins at ``left`` and ``top``.
    """
    padded = np.pad(used, 1)
    pixels, sides, following = _edges(padded)
    side, after = sides.tolist(), following.tolist()
    ring = [-1] * len(after)
    rings: list[list[int]] = []
    for start in range(len(after)):
        if ring[start] >= 0:
            continue
        edges, edge = [], start
        while ring[edge] < 0:
            ring[edge] = len(rings)
            edges.append(edge)
            edge = after[edge]
        rings.append(edges)
    corners = pixels + _CORNER[sides]
    paths, parent = [], []
    for number, edges in enumerate(rings):
        turns = [b for a, b in pairwise([edges[-1], *edges]) if side[a] != side[b]]
        path = corners[turns]
        paths.append(path + np.array([left - 1, top - 1]))
        x, y = path.T
        hole = int(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 0
        parent.append(_left_of(edges, pixels, side, padded, ring) if hole else number)
    return _join(paths, parent)


def _edges(padded: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Sides between mask and background: their pixels (E, 2), sides (E,), and which follows."""
    height = padded.shape[1]
    flat = padded.ravel()
    rim = padded.copy()  # most pixels of a large mask have all four neighbours
    rim[1:-1, 1:-1] &= ~(
        padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    )
    inside = np.flatnonzero(rim)
    steps_out, steps_along = (steps @ (height, 1) for steps in (_OUT, _ALONG))
    found = [inside[~flat[inside + step]] for step in steps_out]
    pixels = np.concatenate(found)
    sides = np.repeat(np.arange(4), [len(part) for part in found])
    ahead = pixels + steps_along[sides]
    beside = ahead + steps_out[sides]
    turn_in = flat[ahead] & flat[beside]
    next_pixel = np.where(flat[ahead], np.where(turn_in, beside, ahead), pixels)
    next_side = (sides + np.where(flat[ahead], np.where(turn_in, 3, 0), 1)) % 4
    keys = sides * flat.size + pixels  # increasing
    following = np.searchsorted(keys, next_side * flat.size + next_pixel)
    return np.stack(np.divmod(pixels, height), axis=1), sides, following


def _left_of(
    edges: Sequence[int],
    pixels: Ints,
    side: Sequence[int],
    padded: npt.NDArray[np.bool_],
    ring: Sequence[int],
) -> int:
    """The ring that one meets going left from a hole inside the mask."""
    x, y = min(tuple(pixels[edge].tolist()) for edge in edges if side[edge] == 1)
    first = int(np.flatnonzero(~padded[:x, y])[-1]) + 1
    (edge,) = np.flatnonzero((pixels == (first, y)).all(1) & (np.asarray(side) == 3))
    return ring[int(edge)]


def _join(paths: Sequence[Ints], parent: list[int]) -> list[list[int]]:
    """Outlines with their holes."""
    polygons = {n: path for n, path in enumerate(paths) if parent[n] == n}
    for number, path in enumerate(paths):
        root = number
        while parent[root] != root:
            root = parent[root]
        if root != number:
            outer = polygons[root]
            polygons[root] = np.concatenate([outer, outer[:1], path, path[:1]])
    return [polygon.ravel().tolist() for polygon in polygons.values()]
