"""The step that tidies a mask, and the morphology it is made of."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dollmaker.binarize.pair import FOREGROUND, IGNORE, Pair
from dollmaker.runtime.errors import ConfigError


def clean(
    pair: Pair,
    *,
    opening: float = 1.0,
    holes: float = 0.002,
    components: float = 0.001,
    peak: float = 0.0,
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
        ConfigError: If there is no mask yet, or ``peak`` is out of range.
    """
    mask = decided(pair, "clean")
    if not 0 <= peak <= 1:
        raise ConfigError(f"step clean has peak = {peak}; give a number from 0 to 1.")
    before = mask == FOREGROUND
    if not before.any():
        return pair
    after = filled(before, holes * mask.size)
    if opening > 0:
        after = ndimage.binary_opening(after, disk(opening))
    after = without_small(after, components * mask.size)
    if peak > 0:
        after = reaching(after, pair.map >= peak * float(pair.map.max()))
    if not after.any():
        after = largest(before)
    cleaned = np.where(after, FOREGROUND, np.where(mask == IGNORE, IGNORE, 0)).astype(np.uint8)
    return replace(pair, mask=cleaned)


def disk(radius: float) -> npt.NDArray[np.bool_]:
    """All pixels up to a radius from the middle one, bool (2 r + 1, 2 r + 1)."""
    reach = int(np.floor(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def filled(mask: npt.NDArray[np.bool_], most: float) -> npt.NDArray[np.bool_]:
    """A mask (H, W) with its holes of up to ``most`` pixels filled; the border has no holes."""
    labels, count = ndimage.label(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    fill = sizes <= most
    fill[0] = False
    fill[border] = False
    return np.asarray(mask | fill[labels])


def without_small(mask: npt.NDArray[np.bool_], least: float) -> npt.NDArray[np.bool_]:
    """A mask (H, W) without its 4-connected components of under ``least`` pixels."""
    labels, count = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= max(least, 1)
    keep[0] = False
    return np.asarray(keep[labels])


def reaching(mask: npt.NDArray[np.bool_], sure: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The 4-connected components of a mask (H, W) that hold a sure pixel."""
    labels, count = ndimage.label(mask)
    keep = np.zeros(count + 1, bool)
    keep[labels[sure & mask]] = True
    return np.asarray(keep[labels])


def largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest 4-connected component of a mask (H, W) that is not empty."""
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def decided(pair: Pair, step: str) -> npt.NDArray[np.uint8]:
    """The mask of a pair, for a step that needs one.

    Raises:
        ConfigError: If there is none yet.
    """
    if pair.mask is None:
        raise ConfigError(f"step {step} comes before any threshold; put otsu or another one first.")
    return pair.mask
