"""Masks as polygons along the edges of their pixels, without a pixel lost."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Sides of a pixel clockwise from the top: a step along it, a step out of the pixel, its corner.
_ALONG = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
_OUT = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])
_CORNER = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


def outline(used: npt.NDArray[np.bool_], xs: Ints, ys: Ints) -> list[list[int]]:
    """Polygons of a mask, one for each part (parts that touch by a corner are two).

    A hole is joined to the outline of its part by a line there and back, which has no area: what
    fills by parity or winding leaves the hole out, and pycocotools gives the very mask.

    Args:
        used: bool (columns, rows).
        xs: Where each column begins in the picture, and where the last one ends.
        ys: The same of rows.

    Returns:
        ``[x, y, x, y, ...]`` each, in pixels of the picture.
    """
    padded = np.pad(used, 1)
    pixels, sides, following = _edges(padded)
    side = sides.tolist()
    after = following.tolist()
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
        paths.append(np.stack([xs[path[:, 0] - 1], ys[path[:, 1] - 1]], axis=1))
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
    steps_out, steps_along = (_steps(steps, height) for steps in (_OUT, _ALONG))
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


def _steps(steps: Ints, height: int) -> Ints:
    result: Ints = steps[:, 0] * height + steps[:, 1]
    return result


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
