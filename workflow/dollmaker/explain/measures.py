"""Measures of relevance maps of segmentation networks, against prediction and truth.

Shapes: P maps of H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.measures import ranks
from dollmaker.pixels.masks import IGNORE

Map = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


def share_inside(maps: Maps, masks: Masks) -> Values:
    """Share of the relevance that lies inside a mask.

    Args:
        maps: (P, H, W), not negative.
        masks: (P, H, W): 1 inside, 0 outside, 255 ignored: that relevance counts nowhere.

    Returns:
        (P,) in 0..1; NaN without relevance on the pixels that count.
    """
    known = np.where(masks == IGNORE, 0, maps).astype(np.float64)
    total = known.sum((1, 2))
    inside = np.where(masks == 1, known, 0).sum((1, 2))
    return _over(inside, total)


def pointing_game(maps: Maps, truth: Masks) -> Values:
    """Whether the most relevant pixel lies in the truth (Zhang et al. 2018, without tolerance).

    Args:
        maps: (P, H, W), not negative. Of equal maxima the first one in reading order counts.
        truth: (P, H, W): 1, 0, 255 = ignored.

    Returns:
        (P,): 1 or 0; NaN for a zero map and for a pixel of which the truth says nothing.
    """
    flat = maps.reshape(len(maps), int(np.prod(maps.shape[1:])))
    hit = np.full(len(maps), np.nan, np.float32)
    for p, place in enumerate(flat.argmax(1) if flat.size else []):
        value = truth[p].flat[place]
        if flat[p, place] > 0 and value != IGNORE:
            hit[p] = float(value == 1)
    return hit


def rank_correlation(maps: Sequence[Map], others: Sequence[Map]) -> Values:
    """Spearman's rank correlation of maps, pair by pair.

    With the maps of untrained weights this is the randomisation test of Adebayo et al. 2018: near
    1, the maps do not show what the network has learned; at layers next to the output they are
    alike also because both are maps of the same set of pixels.

    Args:
        maps: P maps (h, w) of pictures: bars, alike in both, would be agreement.
        others: P maps of the same sizes.

    Returns:
        (P,) in -1..1; NaN where a map is constant.
    """
    pairs = zip(maps, others, strict=True)
    return np.array([ranks.rank_correlation(a.ravel(), b.ravel()) for a, b in pairs], np.float32)


def mean_known(values: Sequence[Values]) -> Values:
    """Mean of measures of the same maps, over those that are known.

    Args:
        values: Measures, each (P,).

    Returns:
        (P,); NaN where none is known.
    """
    known = ~np.isnan(values)
    return _over(np.nansum(values, 0, dtype=np.float64), known.sum(0))


def _over(part: npt.NDArray[np.float64], whole: npt.NDArray[Any]) -> Values:
    share = np.full(len(whole), np.nan, np.float32)
    np.divide(part, whole, out=share, where=whole > 0, casting="same_kind")
    return share
