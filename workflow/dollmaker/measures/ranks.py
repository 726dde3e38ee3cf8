"""Spearman's rank correlation, with numpy alone."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def rank_correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Args:
        first: (N,) without NaN.
        second: Same shape.

    Returns:
        -1..1; NaN for fewer than three values (two always give -1 or 1), or if all of one side
        are equal.
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
