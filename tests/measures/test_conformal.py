"""Bounds of the IoU: by hand, by exact fractions, and on many drawn sets of patients."""

from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dollmaker.measures.conformal import (
    LEAST,
    bounds_of,
    calibrate,
    check,
    coverage,
    lower_bound,
    margin,
)

Floats = npt.NDArray[np.float64]


def test_of_one_mask_a_patient_the_margin_is_the_rule_of_split_conformal() -> None:
    rng = np.random.default_rng(0)
    for count in (9, 10, 19, 20, 21, 39, 100):
        errors = rng.permutation(np.arange(count) / 7)
        for confidence in (Fraction(1, 2), Fraction(4, 5), Fraction(9, 10), Fraction(19, 20)):
            place = ceil((count + 1) * confidence)
            expected = (place - 1) / 7 if place <= count else np.inf
            assert margin(errors, np.arange(count), float(confidence)) == expected


def test_of_several_masks_the_margin_is_the_exact_weighted_quantile() -> None:
    rng = np.random.default_rng(1)
    for count in (9, 20, 33):
        patients = np.repeat(np.arange(count), rng.integers(1, 6, count))
        errors = rng.integers(-5, 5, len(patients)) / 8  # with ties
        share = {p: Fraction(1, (count + 1) * int((patients == p).sum())) for p in patients}
        for tenths in range(1, 10):
            reached = [
                error
                for error in sorted(set(errors))
                if sum(share[p] for p in patients[errors <= error]) >= Fraction(tenths, 10)
            ]
            assert margin(errors, patients, tenths / 10) == min(reached, default=np.inf)


def test_order_of_masks_and_names_of_patients_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(30), 2)
    errors = rng.random(60)
    order = rng.permutation(60)
    named = np.array([f"p{99 - p}" for p in patients])
    assert margin(errors, patients, 0.9) == margin(errors[order], named[order], 0.9)


def test_copies_of_a_patients_masks_do_not_narrow_anything() -> None:
    errors = np.random.default_rng(3).random(30)
    many = np.repeat(errors, 50)
    assert margin(errors, np.arange(30), 0.9) == margin(many, np.repeat(np.arange(30), 50), 0.9)


def test_bounds_are_rounded_down_never_negative_and_unknown_without_a_margin() -> None:
    given = lower_bound([0.55559, 0.2, 0.3, 0.9], [0.1, 0.25, np.nan, np.inf])
    assert_array_equal(given, [0.4555, 0.0, np.nan, np.nan])
    assert_array_equal(lower_bound([0.29, 0.57], 0.0), [0.29, 0.57])
    assert len(lower_bound([], 0.2)) == 0


def test_more_confidence_gives_no_higher_bound() -> None:
    rng = np.random.default_rng(4)
    errors, patients = rng.normal(size=200), rng.integers(0, 60, 200)
    margins = [margin(errors, patients, c) for c in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)]
    assert margins == sorted(margins) and margins[-1] == np.inf  # 60 patients, 0.99


