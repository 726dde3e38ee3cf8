"""From a source image of any shape to the square the networks see, and back.

The square may hold more than the picture (the bars of a letterbox) or less (a crop). :func:`box`
says where the picture lies in the square, :func:`window` which part of it the square shows.

Masks at the size of the source are those of the enlarged map (as CheXlocalize cuts them): a mask
that is enlarged by nearest neighbour has steps as wide as the source has pixels for one of the
square's. The map knows where between two pixels its outline runs; :func:`level_set` keeps that
beside a mask.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Fit = Literal["letterbox", "resize", "crop"]

#: left, top, right, bottom in pixels.
Box = tuple[int, int, int, int]

#: Share of the pixels at a mask's outline that a cut must explain to be what drew it.
_DRAWN = 0.9

#: Steps of a level set on each side of zero.
_STEPS = 127


def box(width: int, height: int, size: int, fit: Fit) -> Box:
    """Where a source of so many pixels lies inside the square of side ``size``, in its pixels.

    ``letterbox`` keeps the aspect ratio and centres; ``resize`` fills the square with the whole
    picture, ``crop`` with its centre.
    """
    if fit != "letterbox":
        return 0, 0, size, size
    scale = size / max(width, height)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - inner_w) // 2, (size - inner_h) // 2
    return left, top, left + inner_w, top + inner_h


def window(width: int, height: int, fit: Fit) -> Box:
    """Which part of the source the square shows: all of it, or of a crop the centre square."""
    if fit != "crop":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def inside(values: Any, where: Box) -> Any:
    """The part of squares (..., S, S), NumPy or torch, that is the picture: a view (..., h, w)."""
    left, top, right, bottom = where
    return values[..., top:bottom, left:right]


def framed(values: npt.NDArray[Any], where: Box, size: int, fill: int = 0) -> npt.NDArray[Any]:
    """What is known of a picture (..., h, w) as squares (..., size, size), ``fill`` around it."""
    squares = np.full((*values.shape[:-2], size, size), fill, values.dtype)
    inside(squares, where)[...] = values
    return squares


def mirrored(where: Box, size: int) -> Box:
    """Where the picture lies in the square that is turned left to right."""
    left, top, right, bottom = where
    return size - right, top, size - left, bottom


def fit_image(pixels: npt.NDArray[Any], size: int, fit: Fit) -> npt.NDArray[Any]:
    """Scale an image (C, h, w), uint8 or uint16, into the square; the rest is black."""
    return _fit(pixels, size, fit, Image.Resampling.BILINEAR)


def fit_mask(mask: npt.NDArray[Any], size: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Scale a mask of small integers (h, w) into the square by nearest neighbour."""
    whole = np.asarray(mask, dtype=np.uint8)[None]
    return np.asarray(_fit(whole, size, fit, Image.Resampling.NEAREST)[0])


def shown(pixels: npt.NDArray[Any], fit: Fit) -> npt.NDArray[Any]:
    """The part of an image (..., h, w) that the square shows: a view."""
    height, width = pixels.shape[-2:]
    return np.asarray(inside(pixels, window(width, height, fit)))


def resized(
    pixels: npt.NDArray[Any],
    width: int,
    height: int,
    how: Image.Resampling = Image.Resampling.BILINEAR,
) -> npt.NDArray[Any]:
    """An image (C, h, w), uint8 or uint16, in another size, each channel by itself.

    16 bits are scaled as reals and rounded.
    """
    kind = pixels.dtype
    plain = pixels if kind == np.uint8 else pixels.astype(np.float32)
    large = [np.asarray(Image.fromarray(one).resize((width, height), how)) for one in plain]
    return np.stack(large) if kind == np.uint8 else np.rint(large).astype(kind)


def _fit(pixels: npt.NDArray[Any], size: int, fit: Fit, how: Image.Resampling) -> npt.NDArray[Any]:
    height, width = pixels.shape[-2:]
    where = box(width, height, size, fit)
    inner = resized(shown(pixels, fit), where[2] - where[0], where[3] - where[1], how)
    return inner if inner.shape[-2:] == (size, size) else framed(inner, where, size)


