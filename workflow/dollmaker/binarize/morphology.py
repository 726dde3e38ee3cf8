"""Masks by ExplainSeg's chain of morphology (Ma, Stathaki & Lazarou 2025)."""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dollmaker.binarize.clean import disk, filled, largest, without_small
from dollmaker.binarize.pair import BACKGROUND, FOREGROUND, Pair
from dollmaker.runtime.errors import ConfigError, unknown

Equalise = Literal["global", "adaptive"]


def morphology(
    pair: Pair,
    *,
    equalise: Equalise = "global",
    level: float = 0.85,
    components: float = 0.005,
    clear_border: bool = True,
    dilation: float = 0.02,
    erosion: float = 0.02,
) -> Pair:
    """Equalise, threshold, drop small components, clear the border, dilate, erode, fill holes.

    The order is ExplainSeg's. It gives neither sizes nor level: ours are relative to the image. It
    speaks of histogram equalisation and cites the adaptive one (Pizer et al. 1987); both are
    offered. Globally equalised values are uniform, so a level is a quantile of the map.

    The component with the most relevance is never dropped or cleared, because objects touch the
    border, too. An earlier mask is ignored. A constant map has an empty mask.

    Args:
        pair: With or without a mask.
        equalise: ``global``, or ``adaptive``: by the histograms of 8 x 8 tiles with limited
            contrast, scikit-image's defaults, after which the pair has no threshold (NaN).
        level: Where the equalised map (0..1) is cut: globally 0.85 keeps the most relevant 15 %.
        components: Components under this share of the image are dropped.
        clear_border: Drop components that touch the border.
        dilation: Radius of the dilation as a share of the shorter side.
        erosion: Radius of the erosion; equal radii close gaps and keep the size.

    Raises:
        ConfigError: For options out of range.
    """
    _check(equalise, level, components, dilation, erosion)
    values = np.asarray(pair.map, np.float32)
    if values.max() <= values.min():
        empty = np.full(values.shape, BACKGROUND, np.uint8)
        return replace(pair, mask=empty, threshold=float("inf"))
    mask, threshold = _cut(values, equalise, level)
    labels, _ = ndimage.label(mask)
    best = labels == 1 + np.bincount(labels.ravel(), (values - values.min()).ravel())[1:].argmax()
    mask = without_small(mask, components * mask.size) | best
    if clear_border:
        mask = _without_border(mask) | best
    side = min(mask.shape)
    closed = _eroded(_dilated(mask, dilation * side), erosion * side)
    if not closed.any():  # eroded away: a small finding is still a finding
        closed = largest(mask)
    mask = filled(closed, mask.size)
    done = np.where(mask, FOREGROUND, BACKGROUND).astype(np.uint8)
    return replace(pair, mask=done, threshold=threshold)


def _cut(
    values: npt.NDArray[np.float32], equalise: Equalise, level: float
) -> tuple[npt.NDArray[np.bool_], float]:
    """The mask over a level of the equalised map, and the value of the map there, if any."""
    if equalise == "global":
        threshold = equalised_level(values, level)
        return values >= threshold, threshold
    from skimage.exposure import equalize_adapthist

    low, high = values.min(), values.max()
    equalised = equalize_adapthist((values - low) / (high - low))
    return equalised > level * equalised.max(), float("nan")


def equalised_level(values: npt.NDArray[np.float32], level: float) -> float:
    """The smallest value of a map whose histogram-equalised value is over a level.

    The equalised value of x is (c(x) - c(min)) / (1 - c(min)), where c(x) is the share of pixels up
    to x: equalisation with a bin for each value.

    Args:
        values: The map, (H, W), not constant.
        level: 0 to under 1.

    Returns:
        The smallest value whose equalised value is over the level.
    """
    ordered = np.sort(values, axis=None)
    lowest = int(np.searchsorted(ordered, ordered[0], side="right"))
    rank = lowest + int(np.floor(level * (ordered.size - lowest)))
    return float(ordered[rank])


def _without_border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    keep = np.ones(count + 1, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[edge] = False
    keep[0] = False
    return np.asarray(keep[labels])


def _dilated(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    if radius < 1:
        return mask
    return np.asarray(ndimage.binary_dilation(mask, disk(radius)))


def _eroded(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    if radius < 1:
        return mask
    # Beyond the image nothing is known: do not erode from there.
    return np.asarray(ndimage.binary_erosion(mask, disk(radius), border_value=1))


def _check(
    equalise: Equalise, level: float, components: float, dilation: float, erosion: float
) -> None:
    if equalise not in get_args(Equalise):
        raise ConfigError(unknown("equalise of step morphology", equalise, get_args(Equalise)))
    if not 0 <= level < 1:
        raise ConfigError(f"step morphology has level = {level}; give a number from 0 to under 1.")
    shares = {"components": components, "dilation": dilation, "erosion": erosion}
    for name, value in shares.items():
        if not 0 <= value < 0.5:
            raise ConfigError(
                f"step morphology has {name} = {value}; give a share from 0 to under 0.5."
            )
