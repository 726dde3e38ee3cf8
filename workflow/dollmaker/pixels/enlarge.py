"""Masks at the size of the source: the map is enlarged first, then cut (as CheXlocalize does).

A mask that is enlarged by nearest neighbour has steps as wide as the source has pixels for one of
the square's. The map knows where between two pixels its outline runs. :func:`level_set` keeps that
knowledge beside a mask: its sign is the mask, its zero is the outline.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.geometry import Fit, unfit_map

Levels = npt.NDArray[np.float32]

#: Share of the pixels at a mask's outline that a cut must explain to be what drew it.
_DRAWN = 0.9

#: Steps of a packed level set on each side of zero.
_STEPS = 127


def level_set(
    mask: npt.NDArray[Any], values: npt.NDArray[Any] | None = None, threshold: float = np.nan
) -> Levels:
    """A function on the square that is positive in the mask and whose zero is its outline.

    Where a threshold of the map drew the outline, it is the map less the threshold, with the sign
    of the mask where later steps changed it. Where something else drew it (a cut of a graph, a
    CRF), or the map is not known, it is 1 in the mask and -1 outside.

    Args:
        mask: Square mask (S, S); 1 is foreground, all else (255, to ignore, too) is not.
        values: The map (S, S).
        threshold: Where the map was cut; NaN or infinite where it was not.
    """
    sign = np.where(np.asarray(mask) == 1, 1, -1).astype(np.float32)
    if values is None or not np.isfinite(threshold):
        return sign
    height = np.asarray(values, np.float32) - np.float32(threshold)
    at = outline(sign > 0)
    if not at.any() or np.mean((height > 0)[at] == (sign > 0)[at]) < _DRAWN:
        return sign
    least = np.finfo(np.float32).tiny
    return np.asarray(sign * np.maximum(np.abs(height), least), np.float32)


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a mask (S, S) that touch one outside it, and those that touch one inside."""
    wide = _nearby(mask, np.logical_or, outside=False)
    narrow = _nearby(mask, np.logical_and, outside=True)
    return wide & ~narrow


def _nearby(
    mask: npt.NDArray[np.bool_], join: Callable[..., Any], *, outside: bool
) -> npt.NDArray[np.bool_]:
    """Each pixel joined with its eight neighbours, those beyond the square being ``outside``."""
    padded = np.pad(mask, 1, constant_values=outside)
    down = join(join(padded[:-2], padded[1:-1]), padded[2:])
    return np.asarray(join(join(down[:, :-2], down[:, 1:-1]), down[:, 2:]))


def pack(levels: Levels) -> npt.NDArray[np.int8]:
    """A level set in 127 steps a side: fine at the outline, which it is for, and flat elsewhere.

    Returns:
        int8 (S, S), never 0; ``pack(levels) > 0`` is the mask.
    """
    at = outline(levels > 0)
    most = float(np.abs(levels[at]).max()) if at.any() else 0.0
    steps = np.full(levels.shape, _STEPS, np.int8)
    if most > 0:
        steps[at] = np.clip(np.rint(np.abs(levels[at]) * (_STEPS / most)), 1, _STEPS)
    return np.where(levels > 0, steps, -steps).astype(np.int8)


def source_mask(
    levels: npt.NDArray[Any], width: int, height: int, fit: Fit
) -> npt.NDArray[np.bool_]:
    """The mask of a level set (S, S), packed or not, at the size of the source, (height, width).

    Nothing is foreground that a crop does not show.
    """
    return np.asarray(unfit_map(levels, width, height, fit) > 0)
