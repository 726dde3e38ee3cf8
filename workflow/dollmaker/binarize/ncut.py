"""Masks by a normalised cut of the relevance map (XNCut of ExplainSeg, Ma et al. 2025)."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from dollmaker.binarize.pair import BACKGROUND, FOREGROUND, Pair

Array = npt.NDArray[np.float64]
Split = Literal["best", "mean"]
Upsample = Literal["bilinear", "nearest"]
Width = Annotated[float, Field(gt=0)]

#: Between any two patches, so that the graph is in one piece (TokenCut's).
_FLOOR = 1e-5

#: Standard deviations over the mean at which relevance is clipped: else a bright spot is cut off.
_CEILING = 1.5


# seven: the options of a step are what a recipe may say of it
def ncut(
    pair: Pair,
    *,
    grid: Annotated[int, Field(ge=2, le=64)] = 28,
    relevance: Width = 0.5,
    reach: Width = 0.3,
    image: Width | None = None,
    split: Split = "best",
    upsample: Upsample = "bilinear",
) -> Pair:
    """Cut the map's patches in two where they are least alike; the more relevant side is the mask.

    Published (ExplainSeg): a normalised cut of a graph of all pixels, whose similarity is not
    given. Ours: patches, which fit into memory, joined by w_ij = exp(-(r_i - r_j)^2 / 2 s^2 - |p_i
    - p_j|^2 / 2 t^2), 0 for i = j; p is the place of a patch and r its mean relevance, between 0
    and 1.5 standard deviations over the mean, so that a peak is not cut off alone. The foreground
    is the side of the higher mean relevance.

    An earlier mask is ignored. A constant map has an empty mask. The pair gets no threshold (NaN).

    Args:
        pair: With or without a mask.
        grid: Patches a side; time grows with its sixth power.
        relevance: s, in standard deviations of r.
        reach: t, as a share of the image's side.
        image: Adds the image: the same kernel of the patches' mean colours, in standard
            deviations of these. ``None`` is relevance alone.
        split: Where the vector is cut: at the smallest NCut of all thresholds, or at its mean (as
            TokenCut does), which is good only when both sides are of a size.
        upsample: To pixels: the vector bilinearly before it is cut (a smooth outline), or the cut
            patches as they are.
    """
    height, width = pair.map.shape
    cells = (min(grid, height), min(grid, width))
    patches = _patches(np.clip(np.asarray(pair.map, np.float64), 0, None), cells)
    feature = np.minimum(patches, patches.mean() + _CEILING * patches.std())
    if not feature.std() > 1e-6 * feature.max():  # a spread of rounding errors is none
        empty = np.full(pair.map.shape, BACKGROUND, np.uint8)
        return replace(pair, mask=empty, threshold=float("nan"))
    places = np.stack(np.meshgrid(*(np.arange(n) / n for n in cells), indexing="ij"))
    parts = [feature[None] / feature.std() / relevance, places / reach]
    if image is not None:
        colours = _patches(np.asarray(pair.image, np.float64), cells)
        spread = np.sqrt(colours.var(axis=(1, 2)).sum())
        parts.append(colours / max(spread, 1e-6) / image)
    exponent = _distances(np.concatenate(parts))
    affinity = np.exp(exponent / -2) + _FLOOR
    np.fill_diagonal(affinity, 0)
    height_above = _relaxed(affinity, split).reshape(cells)
    side = height_above > 0
    if side.all() or not side.any() or patches[side].mean() < patches[~side].mean():
        height_above = -height_above
    mask = np.where(_pixels(height_above, (height, width), upsample), FOREGROUND, BACKGROUND)
    return replace(pair, mask=mask.astype(np.uint8), threshold=float("nan"))


def _relaxed(affinity: Array, split: Split) -> Array:
    """How far each node's entry of the relaxed cut is over the threshold, (N,)."""
    import torch

    from dollmaker.attribute.graphs import best_split, normalised_cut

    graph = torch.from_numpy(affinity)
    vector, _ = normalised_cut(graph)
    cut = best_split(graph, vector)[0] if split == "best" else vector.mean()
    return np.asarray((vector - cut).numpy())


def _patches(values: Array, cells: tuple[int, int]) -> Array:
    """Means of patches: (..., H, W) to (..., h, w)."""
    for axis, count in zip((-2, -1), cells, strict=True):
        edges = np.arange(count + 1) * values.shape[axis] // count
        widths = np.diff(edges).reshape((-1, 1) if axis == -2 else (-1,))
        values = np.add.reduceat(values, edges[:-1], axis) / widths
    return values


def _distances(features: Array) -> Array:
    """Squared distances of features (C, h, w) between places, (h w, h w)."""
    flat = features.reshape(len(features), -1)
    squared = np.zeros((flat.shape[1], flat.shape[1]))
    for one in flat:
        difference = np.subtract.outer(one, one)
        difference *= difference
        squared += difference
    return squared


def _pixels(values: Array, size: tuple[int, int], upsample: Upsample) -> npt.NDArray[np.bool_]:
    factors = (size[0] / values.shape[0], size[1] / values.shape[1])
    order = 0 if upsample == "nearest" else 1
    return np.asarray(
        ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True) > 0
    )