def unfit_mask(mask: npt.NDArray[Any], width: int, height: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Bring a square mask (size, size) back to the source's (height, width), nearest neighbour.

    What a crop does not show is 0. A mask that was cut from a map has a finer outline at this
    size: see :func:`level_set`.
    """
    part = window(width, height, fit)
    inner = inside(np.asarray(mask, dtype=np.uint8), box(width, height, mask.shape[0], fit))
    size = part[2] - part[0], part[3] - part[1]
    large = np.asarray(Image.fromarray(inner).resize(size, Image.Resampling.NEAREST))
    return _placed(large, part, width, height)


def unfit_map(
    values: npt.NDArray[Any], width: int, height: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """Bring a square map (size, size) of reals back to (height, width), bilinear.

    Places between the centres of pixels are interpolated, those beyond the outermost centres have
    their values (``align_corners=False`` of torch). What a crop does not show is 0.
    """
    part = window(width, height, fit)
    inner = inside(np.asarray(values, dtype=np.float32), box(width, height, values.shape[0], fit))
    size = part[2] - part[0], part[3] - part[1]
    rows, columns = (taps(inner.shape[axis], size[1 - axis]) for axis in (0, 1))
    tall = _blend(inner, rows)
    return _placed(_blend(tall.T, columns).T, part, width, height)


def taps(
    inner: int, outer: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Linear interpolation from one number of pixels to another.

    For each of the ``outer`` pixels the two of ``inner`` that it lies between, and the second's
    share.
    """
    place = ((np.arange(outer) + 0.5) * (inner / outer) - 0.5).clip(0, inner - 1)
    first = np.floor(place).astype(np.int64)
    return first, np.minimum(first + 1, inner - 1), (place - first).astype(np.float32)


def _blend(values: npt.NDArray[np.float32], where: Any) -> npt.NDArray[np.float32]:
    first, second, share = where
    low, high = values[first], values[second]
    return np.asarray(low + (high - low) * share[:, None])


def _placed(part: npt.NDArray[Any], where: Box, width: int, height: int) -> npt.NDArray[Any]:
    if part.shape == (height, width):
        return np.ascontiguousarray(part)
    whole = np.zeros((height, width), part.dtype)
    inside(whole, where)[...] = part
    return whole


def level_set(
    mask: npt.NDArray[Any], values: npt.NDArray[Any] | None = None, threshold: float = np.nan
) -> npt.NDArray[np.int8]:
    """A function on the square that is positive in the mask and whose zero is its outline.

    Where a threshold of the map drew the outline, it is the map less the threshold in 127 steps a
    side, with the sign of the mask where later steps changed it. Elsewhere, and where something
    else drew the outline (a cut of a graph, a CRF) or the map is not known, it is flat.

    Args:
        mask: Square mask (S, S); 1 is foreground, all else (255, to ignore, too) is not.
        values: The map (S, S).
        threshold: Where the map was cut; NaN or infinite where it was not.

    Returns:
        int8 (S, S), never 0.
    """
    within = np.asarray(mask) == 1
    levels = np.where(within, np.int8(_STEPS), np.int8(-_STEPS))
    if values is None or not np.isfinite(threshold):
        return levels
    at = np.flatnonzero(outline(within))
    sign = within.ravel()[at]
    height = np.asarray(values).ravel()[at].astype(np.float32) - np.float32(threshold)
    if not len(at) or np.mean((height > 0) == sign) < _DRAWN:
        return levels
    most = float(np.abs(height).max())
    steps = np.rint(np.abs(height) * (_STEPS / most if most > 0 else 0.0))
    levels.ravel()[at] = np.where(sign, 1, -1) * np.clip(steps, 1, _STEPS)
    return levels


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


def source_mask(
    levels: npt.NDArray[Any], width: int, height: int, fit: Fit
) -> npt.NDArray[np.bool_]:
    """The mask of a level set (S, S) at the size of its source; 0 where a crop does not show it."""
    return np.asarray(unfit_map(levels, width, height, fit) > 0)


def source_map(
    values: npt.NDArray[Any], width: int, height: int, fit: Fit
) -> npt.NDArray[np.float32]:
    """As :func:`unfit_map`, but what a crop does not show ranks last."""
    large = unfit_map(values, width, height, fit)
    shown = window(width, height, fit)
    if shown == (0, 0, width, height):
        return large
    part = inside(large, shown)
    whole = np.full_like(large, part.min())
    inside(whole, shown)[...] = part
    return whole
