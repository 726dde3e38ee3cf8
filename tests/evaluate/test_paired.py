"""Differences between starts: over patients and seeds, paired."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dollmaker.evaluate.paired import mean_score, paired_difference
from dollmaker.evaluate.tasks import Runs, score_tasks


def test_what_images_and_seeds_have_in_common_cancels() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(100, 4, 2)) * 5
    people = np.arange(100).astype(str)
    assert_allclose(paired_difference(hard + 0.3, hard, people), 0.3)


def test_the_interval_holds_the_scatter_of_patients_and_of_seeds() -> None:
    # A difference with a part of each patient and a part of each seed: variances add up.
    rng = np.random.default_rng(1)
    people, seeds = 200, 30
    of_patient, of_seed = rng.normal(size=people), rng.normal(size=seeds)
    first = (of_patient[:, None] + of_seed)[..., None]
    interval = paired_difference(first, np.zeros_like(first), np.arange(people).astype(str))
    expected = 1.96 * np.sqrt(of_patient.var() / people + of_seed.var() / seeds)
    assert_allclose(interval.point, of_patient.mean() + of_seed.mean())
    assert_allclose((interval.high - interval.low) / 2, expected, rtol=0.1)


def test_one_seed_that_turns_the_difference_around_is_seen() -> None:
    first = np.full((50, 3, 1), 0.1)
    first[:, 2] = -0.05  # whatever the patient
    interval = paired_difference(first, np.zeros_like(first), np.arange(50).astype(str))
    assert interval.low < 0 < interval.point < interval.high


def test_scores_that_one_start_lacks_count_for_neither() -> None:
    nothing = np.nan
    first = np.array([[[0.8, 0.0]], [[0.8, nothing]]])
    second = np.array([[[0.8, nothing]], [[0.8, nothing]]])
    assert_allclose(paired_difference(first, second, ["p", "q"]), 0.0)


def test_without_patients_to_draw_there_is_no_interval() -> None:
    one = paired_difference(np.full((3, 2, 1), 0.4), np.full((3, 2, 1), 0.1), ["p"] * 3)
    assert_allclose(one.point, 0.3)
    assert np.isnan(one[1:]).all()
    assert np.isnan(paired_difference(np.zeros((0, 2, 1)), np.zeros((0, 2, 1)), [])).all()
    with pytest.raises(ValueError, match="same images"):
        paired_difference(np.zeros((3, 2, 1)), np.zeros((3, 1, 1)), ["p"] * 3)


def test_a_starts_own_interval_holds_the_scatter_of_seeds() -> None:
    # Patients alike, seeds far apart: an interval over patients alone would have no width.
    people, seeds = 40, 30
    of_seed = np.random.default_rng(2).normal(size=seeds)
    values = np.broadcast_to(of_seed[None, :, None], (people, seeds, 1)).copy()
    interval = mean_score(values, np.arange(people).astype(str))
    assert_allclose(interval.point, of_seed.mean())
    expected = 1.96 * of_seed.std() / np.sqrt(seeds)
    assert_allclose((interval.high - interval.low) / 2, expected, rtol=0.1)
    run = Runs(
        task="t",
        init="i",
        tuning="full",
        n="5",
        n_images=5,
        classes=["c"],
        images=[f"{i}" for i in range(people)],
        patients=np.arange(people).astype(str),
        seeds=list(range(seeds)),
        iou=values,
        dice=values,
    )
    row = score_tasks([run], 1000, 0).row(0, named=True)
    assert (row["miou"], row["miou_low"], row["miou_high"]) == tuple(interval)
    assert_allclose(row["seeds"], of_seed)
