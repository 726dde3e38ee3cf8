"""Scores of starts and their differences, with intervals over what was drawn: patients and seeds.

Other patients would give other scores, and so would other training images and other random weights:
a seed stands for both. Both are drawn with replacement, independently (a crossed bootstrap, Owen
2007, "The pigeonhole bootstrap"); drawing patients alone calls differences certain that another
set of seeds turns around.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dollmaker.measures import scores

Floats = npt.NDArray[np.float64]


def paired_difference(
    first: Floats,
    second: Floats,
    patients: Sequence[str] | npt.NDArray[np.str_],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> scores.Interval:
    """Mean score of a start less that of another, on the same images and seeds.

    The mean is taken over images for each seed and class, then over classes, then over seeds. A
    score that either start lacks (NaN: nothing is known of the image) counts for neither.

    Args:
        first: (N, S, K) scores of N images with S seeds and K classes.
        second: The other start's, of the same shape.
        patients: (N,) patient of each image; a patient's images are drawn together.
        replicates: Number of replicates.
        seed: Seed of the draws.

    Returns:
        The difference and its 95 % percentile interval; no interval (NaN) with one patient. With
        one seed it is over patients alone; with few it is somewhat too narrow.
    """
    if first.shape != second.shape or len(first) != len(patients):
        raise ValueError("both need the scores of the same images, seeds and classes")
    return mean_score(first - second, patients, replicates=replicates, seed=seed)


def mean_score(
    values: Floats,
    patients: Sequence[str] | npt.NDArray[np.str_],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> scores.Interval:
    """Mean score of a start, over images for each seed and class, then classes, then seeds.

    Args:
        values: (N, S, K) scores of N images with S seeds and K classes; NaN is passed over.
        patients: (N,) patient of each image; a patient's images are drawn together.
        replicates: Number of replicates.
        seed: Seed of the draws.

    Returns:
        The mean and its interval as in :func:`paired_difference`.
    """
    means, drawn = crossed_means(values[:, None], patients, replicates, seed)
    point = float(means[0])
    if np.isnan(point) or not len(drawn):
        return scores.Interval(point, float("nan"), float("nan"))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return scores.Interval(point, float(low), float(high))


def crossed_means(
    values: Floats,
    patients: Sequence[str] | npt.NDArray[np.str_],
    replicates: int,
    seed: int,
) -> tuple[Floats, Floats]:
    """Mean scores of several sets of runs, and those of the replicates, drawn alike for all.

    The mean is taken over images for each seed and class, then over classes, then over seeds; NaN
    is passed over.

    Args:
        values: (N, M, S, K) scores of N images in M sets with S seeds and K classes.
        patients: (N,) patient of each image; a patient's images are drawn together.
        replicates: Number of replicates R.
        seed: Seed of the draws.

    Returns:
        (M,) means, and (R, M) of the replicates; no replicate with one patient.
    """
    count, sets, seeds, classes = values.shape
    known = ~np.isnan(values)
    columns = (count, sets * seeds * classes)
    flat = np.where(known, values, 0.0).reshape(columns)
    counts = known.reshape(columns).astype(np.float64)

    def by_seed(weights: Floats) -> Floats:
        """Means of each seed, (r, M, S), for weights of the images (r, N)."""
        above, below = weights @ flat, weights @ counts
        means = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
        return np.asarray(scores.nanmean(means.reshape(-1, sets, seeds, classes), axis=3))

    rng = np.random.default_rng([seed, seeds])
    drawn = [np.empty((0, sets))]
    several = len(np.unique(np.asarray(patients, dtype=str))) > 1
    for weights in scores.resamples(count, patients, replicates if several else 0, seed):
        means = by_seed(weights)
        chosen = rng.integers(seeds, size=(len(means), 1, seeds))
        drawn.append(scores.nanmean(np.take_along_axis(means, chosen, axis=2), axis=2))
    whole = scores.nanmean(by_seed(np.ones((1, count)))[0], axis=1)
    return np.asarray(whole), np.concatenate(drawn)
