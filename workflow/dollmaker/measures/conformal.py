"""Lower bounds of a mask's IoU that hold with a stated confidence: split conformal, by patient.

The quality of a mask only ranks. Where patients have true masks, the error of a mask is its quality
minus its IoU, and a margin is a high quantile of these errors: quality minus margin is a bound.
Quality is the prediction as it is: it is made without any truth, so every patient calibrates; a
curve fitted from quality to IoU would need patients of its own, and gave lower bounds.

A patient's masks are one unit. Each patient counts alike, whatever the number of its masks, and the
patient to come counts as one with an infinite error (Lee, Barber and Willett 2023,
"Distribution-free inference with hierarchical data"). So the chance that a mask, drawn from those
of a new patient, has at least its bound is at least the confidence, whatever the distribution, if
new patients are exchangeable with those that calibrate: those of the same split, as networks have
seen the patients of some. Of one mask a patient the margin is the
ceil((n + 1) confidence)-th smallest error (Vovk et al. 2005; Angelopoulos and Bates 2021).
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.measures.words import finite

Floats = npt.NDArray[np.float64]

#: Patients that a bound needs at least, whatever the confidence.
LEAST = 20

#: Halvings of the patients that coverage is measured on.
DRAWS = 100

#: Bounds over this say more than that mask and truth touch.
TELLING = 0.1

_DIGITS = 4  # of quality and bounds; these are rounded down
_STEPS = 10**_DIGITS

#: What masks have in common that one calibration holds for: networks have seen the patients of some
#: splits, and truth may be known of pairs with some labels only.
GROUP = ("finding", "label", "split")


class Check(NamedTuple):
    """What bounds were worth on patients that did not calibrate; NaN where nothing is known."""

    #: Mean over draws of the share of masks that have their bound, each patient counting alike.
    coverage: float
    coverage_low: float  #: 2.5th percentile of that share over the draws.
    coverage_high: float  #: 97.5th percentile.
    width: float  #: Mean of 1 - bound over masks and draws: what is left open.
    telling: float  #: Share of masks with a bound over :data:`TELLING`.


def margin(errors: npt.ArrayLike, patients: npt.ArrayLike, confidence: float) -> float:
    """The quantile of errors (N,), quality minus IoU, that a new patient's stay under.

    The smallest error with at least this share of the patients at or under it, where a patient's
    masks share its weight of 1 / (n + 1); infinite if n patients are too few for the confidence.
    """
    values = np.asarray(errors, np.float64)
    _, numbers, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    order = np.argsort(values)
    shares = np.cumsum(1 / counts[numbers][order]) / (len(counts) + 1)
    place = int(np.searchsorted(shares, confidence - 1e-9))
    return float(values[order][place]) if place < len(values) else float("inf")


def lower_bound(quality: npt.ArrayLike, margins: npt.ArrayLike) -> Floats:
    """Quality (N,) minus margin, at least 0, four digits rounded down; NaN of no finite margin."""
    low = np.asarray(quality, np.float64) - np.asarray(margins, np.float64)
    steps = np.floor(np.where(np.isfinite(low), low, np.nan) * _STEPS + 1e-6)
    return np.asarray(np.maximum(steps, 0) / _STEPS)


def check(
    quality: npt.ArrayLike,
    iou: npt.ArrayLike,
    patients: npt.ArrayLike,
    confidence: float,
    seed: int,
) -> Check:
    """Calibrate on half of the patients and look at the other half, :data:`DRAWS` times.

    All NaN where half of the patients are too few for the confidence. ``quality``, ``iou`` and
    ``patients`` are of each mask, (N,).
    """
    predicted, true = (np.asarray(values, np.float64) for values in (quality, iou))
    names, numbers = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    held, widths, telling = [], [], []
    for _ in range(DRAWS):
        half = rng.permutation(len(names)) < len(names) // 2
        known = half[numbers]
        spread = margin((predicted - true)[known], numbers[known], confidence)
        if not np.isfinite(spread):
            return Check(*[float("nan")] * 5)
        bounds = lower_bound(predicted[~known], spread)
        held.append(coverage(bounds, true[~known], numbers[~known]))
        widths.append(float(np.mean(1 - bounds)))
        telling.append(float(np.mean(bounds > TELLING)))
    low, high = np.percentile(held, (2.5, 97.5))
    means = (float(np.mean(values)) for values in (widths, telling))
    return Check(float(np.mean(held)), float(low), float(high), *means)


def coverage(bounds: Floats, iou: Floats, patients: npt.ArrayLike) -> float:
    """Share of masks whose IoU is at least the bound, each patient counting alike; NaN of none."""
    _, numbers, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    if not len(counts):
        return float("nan")
    return float((np.bincount(numbers, iou >= bounds) / counts).mean())


def calibrate(masks: pl.DataFrame, confidence: float, seed: int) -> list[dict[str, Any]]:
    """One calibration for each group of :data:`GROUP` that masks with truth are of.

    Masks have finding, label, split, patient_id, quality and iou; the confidence is in (0, 1).

    Returns:
        A row for each group, in their order: finding, label, split, patients and masks (that
        calibrate), margin (``None``: too few patients, no bound), coverage with coverage_low and
        coverage_high, width and telling as in :class:`Check`, ``None`` where it is not known.
    """
    known = masks.filter(pl.col("quality").is_finite() & pl.col("iou").is_finite())
    ordered = known.sort(*GROUP, "patient_id", "quality", "iou")
    groups = ordered.group_by(GROUP, maintain_order=True)
    return [_calibration(group, confidence, seed) for _, group in groups]


def _calibration(masks: pl.DataFrame, confidence: float, seed: int) -> dict[str, Any]:
    quality, iou = _quality(masks), masks["iou"].to_numpy()
    patients = masks["patient_id"].to_numpy().astype(str)
    count = len(np.unique(patients))
    spread, found = float("inf"), Check(*[float("nan")] * 5)
    if count >= LEAST:
        spread = margin(quality - iou, patients, confidence)
        found = check(quality, iou, patients, confidence, seed)
    return {
        **{name: masks[name][0] for name in GROUP},
        "patients": count,
        "masks": len(masks),
        "margin": finite(spread),
        **{name: finite(value) for name, value in found._asdict().items()},
    }


def _quality(masks: pl.DataFrame) -> Floats:
    """The quality in the four digits that a release tells, float64 (N,)."""
    return masks["quality"].cast(pl.Float64).round(_DIGITS).to_numpy()


def bounds_of(masks: pl.DataFrame, calibrations: list[dict[str, Any]]) -> pl.Series:
    """The bound of each mask, Float32; null where its group has none (:func:`calibrate`)."""
    margins = {tuple(row[name] for name in GROUP): row["margin"] for row in calibrations}
    given = [margins.get(key) for key in masks.select(GROUP).iter_rows()]
    values = lower_bound(_quality(masks), np.array(given, dtype=np.float64))
    return pl.Series("iou_bound", values, dtype=pl.Float64).fill_nan(None).cast(pl.Float32)
