"""Are probabilities what they say? The reliability curve, and its distance from the diagonal."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Reliability(NamedTuple):
    """A reliability curve: what was said and what was there, by bins of equal width.

    Attributes:
        counts: Labels in each bin, int64 (B,).
        said: Mean probability in each, NaN where there is none, (B,).
        there: Share of positives in each, NaN where there is none, (B,).
    """

    counts: npt.NDArray[np.int64]
    said: Floats
    there: Floats

    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017): the mean distance, weighted by counts.

        NaN without labels.
        """
        if not self.counts.sum():
            return float("nan")
        distance = np.nan_to_num(np.abs(self.said - self.there))
        return float((self.counts * distance).sum() / self.counts.sum())


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> Reliability:
    """The reliability curve of probabilities.

    Args:
        labels: 1 and 0, any shape; others are left out.
        probabilities: 0..1, the same shape.
        bins: Their number.
    """
    true, given = np.asarray(labels, float).ravel(), np.asarray(probabilities, float).ravel()
    known = np.isin(true, (0, 1)) & np.isfinite(given)
    true, given = true[known], given[known]
    place = np.clip((given * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    said, there = (
        np.divide(np.bincount(place, values, bins), counts, np.full(bins, np.nan), where=counts > 0)
        for values in (given, true)
    )
    return Reliability(counts, said, there)
