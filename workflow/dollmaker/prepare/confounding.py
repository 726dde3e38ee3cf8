"""How well features without content predict a label, for patients that were not learned from.

A ridge regression (Hoerl and Kennard 1970) with its penalty by generalised cross-validation (Golub
et al. 1979), fitted on four fifths of the patients and scored on the last, five times.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dollmaker.measures.scores import Interval, auroc_interval

Floats = npt.NDArray[np.float64]

#: Parts that the patients are dealt into.
FOLDS = 5

#: Penalties that are tried, for each image and feature of unit variance.
_PENALTIES = np.logspace(-5, 3, 33)

#: Replicates of the bootstrap over patients, whose price at 224,000 images is minutes.
_REPLICATES = 300

#: Rows that are held in double precision at a time.
_BLOCK = 8192


def predictability(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    patients: Sequence[str],
    parts: Sequence[Sequence[int]],
    seed: int,
) -> list[Interval]:
    """AUC with which sets of features predict a label, with 95 % intervals over patients.

    Args:
        features: (N, P).
        labels: (N) of 1 and 0; other rows are left out.
        patients: Patient of each row.
        parts: Sets of columns of the features.
        seed: Seed of the bootstrap.

    Returns:
        One interval for each set: NaN where fewer than five patients have an image with the label,
        or one without it, and where none of the features varies.
    """
    known = np.isin(labels, (0, 1))
    truth, people = labels[known].astype(np.float64), np.asarray(patients, object)[known]
    fold = deal(people.tolist(), truth > 0)
    if fold is None:
        return [Interval(np.nan, np.nan, np.nan)] * len(parts)
    moments = _moments(features, np.flatnonzero(known), truth, fold)
    groups = np.unique(people.astype(str), return_inverse=True)[1]
    found = []
    for columns in parts:
        scores = _scores(features, np.flatnonzero(known), fold, moments, np.asarray(columns))
        if not scores.any():
            found.append(Interval(np.nan, np.nan, np.nan))
        else:
            found.append(auroc_interval(truth, scores, groups, replicates=_REPLICATES, seed=seed))
    return found


def deal(patients: Sequence[str], positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64] | None:
    """Deal patients into parts, evenly those with a positive image and those with a negative one.

    They are dealt one after the other: first those with positive images alone, last those with
    negative ones alone, so that both kinds are runs. Within these the order is that of a hash of
    the patient, so that it follows nothing in the table.

    Args:
        patients: Patient of each row.
        positive: Whether each row is positive (N).

    Returns:
        The part of each row, 0..4 (N); ``None`` if there are too few patients of either kind for
        every part to have one.
    """
    pairs = list(zip(patients, positive.tolist(), strict=True))
    with_one = {patient for patient, yes in pairs if yes}
    without = {patient for patient, yes in pairs if not yes}
    if min(len(with_one), len(without)) < FOLDS:
        return None
    groups = (with_one - without, with_one & without, without - with_one)
    order = [patient for group in groups for patient in sorted(group, key=_place)]
    dealt = {patient: n % FOLDS for n, patient in enumerate(order)}
    return np.array([dealt[patient] for patient in patients])


def _place(patient: str) -> str:
    return hashlib.sha256(f"dollmaker audit {patient}".encode()).hexdigest()


def _moments(
    features: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    truth: Floats,
    fold: npt.NDArray[np.int64],
) -> Floats:
    """Sums of products of (1, features, label) over the rows of each part, (5, P + 2, P + 2)."""
    width = features.shape[1] + 2
    moments = np.zeros((FOLDS, width, width))
    for part in range(FOLDS):
        mine = np.flatnonzero(fold == part)
        for start in range(0, len(mine), _BLOCK):
            chosen = mine[start : start + _BLOCK]
            block = np.column_stack([np.ones(len(chosen)), features[rows[chosen]], truth[chosen]])
            moments[part] += block.T @ block
    return moments


def _scores(
    features: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    moments: Floats,
    columns: npt.NDArray[np.int64],
) -> Floats:
    """What a regression on the other parts says of each row, as a deviation from their mean.

    The mean of the labels in those parts is left out: where a part has more positives than its
    share the others have fewer, so that it would order the rows against their labels.
    """
    chosen = [0, *(columns + 1).tolist(), moments.shape[1] - 1]
    mine = moments[:, chosen][:, :, chosen]
    scores = np.zeros(len(rows))
    for part in range(FOLDS):
        held = np.flatnonzero(fold == part)
        centre, weights = ridge(mine.sum(axis=0) - mine[part])
        for start in range(0, len(held), _BLOCK):
            block = held[start : start + _BLOCK]
            scores[block] = (features[rows[block]][:, columns] - centre) @ weights
    return scores


def ridge(moments: Floats) -> tuple[Floats, Floats]:
    """A ridge regression from sums of products.

    Features are scaled to unit variance, one that does not vary has no weight. The penalty is the
    one of the least n RSS / (n - 1 - t)^2, t the effective number of features.

    Args:
        moments: Z'Z of the rows Z = (1, features, label), (P + 2, P + 2).

    Returns:
        The features' means (P), and their weights (P): label - its mean = (features - means) w.
    """
    count, mean = moments[0, 0], moments[0, 1:] / moments[0, 0]
    spread = moments[1:, 1:] - count * np.outer(mean, mean)
    variance = np.diag(spread)[:-1] / count
    # A constant column leaves rounding errors of its squares.
    varies = variance > 1e-9 * (1 + mean[:-1] ** 2)
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    values, vectors = np.linalg.eigh(spread[:-1, :-1] * np.outer(scale, scale))
    values = values.clip(0)
    along, total = vectors.T @ (spread[:-1, -1] * scale), spread[-1, -1]
    penalty = count * _PENALTIES[:, None]
    shares = values / (values + penalty)
    left = total - (along**2 / (values + penalty) * (2 - shares)).sum(axis=1)
    criterion = left / (count - 1 - shares.sum(axis=1)).clip(1e-9) ** 2
    best = penalty[int(np.argmin(criterion))]
    return mean[:-1], scale * (vectors @ (along / (values + best)))
