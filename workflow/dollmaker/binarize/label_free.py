"""Thresholds without truth, one for each finding, from the sample's views.

Three criteria, each a number for every candidate threshold; the best candidate wins:

- ``stability``: how much more the mask that one member draws of an image, or of its mirror image,
  resembles (IoU) those that the other members draw of it than those of other images with the
  finding. What noise draws does not come again; what merely lies where such findings lie comes
  again in every image. A single member is compared with itself in the mirror, which repeats some
  of its noise. Our own, and the default: see docs/comparison.md for what it loses to thresholds
  chosen with truth.
- ``agreement``: Cohen's kappa between members' masks (of a single member, between an image and its
  mirror): overlap beyond what areas alone would give.
- ``separability``: Otsu's share of the map's variance that lies between inside and outside.

Candidates are areas (keep the most relevant share of the pixels) and Otsu's own threshold. Curves
of a finding are drawn towards the mean over findings, the more the fewer its pairs, and smoothed
over neighbouring areas: thresholds next to each other should be good together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CRITERIA = ("stability", "agreement", "separability")

#: Shares of the image that a mask may keep.
AREAS = np.geomspace(0.005, 0.7, 40)

#: Pairs that the mean over findings is worth when a finding's curve is drawn towards it.
PRIOR = 10

#: Weights of neighbouring areas when a curve is smoothed.
_NEIGHBOURS = np.array([0.25, 0.75, 1.0, 0.75, 0.25]) / 3
_REACH = len(_NEIGHBOURS) // 2

Curves = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """Where the maps of a finding are cut.

    Attributes:
        family: ``area`` (keep the most relevant share) or ``otsu``.
        area: The share, for ``area``.
    """

    family: str
    area: float = 0.0


#: What the candidates mean, in the order of a curve.
CANDIDATES = (*(Cut("area", float(area)) for area in AREAS), Cut("otsu"))


def curves(views: Floats) -> dict[str, Curves]:
    """Every criterion for every candidate, from the views of one finding's pairs.

    Args:
        views: Maps of P images by M members, plain and mirrored (turned back): (P, M, 2, v, v).

    Returns:
        Criterion -> (41,) in the order of :data:`CANDIDATES`.
    """
    maps = views.reshape(*views.shape[:3], -1).astype(np.float32)
    names = {name: np.zeros(len(CANDIDATES)) for name in CRITERIA}
    for number, cut in enumerate(CANDIDATES):
        masks = maps > _levels(maps, cut)
        members = masks.shape[1]
        pairs = [(masks[:, a, 0], masks[:, b, 0]) for a in range(members) for b in range(a)]
        names["stability"][number] = np.mean([_specific(a, b) for a, b in _views(masks)])
        names["agreement"][number] = np.mean(
            [_kappa(a, b) for a, b in pairs or [(masks[:, 0, 0], masks[:, 0, 1])]]
        )
        names["separability"][number] = _separability(maps[:, :, 0], masks[:, :, 0])
    return names


def choose(
    given: Mapping[str, Mapping[str, Curves]], counts: Mapping[str, int]
) -> dict[str, dict[str, Cut]]:
    """The best candidate of each finding by each criterion.

    Args:
        given: Finding -> its curves.
        counts: Finding -> number of its pairs.

    Returns:
        Criterion -> finding -> its cut.
    """
    chosen: dict[str, dict[str, Cut]] = {}
    for criterion in CRITERIA:
        mean = _mean([given[f][criterion] for f in given], [counts[f] for f in given])
        chosen[criterion] = {}
        for finding, all_curves in given.items():
            curve = _mean([all_curves[criterion], mean], [counts[finding], PRIOR])
            curve[:-1] = np.convolve(np.pad(curve[:-1], _REACH, mode="edge"), _NEIGHBOURS, "valid")
            chosen[criterion][finding] = CANDIDATES[int(np.argmax(curve))]
    return chosen


def level(values: npt.NDArray[Any], cut: Cut) -> float:
    """The threshold of one map (H, W); the mask is what is above it."""
    return float(_levels(np.asarray(values, np.float32).reshape(1, -1), cut)[0, 0])


def _levels(maps: Floats, cut: Cut) -> Floats:
    """Thresholds of maps (..., N), as (..., 1)."""
    if cut.family == "area":
        return np.asarray(np.quantile(maps, 1 - cut.area, axis=-1, keepdims=True), np.float32)
    from skimage.filters import threshold_otsu

    flat = maps.reshape(-1, maps.shape[-1])
    found = [threshold_otsu(row) if row.max() > row.min() else np.inf for row in flat]
    return np.array(found, np.float32).reshape(*maps.shape[:-1], 1)


def _views(masks: Masks) -> list[tuple[Masks, Masks]]:
    """Pairs of independent views (P, N) of masks (P, M, 2, N)."""
    members = masks.shape[1]
    if members == 1:
        return [(masks[:, 0, 0], masks[:, 0, 1])]
    return [
        (masks[:, a, i], masks[:, b, j])
        for a in range(members)
        for b in range(a)
        for i in (0, 1)
        for j in (0, 1)
    ]


def _specific(a: Masks, b: Masks) -> float:
    """Mean IoU of masks (P, N) of the same image, less that of different images."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    inside = x @ y.T
    union = x.sum(1)[:, None] + y.sum(1)[None] - inside
    table = inside / np.maximum(union, 1)
    same = float(np.trace(table)) / len(table)
    if len(table) == 1:
        return same
    return same - (float(table.sum()) - float(np.trace(table))) / (len(table) * (len(table) - 1))


def _kappa(a: Masks, b: Masks) -> float:
    """Mean of Cohen's kappa over masks (P, N)."""
    p, q = a.mean(1), b.mean(1)
    both = (a & b).mean(1)
    observed = 1 - p - q + 2 * both
    chance = p * q + (1 - p) * (1 - q)
    known = chance < 1
    return float(np.mean(np.where(known, (observed - chance) / np.where(known, 1 - chance, 1), 0)))


def _separability(maps: Floats, masks: Masks) -> float:
    """Share of the variance between inside and outside, averaged over maps (..., N)."""
    share = masks.mean(-1)
    total = maps.mean(-1)
    inside = (maps * masks).mean(-1)
    gap = inside - total * share
    below = share * (1 - share) * maps.var(-1)
    return float(np.mean(np.where(below > 0, gap**2 / np.where(below > 0, below, 1), 0)))


def _mean(values: Sequence[Curves], weights: Sequence[float]) -> Curves:
    stack = np.stack(values)
    scale = np.asarray(weights, np.float64)[:, None]
    return np.asarray((stack * scale).sum(0) / scale.sum())
