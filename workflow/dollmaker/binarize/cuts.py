"""Families of thresholds: how one number says where a map is cut.

A family turns the number of a finding into the threshold of each map. Under ``area`` all masks of a
finding have one size; under the others the size follows the image:

- ``root``: relevance times the square root of the map's ``scale``, over the number; between
  ``fraction`` and ``logits``. Our own.
- ``logits``: relevance in logits per pixel (the map times its ``scale``), over the number.
- ``null``: as ``logits``, with candidates by the share of pixels that they keep of pairs without
  the finding.
- ``fraction``: relevance over a share of the map's maximum.
- ``mass``: the fewest pixels that hold a share of the map's positive relevance.
- ``otsu``: the map's minimum plus the number times the distance to Otsu's threshold (1979). The
  default (docs/evidence.md, "Thresholds without truth").
- ``area``: the most relevant share of the pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Family = Literal["root", "logits", "null", "fraction", "mass", "otsu", "area"]
FAMILIES = get_args(Family)

#: The family that is taken where none is named.
FAMILY: Family = "otsu"

#: Candidates of each family.
COUNT = 24

#: Shares of the pixels that a mask may keep, of one image or (root, logits, null) of all.
AREAS = np.geomspace(0.005, 0.7, COUNT)

#: Candidates that are the same for all findings.
_FIXED: dict[str, Array] = {
    "fraction": np.geomspace(0.9, 0.02, COUNT),
    "mass": np.linspace(0.05, 0.95, COUNT),
    "otsu": np.geomspace(3.0, 0.2, COUNT),
    "area": AREAS,
}

#: Power of the scale that a map is multiplied with before it is cut.
_POWERS = {"root": 0.5, "logits": 1.0, "null": 1.0}


@dataclass(frozen=True)
class Cut:
    """Where the maps of a finding are cut: one of :data:`FAMILIES`, and its number."""

    family: str
    value: float


def candidates(
    maps: Array, scales: Array, null_maps: Array, null_scales: Array
) -> Mapping[str, Array]:
    """The numbers to choose from, those that keep little first: family -> (:data:`COUNT`,).

    Maps of pairs with the finding are (P, ...), their scales in logits per pixel to be broadcast
    with them. There may be no null maps, of pairs without it: then ``null`` is ``logits``.
    """
    found = dict(_FIXED)
    for family, power in _POWERS.items():
        here = (null_maps, null_scales) if family == "null" and len(null_maps) else (maps, scales)
        found[family] = np.quantile(here[0] * here[1] ** power, 1 - AREAS)
    return {family: found[family] for family in FAMILIES}


def level(values: Array, cut: Cut, scale: float = 1.0) -> float:
    """The threshold of one map, the picture alone: the mask is what is above it.

    ``scale`` is the logits per pixel that a value of 1 stands for.
    """
    return float(level_of_each([cut], values, scale)[0])


def level_of_each(cuts: Sequence[Cut], values: Array, scale: float) -> npt.NDArray[np.float64]:
    """The thresholds of one map for many cuts, (len(cuts),); see :func:`level`."""
    flat = np.asarray(values, np.float32).ravel()
    found = np.empty(len(cuts))
    for family in {cut.family for cut in cuts}:
        rows = [row for row, cut in enumerate(cuts) if cut.family == family]
        numbers = np.array([cuts[row].value for row in rows])
        found[rows] = levels(family, numbers, flat, np.array(scale))
    return found


def levels(family: str, numbers: Array, maps: Array, scales: Array) -> Array:
    """Thresholds (G, ...) of maps, float32 (..., N), for the numbers (G,) of a family.

    Scales (...) are the logits per pixel that a value of 1 stands for. A threshold is infinite
    where a map has nothing that could be cut off (``area`` and ``fraction``: its maximum).
    """
    column = np.reshape(numbers, (-1, *(1,) * (maps.ndim - 1)))
    if family == "area":
        return np.asarray(np.quantile(maps, 1 - numbers, axis=-1), np.float32)
    if family == "fraction":
        return np.asarray(column * maps.max(-1))
    if family == "otsu":
        low = maps.min(-1)
        return np.asarray(low + column * (otsu_levels(maps) - low))
    if family == "mass":
        return _holding(column[..., None], maps)
    weight = np.asarray(scales, np.float64) ** _POWERS[family]
    return np.asarray(np.where(weight > 0, column / np.where(weight > 0, weight, 1), np.inf))


def otsu_levels(maps: Array) -> Array:
    """Otsu's thresholds (1979) of maps (..., N), float64 (...); infinite for a constant map."""
    from skimage.filters import threshold_otsu

    flat = maps.reshape(-1, maps.shape[-1])
    found = [threshold_otsu(row) if row.max() > row.min() else np.inf for row in flat]
    return np.array(found, np.float64).reshape(maps.shape[:-1])


def _holding(shares: Array, maps: Array) -> Array:
    """Just under the last of the most relevant values that hold a share (G, ..., 1) of the sum."""
    ordered = np.sort(maps, axis=-1)[..., ::-1]
    held = np.cumsum(np.maximum(ordered, 0), axis=-1, dtype=np.float64)
    needed = shares * held[..., -1:]
    flat, sums = ordered.reshape(-1, maps.shape[-1]), held.reshape(-1, maps.shape[-1])
    found = [
        row[np.minimum(np.searchsorted(total, need), len(row) - 1)] if total[-1] > 0 else np.inf
        for row, total, need in zip(
            flat, sums, needed.reshape(len(shares), len(flat)).T, strict=True
        )
    ]
    last = np.stack([np.broadcast_to(one, len(shares)) for one in found], -1)
    under = np.nextafter(last.astype(np.float32), np.float32(-np.inf))
    return np.asarray(np.where(np.isinf(last), np.inf, under)).reshape(
        len(shares), *maps.shape[:-1]
    )