def drawn(
    rng: np.random.Generator, count: int, shift: float = 0.0
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Quality, IoU and patient of masks: patients differ, the more masks one has the worse."""
    masks = rng.geometric(0.4, count)
    patients = np.repeat(np.arange(count), masks)
    level = rng.beta(2, 2, count)[patients] / masks[patients] ** 0.5
    iou = np.clip(level + rng.normal(0, 0.05, len(patients)), 0, 1)
    quality = np.clip(0.5 + 0.3 * iou + rng.normal(shift, 0.1, len(patients)), 0, 1)
    return quality, iou, patients


@pytest.mark.parametrize(("count", "confidence"), [(20, 0.9), (41, 0.9), (60, 0.8)])
def test_masks_of_new_patients_have_their_bound_as_often_as_said(
    count: int, confidence: float
) -> None:
    rng = np.random.default_rng(5)
    held = []
    for _ in range(500):
        quality, iou, patients = drawn(rng, count)
        spread = margin(quality - iou, patients, confidence)
        new, true, whose = drawn(rng, 20)
        held.append(coverage(lower_bound(new, spread), true, whose))
    mean, error = float(np.mean(held)), float(np.std(held)) / len(held) ** 0.5
    assert mean + 3 * error > confidence  # the promise
    assert mean - 3 * error < confidence + 1 / (count + 1)  # and no wider than it must be


def test_masks_as_units_would_break_the_promise() -> None:
    """Why patients are: one patient of many good masks would decide for all."""
    rng = np.random.default_rng(6)
    by_mask, by_patient = [], []
    for _ in range(300):
        sizes = np.where(np.arange(30) < 3, 60, 1)
        patients = np.repeat(np.arange(30), sizes)
        errors = np.where(patients < 3, 0.1, 0.5) + rng.normal(0, 0.01, len(patients))
        new = np.where(rng.random(200) < 0.1, 0.1, 0.5) + rng.normal(0, 0.01, 200)
        by_mask.append((new <= margin(errors, np.arange(len(errors)), 0.8)).mean())
        by_patient.append((new <= margin(errors, patients, 0.8)).mean())
    assert np.mean(by_mask) < 0.3 and np.mean(by_patient) > 0.8


def test_the_check_measures_what_a_large_set_has() -> None:
    quality, iou, patients = drawn(np.random.default_rng(7), 400)
    found = check(quality, iou, patients, 0.9, seed=0)
    assert (
        0.88 < found.coverage < 0.92 and found.coverage_low < found.coverage < found.coverage_high
    )
    spread = margin(quality - iou, patients, 0.9)
    bounds = lower_bound(quality, spread)
    assert_allclose(found.width, np.mean(1 - bounds), atol=0.02)
    assert_allclose(found.telling, np.mean(bounds > 0.1), atol=0.05)
    assert found == check(quality, iou, patients, 0.9, seed=0)
    assert found != check(quality, iou, patients, 0.9, seed=1)


def test_coverage_tells_of_bounds_that_do_not_hold() -> None:
    """Coverage of patients of another kind, whose quality promises more."""
    quality, iou, patients = drawn(np.random.default_rng(8), 100)
    spread = margin(quality - iou, patients, 0.9)
    other, true, whose = drawn(np.random.default_rng(9), 100, shift=0.3)
    assert coverage(lower_bound(other, spread), true, whose) < 0.8


def rows(count: int, finding: str = "a", label: int = 1, split: str = "test") -> pl.DataFrame:
    rng = np.random.default_rng(count)
    quality, iou, patients = drawn(rng, count)
    return pl.DataFrame(
        {
            "finding": [finding] * len(iou),
            "label": pl.Series([label] * len(iou), dtype=pl.Int8),
            "split": [split] * len(iou),
            "patient_id": [f"{split}{p}" for p in patients],
            "quality": pl.Series(quality, dtype=pl.Float32),
            "iou": iou,
        }
    )


def test_each_finding_label_and_split_has_a_calibration_of_its_own() -> None:
    parts = [rows(30), rows(40, "b"), rows(25, label=0), rows(50, split="train"), rows(19, "c")]
    masks = pl.concat(parts)
    found = calibrate(masks, 0.9, seed=0)
    keys = [(row["finding"], row["label"], row["split"]) for row in found]
    assert keys == [("a", 0, "test"), ("a", 1, "test"), ("a", 1, "train"), ("b", 1, "test"),
                    ("c", 1, "test")]  # fmt: skip
    assert [row["patients"] for row in found] == [25, 30, 50, 40, LEAST - 1]
    for part in parts:
        (alone,) = calibrate(part.sample(fraction=1, shuffle=True, seed=1), 0.9, seed=0)
        assert alone in found  # whatever else there is, and whatever the order
    bounds = bounds_of(masks, found)
    assert bounds.dtype == pl.Float32 and bounds.null_count() == len(parts[-1])
    expected = lower_bound(parts[0]["quality"].cast(pl.Float64).round(4), found[1]["margin"])
    assert_allclose(bounds[: len(parts[0])].to_numpy(), expected, atol=1e-7)


def test_fewer_than_twenty_patients_or_too_few_for_the_confidence_have_no_bound() -> None:
    few = calibrate(rows(LEAST - 1), 0.5, seed=0)
    assert few[0]["margin"] is None and few[0]["coverage"] is None
    enough = calibrate(rows(LEAST), 0.9, seed=0)
    assert enough[0]["margin"] is not None and enough[0]["coverage"] is not None
    sure = calibrate(rows(60), 0.99, seed=0)  # needs 99
    assert sure[0]["margin"] is None and bounds_of(rows(60), sure).is_null().all()
    half = calibrate(rows(30), 0.95, seed=0)  # 30 are enough, 15 are not
    assert half[0]["margin"] is not None and half[0]["coverage"] is None


def test_masks_that_miss_everything_have_a_bound_of_zero() -> None:
    masks = rows(30).with_columns(iou=pl.lit(0.0))
    found = calibrate(masks, 0.9, seed=0)
    lowest = bounds_of(masks, found)
    assert (lowest == 0).mean() >= 0.9  # those that decide the margin, and all under it
    constant = masks.with_columns(quality=pl.lit(0.7, pl.Float32))
    assert (bounds_of(constant, calibrate(constant, 0.9, seed=0)) == 0).all()


def test_nothing_gives_nothing_and_unknown_numbers_are_left_out() -> None:
    assert calibrate(rows(30).clear(), 0.9, seed=0) == []
    assert len(bounds_of(rows(30).clear(), [])) == 0
    assert bounds_of(rows(30), []).is_null().all()
    masks = rows(30)
    holes = pl.concat([masks, masks.with_columns(iou=pl.lit(float("nan")))])
    assert calibrate(holes, 0.9, seed=0) == calibrate(masks, 0.9, seed=0)
    unknown = masks.with_columns(quality=pl.lit(float("nan"), pl.Float32))
    assert bounds_of(unknown, calibrate(masks, 0.9, seed=0)).is_null().all()
