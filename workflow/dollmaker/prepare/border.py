"""What an image says beside its content: its border, and the shape of its file.

A network that tells a finding by these has learned where an image comes from. The features are few
and plain, so that a ridge regression on them (:mod:`dollmaker.prepare.confounding`) says how much
of a label they give away. Their numbers are our choice.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.geometry import Box, Fit, box, inside
from dollmaker.store.depth import to_eight_bits

Floats = npt.NDArray[np.float32]

#: Width of the border as a share of the picture's shorter side.
_DEPTH = 0.04

#: Values that each of the four sides is resampled to.
_VALUES = 32

#: Pixels up to the first count as black, from the second as white.
_BLACK, _WHITE = 8, 247


def border_features(
    images: npt.NDArray[Any],
    widths: npt.NDArray[Any],
    heights: npt.NDArray[Any],
    fit: Fit,
) -> Floats:
    """The border of pictures: the outer 4 %, inside the bars of a letterbox.

    Args:
        images: (N, C, S, S) in levels, pictures in their squares; 8 bits of them count.
        widths: Width of each source in pixels (N).
        heights: Height of each source in pixels (N).
        fit: How the sources lie in the squares.

    Returns:
        (N, 4 * 32 * C + 2 * C + 2), of each channel the mean over the depth along the upper, lower,
        left and right side, then mean and deviation of the border, 0..255; then the shares of it
        that are black and white, 0..1.
    """
    images = to_eight_bits(images)
    count, channels, size = images.shape[:3]
    features = np.zeros((count, (4 * _VALUES + 2) * channels + 2), np.float32)
    shapes = np.column_stack([widths, heights]).astype(np.int64)
    kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
    for number, (width, height) in enumerate(kinds.tolist()):
        rows = np.flatnonzero(kind.reshape(-1) == number)
        features[rows] = _of_one_shape(images[rows], box(width, height, size, fit))
    return features


def _of_one_shape(images: npt.NDArray[np.uint8], where: Box) -> Floats:
    pictures = inside(images, where)
    depth = max(1, round(_DEPTH * min(pictures.shape[-2:])))
    strips = [
        pictures[..., :depth, :],
        pictures[..., -depth:, :],
        pictures[..., :depth].swapaxes(-1, -2),
        pictures[..., -depth:].swapaxes(-1, -2),
    ]
    profiles = [resampled(strip.mean(axis=-2, dtype=np.float32)) for strip in strips]
    upright = [strip[..., depth:-depth] for strip in strips[2:]]  # the corners are in the first two
    ring = np.concatenate(
        [part.reshape(*part.shape[:2], -1) for part in (*strips[:2], *upright)], axis=2
    )
    black, white = (ring <= _BLACK).all(axis=1), (ring >= _WHITE).all(axis=1)
    columns = [
        *(profile.reshape(len(images), -1) for profile in profiles),
        *(ring.mean(axis=2, dtype=np.float32), ring.std(axis=2, dtype=np.float32)),
        *(np.stack([black.mean(axis=1), white.mean(axis=1)], axis=1),),
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def resampled(values: Floats, count: int = _VALUES) -> Floats:
    """Lines (..., L) as ``count`` values: the mean of each of as many parts of equal length."""
    length = values.shape[-1]
    total = np.zeros((*values.shape[:-1], length + 1))
    np.cumsum(values, axis=-1, out=total[..., 1:], dtype=np.float64)
    edges = np.linspace(0, length, count + 1)
    first = np.minimum(edges.astype(np.int64), length - 1)
    at = total[..., first] + (edges - first) * values[..., first]
    return np.asarray(np.diff(at, axis=-1) * (count / length), np.float32)


def shape_features(widths: npt.NDArray[Any], heights: npt.NDArray[Any]) -> Floats:
    """Shape and size of the source files.

    Args:
        widths: Width of each source in pixels (N).
        heights: Height of each source in pixels (N).

    Returns:
        (N, 6): aspect ratio (width / height), its logarithm and the size of that (how far from
        square), the logarithms of width, height and number of pixels.
    """
    wide, high = np.log(np.asarray(widths, float)), np.log(np.asarray(heights, float))
    ratio = wide - high
    columns = [np.exp(ratio), ratio, np.abs(ratio), wide, high, wide + high]
    return np.column_stack(columns).astype(np.float32)
