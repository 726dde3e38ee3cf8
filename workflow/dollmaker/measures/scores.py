"""Scores and their bootstrap intervals, with numpy alone.

Labels are 1 and 0; every other value (uncertain, blank, NaN) leaves its row out, and so does a
score that is NaN. What cannot be computed (one class only, two empty masks) is NaN, and means
over images or findings pass over NaN.

Shapes: N rows (images or pixels), R bootstrap replicates, K columns (findings or classes).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: A statistic of weighted rows: weights (r, N) -> values (r,). Weight 1 for all is the point.
Statistic = Callable[[Floats], Floats]

#: Elements of the largest temporary array of a bootstrap: 32 MB of float64.
_BLOCK = 4_000_000


class Interval(NamedTuple):
    """A statistic with its 95 % bootstrap interval."""

    point: float  #: The statistic of the data as they are.
    #: 2.5th percentile of the replicates; NaN of a single row, or of a single group of rows.
    low: float
    high: float  #: 97.5th percentile; likewise.

    def columns(self, name: str) -> dict[str, float]:
        """The columns ``name``, ``name_low`` and ``name_high`` of a table of scores."""
        return {name: self.point, f"{name}_low": self.low, f"{name}_high": self.high}


# --- ranking ------------------------------------------------------------------------------------


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order.

    Ties count one half (Mann-Whitney). Labels and scores are (N,), higher means positive; NaN when
    a class is missing.
    """
    ranking = _Ranking(labels, scores)
    return float(ranking.auroc(np.ones((1, ranking.size)))[0])


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as a sum over recall steps, without interpolation.

    Labels and scores are (N,), higher means positive; NaN when there is no positive.
    """
    truth, values = np.asarray(labels).ravel(), np.asarray(scores).ravel()
    known = ~np.isnan(values)
    positives = np.sort(values[known & (truth == 1)])
    if not len(positives):
        return float("nan")
    everything = np.sort(values[known & ((truth == 0) | (truth == 1))])
    # Recall grows only at the scores of positives: look those up instead of ranking all labels,
    # which takes a tenth of the time on the pixels of a large image.
    levels, found = np.unique(positives, return_counts=True)
    below = np.searchsorted(everything, levels, side="left")
    above = np.cumsum(found[::-1])[::-1]
    return float((found * above / (len(everything) - below)).sum() / len(positives))


class _Ranking:
    """Rows in falling order of score, with the last row of each group of equal scores."""

    def __init__(self, labels: npt.ArrayLike, scores: npt.ArrayLike) -> None:
        truth, values = np.asarray(labels).ravel(), np.asarray(scores).ravel()
        valid = ((truth == 0) | (truth == 1)) & ~np.isnan(values)
        order = np.flatnonzero(valid)
        order = order[np.argsort(-values[order], kind="stable")]
        self.size = len(truth)
        self.order = order
        self.positive = truth[order] == 1
        ranked = values[order]
        last = np.ones(len(order), dtype=bool)
        last[:-1] = ranked[1:] != ranked[:-1]
        self.last = np.flatnonzero(last)

    def _cumulated(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of positives and of negatives at or above each distinct score, (r, T)."""
        ranked = weights[:, self.order]
        above = np.cumsum(ranked, axis=1)[:, self.last]
        positives = np.cumsum(ranked * self.positive, axis=1)[:, self.last]
        return positives, above - positives

    def auroc(self, weights: Floats) -> Floats:
        if not len(self.order):
            return np.full(len(weights), np.nan)
        positives, negatives = self._cumulated(weights)
        steps = np.diff(negatives, axis=1, prepend=0.0)
        before = positives - np.diff(positives, axis=1, prepend=0.0) / 2
        pairs = positives[:, -1] * negatives[:, -1]
        return _ratio((before * steps).sum(axis=1), pairs)

    def average_precision(self, weights: Floats) -> Floats:
        if not len(self.order):
            return np.full(len(weights), np.nan)
        positives, negatives = self._cumulated(weights)
        precision = positives / np.maximum(positives + negatives, 1e-300)
        steps = np.diff(positives, axis=1, prepend=0.0)
        return _ratio((precision * steps).sum(axis=1), positives[:, -1])


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, NaN where the denominator is zero."""
    result = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    NaN for fewer than three values (two always give -1 or 1), or if all of one side are equal.
    """
    ranks = [_mean_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    if len(ranks[0]) < 3:
        return float("nan")
    a, b = (rank - rank.mean() for rank in ranks)
    below = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / below if below > 0 else float("nan")


def _mean_ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    above = np.cumsum(count)
    return np.asarray((above - (count - 1) / 2)[place.reshape(-1)])


# --- overlap ------------------------------------------------------------------------------------


def iou(prediction: Array, truth: Array, ignore: Array | None = None) -> Any:
    """Intersection over union of masks, bool (..., H, W), of shape (...); NaN where both are empty.

    Pixels of ``ignore`` count for neither.
    """
    overlap, predicted, true = _areas(prediction, truth, ignore)
    return _ratio(overlap, predicted + true - overlap)[()]


def dice(prediction: Array, truth: Array, ignore: Array | None = None) -> Any:
    """Dice coefficient, twice the intersection over the sum of both areas. As :func:`iou`."""
    overlap, predicted, true = _areas(prediction, truth, ignore)
    return _ratio(2 * overlap, predicted + true)[()]


def _areas(prediction: Array, truth: Array, ignore: Array | None) -> tuple[Floats, Floats, Floats]:
    predicted, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if predicted.shape != true.shape:
        raise ValueError(f"prediction has shape {predicted.shape}, truth {true.shape}")
    if ignore is not None:
        counted = ~np.asarray(ignore, dtype=bool)
        predicted, true = predicted & counted, true & counted
    areas = (np.count_nonzero(m, axis=(-2, -1)) for m in (predicted & true, predicted, true))
    overlap, of_prediction, of_truth = (np.asarray(area, dtype=np.float64) for area in areas)
    return overlap, of_prediction, of_truth


def hit(values: Array, truth: Array) -> float:
    """Whether the highest pixel of a map (H, W) lies inside the truth (CheXlocalize's hit rate).

    1.0 or 0.0; where several pixels share the maximum, the share of them inside; NaN when the
    truth is empty.
    """
    inside = np.asarray(truth, dtype=bool)
    if not inside.any():
        return float("nan")
    plain = np.asarray(values)
    return float(inside[plain == plain.max()].mean()) if not np.isnan(plain).any() else float("nan")


# --- bootstrap ----------------------------------------------------------------------------------


def resamples(count: int, groups: Any | None, replicates: int, seed: int) -> Iterator[Floats]:
    """How often each of N rows is drawn in each replicate: weights (r, N), in blocks of replicates.

    Whole groups (N,), such as patients, are drawn with replacement; ``None`` draws single rows. The
    draws depend on the seed and on the set of groups, not on the size of the blocks.
    """
    number = np.arange(count)
    if groups is not None:
        number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1)
    total = int(number.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    rows = max(1, min(replicates, _BLOCK // max(1, count)))
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn = rng.integers(max(1, total), size=(size, total))
        places = drawn + total * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * total).reshape(size, total)
        yield counts.astype(np.float64)[:, number]


def bootstrap(
    statistic: Statistic, count: int, groups: Any | None, replicates: int, seed: int
) -> Interval:
    """The 95 % percentile interval of any statistic of weighted rows.

    Replicates for which the statistic is NaN are passed over; groups as for :func:`resamples`.
    """
    point = float(statistic(np.ones((1, count)))[0]) if count else float("nan")
    if np.isnan(point):
        return Interval(float("nan"), float("nan"), float("nan"))
    drawn = [statistic(weights) for weights in resamples(count, groups, replicates, seed)]
    return interval_of(point, np.concatenate(drawn), _several(count, groups))


def _several(count: int, groups: Any | None) -> bool:
    """Whether there is more than one group: one alone says nothing about others."""
    return (count if groups is None else len(np.unique(np.asarray(groups, dtype=str)))) > 1


def interval_of(point: float, replicates: Floats, several: bool = True) -> Interval:
    """A statistic with the percentiles of its replicates; none of a group that is alone."""
    known = replicates[~np.isnan(replicates)]
    if np.isnan(point) or not len(known) or not several:
        return Interval(point, float("nan"), float("nan"))
    low, high = np.percentile(known, (2.5, 97.5))
    return Interval(point, float(low), float(high))


def bootstrap_interval(
    values: npt.ArrayLike, groups: Any | None = None, *, replicates: int = 1000, seed: int = 0
) -> Interval:
    """Mean with its interval; groups as for :func:`resamples`.

    Values are (N,), or (N, K) for the mean over K columns of each column's mean over rows, the rows
    being drawn jointly. NaN is passed over.
    """
    means = _column_means(_columns(values))

    def statistic(weights: Floats) -> Floats:
        return np.asarray(nanmean(means(weights), axis=1))

    return bootstrap(statistic, len(np.asarray(values)), groups, replicates, seed)


def column_intervals(
    values: npt.ArrayLike, groups: Any | None = None, *, replicates: int = 1000, seed: int = 0
) -> list[Interval]:
    """Intervals of the mean over columns (N, K), then of each column, from the same draws.

    As :func:`bootstrap_interval`.
    """
    columns = _columns(values)
    means = _column_means(columns)

    def all_means(weights: Floats) -> Floats:
        each = means(weights)
        return np.column_stack([nanmean(each, axis=1), each])

    points = all_means(np.ones((1, len(columns))))[0]
    blocks = [all_means(w) for w in resamples(len(columns), groups, replicates, seed)]
    drawn = np.concatenate(blocks) if len(columns) else np.zeros((0, len(points)))
    several = _several(len(columns), groups)
    return [interval_of(float(point), drawn[:, k], several) for k, point in enumerate(points)]


def _ranking_interval(
    measure: Callable[[_Ranking, Floats], Floats],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    patients: Any | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Interval:
    """A ranking's score with its interval over patients (N,); ``None`` makes every row its own.

    Labels and scores are (N,), or (N, K) for the mean over the columns that have both classes.
    """
    truth, values = _columns(labels), _columns(scores)
    rankings = [_Ranking(*pair) for pair in zip(truth.T, values.T, strict=True)]

    def statistic(weights: Floats) -> Floats:
        if not rankings:
            return np.full(len(weights), np.nan)
        each = np.stack([measure(ranking, weights) for ranking in rankings], axis=1)
        return np.asarray(nanmean(each, axis=1))

    return bootstrap(statistic, len(truth), patients, replicates, seed)


#: AUROC and average precision with their intervals, from labels, scores and patients.
auroc_interval = partial(_ranking_interval, _Ranking.auroc)
average_precision_interval = partial(_ranking_interval, _Ranking.average_precision)


def _column_means(columns: Array) -> Statistic:
    """Weights (r, N) -> weighted mean of each column (r, K), NaN passed over."""
    known = ~np.isnan(columns)
    filled = np.where(known, columns, 0.0).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        # einsum instead of @: the same bits whatever the number of BLAS threads.
        total = np.einsum("rn,nk->rk", weights, filled)
        seen = np.einsum("rn,nk->rk", weights, known.astype(np.float64))
        return _ratio(total, seen)

    return statistic


def nanmean(values: Array, axis: int | None = None) -> Any:
    """Mean that passes over NaN, without numpy's warning; NaN when nothing is left."""
    plain = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(plain)
    total = np.where(known, plain, 0.0).sum(axis=axis)
    return _ratio(np.asarray(total), np.asarray(known.sum(axis=axis), dtype=np.float64))[()]


def _columns(values: npt.ArrayLike) -> Array:
    plain = np.asarray(values)
    return plain[:, None] if plain.ndim == 1 else plain
