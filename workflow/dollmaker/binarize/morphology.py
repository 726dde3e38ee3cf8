"""Steps of morphology: one that tidies a mask, and ExplainSeg's chain (Ma et al. 2025)."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from dollmaker.binarize.pair import BACKGROUND, FOREGROUND, IGNORE, Pair, decided

Mask = npt.NDArray[np.bool_]
Equalise = Literal["global", "adaptive"]

#: A share of the image.
Share = Annotated[float, Field(ge=0, lt=0.5)]


def clean(
    pair: Pair,
    *,
    opening: float = 1.0,
    holes: float = 0.002,
    components: float = 0.001,
    peak: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Pair:
    """Remove specks, fill small holes, drop small components and weak ones.

    A mask that would vanish keeps its largest component: a small finding is still a finding.
    Ignored pixels stay ignored unless a hole that held them is filled.

    Args:
        pair: With a mask.
        opening: Radius of the opening in pixels; 0 skips it.
        holes: Holes up to this share of the image are filled.
        components: Components under this share of the image are removed.
        peak: Components in which the map stays under this share of its maximum are removed
            (thresholding with hysteresis): for findings that are one place or a few, as lesions
            are; not where every object counts, as nuclei do. 0 keeps all.

    Raises:
        ConfigError: If there is no mask yet.
    """
    mask = decided(pair, "clean")
    before = pair.foreground
    if not before.any():
        return pair
    after = filled(before, holes * mask.size)
    if opening > 0:
        after = ndimage.binary_opening(after, disk(opening))
    after = without_small(after, components * mask.size)
    if peak > 0:
        after = _reaching(after, pair.map >= peak * float(pair.map.max()))
    if not after.any():
        after = _largest(before)
    cleaned = np.where(after, FOREGROUND, np.where(mask == IGNORE, IGNORE, 0)).astype(np.uint8)
    return replace(pair, mask=cleaned)


# seven: the options of a step are what a recipe may say of it
def morphology(
    pair: Pair,
    *,
    equalise: Equalise = "global",
    level: Annotated[float, Field(ge=0, lt=1)] = 0.85,
    components: Share = 0.005,
    clear_border: bool = True,
    dilation: Share = 0.02,
    erosion: Share = 0.02,
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
    """
    values = np.asarray(pair.map, np.float32)
    low, high = values.min(), values.max()
    if high <= low:
        empty = np.full(values.shape, BACKGROUND, np.uint8)
        return replace(pair, mask=empty, threshold=float("inf"))
    if equalise == "global":
        threshold = equalised_level(values, level)
        mask = values >= threshold
    else:
        from skimage.exposure import equalize_adapthist

        equalised = equalize_adapthist((values - low) / (high - low))
        mask, threshold = equalised > level * equalised.max(), float("nan")
    labels, _ = ndimage.label(mask)
    best = labels == 1 + np.bincount(labels.ravel(), (values - low).ravel())[1:].argmax()
    mask = without_small(mask, components * mask.size) | best
    if clear_border:
        mask = _without_border(mask) | best
    closed, wide, narrow = mask, dilation * min(mask.shape), erosion * min(mask.shape)
    if wide >= 1:
        closed = ndimage.binary_dilation(closed, disk(wide))
    if narrow >= 1:  # beyond the image nothing is known: do not erode from there
        closed = ndimage.binary_erosion(closed, disk(narrow), border_value=1)
    if not closed.any():  # eroded away: a small finding is still a finding
        closed = _largest(mask)
    done = np.where(filled(closed, mask.size), FOREGROUND, BACKGROUND).astype(np.uint8)
    return replace(pair, mask=done, threshold=threshold)


def equalised_level(values: npt.NDArray[np.float32], level: float) -> float:
    """The smallest value of a map (H, W) whose histogram-equalised value is over a level.

    The equalised value of x is (c(x) - c(min)) / (1 - c(min)), where c(x) is the share of pixels up
    to x: equalisation with a bin for each value. The map is not constant, the level 0 to under 1.
    """
    ordered = np.sort(values, axis=None)
    lowest = int(np.searchsorted(ordered, ordered[0], side="right"))
    rank = lowest + int(np.floor(level * (ordered.size - lowest)))
    return float(ordered[rank])


def disk(radius: float) -> Mask:
    """All pixels up to a radius from the middle one, bool (2 r + 1, 2 r + 1)."""
    reach = int(np.floor(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def filled(mask: Mask, most: float) -> Mask:
    """A mask (H, W) with its holes of up to ``most`` pixels filled; the border has no holes."""
    labels, _ = ndimage.label(~mask)
    small = (np.bincount(labels.ravel()) <= most)[labels]
    return np.asarray(mask | (small & ~np.isin(labels, _at_border(labels))))


def without_small(mask: Mask, least: float) -> Mask:
    """A mask (H, W) without its 4-connected components of under ``least`` pixels."""
    labels, _ = ndimage.label(mask)
    return np.asarray((np.bincount(labels.ravel()) >= least)[labels] & mask)


def _reaching(mask: Mask, sure: Mask) -> Mask:
    """The 4-connected components of a mask (H, W) that hold a sure pixel."""
    labels, _ = ndimage.label(mask)
    return np.isin(labels, labels[sure & mask])


def _largest(mask: Mask) -> Mask:
    """The largest 4-connected component of a mask (H, W) that is not empty."""
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def _without_border(mask: Mask) -> Mask:
    labels, _ = ndimage.label(mask)
    return mask & ~np.isin(labels, _at_border(labels))


def _at_border(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Numbers of the components that touch the border."""
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
