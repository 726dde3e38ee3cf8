"""Measures of relevance maps of segmentation networks, and their means by method.

Shapes: P maps of H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.measures import scores
from dollmaker.pixels.masks import IGNORE

Map = npt.NDArray[np.float32]
Masks = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

#: Columns of measures.parquet that are measures -> what they say.
MEASURES = {
    "inside_prediction": "share of the relevance inside the prediction",
    "inside_truth": "share of the relevance inside the truth",
    "pointing": "share of pairs whose most relevant pixel lies in the truth",
    "randomised": "rank correlation with the maps of untrained networks; near 1, the maps do not "
    "show what was learned",
}


def share_inside(maps: Map, masks: Masks) -> Values:
    """Share of the relevance that lies inside a mask, (P,) in 0..1.

    Masks are (P, H, W): 1 inside, 0 outside, 255 ignored: that relevance counts nowhere. It is NaN
    without relevance on the pixels that count.
    """
    known = np.where(masks == IGNORE, 0, maps).astype(np.float64)
    total = known.sum((1, 2))
    inside = np.where(masks == 1, known, 0).sum((1, 2))
    share = np.full(len(total), np.nan, np.float32)
    np.divide(inside, total, out=share, where=total > 0, casting="same_kind")
    return share


def pointing_game(maps: Map, truth: Masks) -> Values:
    """Whether the most relevant pixel lies in the truth (Zhang et al. 2018, without tolerance).

    Of equal maxima the first one in reading order counts. The truth is (P, H, W): 1, 0, 255 =
    ignored; the result (P,) is NaN for a zero map and for a pixel of which the truth says nothing.
    """
    flat = maps.reshape(len(maps), int(np.prod(maps.shape[1:])))
    hit = np.full(len(maps), np.nan, np.float32)
    for p, place in enumerate(flat.argmax(1) if flat.size else []):
        value = truth[p].flat[place]
        if flat[p, place] > 0 and value != IGNORE:
            hit[p] = float(value == 1)
    return hit


def rank_correlation(maps: Sequence[Map], others: Sequence[Map]) -> Values:
    """Spearman's rank correlation of maps (h, w) of pictures, pair by pair, (P,) in -1..1.

    With the maps of untrained weights this is the randomisation test of Adebayo et al. 2018: near
    1, the maps do not show what the network has learned; at layers next to the output they are
    alike also because both are maps of the same set of pixels. Maps have no bars: these, alike in
    both, would be agreement. NaN where a map is constant.
    """
    pairs = zip(maps, others, strict=True)
    return np.array([scores.rank_correlation(a.ravel(), b.ravel()) for a, b in pairs], np.float32)


def mean_known(values: Sequence[Values]) -> Values:
    """Mean of measures (P,) of the same maps, over those that are known; NaN where none is."""
    return np.asarray(scores.nanmean(np.array(values), axis=0), np.float32)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Means of one method."""

    method: str  #: The method.
    finding: str | None  #: Over pairs of this finding; ``None``: of all.
    pairs: int  #: Number of pairs.
    #: Measure -> its mean (``None`` where no pair has one), pairs used, pairs left out.
    cells: Mapping[str, tuple[float | None, int, int]]


def summarize(measures: pl.DataFrame) -> list[Row]:
    """The means of every method: a row for each finding, by name, then one for all pairs.

    Left out are pairs without relevance by one of the methods, so that all have the same pairs, and
    those for which the measure is not defined (NaN). ``measures`` are rows of measures.parquet.
    """
    methods, common = _common(measures)
    rows = []
    for method in methods:
        for finding in (*measures["finding"].unique().sort(), None):
            of = {"method": method} if finding is None else {"method": method, "finding": finding}
            used, every = common.filter(**of), len(measures.filter(**of))
            known = {name: used[name].drop_nans().cast(pl.Float64) for name in MEASURES}
            cells = {
                name: (fmean(values) if len(values) else None, len(values), every - len(values))
                for name, values in known.items()
            }
            rows.append(Row(method=method, finding=finding, pairs=every, cells=cells))
    return rows


def tell_pixels(pixels: str, point: tuple[int, int] | None) -> str:
    """A set of pixels in words."""
    return pixels if point is None else f"point {point[0]},{point[1]}"


def side_by_side(measures: pl.DataFrame) -> str:
    """Means of the measures, a line for each method, over the pairs that every method maps."""
    methods, common = _common(measures)
    pairs = len(measures) // len(methods)
    lines = [f"means over {len(common) // len(methods)} pairs with relevance by every method:"]
    for method in methods:
        mine = common.filter(method=method)
        values = (f"{name} {_number(mine[name].fill_nan(None).mean())}" for name in MEASURES)
        count = measures.filter(pl.col("inside_prediction").is_not_nan(), method=method).height
        lines.append(f"{method}: {', '.join(values)}; relevance in {count} of {pairs} pairs")
    return "\n".join(lines)


def page(measures: pl.DataFrame, *, layer: str, pixels: str, split: str) -> str:
    """README.md of the folder, of the rows of measures.parquet."""
    lines = [
        f"| method | finding | pairs | {' | '.join(MEASURES)} |",
        f"|---|---|---:|{'---:|' * len(MEASURES)}",
    ]
    for row in summarize(measures):
        name = "**all pairs**" if row.finding is None else row.finding.replace("|", "\\|")
        cells = (f"{_number(mean)} ({used}; {left})" for mean, used, left in row.cells.values())
        lines.append(f"| {row.method} | {name} | {row.pairs} | {' | '.join(cells)} |")
    meanings = "\n".join(f"- `{name}`: {meaning}." for name, meaning in MEASURES.items())
    table = "\n".join(lines)
    return f"""# Where the segmenter looks

Layer `{layer}`, pixel set `{pixels}`, released pairs of the split `{split}`.

**Truth here is the released pseudo-mask**, which the segmenter learned from or is of the same kind
as what it learned from. It was made from explanations of classifiers, not drawn by people:
relevance inside it is no evidence of a right localisation.

{table}

Each cell is a mean (pairs used; pairs left out). Left out are pairs without relevance by one of the
methods, so that all have the same pairs, and those for which the measure is not defined (NaN).

{meanings}
"""


def _common(measures: pl.DataFrame) -> tuple[list[str], pl.DataFrame]:
    """The methods, and the rows of the pairs that every one of them maps."""
    methods = measures["method"].unique(maintain_order=True).to_list()
    mapped = measures.filter(pl.col("inside_prediction").is_not_nan())
    return methods, mapped.filter(pl.len().over("image_id", "finding") == len(methods))


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.3f}"
